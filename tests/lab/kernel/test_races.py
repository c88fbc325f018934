"""What happens between two awaits: news that is handled while a table is being read, and who must not be misled by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.events import InterfaceFound, InterfaceVanished, LinkChanged
from ipmp_agent.linux import netlink
from tests.lab import wait_for
from tests.lab.kernel.running import node_group

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

Meanwhile = "Callable[[RunningKernel, int, Callable[[], object]], None]"


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Have something happen, and be heard of, when a table has been dumped and nobody has acted on it yet."""

    def arrange(kernel: RunningKernel, kind: int, work: Callable[[], object], *, heard: bool = True) -> None:
        dumper, ahead = kernel.kernel._host.dumper, [work]
        dump = dumper.dump

        async def interrupted(wanted: int, request: bytes) -> list[bytes]:
            bodies = await dump(wanted, request)
            if wanted == kind and ahead:
                ahead.pop()()
                if heard:
                    kernel.kernel.drain()
            return bodies

        monkeypatch.setattr(dumper, "dump", interrupted)

    return arrange


# -- links ------------------------------------------------------------------------------------------------------------


def resync(kernel: RunningKernel) -> list[Any]:
    """Read all links anew, as is done regularly; returns what was told."""
    kernel.forget()
    kernel.run(lambda k: k._resync_links())
    return [heard.event for heard in kernel.heard]


def test_an_interface_that_vanished_during_a_dump_of_all_stays_vanished(
    lab: Lab, kernel: RunningKernel, meanwhile: Meanwhile
) -> None:
    kernel.configure(node_group())
    meanwhile(kernel, netlink.RTM_GETLINK, lambda: lab.host.namespace.ip("link", "del", "nic0"))
    told = [e for e in resync(kernel) if isinstance(e, InterfaceFound | InterfaceVanished)]
    assert told.index(InterfaceVanished("nic0")) == len(told) - 1


def test_an_interface_that_came_during_a_dump_of_all_is_not_lost_again(
    lab: Lab, kernel: RunningKernel, meanwhile: Meanwhile
) -> None:
    lab.host.nic("nic1").remove()
    kernel.configure(node_group())
    meanwhile(kernel, netlink.RTM_GETLINK, lambda: lab.host.nic("nic1").insert())
    told = [e for e in resync(kernel) if isinstance(e, InterfaceFound | InterfaceVanished)]
    assert told
    assert all(isinstance(e, InterfaceFound) and e.interface == "nic1" for e in told)


def test_a_mac_address_changed_during_a_dump_of_all_is_not_changed_back(
    lab: Lab, kernel: RunningKernel, meanwhile: Meanwhile
) -> None:
    kernel.configure(node_group())
    new = "02:00:00:00:99:03"
    meanwhile(kernel, netlink.RTM_GETLINK, lambda: lab.host.namespace.ip("link", "set", "nic0", "address", new))
    assert [e.mac for e in resync(kernel) if isinstance(e, InterfaceFound)] == [new]


@pytest.mark.parametrize("heard", [True, False])
def test_a_carrier_that_came_back_during_a_dump_of_all_is_not_told_lost_again(
    lab: Lab, kernel: RunningKernel, meanwhile: Meanwhile, heard: bool
) -> None:
    kernel.configure(node_group())
    nic = lab.host.nic("nic0")
    nic.unplug()
    kernel.await_event(LinkChanged, lambda e: e == LinkChanged("nic0", up=False))

    def plug() -> None:
        nic.plug()
        carrier = kernel.kernel._members.owner(nic.index).carrier
        wait_for(carrier.ask)
        kernel.kernel._members.poll()

    meanwhile(kernel, netlink.RTM_GETLINK, plug, heard=heard)
    assert [e for e in resync(kernel) if isinstance(e, LinkChanged)] == [LinkChanged("nic0", up=True)]


def test_a_tunnel_pinned_elsewhere_during_a_dump_of_all_is_known_to_be(
    lab: Lab, kernel: RunningKernel, meanwhile: Meanwhile
) -> None:
    host = lab.host.namespace
    host.batch(["link add vx9 type vxlan id 9 dev nic0 local 198.18.0.77 dstport 4789", "link set vx9 up"])
    kernel.configure(node_group())
    meanwhile(kernel, netlink.RTM_GETLINK, lambda: host.ip("link", "set", "vx9", "type", "vxlan", "dev", "nic1"))
    resync(kernel)
    (tunnel,) = kernel.call(lambda k: list(k._host.tunnels.found.values()))
    assert tunnel.link == lab.host.nic("nic1").index
