"""The link layer of one member: frames out, and the answers of ARP and neighbour discovery in."""

from __future__ import annotations

import contextlib
import logging
import socket
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import filters, frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipmp_agent.linux.messages.frames import Transitive
    from ipmp_agent.linux.messages.links import Link
    from ipmp_agent.linux.shared.readers import Readers
    from ipmp_api.types import Address

log = logging.getLogger(__name__)

FRAMES_PER_WAKE = 64

WATCHED = 512
"""Addresses that are listened for: as many fit into a filter by what the kernel grants a socket."""
"""Frames read before the loop may do something else."""


class Wire:
    """Sockets bound to one interface; an interface that is renamed or replaced needs a new wire.

    Args:
        link: the interface.
        heard: takes each claim to have an address: the address and the MAC address of the claimant.
        probed: takes each probe from a member, and each answer to one.
        readers: read its sockets.
    """

    def __init__(
        self,
        link: Link,
        heard: Callable[[Address, bytes], None],
        probed: Callable[[Transitive], None],
        readers: Readers,
    ) -> None:
        self.name = link.name
        self.index = link.index
        self.mac = frames.mac_bytes(link.mac)
        self._heard = heard
        self._probed = probed
        self._watched: frozenset[IPv4Address] = frozenset()
        self._sockets = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            # Protocol 0 receives nothing, and the kernel takes the protocol of a frame from its Ethernet header.
            self._out = self._packet_socket(opened, 0)
            self._arp = self._packet_socket(opened, frames.ETH_P_ARP)
            filters.attach(self._arp, filters.arp())
            self._discovery = self._discovery_socket(opened)
            self._transitive = self._packet_socket(opened, frames.ETH_P_TRANSITIVE)
            filters.attach(self._transitive, filters.transitive())
            for receiver, read in (
                (self._arp, self._read_arp),
                (self._discovery, self._read_advertisements),
                (self._transitive, self._read_transitive),
            ):
                readers.add(receiver, read)
                opened.callback(readers.remove, receiver)
            self._sockets = opened.pop_all()

    def _packet_socket(self, opened: contextlib.ExitStack, protocol: int) -> socket.socket:
        # Opened without a protocol and bound to the interface with one: no frame of another interface slips in.
        packets = opened.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0))
        packets.setblocking(False)
        packets.bind((self.name, protocol))
        return packets

    def _discovery_socket(self, opened: contextlib.ExitStack) -> socket.socket:
        receiver = opened.enter_context(
            socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, frames.IPPROTO_ICMPV6)
        )
        receiver.setblocking(False)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.name.encode())
        filters.accept_icmpv6(receiver, frames.ICMPV6_ADVERTISEMENT)
        filters.attach(receiver, filters.advertisement())
        return receiver

    def watch(self, addresses: Iterable[Address]) -> None:
        """Hear any ARP in the name of these, too, beside the answers to our own questions."""
        watched = frozenset(sorted({each for each in addresses if isinstance(each, IPv4Address)})[:WATCHED])
        if watched == self._watched:
            return
        try:
            filters.attach(self._arp, filters.arp(watched))
        except OSError as error:
            log.warning("%s: cannot listen for other owners of addresses: %s", self.name, error)
        self._watched = watched

    def close(self) -> None:
        """Give the sockets back."""
        self._sockets.close()

    def send(self, frame: bytes) -> None:
        """Send one frame.

        Raises:
            BlockingIOError: the interface's queue is full.
            OSError: the interface is down or gone.
        """
        self._out.send(frame)

    def _read_arp(self) -> None:
        for frame in _pending(self._arp):
            claim = frames.read_arp(frame)
            if claim is not None:
                self._heard(claim.address, claim.mac)

    def _read_advertisements(self) -> None:
        for message in _pending(self._discovery):
            claim = frames.read_advertisement(message)
            if claim is not None:
                self._heard(claim.target, claim.mac or frames.NO_MAC)

    def _read_transitive(self) -> None:
        for frame in _pending(self._transitive):
            probe = frames.read_transitive(frame)
            if probe is not None:
                self._probed(probe)


def _pending(receiver: socket.socket) -> list[bytes]:
    """Everything a socket has, up to a bound; a socket in trouble has nothing, and link events say why."""
    received = []
    with contextlib.suppress(BlockingIOError):
        for _ in range(FRAMES_PER_WAKE):
            try:
                received.append(receiver.recv(2048))
            except BlockingIOError:
                raise
            except OSError as error:
                log.debug("receiving: %s", error)
                break
    return received
