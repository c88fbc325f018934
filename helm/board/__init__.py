"""The Grafana board of the chart: `python -m helm.board` writes ipmp/files/board.json."""
