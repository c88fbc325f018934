"""What an agent records of an incident, made by the core."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ipmp_agent.core import events
from ipmp_agent.core.actions import SendProbe
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.disk.recording import FORMAT, ROUTINE, VERSION, Decided, Handled, Started, Stopped, Ticked, encode_entry
from tests.unit.simulate.playing import make_group

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ipmp_agent.disk.recording import Entry
    from ipmp_api.types import NodeGroup

HEAD = {"format": FORMAT, "version": VERSION, "agentVersion": "test"}
SEED, BEGIN, SILENCE, END = 99, 1234.5, 1250.0, 1260.0


def incident(cores: dict[str, tuple[NodeGroup, Multipathing]] | None = None) -> Iterator[Entry]:
    """What an agent records while nic0 falls silent: replies after 1 ms, and none of nic0 from then on.

    Each entry comes before the core has it; `cores` is told the core.
    """
    group = make_group()
    core = Multipathing(group, seed=SEED)
    if cores is not None:
        cores[group.group_name] = (group, core)
    replies: list[tuple[float, events.ProbeAnswered]] = []
    start: list[events.Event] = []
    for index, member in enumerate(group.members):
        assert member.test_ipv4
        start.append(events.InterfaceFound(member.key, member.key, index + 2, f"02:00:00:00:00:{index:02x}", link=True))
        start.append(events.TestAddressChanged(member.key, events.Family.IPV4, member.test_ipv4.ip))

    def witnessed(entry: Handled | Ticked) -> Iterator[Entry]:
        yield entry
        ordered = core.handle(entry.event, entry.time) if isinstance(entry, Handled) else core.tick(entry.time)
        for one in ordered:
            if isinstance(one, SendProbe) and not (one.interface == "nic0" and entry.time > SILENCE):
                answer = events.ProbeAnswered(
                    one.interface, one.family, one.target, one.sequence, one.kind, rtt=0.001, network_rtt=0.0009
                )
                replies.append((entry.time + 0.001, answer))
        decided = tuple(one for one in ordered if type(one) not in ROUTINE)
        if decided:
            yield Decided(group.group_name, entry.time, decided)

    yield Started(group.group_name, BEGIN, SEED, group)
    for event in (*start, events.KernelRead()):
        yield from witnessed(Handled(group.group_name, BEGIN, event))
    now = BEGIN
    while now < END:
        deadline = core.next_deadline()
        assert deadline is not None
        if replies and replies[0][0] <= deadline:
            now, reply = replies.pop(0)
            yield from witnessed(Handled(group.group_name, now, reply))
        else:
            now = deadline
            yield from witnessed(Ticked(group.group_name, now))
    yield Stopped(group.group_name, now)


def write(path: Path, entries: Iterator[Entry], *, end: str = '{"end": "closed", "lost": 0}\n') -> list[str]:
    lines = [json.dumps(HEAD), *(json.dumps(encode_entry(entry)) for entry in entries)]
    path.write_text("\n".join(lines) + "\n" + end)
    return lines
