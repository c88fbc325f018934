"""The table of states, by exhaustion, and the words that people read."""

from __future__ import annotations

import itertools

import pytest

from ipmp_agent.core.events import IP_FAMILIES, Family
from ipmp_agent.core.interface import (
    BROKEN,
    FUNCTIONING,
    OUT,
    TRANSITIONS,
    Interface,
    InterfaceEvent,
    InvalidTransitionError,
    State,
)
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import InterfaceMatch, Member

APPEAR, VANISH, FAIL, REPAIR = (
    InterfaceEvent.APPEAR,
    InterfaceEvent.VANISH,
    InterfaceEvent.FAIL,
    InterfaceEvent.REPAIR,
)
TARGETS_LOST, TARGETS_FOUND, PROBING_ENDED = (
    InterfaceEvent.TARGETS_LOST,
    InterfaceEvent.TARGETS_FOUND,
    InterfaceEvent.PROBING_ENDED,
)
GO_OFFLINE, GO_ONLINE = InterfaceEvent.GO_OFFLINE, InterfaceEvent.GO_ONLINE

# Written a second time on purpose: whoever changes the table of the core has to mean it.
EXPECTED = {
    State.ABSENT: {APPEAR: State.RUNNING},
    State.RUNNING: {
        FAIL: State.FAILED,
        TARGETS_LOST: State.NO_TARGETS,
        GO_OFFLINE: State.OFFLINE,
        VANISH: State.ABSENT,
    },
    State.NO_TARGETS: {
        FAIL: State.FAILED_NO_TARGETS,
        TARGETS_FOUND: State.RUNNING,
        PROBING_ENDED: State.RUNNING,
        GO_OFFLINE: State.OFFLINE,
        VANISH: State.ABSENT,
    },
    State.FAILED: {
        REPAIR: State.RUNNING,
        TARGETS_LOST: State.FAILED_NO_TARGETS,
        GO_OFFLINE: State.OFFLINE_FAILED,
        VANISH: State.ABSENT,
    },
    State.FAILED_NO_TARGETS: {
        REPAIR: State.NO_TARGETS,
        TARGETS_FOUND: State.FAILED,
        PROBING_ENDED: State.FAILED,
        GO_OFFLINE: State.OFFLINE_FAILED,
        VANISH: State.ABSENT,
    },
    State.OFFLINE: {FAIL: State.OFFLINE_FAILED, GO_ONLINE: State.RUNNING, VANISH: State.ABSENT},
    State.OFFLINE_FAILED: {REPAIR: State.OFFLINE, GO_ONLINE: State.FAILED, VANISH: State.ABSENT},
}


def interface_in(state: State) -> Interface:
    interface = Interface(Member(InterfaceMatch(name="nic0")), 0.0, Reason.INTERFACE_MISSING)
    interface.state = state
    interface.reason = Reason.RESTORED
    interface.cause = Reason.PROBES_LOST if state in BROKEN else None
    return interface


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, InterfaceEvent)))
def test_every_state_takes_the_events_of_the_table_and_no_other(state: State, event: InterfaceEvent) -> None:
    interface = interface_in(state)
    expected = EXPECTED[state].get(event)
    if expected is None:
        before = {name: getattr(interface, name) for name in Interface.__slots__}
        with pytest.raises(InvalidTransitionError, match=event.value):
            interface.fire(event, Reason.LINK_DOWN, 5.0)
        assert {name: getattr(interface, name) for name in Interface.__slots__} == before
    else:
        interface.fire(event, Reason.LINK_DOWN, 5.0)
        assert (interface.state, interface.reason, interface.since) == (expected, Reason.LINK_DOWN, 5.0)


def test_the_table_has_exactly_the_expected_pairs() -> None:
    assert {(s, e): t for s, events in EXPECTED.items() for e, t in events.items()} == TRANSITIONS


def test_a_failure_remembers_its_cause_until_it_is_repaired() -> None:
    interface = interface_in(State.RUNNING)
    interface.fire(FAIL, Reason.LINK_DOWN, 1.0)
    assert interface.cause is Reason.LINK_DOWN
    interface.fire(TARGETS_LOST, Reason.TARGETS_LOST, 2.0)
    assert interface.cause is Reason.LINK_DOWN
    interface.fire(REPAIR, Reason.LINK_UP, 3.0)
    assert interface.cause is None


def test_states_are_functioning_broken_out_or_absent() -> None:
    assert {*FUNCTIONING, *BROKEN, *OUT, State.ABSENT} == set(State)
    assert len(FUNCTIONING) + len(BROKEN) + len(OUT) + 1 == len(State)
    assert {s for s in State if interface_in(s).failed} == {*BROKEN, State.OFFLINE_FAILED}


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (State.ABSENT, "failed"),
        (State.RUNNING, "ok"),
        (State.NO_TARGETS, "unknown"),
        (State.FAILED, "failed"),
        (State.FAILED_NO_TARGETS, "failed"),
        (State.OFFLINE, "offline"),
        (State.OFFLINE_FAILED, "offline"),
    ],
)
def test_external_word_of_each_state(state: State, word: str) -> None:
    assert interface_in(state).word == word


def test_the_link_layer_is_no_ip_family() -> None:
    assert IP_FAMILIES == (Family.IPV4, Family.IPV6)
    assert {family.value for family in IP_FAMILIES} == {4, 6}
