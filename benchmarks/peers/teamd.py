"""teamd as a peer: an active-backup team over the NICs of a host, watched from userspace as our agent watches.

It is set up as the examples of teamd.conf(5) do it, with a priority instead of `sticky`, so that it falls back.
"""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING, Any, Self

from benchmarks.peers.process import Peer
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab import Host

_serial = itertools.count()

ETHTOOL: dict[str, Any] = {"name": "ethtool"}
"""Watch the carrier; the kernel tells."""

REPEATED: dict[str, Any] = {
    "notify_peers": {"count": 5, "interval": 100},
    "mcast_rejoin": {"count": 5, "interval": 100},
}
"""Announce a move five times. The one announcement of the default may leave before the new port does anything: then the
switches go on sending to the old one, for the better part of a minute."""


def arp_ping(milliseconds: int, missed: int, source: str, target: str) -> dict[str, Any]:
    """Ask a target by ARP at this interval; a NIC is given up when more than this many intervals brought no ARP.

    One target, since with a list of two such watches teamd 1.31 stayed on a silent NIC; and no `send_always`, since
    what a reserve NIC sends from the team's address makes switches deliver to it: every tenth ping and more was lost.
    """
    return {
        "name": "arp_ping",
        "interval": milliseconds,
        "missed_max": missed,
        "source_host": source,
        "target_host": target,
    }


class Team(Peer):
    """A team with these addresses on a host, the first NIC as the preferred one."""

    def __init__(self, host: Host, addresses: Sequence[str], watch: dict[str, Any], **options: Any) -> None:
        super().__init__(host, "teamd")
        # Its control socket is in one place for the whole machine.
        self.device = f"tm{os.getpid()}-{next(_serial)}"
        self._addresses = addresses
        self.configuration = {
            "device": self.device,
            "runner": {"name": "activebackup"},
            "link_watch": watch,
            "ports": {nic: {"prio": -i} for i, nic in enumerate(host.nics)},
        } | options

    def __enter__(self) -> Self:
        path = self.directory / "teamd.conf"
        path.write_text(json.dumps(self.configuration), encoding="utf-8")
        namespace = self.host.namespace
        namespace.batch(f"link set {nic} down" for nic in self.host.nics)
        self.start(["teamd", "--config-file", str(path), "--pid-file", str(self.directory / "pid")])
        wait_for(self._links, lambda links: len(links) == len(self.host.nics), what="teamd's ports")
        lines = [f"link set {self.device} up"]
        lines += [f"address add {one} dev {self.device}{' nodad' if ':' in one else ''}" for one in self._addresses]
        namespace.batch(lines)
        wait_for(lambda: [link["up"] for link in self._links()], all, what="links of the team")
        wait_for(self.active, lambda seen: seen == next(iter(self.host.nics)))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _state(self) -> dict[str, Any]:
        self.demand_running()
        # Until its socket is there the command says so and fails.
        text = self.host.namespace.run("teamdctl", self.device, "state", "dump", check=False)
        state: dict[str, Any] = json.loads(text or "{}")
        return state

    def _links(self) -> list[dict[str, Any]]:
        return [port["link"] for port in self._state().get("ports", {}).values()]

    def active(self) -> str:
        """The NIC that carries the traffic."""
        return str(self._state()["runner"]["active_port"])

    def failures(self) -> int:
        """How often it gave a NIC up."""
        ports = self._state()["ports"].values()
        return sum(port["link_watches"]["list"]["link_watch_0"]["down_count"] for port in ports)

    def pids(self) -> tuple[list[int], list[int]]:
        """Its one process."""
        return [self.process.pid], []
