"""What a scene costs: CPU and memory of processes, and the requests that the API server counts itself."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.controlplane import API_SERVER
from tests.cluster.cost import cpu_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.cluster import Cluster

OPERATOR = "operator"
SERVERS = (API_SERVER, "etcd", "kube-controller-manager")
_SAMPLE = re.compile(r"^apiserver_request_total\{(?P<labels>.*)\} (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
RESOURCES = ("ipmpgroups", "ipmpnodegroups")


def peak_mebibytes(pid: int) -> float:
    """The most memory that was resident since `forget_peak`, or since the start."""
    return _status(pid, "VmHWM")


def resident_mebibytes(pid: int) -> float:
    """The memory that is resident now."""
    return _status(pid, "VmRSS")


def _status(pid: int, field_name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field_name}:")) / 1024


def forget_peak(pid: int) -> None:
    """Have the peak begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


@dataclass
class Bill:
    """What one scene cost. CPU in seconds by process, memory in MiB, requests by verb and resource."""

    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    peak: float = 0.0
    after: float = 0.0
    server_memory: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)
    created: int = 0
    respecified: int = 0
    reports: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


class Meters:
    """Reads the processes of a cluster and its operator. A process that is about to end is noted with `leave`."""

    def __init__(self, cluster: Cluster, operator: Callable[[], int]) -> None:
        self._cluster = cluster
        self._operator = operator
        self._left: dict[str, float] = {}
        self._requests_left: Counter[str] = Counter()
        self._peak_left = 0.0

    def start(self) -> None:
        """Begin a bill."""
        self._left = dict.fromkeys((OPERATOR, *SERVERS), 0.0)
        self._requests_left.clear()
        self._peak_left = 0.0
        self._requests = self._count()
        forget_peak(self._operator())
        self._began = time.monotonic()
        self._cpu = {name: cpu_of(self._pid(name)) for name in (OPERATOR, *SERVERS)}

    def leave(self, name: str) -> None:
        """Take down what a process has used: it is about to end, and its successor counts from nothing."""
        self._left[name] += cpu_of(self._pid(name)) - self._cpu[name]
        self._cpu[name] = 0.0
        if name == OPERATOR:
            self._peak_left = max(self._peak_left, peak_mebibytes(self._operator()))
        if name == API_SERVER:
            self._requests_left = self._count() - self._requests
            self._requests = Counter()

    def stop(self) -> Bill:
        """End the bill."""
        bill = Bill(time.monotonic() - self._began)
        for name in (OPERATOR, *SERVERS):
            bill.cpu[name] = self._left[name] + cpu_of(self._pid(name)) - self._cpu[name]
        bill.peak = max(self._peak_left, peak_mebibytes(self._operator()))
        bill.after = resident_mebibytes(self._operator())
        bill.server_memory = resident_mebibytes(self._pid(API_SERVER))
        bill.requests = self._requests_left + (self._count() - self._requests)
        return bill

    def used(self, name: str) -> float:
        """CPU of a process since the bill began, or since its own start."""
        return cpu_of(self._pid(name)) - self._cpu[name]

    def _pid(self, name: str) -> int:
        return self._operator() if name == OPERATOR else self._cluster.processes[name].pid

    def _count(self) -> Counter[str]:
        page = self._cluster.kubectl("get", "--raw", "/metrics")
        counted: Counter[str] = Counter()
        for sample in _SAMPLE.finditer(page):
            labels = dict(_LABEL.findall(sample["labels"]))
            if labels["resource"] in RESOURCES:
                path = "/".join(filter(None, (labels["resource"], labels["subresource"])))
                counted[f"{labels['verb']} {path}"] += int(float(sample["value"]))
        return counted
