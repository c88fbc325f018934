"""How the kernel ends a dump that it cannot finish, and what becomes of that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.linux.messages import addresses, netlink, routes

if TYPE_CHECKING:
    from tests.lab import Lab


def dump(kind: int, body: bytes) -> list[bytes]:
    """What our reader makes of a dump in the caller's namespace."""

    async def attempt() -> list[bytes]:
        with contextlib.closing(netlink.Dumper()) as dumper:
            return await dumper.dump(kind, body)

    return asyncio.run(attempt())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_table_that_is_not_there_is_not_an_empty_one(lab: Lab, family: int) -> None:
    """The kernel says so at the end of a dump of nothing, with an explanation and no request before it."""
    with pytest.raises(FileNotFoundError, match="FIB table does not exist"):
        lab.host.namespace.call(dump, netlink.RTM_GETROUTE, routes.get_request(family, 99))


def test_an_interface_that_is_not_there_does_not_have_no_addresses(lab: Lab) -> None:
    assert lab.host.namespace.call(dump, netlink.RTM_GETADDR, addresses.get_request(1))
    with pytest.raises(OSError, match="No such device"):
        lab.host.namespace.call(dump, netlink.RTM_GETADDR, addresses.get_request(9999))
