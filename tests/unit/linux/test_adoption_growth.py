"""What adoption costs grows with the number of addresses, not with its square: the loop stands still meanwhile."""

from __future__ import annotations

import socket
import struct
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.linux.group.data_addresses import GroupDataAddresses
from ipmp_agent.linux.messages import addresses, netlink
from ipmp_api.types import Existing
from tests.node_groups import node_group

if TYPE_CHECKING:
    from ipmp_agent.linux.messages.addresses import InstalledAddress


def installed(count: int) -> list[InstalledAddress]:
    """So many static addresses of the host, each in a prefix of its own, as the kernel tells them."""
    found = []
    for number in range(count):
        packed = (0x0A000001 + 256 * number).to_bytes(4)
        head = struct.pack("=BBBBI", socket.AF_INET, 24, addresses.IFA_F_PERMANENT, netlink.RT_SCOPE_UNIVERSE, 2)
        kinds = (addresses.IFA_ADDRESS, addresses.IFA_LOCAL)
        each = addresses.decode(head + b"".join(netlink.attribute(kind, packed) for kind in kinds))
        assert each is not None
        found.append(each)
    return found


async def calls_of_an_adoption(count: int) -> int:
    """How often Python enters a function, or goes on with a generator, to adopt so many addresses."""
    member = SimpleNamespace(key="nic0", index=2, link=None, leaving=False)
    host: Any = SimpleNamespace(checks=SimpleNamespace(cancel=lambda _: None), announcer=None)
    members: Any = SimpleNamespace(of=lambda _: {"nic0": member})
    told: list[Any] = []
    data = GroupDataAddresses("lab", host, members, told.append, lambda *_: None)
    data.configure(node_group("lab", ("nic0",), node="host", existing=Existing.ADOPT))
    here = {"nic0": installed(count)}
    calls = 0

    def count_calls(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count_calls)
    try:
        data.find(here)
        data.find(here)
    finally:
        sys.setprofile(None)
    assert len(told) >= count
    return calls


@pytest.mark.asyncio
async def test_four_times_the_addresses_cost_about_four_times_as_much() -> None:
    few, many = await calls_of_an_adoption(100), await calls_of_an_adoption(400)
    assert many < 6 * few
