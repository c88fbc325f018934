"""The kernel's bonding driver as a peer: an active-backup bond over the NICs of a host.

It is set up as the kernel's Documentation/networking/bonding.rst recommends for two switches that know each other:
mode active-backup, the preferred NIC as `primary`; MII monitoring where the carrier tells, ARP monitoring of several
targets where it does not. Everything else, gratuitous announcements included (num_peer_notif), is the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab import Host

DEVICE = "bond1"  # the module makes a bond0 of its own where it is loaded


def mii(milliseconds: int) -> str:
    """Watch the carrier at this interval."""
    return f"miimon {milliseconds}"


def arp(milliseconds: int, targets: Sequence[str]) -> str:
    """Ask targets by ARP at this interval; the default gives a NIC up after two of them without a word."""
    return f"arp_interval {milliseconds} arp_ip_target {','.join(targets)}"


class Bond:
    """A bond with these addresses on a host, the first NIC as the preferred one. It goes with the host."""

    def __init__(self, host: Host, addresses: Sequence[str], monitor: str) -> None:
        self.host = host
        self._addresses = addresses
        self._monitor = monitor

    def __enter__(self) -> Self:
        first, *_ = nics = list(self.host.nics)
        lines = [f"link add {DEVICE} type bond mode active-backup {self._monitor}"]
        for nic in nics:
            lines += [f"link set {nic} down", f"link set {nic} master {DEVICE}"]
        lines += [f"link set {DEVICE} type bond primary {first}", f"link set {DEVICE} up"]
        lines += [f"address add {one} dev {DEVICE}{' nodad' if ':' in one else ''}" for one in self._addresses]
        self.host.namespace.batch(lines)
        wait_for(lambda: [one["mii_status"] for one in self._ports()], lambda seen: set(seen) == {"UP"})
        wait_for(self.active, lambda seen: seen == first)
        return self

    def __exit__(self, *_: object) -> None:
        self.host.namespace.ip("link", "del", DEVICE)

    def _ports(self) -> list[dict[str, Any]]:
        links = self.host.namespace.ip_json("link", "show", "master", DEVICE)
        return [link["linkinfo"]["info_slave_data"] for link in links]

    def active(self) -> str:
        """The NIC that carries the traffic."""
        link = self.host.namespace.ip_json("link", "show", "dev", DEVICE)[0]
        return str(link["linkinfo"]["info_data"].get("active_slave", ""))

    def failures(self) -> int:
        """How often it gave a NIC up."""
        return sum(port["link_failure_count"] for port in self._ports())

    def pids(self) -> tuple[list[int], list[int]]:
        """No process: the kernel does it."""
        return [], []
