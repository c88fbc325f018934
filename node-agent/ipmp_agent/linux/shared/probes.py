"""Probes on the wire: sent as ordered, and every reply checked before the core hears of it."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import struct
import time
from array import array
from dataclasses import dataclass, field
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from ipmp_agent.core.actions import ProbeProtocol
from ipmp_agent.core.events import IP_FAMILIES, Family, MacAddress, ProbeAnswered, ProbeKind, ProbeNotSent, TargetHeard
from ipmp_agent.linux.messages import filters, frames

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator

    from ipmp_agent.core.actions import SendProbe
    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.messages.frames import Transitive
    from ipmp_agent.linux.shared.readers import Readers
    from ipmp_agent.linux.shared.wire import Wire
    from ipmp_api.types import Address

log = logging.getLogger(__name__)

PROBES_REMEMBERED = 128
"""Per member and family: more than the core's history, which holds 52 detection probes beside those that measure."""

SOURCES_REMEMBERED = 128
"""Texts of source addresses that need not be read again, of all members."""

SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("=qq")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)

COUNTS_AS_SENT = frozenset({errno.EAGAIN, errno.ENOBUFS})
"""The queue is full: a driver that does not take packets loses probes, and so fails its interface."""

_KINDS = (None, ProbeKind.DETECTION, ProbeKind.DISCOVERY, ProbeKind.RTT)
"""By their number on the wire, so `_KINDS.index(kind)` is that number. Append only: two agents may be on one link."""

LOSSES_CHECKED = 5
"""Losses in a row of one target that are each checked at the link layer, and after them every so many."""

RANDOM_AT_ONCE = 128
"""Random numbers that the kernel is asked for with one call."""


@dataclass(slots=True)
class _Probe:
    """One probe that may still be answered."""

    order: SendProbe
    sent: float  # monotonic seconds
    sent_at: int  # nanoseconds of the wall clock, which is what the kernel stamps packets with
    answered: bool = False
    hosts: set[Address | MacAddress] = field(default_factory=set)  # that answered a discovery

    def awaits(self, address: Address) -> bool:
        """Whether a claim to have this address answers it."""
        order = self.order
        return order.protocol is not ProbeProtocol.ICMP and order.target == address and not self.answered


def _random_bits() -> Iterator[int]:
    """Numbers of 64 bits that nobody can guess."""
    while True:
        yield from array("Q", os.urandom(8 * RANDOM_AT_ONCE))


@lru_cache(maxsize=SOURCES_REMEMBERED)
def _address(text: str) -> Address:
    """Read the address of a source, which may name its interface: the same few come all the time."""
    return ip_address(text.partition("%")[0])


