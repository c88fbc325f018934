"""Whether frames of full size pass between the members of one group: a switch port with a smaller MTU drops them alone.

Probes are small, and pass. So each member sends each other one a small frame and one as large as both can take, now and
then; the answers to both are small.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import secrets
import time
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import frames
from ipmp_api.frozen import frozen
from ipmp_api.types import ProbeMethod

if TYPE_CHECKING:
    from ipmp_agent.linux.group.surroundings import GroupSurroundings
    from ipmp_agent.linux.shared.host import Host, Port
    from ipmp_api.types import NodeGroup

PAUSE = 15.0
"""Seconds between two looks at least, and for an answer to come."""

LOOKS = 3
"""Looks one after the other in which a full frame was lost and a small one was not, until it is said."""


@frozen
class Asked:
    """What one member asked another at the last look.

    Attributes:
        small: the random bits of the small frame.
        full: those of the full one.
        mtu: how large that was, in bytes without its Ethernet header.
    """

    small: int
    full: int
    mtu: int


class FullFrames:
    """Looks for members of one group that full frames do not pass between."""

    def __init__(self, group: str, host: Host, around: GroupSurroundings) -> None:
        self._group = group
        self._host = host
        self._around = around
        self._wanted = True
        self._due = -math.inf
        self._asked: dict[tuple[str, str], Asked] = {}  # by the keys of sender and receiver
        self._lost: dict[tuple[str, str], tuple[int, int]] = {}  # the same: looks one after the other, and the MTU

    def configure(self, configuration: NodeGroup) -> None:
        """Ask nobody where the group is to send no probes."""
        self._wanted = configuration.policies.probe_method is not ProbeMethod.DISABLED
        if not self._wanted:
            self.close()

    def look(self) -> None:
        """Take the answers of the last look, and ask again; does nothing for a while after that."""
        now = time.monotonic()
        if now < self._due or not self._wanted:
            return
        self._due = now + PAUSE
        ports = {key: port for key in self._around.by_key() if (port := self._host.ports.get((self._group, key)))}
        for pair, asked in self._asked.items():
            self._judge(pair, asked)
        self._lost = {pair: lost for pair, lost in self._lost.items() if ports.keys() >= set(pair)}
        links = {key: self._host.link(port.link.index) for key, port in ports.items()}
        mtu = {key: link.mtu for key, link in links.items() if link is not None and link.carrier}
        self._asked = {
            (sender, receiver): self._ask(ports[sender], ports[receiver], min(mtu[sender], mtu[receiver]))
            for sender, receiver in itertools.permutations(mtu, 2)
        }

    def _judge(self, pair: tuple[str, str], asked: Asked) -> None:
        small, full = (self._host.asked_frames.pop(bits, False) for bits in (asked.small, asked.full))
        if full:
            self._lost.pop(pair, None)
        elif small:
            self._lost[pair] = self._lost.get(pair, (0, 0))[0] + 1, asked.mtu

    def _ask(self, sender: Port, receiver: Port, mtu: int) -> Asked:
        asked = Asked(secrets.randbits(63), secrets.randbits(63), mtu)
        for bits, size in ((asked.small, 0), (asked.full, mtu)):
            self._host.asked_frames[bits] = False
            probe = frames.Transitive(sender.wire.mac, question=True, kind=frames.FULL_FRAME, sequence=0, bits=bits)
            with contextlib.suppress(OSError):  # a link that has just gone: neither is answered then
                sender.wire.send(frames.transitive(receiver.wire.mac, probe, size))
        return asked

    def close(self) -> None:
        """Wait for nothing any more."""
        for asked in self._asked.values():
            self._host.asked_frames.pop(asked.small, None)
            self._host.asked_frames.pop(asked.full, None)
        self._asked.clear()
        self._lost.clear()

    def findings(self) -> list[Finding]:
        """Between which members full frames do not pass."""
        lost = {pair: mtu for pair, (looks, mtu) in sorted(self._lost.items()) if looks >= LOOKS}
        if not lost:
            return []
        listed = ", ".join(f"from {sender} to {receiver} ({mtu} bytes)" for (sender, receiver), mtu in lost.items())
        in_all = set.intersection(*(set(pair) for pair in lost))
        message = (
            f"frames of the members' MTU do not pass {listed}, and small ones do: a switch port between them takes"
            " smaller frames only, and large ones to an address that such a member has are lost without a word. Give"
            " every port on the link the MTU of the members, or the members that of the ports."
        )
        return [Finding(Reason.FULL_FRAMES_LOST, message, in_all.pop() if len(in_all) == 1 else None)]
