"""What an earlier agent remembered of the kernel is read entry by entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.linux.group import memory

if TYPE_CHECKING:
    from collections.abc import Iterator

RELEASE = Path(__file__).parents[1] / "agent/releases/d1861ef/state.json"
KERNEL = json.loads(RELEASE.read_text(encoding="utf-8"))["groups"]["lab"]["kernel"]
TUNNEL = {"index": 7, "name": "vx1", "member": "nic0", "origin": 2, "link": 3}
OUTSIDER = {"index": 9, "name": "eth9", "values": {"arp_ignore": 0, "arp_announce": 1}, "others": {"rp_filter": 0}}
WHOLE: dict[str, Any] = {
    **KERNEL,
    "addresses": KERNEL["addresses"] | {"looked_at": ["nic0", "nic1"]},
    "interfaceGroups": {"nic0": {"index": 2, "group": 0}, "nic1": {"index": 3, "group": 5}},
    "administrativeState": {"nic1": {"index": 3}},
    "routes": [*KERNEL["routes"], KERNEL["routes"][0] | {"until": 1234.5}],
    "tunnels": [TUNNEL, TUNNEL | {"index": 8}],
    "outsiders": [OUTSIDER, OUTSIDER | {"index": 10}],
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


def broken_at(place: tuple[Any, ...], junk: object) -> dict[str, Any]:
    broken: dict[str, Any] = json.loads(json.dumps(WHOLE))
    inner: Any = broken
    for key in place[:-1]:
        inner = inner[key]
    if junk is None:
        del inner[place[-1]]
    else:
        inner[place[-1]] = junk
    return broken


def test_what_this_agent_wrote_is_read_whole() -> None:
    assert memory.read(WHOLE) == (WHOLE, [])
    assert memory.read(None) == (None, [])
    assert [match.key for match in memory.former_members(WHOLE)] == ["nic0", "nic1"]


@pytest.mark.parametrize("junk", [None, "x", "00", 10**400, -1, float("nan"), {"new": 1}, [[]], True], ids=repr)
def test_an_entry_that_cannot_be_read_costs_no_other(junk: object) -> None:
    for place in places(WHOLE):
        if place == ("version",):
            continue
        found, problems = memory.read(broken_at(place, junk))
        assert found is not None
        memory.former_members(found)
        assert memory.read(found) == (found, []), place
        parts = ("members", "settings", "interfaceGroups", "administrativeState", "routes", "tunnels", "outsiders")
        assert {part: found[part] for part in parts if part != place[0]} == {
            part: WHOLE[part] for part in parts if part != place[0]
        }, place
        if len(place) > 3 or (len(place) > 2 and place[0] != "addresses"):
            assert_only_lost(found, place, problems)


def assert_only_lost(found: dict[str, Any], place: tuple[Any, ...], problems: list[str]) -> None:
    """At most the entry that was broken is gone, and then it is named."""
    depth = 2 if place[0] == "addresses" else 1
    before, after = WHOLE, found
    for key in place[:depth]:
        before, after = before[key], after[key]
    assert len(before) - len(after) == len(problems) <= 1, place


@pytest.mark.parametrize("junk", [5, "x", [], {}, {"version": 2}, {"version": []}])
def test_a_memory_of_another_form_is_none(junk: object) -> None:
    found, problems = memory.read(junk)
    assert found is None
    assert len(problems) == 1
    assert memory.former_members(found) == []
