"""podEgress in a real kernel: the table is what is meant, is repaired, follows no move, and goes."""

from __future__ import annotations

import errno
import os
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import Move, MoveAddresses
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.nftables import Nftables
from ipmp_api.types import DeletionPolicy, Mode
from tests.lab import wait_for
from tests.lab.kernel.running import GROUP, node_group, where

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

V4, V6 = ip_interface("198.18.0.10/32"), ip_interface("2001:db8:0:1::10/128")
PODS = (ip_network("198.19.0.0/20"), ip_network("2001:db8:0:99::/64"))
TABLE = "ipmp-data"
EXPECTED = """\
table inet ipmp-data {
	chain pods {
		ip daddr 198.19.0.0/20 return
		ip6 daddr 2001:db8:0:99::/64 return
		ip saddr 198.19.0.0/20 snat ip to 198.18.0.10
		ip6 saddr 2001:db8:0:99::/64 snat ip6 to 2001:db8:0:1::10
	}

	chain postrouting {
		type nat hook postrouting priority srcnat - 10; policy accept;
		oifname "nic0" jump pods
		oifname "nic1" jump pods
	}
}
"""


def tables(lab: Lab) -> str:
    return str(lab.host.namespace.run("nft", "list", "ruleset"))


def move(lab: Lab, kernel: RunningKernel, *addresses: Any, source: str | None, destination: str) -> None:
    reason = Reason.FAILOVER if source else Reason.ADDRESS_ADDED
    kernel.perform(MoveAddresses(tuple(Move(address, source, destination, reason) for address in addresses)))
    wait_for(lambda: {a: where(lab, a) for a in addresses}, lambda seen: all(w == [destination] for w in seen.values()))


def installed(lab: Lab, kernel: RunningKernel, **policies: Any) -> None:
    kernel.configure(node_group(addresses=(V4, V6), pod_egress=PODS, **policies))
    move(lab, kernel, V4, V6, source=None, destination="nic0")
    wait_for(lambda: tables(lab), lambda seen: seen == EXPECTED)


def handles(lab: Lab) -> str:
    return str(lab.host.namespace.run("nft", "--handle", "list", "ruleset"))


def test_table_gives_pods_a_data_address_of_each_family(lab: Lab, kernel: RunningKernel) -> None:
    installed(lab, kernel)
    assert not kernel.call(lambda facade: facade.findings(GROUP))


def test_table_stays_untouched_when_the_address_moves(lab: Lab, kernel: RunningKernel) -> None:
    installed(lab, kernel)
    before = handles(lab)
    move(lab, kernel, V4, V6, source="nic0", destination="nic1")
    kernel.run(lambda facade: facade.reconcile(GROUP))
    assert handles(lab) == before


@pytest.mark.parametrize(
    "tampering",
    [
        "flush ruleset",
        f"delete table inet {TABLE}",
        f"flush chain inet {TABLE} pods",
        f"add rule inet {TABLE} pods return",
        f"insert rule inet {TABLE} postrouting return",
    ],
)
def test_table_that_somebody_changed_is_made_anew(lab: Lab, kernel: RunningKernel, tampering: str) -> None:
    installed(lab, kernel)
    kernel.run(lambda facade: facade.reconcile(GROUP))
    lab.host.namespace.run("nft", *tampering.split())
    assert tables(lab) != EXPECTED
    wait_for(lambda: tables(lab), lambda seen: seen == EXPECTED)
    wait_for(lambda: kernel.call(lambda facade: facade.counters["foreign_changes"]), lambda count: count == 1)


def test_tables_of_others_stay(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.run("nft", "add table ip other; add chain ip other one; add rule ip other one accept")
    before = tables(lab)
    kernel.configure(node_group(addresses=(V4, V6), pod_egress=PODS))
    move(lab, kernel, V4, V6, source=None, destination="nic0")
    wait_for(lambda: tables(lab), lambda seen: TABLE in seen)
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert tables(lab) == before


def test_table_goes_with_the_field(lab: Lab, kernel: RunningKernel) -> None:
    installed(lab, kernel)
    kernel.configure(node_group(addresses=(V4, V6)))
    wait_for(lambda: tables(lab), lambda seen: not seen)


def test_deletion_removes_the_table_and_retaining_keeps_it(lab: Lab, kernel: RunningKernel) -> None:
    installed(lab, kernel, deletion_policy=DeletionPolicy.RETAIN)
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert tables(lab) == EXPECTED
    kernel.configure(node_group(addresses=(V4, V6), pod_egress=PODS))
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert not tables(lab)


def test_next_agent_keeps_the_address_that_flows_have(
    lab: Lab, kernel: RunningKernel, start_kernel: Callable[[], RunningKernel]
) -> None:
    second = ip_interface("198.18.0.9/32")
    kernel.configure(node_group(addresses=(second, V4, V6), pod_egress=PODS))
    move(lab, kernel, V4, V6, source=None, destination="nic0")
    wait_for(lambda: tables(lab), lambda seen: seen == EXPECTED)
    move(lab, kernel, second, source=None, destination="nic1")
    kernel.run(lambda facade: facade.reconcile(GROUP))
    assert tables(lab) == EXPECTED
    memory = kernel.call(lambda facade: facade.memory(GROUP))
    kernel.close()
    restarted = start_kernel()
    restarted.configure(node_group(addresses=(second, V4, V6), pod_egress=PODS), memory)
    restarted.run(lambda facade: facade.reconcile(GROUP))
    assert tables(lab) == EXPECTED


def test_next_agent_removes_a_table_that_is_wanted_no_more(
    lab: Lab, kernel: RunningKernel, start_kernel: Callable[[], RunningKernel]
) -> None:
    installed(lab, kernel)
    kernel.close()
    start_kernel().configure(node_group(addresses=(V4, V6)))
    wait_for(lambda: tables(lab), lambda seen: not seen)


def test_observing_writes_nothing(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.ip("address", "add", str(V4), "dev", "nic0")
    kernel.configure(node_group(addresses=(V4, V6), pod_egress=PODS, mode=Mode.OBSERVE))
    kernel.run(lambda facade: facade.reconcile(GROUP))
    assert not tables(lab)


def test_missing_data_address_is_said(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(node_group(addresses=(V4,), pod_egress=PODS))
    move(lab, kernel, V4, source=None, destination="nic0")
    wait_for(lambda: tables(lab), lambda seen: "snat ip to 198.18.0.10" in seen)
    assert "ip6 saddr" not in tables(lab)
    (finding,) = kernel.call(lambda facade: facade.findings(GROUP))
    assert finding.reason is Reason.EGRESS_ADDRESS_MISSING
    assert "IPv6" in finding.message


def test_kernel_that_refuses_the_table_is_told_and_asked_again(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_tables: Nftables, _changes: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    with monkeypatch.context() as patched:
        patched.setattr(Nftables, "commit", refuse)
        kernel.configure(node_group(addresses=(V4, V6), pod_egress=PODS))
        move(lab, kernel, V4, V6, source=None, destination="nic0")
        kernel.run(lambda facade: facade.reconcile(GROUP))
        (finding,) = kernel.call(lambda facade: facade.findings(GROUP))
        assert finding.reason is Reason.KERNEL_REFUSED
        assert "not supported" in finding.message
        assert not tables(lab)
    kernel.run(lambda facade: facade.reconcile(GROUP))
    assert tables(lab) == EXPECTED
    assert not kernel.call(lambda facade: facade.findings(GROUP))
