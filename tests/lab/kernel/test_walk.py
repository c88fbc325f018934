"""The way of a failover through the kernel's side is that of ARCHITECTURE.md."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING

from ipmp_agent.core.actions import Announce, SetOutbound
from tests.lab.kernel.running import GROUP, kernel_group, moves, place
from tests.unit.docs.walks import called, not_reached, walk

if TYPE_CHECKING:
    from ipmp_agent.linux.kernel import Kernel
    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

ADDRESS = ip_interface("198.18.0.10/32")


def test_orders_of_a_failover_go_the_way_of_the_page_in_one_thread(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(ADDRESS,)))
    place(lab, kernel, ADDRESS)

    def obey(facade: Kernel) -> list[str]:
        moved = moves(ADDRESS, source="nic0", destination="nic1")
        with called() as calls:
            for order in (moved, Announce("nic1", (ADDRESS,)), SetOutbound(("nic1",), ("nic1",))):
                facade.perform(GROUP, order)
        return calls

    steps = walk("A pulled cable", "linux/group/", "linux/messages/", "linux/shared/announce.py")
    assert len(steps) == 5
    assert not_reached(steps, kernel.call(obey)) == []