class EchoSocket:
    """ICMP echo from one test address of one interface."""

    def __init__(self, name: str, index: int, address: Address, identifier: int) -> None:
        self.address = address
        self.version = address.version
        self._index = index
        self.identifier = identifier
        family, protocol = (
            (socket.AF_INET, socket.IPPROTO_ICMP) if self.version == 4 else (socket.AF_INET6, frames.IPPROTO_ICMPV6)
        )
        self._socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._prepare(self._socket, name)
        except OSError:
            self._socket.close()
            raise

    def _prepare(self, echo: socket.socket, name: str) -> None:
        echo.setblocking(False)
        echo.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
        echo.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        if self.version == 4:
            self._prepare_ipv4(echo)
        else:
            self._prepare_ipv6(echo)

    def _prepare_ipv4(self, echo: socket.socket) -> None:
        # A target is on the link whatever the routes say: a default route by this member must not catch it.
        echo.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        echo.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        echo.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        echo.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        filters.attach(echo, filters.echo_reply_ipv4(self.identifier))
        echo.bind((str(self.address), 0))

    def _prepare_ipv6(self, echo: socket.socket) -> None:
        echo.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        echo.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
        echo.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        filters.accept_icmpv6(echo, frames.ICMPV6_ECHO_REPLY)
        filters.attach(echo, filters.echo_reply_ipv6(self.identifier))
        echo.bind((str(self.address), 0, 0, self._index))

    def fileno(self) -> int:
        """For the loop that waits for replies."""
        return self._socket.fileno()

    def send(self, target: Address, message: bytes) -> None:
        """Send one echo request. Raises OSError as the kernel does."""
        destination = (str(target), 0) if self.version == 4 else (str(target), 0, 0, self._index)
        self._socket.sendto(message, destination)

    def receive(self) -> tuple[bytes, Address, int | None] | None:
        """The next reply, its source, and when the kernel had it (wall clock, nanoseconds); or None."""
        try:
            packet, ancillary, _, source = self._socket.recvmsg(2048, _ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            # An error of the interface that is queued on the socket, such as ENETDOWN: link events tell the rest.
            log.debug("receiving probe replies: %s", error)
            return None
        stamp = None
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                stamp = seconds * 1_000_000_000 + nanoseconds
        return packet, _address(source[0]), stamp

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


class ProbeSender:
    """The probes of one member.

    Args:
        member: key of the member.
        wire: its link layer.
        sink: takes the events.
        counters: of all probers; replies that do not count are counted here by what is wrong with them.
        is_own: whether an address is this host's own: a discovery finds the other members too.
        readers: read its sockets.
        renew: takes a target and its MAC address, where the kernel may know another one.
    """

    def __init__(
        self,
        member: str,
        wire: Wire,
        sink: Callable[[Event], None],
        counters: Counter[str],
        is_own: Callable[[Address], bool],
        readers: Readers,
        renew: Callable[[Address, bytes], None] = lambda *_: None,
    ) -> None:
        self.member = member
        self.wire = wire
        self._sink = sink
        self._counters = counters
        self._is_own = is_own
        self._readers = readers
        self._renew = renew
        self._identifier = secrets.randbits(16)
        self._echo: dict[Family, EchoSocket] = {}
        self._bits = _random_bits()
        self._probes: dict[Family, dict[int, _Probe]] = {family: {} for family in Family}  # by random bits
        self._macs: dict[Address, bytes] = {}  # of targets that answered their last link-layer probe
        self._waiting: dict[IPv6Address, list[bytes]] = {}
        self._newest: dict[Family, _Probe] = {}  # detection probes by ICMP
        self._losses: dict[Address, int] = {}  # of them in a row, by target
        self._checked: set[Address] = set()  # targets that were asked at the link layer and may answer

    def test_address(self, family: Family) -> Address | None:
        """The address that probes of this family come from."""
        return self._echo[family].address if family in self._echo else None

    def use_test_address(self, family: Family, address: Address | None) -> None:
        """Probe from this address from now on; None: not at all.

        Raises:
            OSError: the address cannot be bound to.
        """
        if self.test_address(family) == address:
            return
        old = self._echo.pop(family, None)
        if old is not None:
            self._readers.remove(old)
            old.close()
        if address is not None:
            echo = EchoSocket(self.wire.name, self.wire.index, address, self._identifier)
            self._echo[family] = echo
            self._readers.add(echo, partial(self._read, family, echo))

    @property
    def targets(self) -> list[Address]:
        """Whom it asked last."""
        return [
            probe.order.target
            for family in IP_FAMILIES
            for probe in self._probes[family].values()
            if probe.order.kind is not ProbeKind.DISCOVERY and not isinstance(probe.order.target, MacAddress)
        ]

    def close(self) -> None:
        """Stop probing."""
        for family in list(self._echo):
            self.use_test_address(family, None)

    # -- out ---------------------------------------------------------------------------------------------------------

    def send(self, order: SendProbe) -> None:
        """Send one probe; what the kernel refuses becomes an event."""
        try:
            self._send(order)
        except OSError as error:
            if error.errno not in COUNTS_AS_SENT:
                self._counters["probes_not_sent"] += 1
                self._sink(ProbeNotSent(self.member, order.family, order.sequence, error.errno or errno.EIO))
                return
        self._counters["probes_sent"] += 1

    def _send(self, order: SendProbe) -> None:
        if order.protocol is ProbeProtocol.ICMP and not isinstance(order.target, MacAddress):
            self._send_echo(order, order.target)
        elif order.protocol is ProbeProtocol.ARP and isinstance(order.target, IPv4Address):
            self._send_question(order, frames.arp_probe(self.wire.mac, order.target, self._mac(order.target)))
        elif order.protocol is ProbeProtocol.NEIGHBOR and isinstance(order.target, IPv6Address):
            self._send_question(order, self._solicitation(order.target))
        elif order.protocol is ProbeProtocol.TRANSITIVE and isinstance(order.target, MacAddress):
            self._send_transitive(order, order.target)
        else:
            raise OSError(errno.EPROTONOSUPPORT, f"no {order.protocol.value} probe for {order.target}")

    def _remember(self, order: SendProbe, bits: int) -> None:
        probes = self._probes[order.family]
        if len(probes) >= PROBES_REMEMBERED:
            del probes[next(iter(probes))]
        probes[bits] = _Probe(order, time.monotonic(), time.time_ns())

    def _send_transitive(self, order: SendProbe, target: MacAddress) -> None:
        bits = next(self._bits)
        self._remember(order, bits)
        kind = _KINDS.index(order.kind)
        probe = frames.Transitive(self.wire.mac, question=True, kind=kind, sequence=order.sequence, bits=bits)
        self.wire.send(frames.transitive(frames.mac_bytes(target), probe))

    def _send_echo(self, order: SendProbe, target: Address) -> None:
        echo = self._echo.get(order.family)
        if echo is None:
            raise OSError(errno.EADDRNOTAVAIL, "no test address")
        bits = next(self._bits)
        kind = _KINDS.index(order.kind)
        message = frames.echo_request(order.family, self._identifier, order.sequence, kind, bits)
        if order.kind is ProbeKind.DETECTION:
            self._check_the_last_one(order.family)
        self._remember(order, bits)
        if order.kind is ProbeKind.DETECTION:
            self._newest[order.family] = self._probes[order.family][bits]
        # A route of its own leads to every link-local address and multicast group of every link.
        if isinstance(target, IPv6Address) and not target.is_link_local and not target.is_multicast:
            self._send_to_neighbor(target, message)
        else:
            echo.send(target, message)

    def _check_the_last_one(self, family: Family) -> None:
        """Ask the target of a lost probe at the link layer: the kernel may know it by a MAC address it has no more.

        With the question it learns ours. In a long silence fewer are asked: they go to everybody on the link.
        """
        last, source = self._newest.pop(family, None), self.test_address(family)
        if last is None or source is None or isinstance(last.order.target, MacAddress):
            return
        target = last.order.target
        if last.answered:
            self._losses.pop(target, None)
            return
        lost = self._losses[target] = self._losses.get(target, 0) + 1
        if lost > LOSSES_CHECKED and lost % LOSSES_CHECKED:
            return
        if isinstance(target, IPv4Address) and isinstance(source, IPv4Address):
            question = frames.arp_question(self.wire.mac, source, target)
        elif isinstance(target, IPv6Address):
            question = self._solicitation(target)
        else:
            return
        self._checked.add(target)
        try:
            self.wire.send(question)
        except OSError as error:
            log.debug("%s: asking for %s: %s", self.member, target, error)

    def _send_to_neighbor(self, target: IPv6Address, message: bytes) -> None:
        """Send an echo request to a global IPv6 address on the link, past the routing table.

        The prefix may be known by another member only, and IPv6, unlike IPv4, then finds no route for this one.
        """
        source = self._echo[Family.IPV6].address
        if not isinstance(source, IPv6Address):
            raise OSError(errno.EADDRNOTAVAIL, "no test address")
        mac = self._macs.get(target)
        if mac is not None:
            self.wire.send(frames.ipv6_frame(mac, self.wire.mac, source, target, message, hop_limit=1))
        # Ask again beside every probe: an owner that moved is found at once, one that is dead is asked in vain.
        else:
            self._waiting[target] = [message]
        self.wire.send(self._solicitation(target))

    def _mac(self, target: Address) -> bytes:
        """Where to send a question: to the owner known from its last answer, once, else to everybody."""
        return self._macs.pop(target, frames.BROADCAST)

    def _solicitation(self, target: IPv6Address) -> bytes:
        source = self.test_address(Family.IPV6)
        sender = source if isinstance(source, IPv6Address) else frames.UNSPECIFIED_IPV6
        return frames.neighbor_solicitation(self.wire.mac, sender, target)

    def _send_question(self, order: SendProbe, frame: bytes) -> None:
        self._remember(order, next(self._bits))
        self.wire.send(frame)

    # -- in ----------------------------------------------------------------------------------------------------------

    def _read(self, family: Family, echo: EchoSocket) -> None:
        """Take one reply: they come singly, and to look for a second one costs as much again."""
        received = echo.receive()
        if received is not None:
            self._judge(family, *received)

    def _judge(self, family: Family, packet: bytes, source: Address, stamp: int | None) -> None:
        reply = frames.read_echo_reply(family, packet)
        if reply is None:
            self._counters["replies_malformed"] += 1
            return
        probe = self._probes[family].get(reply.bits)
        if probe is None or reply.identifier != self._identifier:
            self._counters["replies_unknown"] += 1
        elif reply.sequence != probe.order.sequence or reply.kind != _KINDS.index(probe.order.kind):
            self._counters["replies_altered"] += 1
        elif probe.order.kind is not ProbeKind.DISCOVERY and source != probe.order.target:
            self._counters["replies_wrong_source"] += 1
        elif probe.answered and (probe.order.kind is not ProbeKind.DISCOVERY or source in probe.hosts):
            self._counters["replies_duplicate"] += 1
        elif probe.order.kind is not ProbeKind.DISCOVERY or not self._is_own(source):
            self._answer(probe, source, stamp)

    def _answer(self, probe: _Probe, source: Address | MacAddress, stamp: int | None = None) -> None:
        probe.answered = True
        self._counters["probes_answered"] += 1
        order = probe.order
        if order.kind is ProbeKind.DISCOVERY:
            probe.hosts.add(source)
        rtt = time.monotonic() - probe.sent
        network = rtt if stamp is None else (stamp - probe.sent_at) / 1e9
        # The wall clock may have been set between the two moments; the truth lies within the round trip.
        network = min(max(network, 0.0), rtt)
        self._sink(ProbeAnswered(self.member, order.family, source, order.sequence, order.kind, rtt, network))

    def answered(self, answer: Transitive) -> None:
        """A member answered a transitive probe."""
        probe = self._probes[Family.LINK].get(answer.bits)
        source = MacAddress(frames.mac_text(answer.source))
        if probe is None:
            self._counters["replies_unknown"] += 1
        elif source != probe.order.target or answer.sequence != probe.order.sequence:
            self._counters["replies_altered"] += 1
        elif probe.answered:
            self._counters["replies_duplicate"] += 1
        else:
            self._answer(probe, source)

    def heard(self, address: Address, mac: bytes) -> None:
        """Somebody on this member's link says to have an address: an answer to a link-layer probe, perhaps."""
        family = Family(address.version)
        asked = [probe for probe in self._probes[family].values() if probe.awaits(address)]
        if asked:
            self._answer(asked[-1], address)
        if mac == frames.NO_MAC:
            return
        if address in self._checked:
            self._checked.discard(address)
            self._renew(address, mac)
            self._sink(TargetHeard(self.member, family, address))
        if asked or address in self._waiting or address in self._macs:
            self._macs[address] = mac
        self._send_waiting(address, mac)

    def _send_waiting(self, address: Address, mac: bytes) -> None:
        source = self.test_address(Family.IPV6)
        if not isinstance(address, IPv6Address) or not isinstance(source, IPv6Address):
            return
        for message in self._waiting.pop(address, ()):
            try:
                self.wire.send(frames.ipv6_frame(mac, self.wire.mac, source, address, message, hop_limit=1))
            except OSError as error:
                log.debug("%s: probe to %s not sent: %s", self.member, address, error)
