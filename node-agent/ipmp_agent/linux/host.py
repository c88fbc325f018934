"""What all groups of one network namespace share."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from typing import TYPE_CHECKING

from ipmp_agent.linux.announce import Announcer
from ipmp_agent.linux.conflicts import ConflictChecks
from ipmp_agent.linux.ethtool import Ethtool
from ipmp_agent.linux.netlink import Channel, Dumper, Failure
from ipmp_agent.linux.probes import Prober
from ipmp_agent.linux.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.members import Member
    from ipmp_api.types import Address

log = logging.getLogger(__name__)

# Gone already is what a deletion wants; an interface that vanished takes everything along, and link events say so.
EXPECTED_ERRORS = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENOENT, errno.ESRCH})


class Port:
    """A member's way to its link: sockets that live as long as the interface stays what it is."""

    def __init__(self, member: Member, sink: Callable[[Event], None], host: Host) -> None:
        if member.link is None:
            raise ValueError(f"{member.key} is not present")
        self.link = member.link
        self._checks = host.checks
        self.wire = Wire(member.link, self._heard)
        self.prober = Prober(member.key, self.wire, sink, host.counters)

    def _heard(self, address: Address, mac: bytes) -> None:
        self._checks.heard(address, mac)
        self.prober.heard(address, mac)

    def drain(self) -> None:
        """Read what is pending."""
        self.wire.drain()
        self.prober.drain()

    def close(self) -> None:
        """Give the sockets back."""
        self.prober.close()
        self.wire.close()


class Host:
    """Requests, dumps, announcements and conflict checks of a network namespace: the one of the calling thread."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.channel = Channel()
        self.dumper = Dumper()
        self.ethtool = Ethtool()
        self.announcer = Announcer(self.counters)
        self.checks = ConflictChecks()
        self.ports: dict[tuple[str, str], Port] = {}  # by group and member

    def close(self) -> None:
        """Give every socket back; the kernel stays as it is."""
        self.announcer.close()
        self.checks.close()
        for port in self.ports.values():
            port.close()
        self.ports.clear()
        self.ethtool.close()
        self.dumper.close()
        self.channel.close()

    def send(self, requests: Sequence[bytes]) -> list[Failure]:
        """Send a batch; refusals nobody expects are logged and counted."""
        if not requests:
            return []
        failures = self.channel.send(requests)
        for failure in failures:
            if failure.error not in EXPECTED_ERRORS:
                self.counters["kernel_refusals"] += 1
                log.error("the kernel refused request %d of %d: %s", failure.position + 1, len(requests), failure)
        return failures
