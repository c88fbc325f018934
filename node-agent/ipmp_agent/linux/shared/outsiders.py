"""Interfaces of the host that are on the link of members and are no members: a spare NIC, the device below macvlans.

Linux answers ARP for every address of the host on every interface that hears the question. Neighbours then learn the
MAC address of an interface that nobody watches. Such an interface is found by what it hears: a broadcast that a member
sent. The socket is bound to no interface and wakes nobody but for that.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import filters, frames
from ipmp_agent.linux.messages.links import ARPHRD_ETHER, IFF_LOOPBACK, IFF_NOARP, IFF_POINTOPOINT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ipmp_agent.linux.messages.links import Link
    from ipmp_agent.linux.shared.readers import Readers

log = logging.getLogger(__name__)

GUARD = {"arp_ignore": 1, "arp_announce": 2}
"""Settings by which an interface neither answers nor asks in the name of an address that it does not have."""

FRAMES_PER_WAKE = 64


def may_hear(link: Link) -> bool:
    """Whether an interface takes part in a link by ARP: a port of a bridge or a bond does so as that."""
    mute = IFF_LOOPBACK | IFF_NOARP | IFF_POINTOPOINT
    return link.up and link.media == ARPHRD_ETHER and not link.flags & mute and not link.port_of


class Listener:
    """Hears what members send on interfaces that are none.

    Args:
        heard: takes the name of an interface and the MAC address of the member that it heard.
        readers: read its socket.
    """

    def __init__(self, heard: Callable[[str, bytes], None], readers: Readers) -> None:
        self._heard = heard
        self._readers = readers
        self._socket: socket.socket | None = None
        self._program: list[filters.Instruction] = []
        self._macs: set[bytes] = set()

    def listen(self, macs: set[bytes], elsewhere_than: set[int]) -> None:
        """Listen for these members, on all interfaces but these; for none: not at all. Raises OSError."""
        program = filters.sent_by(sorted(macs), sorted(elsewhere_than))
        if not macs:
            self.close()
        elif self._socket is None:
            # It hears all interfaces from when it is made: what slips in before the filter is no member's frame here.
            kind, protocol = socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(frames.ETH_P_ARP)
            with contextlib.ExitStack() as opened:
                receiver = opened.enter_context(socket.socket(socket.AF_PACKET, kind, protocol))
                receiver.setblocking(False)
                filters.attach(receiver, program)
                self._readers.add(receiver, self._read)
                opened.pop_all()
            self._socket = receiver
        elif program != self._program:
            filters.attach(self._socket, program)
        self._program, self._macs = program, macs

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(FRAMES_PER_WAKE):
                if self._socket is None:
                    return
                try:
                    frame, (name, *_) = self._socket.recvfrom(64)
                except BlockingIOError:
                    raise
                except OSError as error:
                    log.debug("listening for members on other interfaces: %s", error)
                    return
                if frame[6:12] in self._macs:
                    self._heard(name, frame[6:12])

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            self._readers.remove(self._socket)
            self._socket.close()
            self._socket = None


class Guarded:
    """What guarded interfaces had before, and which groups hold the guard: the last one to go puts it back."""

    def __init__(self) -> None:
        self._before: dict[int, dict[str, int]] = {}  # by interface index
        self._holders: dict[int, set[str]] = {}
        self._taken: set[int] = set()  # interfaces that are members now, and what they had is kept with these
        self.of_members: dict[str, Callable[[int], Mapping[str, int]]] = {}
        """By group: what an interface, that is a member or was one and is to be put back, had before it was one."""

    def hold(self, group: str, index: int, values: Mapping[str, int]) -> None:
        """Note that a group guards an interface that has these values; what was noted first stays."""
        self._taken.discard(index)
        noted = [found for before in self.of_members.values() if (found := before(index))]
        values = noted[0] if noted else values
        self._before.setdefault(index, {name: values.get(name, 0) for name in GUARD})
        self._holders.setdefault(index, set()).add(group)

    def before(self, index: int) -> dict[str, int]:
        """What a guarded interface had before; empty: it is not guarded."""
        return self._before.get(index, {})

    def take(self, index: int) -> dict[str, int]:
        """What a guarded interface had before, for the member that it is now, which keeps it from here on."""
        if index in self._before:
            self._taken.add(index)
        return self.before(index)

    def is_taken(self, index: int) -> bool:
        """Whether a member keeps what the interface had before."""
        return index in self._taken

    def release(self, group: str, index: int) -> dict[str, int]:
        """Let go; returns what is to be put back, which is nothing while another group holds it."""
        holders = self._holders.get(index, set())
        holders.discard(group)
        if holders:
            return {}
        self._holders.pop(index, None)
        self._taken.discard(index)
        return self._before.pop(index, {})
