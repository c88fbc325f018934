"""A real Prometheus and a real Alertmanager beside an agent of the lab, and a receiver of webhooks."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.parse
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import yaml

from tests.lab.agent import METRICS_ADDRESS, NODE_NAME
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tests.lab.namespaces import Namespace

RULES = Path(__file__).resolve().parents[3] / "helm/ipmp/files/alerts.yaml"
PROMETHEUS, ALERTMANAGER, RECEIVER = "127.0.0.1:9390", "127.0.0.1:9393", 9395
HASTE, PATIENCE = 30, 5
"""An alert that waits does so so many times shorter here, and at most so many seconds: promtool holds its minutes."""
ADVICE = Path(__file__).resolve().parents[3] / "docs/monitoring.md"
"""Its inhibitions are those of the Alertmanager here."""
SECONDS = {"s": 1, "m": 60, "h": 3600}
BUSY = {"IPMPAgentStarved", "IPMPFailoverSlow"}
"""Alerts that may fire rightly because the machine of the tests is busy."""
AFTERWARDS = {"IPMPProbeLossHigh"}
"""Alerts over minutes that wait longer than a failure is within these, which nothing does here."""
PAGED = "critical|warning"


@dataclass(frozen=True, slots=True)
class Page:
    """One alert as a receiver gets it."""

    alert: str
    began: float  # when it began to fire, seconds since the epoch
    firing: bool
    labels: dict[str, str]
    annotations: dict[str, str]


class Target(NamedTuple):
    """Who is scraped: its job, address and the node it is on."""

    job: str
    address: str
    node: str


AGENT = Target("ipmp-agent", METRICS_ADDRESS, NODE_NAME)
"""The agent of the lab."""


def inhibitions() -> list[dict[str, Any]]:
    """What the page on monitoring advises for an Alertmanager."""
    (text,) = re.findall(r"^```yaml alertmanager.yml\n(.*?)^```$", ADVICE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    found: list[dict[str, Any]] = yaml.safe_load(text)["inhibit_rules"]
    return found


class Monitoring:
    """Scrapes every second; `pages` has what arrived, in order.

    Args:
        namespace: from which the targets are reached, and where all of it runs.
        directory: for configurations, data and logs.
        targets: who is scraped at first.
    """

    def __init__(self, namespace: Namespace, directory: Path, targets: Sequence[Target] = (AGENT,)) -> None:
        self.pages: list[Page] = []
        self._namespace = namespace
        self._targets = targets
        self._directory = directory
        self._list = directory / "targets.json"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        try:
            self._receive()
            self._write()
            self.aim(*self._targets)
            self._start(
                "prometheus-alertmanager",
                f"--config.file={self._directory / 'alertmanager.yaml'}",
                f"--storage.path={self._directory / 'alertmanager'}",
                f"--web.listen-address={ALERTMANAGER}",
                "--cluster.listen-address=",
            )
            self._start(
                "prometheus",
                f"--config.file={self._directory / 'prometheus.yaml'}",
                f"--storage.tsdb.path={self._directory / 'prometheus'}",
                f"--web.listen-address={PROMETHEUS}",
                # What fires before Prometheus has found the Alertmanager is lost, and said again so much later.
                "--rules.alert.resend-delay=5s",
                "--enable-feature=exemplar-storage",
            )
            wait_for(lambda: self.query("up"), deadline=60, what="the first scrape", interval=0.5)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait(10)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if kind is not None:
            for log in self._directory.glob("*.log"):
                print(f"---- end of {log.name}\n{log.read_text(errors='replace')[-2000:]}")

    def _start(self, *argv: str) -> None:
        with (self._directory / f"{argv[0]}.log").open("wb") as log:
            self._processes.append(self._namespace.popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _write(self) -> None:
        rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
        for group in rules["groups"]:
            for rule in group["rules"]:
                for key in rule.keys() & {"for", "keep_firing_for"}:
                    waits = int(rule[key][:-1]) * SECONDS[rule[key][-1]]
                    rule[key] = f"{min(waits * 1000 // HASTE, PATIENCE * 1000)}ms"
        self._yaml("rules", rules)
        self._yaml(
            "prometheus",
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(self._directory / "rules.yaml")],
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": [ALERTMANAGER]}]}]},
                # One list of targets for all: it is read again when it is written, as a discovery would tell.
                "scrape_configs": [{"job_name": "listed", "file_sd_configs": [{"files": [str(self._list)]}]}],
            },
        )
        self._yaml(
            "alertmanager",
            {
                "route": {
                    "receiver": "nobody",
                    "group_by": ["..."],
                    "group_wait": "0s",
                    "group_interval": "1s",
                    "repeat_interval": "1h",
                    "routes": [{"receiver": "person", "matchers": [f'severity=~"{PAGED}"']}],
                },
                "inhibit_rules": inhibitions(),
                "receivers": [
                    {"name": "nobody"},
                    {
                        "name": "person",
                        "webhook_configs": [{"url": f"http://127.0.0.1:{RECEIVER}/", "send_resolved": True}],
                    },
                ],
            },
        )

    def aim(self, *targets: Target) -> None:
        """Scrape these from now on, and no others."""
        groups = [{"targets": [one.address], "labels": {"job": one.job, "node": one.node}} for one in targets]
        unfinished = self._list.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(groups), encoding="utf-8")
        unfinished.replace(self._list)

    def _yaml(self, name: str, document: dict[str, Any]) -> None:
        (self._directory / f"{name}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")

    def _receive(self) -> None:
        pages = self.pages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in body["alerts"]:
                    labels = dict(alert["labels"])
                    name, firing = labels.pop("alertname"), alert["status"] == "firing"
                    began = datetime.fromisoformat(alert["startsAt"]).timestamp()
                    pages.append(Page(name, began, firing, labels, alert["annotations"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
                del format, args

        self._server = self._namespace.call(ThreadingHTTPServer, ("127.0.0.1", RECEIVER), Handler)
        threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus; returns the samples of now, or nothing while it does not answer."""
        script = (
            "import sys, urllib.parse, urllib.request; "
            "sys.stdout.write(urllib.request.urlopen(sys.argv[1] + urllib.parse.quote(sys.argv[2]), timeout=5)"
            ".read().decode())"
        )
        url = f"http://{PROMETHEUS}/api/v1/query?query="
        text = self._namespace.run("python3", "-c", script, url, expression, check=False)
        try:
            found: list[dict[str, Any]] = json.loads(text)["data"]["result"]
        except (ValueError, KeyError):
            return []
        return found

    def queries(self, expressions: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Ask Prometheus many things; returns the samples of each. Raises AssertionError with what it refuses."""
        script = (
            "import json, sys, urllib.error, urllib.parse, urllib.request\n"
            "def ask(expression):\n"
            "    data = urllib.parse.urlencode({'query': expression}).encode()\n"
            "    try:\n"
            "        return json.load(urllib.request.urlopen(sys.argv[1], data, timeout=30))\n"
            "    except urllib.error.HTTPError as error:\n"
            "        return {'error': f'{expression}: {error.read().decode()}'}\n"
            "json.dump([ask(expression) for expression in json.loads(sys.argv[2])], sys.stdout)\n"
        )
        url = f"http://{PROMETHEUS}/api/v1/query"
        answers = json.loads(self._namespace.run("python3", "-c", script, url, json.dumps(list(expressions))))
        refused = [answer["error"] for answer in answers if "data" not in answer]
        assert not refused, refused
        return [answer["data"]["result"] for answer in answers]

    def exemplars(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus for the exemplars behind a query, of all times."""
        script = (
            "import sys, urllib.request; "
            "sys.stdout.write(urllib.request.urlopen(sys.argv[1], sys.argv[2].encode(), timeout=30).read().decode())"
        )
        data = urllib.parse.urlencode({"query": expression, "start": 0, "end": 10**10})
        url = f"http://{PROMETHEUS}/api/v1/query_exemplars"
        series = json.loads(self._namespace.run("python3", "-c", script, url, data))["data"]
        return [exemplar for one in series for exemplar in one["exemplars"]]

    def since(self, moment: float) -> list[Page]:
        """Pages of alerts that began to fire after a moment, in seconds since the epoch.

        Those that a busy machine explains are left out; at the start a first scrape that is late is one, too.
        """
        return [page for page in self.pages if page.began > moment and page.alert not in BUSY | AFTERWARDS]

    def firing(self) -> set[str]:
        """Alerts that a person has been paged for and not released from."""
        last = {(page.alert, *sorted(page.labels.items())): page for page in self.pages}
        return {page.alert for page in last.values() if page.firing} - BUSY - AFTERWARDS

    def wait_firing(self, *alerts: str, deadline: float = 60.0) -> None:
        """Wait until just these alerts fire."""
        wait_for(self.firing, lambda now: now == set(alerts), deadline=deadline, what=f"{alerts} and no other")
