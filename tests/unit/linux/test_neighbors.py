"""Whom a moved address asks something."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

from ipmp_agent.linux.messages import netlink
from ipmp_agent.linux.messages.neighbors import NDA_CACHEINFO, NDA_DST, NDA_LLADDR, decode
from ipmp_agent.linux.shared import neighbors
from ipmp_agent.linux.shared.neighbors import Neighbor, Neighbors

if TYPE_CHECKING:
    import pytest

    from ipmp_agent.linux.messages.netlink import Dumper

ROUTER, TARGET = ip_address("198.18.0.1"), ip_address("198.18.0.2")
NUD_STALE, NUD_FAILED = 0x04, 0x20


def entry(address: str, mac: bytes, confirmed: int = 100, state: int = NUD_STALE) -> bytes:
    """An RTM_NEWNEIGH body: confirmed so many hundredths of a second ago."""
    packed = ip_address(address)
    return (
        struct.pack("=BxxxiHBB", netlink.FAMILIES[packed.version], 2, state, 0, 1)
        + netlink.attribute(NDA_DST, packed.packed)
        + netlink.attribute(NDA_LLADDR, mac)
        + netlink.attribute(NDA_CACHEINFO, struct.pack("=IIII", confirmed, confirmed, confirmed, 0))
    )


def mac(number: int) -> bytes:
    return b"\x02\0\0\0\0" + bytes([number])


class Kernel:
    """Has these neighbours, or no such interface."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = bodies
        self.gone = False

    async def dump(self, _: int, body: bytes) -> list[bytes]:
        if self.gone:
            raise OSError(19, "No such device")
        return [each for each in self.bodies if each[0] == body[0]]


async def read(known: Neighbors, kernel: Kernel) -> None:
    await known.read("lab", [2], cast("Dumper", kernel))


def test_who_was_never_heard_is_no_neighbour() -> None:
    assert decode(entry("198.18.0.9", mac(9), state=NUD_FAILED)) is None
    assert decode(entry("198.18.0.9", b"")) is None
    found = decode(entry("198.18.0.9", mac(9), confirmed=250))
    assert found is not None
    assert (str(found.address), found.mac, found.confirmed) == ("198.18.0.9", mac(9), 2.5)


async def test_gateways_come_first_then_targets_then_who_was_heard_last() -> None:
    known = Neighbors()
    known.gateways("lab", [ROUTER])
    await read(
        known, Kernel(entry("198.18.0.8", mac(8), 900), entry("198.18.0.9", mac(9)), entry("2001:db8::9", mac(9)))
    )
    assert known.of("lab", 4, [TARGET]) == [
        Neighbor(ROUTER, None),
        Neighbor(TARGET, None),
        Neighbor(ip_address("198.18.0.9"), mac(9)),
        Neighbor(ip_address("198.18.0.8"), mac(8)),
    ]
    assert known.of("lab", 6, [TARGET]) == [Neighbor(ip_address("2001:db8::9"), mac(9))]
    assert known.of("other", 4, []) == []


async def test_neighbours_and_gateways_are_remembered_when_a_failure_takes_them_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbors, "PAUSE", 0.0)
    known, kernel = Neighbors(), Kernel(entry("198.18.0.1", mac(1)))
    known.gateways("lab", [ROUTER])
    await read(known, kernel)
    known.gateways("lab", [])
    kernel.bodies = ()
    await read(known, kernel)
    kernel.gone = True
    await read(known, kernel)
    assert known.of("lab", 4, []) == [Neighbor(ROUTER, mac(1))]


async def test_the_newest_word_about_a_neighbour_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "PAUSE", 0.0)
    known = Neighbors()
    await read(known, Kernel(entry("198.18.0.1", mac(1), 100), entry("198.18.0.1", mac(2), 50)))
    await read(known, Kernel(entry("198.18.0.1", mac(3), 5000)))
    assert known.of("lab", 4, []) == [Neighbor(ROUTER, mac(2))]


async def test_who_was_heard_last_is_remembered_and_no_more_than_so_many() -> None:
    known = Neighbors()
    await read(known, Kernel(*(entry(f"198.18.1.{i}", mac(i), confirmed=i) for i in range(200))))
    assert [each.address for each in known.of("lab", 4, [])] == [
        ip_address(f"198.18.1.{i}") for i in range(neighbors.REMEMBERED)
    ]
