"""The alerting rules with promtool and with a real Prometheus and Alertmanager."""
