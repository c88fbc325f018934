"""One thing that cannot be read, written or opened: everything else is compared, and people are told what was not."""

from __future__ import annotations

import errno
from functools import partial
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import SetOutbound
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group import multicast, settings
from ipmp_agent.linux.group.fitness import Fitness
from ipmp_agent.linux.group.outsiders import GroupOutsiders
from ipmp_agent.linux.group.pinned import Pinned
from ipmp_agent.linux.group.pod_egress import PodEgress
from ipmp_agent.linux.group.settings import InterfaceSettings
from ipmp_agent.linux.group.tunnels import GroupTunnels
from ipmp_agent.linux.group.twins import Twins
from ipmp_agent.linux.messages import netlink
from ipmp_agent.linux.shared.masquerade import Masquerades
from tests.lab import wait_for
from tests.lab.kernel.running import GROUP, kernel_group, place, where

if TYPE_CHECKING:
    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

ADDRESS = ip_interface("198.18.0.50/24")
PARTS = [
    (Fitness, "look", "fitness of members"),
    (Fitness, "leave", "interfaces that were members"),
    (GroupOutsiders, "look", "other interfaces on the link"),
    (InterfaceSettings, "differences", "settings"),
    (Twins, "read", "routes"),
    (Twins, "compare", "routes"),
    (GroupTunnels, "differences", "tunnels"),
    (PodEgress, "reconcile", "rules for pods"),
    (Masquerades, "refresh", "masquerading"),
    (Pinned, "refresh", "what hangs on members"),
    (multicast.Multicast, "follow", "multicast"),
]


def broken(*_: Any, **__: Any) -> Any:
    """Meet what nobody foresaw: a file of another form, a refusal."""
    raise ValueError("not what it was expected to be")


def incomplete(kernel: RunningKernel) -> list[str]:
    found = kernel.call(lambda k: k.findings(GROUP))
    return [finding.message for finding in found if finding.reason is Reason.COMPARISON_INCOMPLETE]


@pytest.mark.parametrize(("owner", "method", "name"), PARTS, ids=[f"{o.__name__}.{m}" for o, m, _ in PARTS])
def test_what_one_part_meets_keeps_no_other_from_being_done(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, name: str
) -> None:
    """From the first moment: the group starts, places its address, and puts back what somebody takes."""
    monkeypatch.setattr(owner, method, broken)
    kernel.configure(kernel_group(addresses=(ADDRESS,)))
    kernel.perform(SetOutbound(("nic0",), ("nic0",)))
    place(lab, kernel, ADDRESS)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert [message for message in incomplete(kernel) if message.startswith(name)]
    lab.host.namespace.ip("address", "del", str(ADDRESS), "dev", "nic0")
    wait_for(partial(where, lab, ADDRESS), lambda seen: seen == ["nic0"])


def test_a_table_that_cannot_be_read_keeps_no_address_from_being_put_back(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(ADDRESS,)))
    place(lab, kernel, ADDRESS)
    refused = {netlink.RTM_GETNEXTHOP}  # as on a kernel that has no nexthop objects

    async def refuse(kind: int) -> None:
        if kind in refused:
            raise OSError(errno.EOPNOTSUPP, "not supported")

    kernel.call(lambda _: kernel.dumper.arrange(refuse))
    kernel.run(lambda k: k.reconcile(GROUP))
    assert "routes could not be compared with the kernel (OSError" in incomplete(kernel)[0]
    lab.host.namespace.ip("address", "del", str(ADDRESS), "dev", "nic0")
    wait_for(partial(where, lab, ADDRESS), lambda seen: seen == ["nic0"])
    kernel.call(lambda _: refused.clear())
    wait_for(partial(incomplete, kernel), lambda seen: not seen, deadline=90)


def test_what_cannot_be_looked_at_hides_no_other_finding(
    kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.configure(kernel_group())
    monkeypatch.setattr(Pinned, "findings", broken)
    monkeypatch.setattr(settings, "overridden", broken)
    assert {message.partition(" could")[0] for message in incomplete(kernel)} == {"what hangs on members", "settings"}


def test_a_notification_that_cannot_be_taken_spoils_no_other(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(ADDRESS,)))
    place(lab, kernel, ADDRESS)
    monitor = kernel.kernel._monitor
    really_heard, met = monitor._heard, list[Any]()

    def heard(message: Any) -> None:
        if message.kind == netlink.RTM_NEWADDR and not met:
            met.append(message)
            raise ValueError("of a form that nobody knows")
        really_heard(message)

    monitor._heard = heard
    lab.host.namespace.batch(["address add 198.18.64.7/20 dev nic1", f"address del {ADDRESS} dev nic0"])
    wait_for(partial(where, lab, ADDRESS), lambda seen: seen == ["nic0"])
    assert met
