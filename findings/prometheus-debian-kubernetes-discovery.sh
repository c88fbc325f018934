#!/usr/bin/env bash
# Debian's prometheus is built without Kubernetes service discovery, and says so as an unknown field.
#
# Version: prometheus 2.42.0+ds-5+deb12u1 (Debian 12), promtool of the same package.
# Behaviour: a configuration with kubernetes_sd_configs, valid for the program as its project releases it, is refused
#   while parsing: "field kubernetes_sd_configs not found in type config.ScrapeConfig". Nothing in `prometheus --help`
#   or the package's description tells that the mechanism was left out (static_configs and file_sd_configs are there).
# Seen: promtool check config exits 1 with that line for Kubernetes, and 0 for the same job with file_sd_configs.
# Consequence here: docs/monitoring.md is checked with the discovery replaced by a static one.
#
# Needs Debian 12 and its package mirror. Installs into a temporary folder, starts nothing. Exits 1 if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 . # apt fetches as a user of its own
apt-get download -qq prometheus=2.42.0+ds-5+deb12u1
dpkg-deb -x prometheus_*.deb root
cat > kubernetes.yml <<'Y'
scrape_configs:
  - job_name: pods
    kubernetes_sd_configs: [{role: pod}]
Y
cat > files.yml <<'Y'
scrape_configs:
  - job_name: pods
    file_sd_configs: [{files: [pods.json]}]
Y
promtool=root/usr/bin/promtool
"$promtool" --version | head -n 1
if "$promtool" check config kubernetes.yml > kubernetes.out 2>&1; then
  echo "changed: kubernetes_sd_configs is accepted"; exit 1
fi
grep 'field kubernetes_sd_configs not found' kubernetes.out || { echo "changed: refused in other words"; cat kubernetes.out; exit 1; }
"$promtool" check config files.yml > files.out 2>&1 || { echo "changed: file_sd_configs is refused, too"; cat files.out; exit 1; }
echo "as stated: without Kubernetes discovery, with file discovery"
