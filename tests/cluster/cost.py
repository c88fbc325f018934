"""What the API server pays for a write, in CPU seconds of its process: wall times say little on a busy machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.controlplane import API_SERVER

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(cluster: Cluster) -> float:
    """CPU that the API server has used since it started."""
    return cpu_of(cluster.processes[API_SERVER].pid)


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used since it started."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / TICKS


def writes(cluster: Cluster, text: str, rounds: int) -> list[float]:
    """CPU seconds of single dry-run writes, with what the API server does beside them."""
    found = []
    for _ in range(rounds):
        before = cpu_seconds(cluster)
        cluster.kubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-", text=text)
        found.append(cpu_seconds(cluster) - before)
    return found
