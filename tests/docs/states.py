"""Writes docs/states.md from the table of states. Run: .venv/bin/python -m tests.docs.states."""

from __future__ import annotations

from pathlib import Path

from ipmp_agent.core.interface import BROKEN, FUNCTIONING, TRANSITIONS, Interface, InterfaceEvent, State
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import InterfaceMatch, Member

PATH = Path(__file__).parents[2] / "docs" / "states.md"

TEXT = """\
# States of an interface

Generated from `TRANSITIONS` in `node-agent/ipmp_agent/core/interface.py`: `.venv/bin/python -m tests.docs.states`.

An event that is not drawn for a state cannot happen in it: it is refused, and changes nothing. A lost probe, a carrier,
a request are not events of this table; the core decides from them which event happens.

```mermaid
{diagram}
```

| state | word in `ipmpstat -i` | carries data addresses |
|---|---|---|
{states}

*Unknown* becomes *ok* while other members answer its transitive probes. A member that is FAILED because it has only
not been heard yet (`NotHeard`) is *unknown*, too. *If active*: a member that works may be
inactive all the same, as an idle standby, or as one that waits because failback is Disabled. FAILED_NO_TARGETS and
OFFLINE_FAILED stand where in.mpathd kept its FAILED flag beside the state.

| event | when |
|---|---|
{events}
"""

WHEN = {
    InterfaceEvent.APPEAR: "the NIC is on the node and fit to be a member",
    InterfaceEvent.VANISH: "it is gone, in another network namespace, or not fit any more",
    InterfaceEvent.FAIL: "link down; five probes lost in a row while another member proves that the link works; the "
    "whole group fails; or it returns, had been answered before, and is not yet",
    InterfaceEvent.REPAIR: "ten probes answered in a row, or one if it only was not heard yet; or link up, where no "
    "probe can judge (which is settled 40 s after a start of the agent)",
    InterfaceEvent.TARGETS_LOST: "it could probe and has nobody left to ask",
    InterfaceEvent.TARGETS_FOUND: "it can probe and has somebody to ask again",
    InterfaceEvent.PROBING_ENDED: "it has no test address any more, or probing was disabled",
    InterfaceEvent.GO_OFFLINE: "`ipmpadm offline`, `spec.offline`, or a MAC address that another member has",
    InterfaceEvent.GO_ONLINE: "`ipmpadm online`, the entry is gone, or the MAC address is unique again",
}


def diagram() -> str:
    """The table as a Mermaid state diagram, in the order of the table."""
    lines = ["stateDiagram-v2", "    [*] --> ABSENT"]
    lines += [f"    {state.name} : {state.value}" for state in State]
    lines += [f"    {old.name} --> {new.name} : {event.value}" for (old, event), new in TRANSITIONS.items()]
    return "\n".join(lines)


def _carries(state: State) -> str:
    if state in FUNCTIONING:
        return "if active"
    if state in BROKEN:
        return "none, unless the whole group has failed: then those that are there, and those of members without a link"
    return "none"


def _word(state: State) -> str:
    interface = Interface(Member(InterfaceMatch(name="nic0")), 0.0, Reason.INTERFACE_MISSING)
    interface.state = state
    return interface.word.value


def page() -> str:
    """The whole of docs/states.md."""
    states = "\n".join(f"| {state.name} | {_word(state)} | {_carries(state)} |" for state in State)
    events = "\n".join(f"| {event.value} | {WHEN[event]} |" for event in InterfaceEvent)
    return TEXT.format(diagram=diagram(), states=states, events=events)


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
