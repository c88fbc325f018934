"""Reading the addresses of an interface: each message once, and in turns of the loop."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import ip_address, ip_interface
from itertools import pairwise

import pytest

from ipmp_agent.linux.messages import addresses, netlink

pytestmark = pytest.mark.asyncio

COUNT = 4 * addresses.ADDRESSES_PER_TURN


def body(number: int, index: int = 2, family: int = socket.AF_INET) -> bytes:
    """The body of a message that tells of one address."""
    packed = (ip_address("198.18.0.0") + number).packed
    head = struct.pack("=BBBBI", family, 32, 0, netlink.RT_SCOPE_UNIVERSE, index)
    return head + netlink.attribute(addresses.IFA_LOCAL, packed)


async def test_addresses_are_read_in_the_order_of_the_kernel_and_again_only_where_they_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, read, decode = addresses.AddressTable(), [], addresses.decode

    def count(message: bytes) -> addresses.InstalledAddress | None:
        read.append(message)
        return decode(message)

    monkeypatch.setattr(addresses, "decode", count)
    bodies = [body(number) for number in range(COUNT)]
    first = await table.read(2, [body(0, family=socket.AF_PACKET), *bodies])
    assert [each.address for each in first] == [
        ip_interface(f"{ip_address('198.18.0.0') + n}/32") for n in range(COUNT)
    ]
    read.clear()
    changed = bodies[1] + netlink.u32(addresses.IFA_FLAGS, addresses.IFA_F_SECONDARY)
    again = await table.read(2, [*bodies[2:], changed])
    assert again[:-1] == first[2:]
    assert again[-1].flags == addresses.IFA_F_SECONDARY
    assert read == [changed]
    assert [each.index for each in await table.read(3, [body(7, index=3)])] == [3]
    assert await table.read(2, []) == []


async def test_the_loop_has_its_turn_while_many_addresses_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that has come waits for some hundred addresses, not for all."""
    turns: list[int] = []
    read: list[bytes] = []
    decode = addresses.decode

    def count(message: bytes) -> addresses.InstalledAddress | None:
        read.append(message)
        return decode(message)

    monkeypatch.setattr(addresses, "decode", count)

    async def another_group() -> None:
        while True:
            turns.append(len(read))
            await asyncio.sleep(0)

    other = asyncio.create_task(another_group())
    await addresses.AddressTable().read(2, [body(number) for number in range(COUNT)])
    other.cancel()
    waits = [after - before for before, after in pairwise(turns)]
    assert max(waits) == addresses.ADDRESSES_PER_TURN
