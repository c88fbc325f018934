"""Two groups on one link: one of them that fails as a whole does not take the other one along."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.lab import Agent, Lab, PingTrain, wait_for
from tests.lab.agent import group_manifest
from tests.lab.status import group_view

NICS = {"one": ("nic0", "nic1"), "two": ("nic2", "nic3")}
ADDRESSES = {
    "one": ("198.18.0.100", "2001:db8:0:1::100"),
    "two": ("198.18.0.110", "2001:db8:0:1::110"),
}


@pytest.mark.parametrize("fault", ["unplug", "silence"])
def test_a_group_that_fails_as_a_whole_leaves_the_others_of_its_link_in_peace(fault: str) -> None:
    """The kernel has one route to the prefix, by whose members ever: all that both send leaves by them."""
    with Lab([nic for nics in NICS.values() for nic in nics]) as lab, ExitStack() as stack:
        targets = [lab.peer(number).ipv4 for number in (0, 1)]
        manifests = [
            group_manifest(
                name,
                interfaces=nics,
                addresses=[f"{ADDRESSES[name][0]}/24", f"{ADDRESSES[name][1]}/64"],
                targets=targets,
            )
            for name, nics in NICS.items()
        ]
        agent = stack.enter_context(Agent(lab, manifests))
        pings = {
            address: stack.enter_context(PingTrain(lab.peer(0).namespace, address, 0.02))
            for some in ADDRESSES.values()
            for address in some
        }

        def state(name: str, wanted: str) -> None:
            wait_for(lambda: group_view(agent.status(), name).state, lambda now: now == wanted, deadline=40, what=name)

        def answered(name: str) -> None:
            for address in ADDRESSES[name]:
                pings[address].wait_answered(deadline=20)

        for name in NICS:
            state(name, "ok")
            answered(name)
        for failing, other in (("one", "two"), ("two", "one")):
            for nic in NICS[failing]:
                getattr(lab.host.nic(nic), fault)()
            state(failing, "failed")
            answered(other)
            assert group_view(agent.status(), other).state == "ok"
            for nic in NICS[failing]:
                (lab.host.nic(nic).plug if fault == "unplug" else lab.host.nic(nic).restore)()
            for name in NICS:
                state(name, "ok")
                answered(name)
