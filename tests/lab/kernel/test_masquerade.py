"""Rules of others that masquerade what leaves by members are found in the real kernel, and said."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages.nftables import EGRESS_PRIORITY
from ipmp_api.types import Mode
from tests.lab.kernel.running import GROUP, kernel_group
from tests.lab.kernel.tables import owned_table

if TYPE_CHECKING:
    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

NAT = "table {family} cni {{ chain post {{ type nat hook postrouting priority srcnat; {rule}; }}; }}"
BEHIND_A_JUMP = (
    "table ip kube-proxy { chain masquerading { meta mark and 0x4000 == 0 return; masquerade fully-random; };"
    " chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }; }"
)


def said(lab: Lab, kernel: RunningKernel, *rulesets: str, **policies: Any) -> str:
    """What is said of masquerading, with these rules on the host."""
    for ruleset in rulesets:
        lab.host.namespace.run("nft", "-f", "-", text=ruleset)
    kernel.configure(kernel_group(**policies))
    kernel.run(lambda facade: facade.reconcile(GROUP))
    found = kernel.call(lambda facade: facade.findings(GROUP))
    return " ".join(finding.message for finding in found if finding.reason is Reason.MASQUERADED)


@pytest.mark.parametrize(
    ("family", "rule", "place"),
    [
        ("ip", "masquerade", "ip cni post"),
        ("inet", "ip saddr 198.19.0.0/16 masquerade", "inet cni post"),
        ("ip", 'oifname "nic1" masquerade', "ip cni post"),
        ("ip", 'oifname "nic*" masquerade', "ip cni post"),
        ("ip6", "ip6 saddr 2001:db8:0:64::/64 masquerade", "ip6 cni post"),
        ("ip", 'oifname != "lo" masquerade', "ip cni post"),
        ("ip", "ip saddr & 255.0.255.0 == 198.0.7.0 masquerade", "ip cni post"),
    ],
)
def test_rule_that_hits_members_is_named(lab: Lab, kernel: RunningKernel, family: str, rule: str, place: str) -> None:
    assert f"nftables {place}." in said(lab, kernel, NAT.format(family=family, rule=rule))


@pytest.mark.parametrize(
    "ruleset",
    [
        NAT.format(family="ip", rule='oifname "lo" masquerade'),
        NAT.format(family="ip", rule='oifname "tun*" masquerade'),
        NAT.format(family="ip", rule="snat to 198.18.0.10"),
        "table ip cni { chain unused { masquerade; }; }",
    ],
    ids=["other interface", "other interfaces", "source NAT", "chain that nobody jumps to"],
)
def test_rule_that_hits_no_member_is_not_said(lab: Lab, kernel: RunningKernel, ruleset: str) -> None:
    assert not said(lab, kernel, ruleset)


def test_rule_behind_a_jump_is_found_where_it_is(lab: Lab, kernel: RunningKernel) -> None:
    assert "nftables ip kube-proxy masquerading." in said(lab, kernel, BEHIND_A_JUMP)


def test_chains_that_jump_in_a_ring_end(lab: Lab, kernel: RunningKernel) -> None:
    """The kernel refuses a ring of jumps; many ways to one chain are walked once each."""
    ways = " ".join(f"ip daddr 198.19.{number}.0/24 jump last;" for number in range(50))
    ruleset = (
        "table ip many { chain last { masquerade; }; "
        f"chain post {{ type nat hook postrouting priority srcnat; {ways} }}; }}"
    )
    assert said(lab, kernel, ruleset).count("many last") == 1


def test_rules_of_iptables_on_nf_tables_are_found(lab: Lab, kernel: RunningKernel) -> None:
    host = lab.host.namespace
    host.run("iptables-nft", "-t", "nat", "-N", "KUBE-POSTROUTING")
    host.run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-j", "KUBE-POSTROUTING")
    host.run("iptables-nft", "-t", "nat", "-A", "KUBE-POSTROUTING", "-j", "MASQUERADE", "--random-fully")
    assert "nftables ip nat KUBE-POSTROUTING." in said(lab, kernel)


# -- and podEgress ----------------------------------------------------------------------------------------------------

V4, V6 = ip_interface("198.18.0.10/24"), ip_interface("2001:db8:0:1::10/64")
PODS_V4, PODS_V6 = ip_network("198.19.64.0/20"), ip_network("2001:db8:0:64::/64")
INSIDE = NAT.format(family="ip", rule="ip saddr 198.19.64.0/24 masquerade")
EVERYTHING = NAT.format(family="inet", rule="masquerade")


def beside(lab: Lab, kernel: RunningKernel, ruleset: str, *networks: Any, **group: Any) -> str:
    """What is said of masquerading beside podEgress for these networks; the host has an address of each family."""
    lab.host.namespace.batch(f"address replace {each} dev nic0" for each in group.get("addresses", (V4, V6)))
    return said(lab, kernel, ruleset, **{"addresses": (V4, V6), "pod_egress": networks} | group)


@pytest.mark.parametrize("mode", list(Mode))
def test_source_that_pod_egress_names_is_not_said_again(lab: Lab, kernel: RunningKernel, mode: Mode) -> None:
    assert not beside(lab, kernel, INSIDE, PODS_V4, mode=mode)
    assert beside(lab, kernel, "", ip_network("198.19.96.0/20"), mode=mode)


@pytest.mark.parametrize(("priority", "is_said"), [(-50, True), (EGRESS_PRIORITY, True), (EGRESS_PRIORITY + 1, False)])
def test_chain_that_comes_before_ours_is_said_with_its_priority(
    lab: Lab, kernel: RunningKernel, priority: int, *, is_said: bool
) -> None:
    words = beside(lab, kernel, INSIDE.replace("srcnat", str(priority)), PODS_V4)
    assert (f"ip cni post (priority {priority}, before podEgress)" in words) is is_said


@pytest.mark.parametrize(
    ("ruleset", "networks", "is_said"),
    [
        (NAT.format(family="ip6", rule="masquerade"), (), True),
        (NAT.format(family="ip6", rule="masquerade"), (PODS_V4,), False),
        (NAT.format(family="ip6", rule="masquerade"), (PODS_V4, PODS_V6), False),
        (EVERYTHING, (), True),
        (EVERYTHING, (PODS_V4,), False),
        (EVERYTHING, (PODS_V4, PODS_V6), False),
        (NAT.format(family="inet", rule="meta nfproto ipv6 masquerade"), (), True),
        (NAT.format(family="inet", rule="meta nfproto ipv6 masquerade"), (PODS_V4,), False),
    ],
)
def test_rule_without_a_source_counts_for_the_versions_of_the_pods_that_are_named(
    lab: Lab, kernel: RunningKernel, ruleset: str, networks: Any, *, is_said: bool
) -> None:
    assert bool(beside(lab, kernel, ruleset, *networks)) is is_said


def test_networks_for_which_there_is_no_address_cover_nothing(lab: Lab, kernel: RunningKernel) -> None:
    assert beside(lab, kernel, NAT.format(family="ip6", rule="masquerade"), PODS_V4, PODS_V6, addresses=(V4,))
    assert not beside(lab, kernel, f"flush ruleset\n{INSIDE}", PODS_V4, PODS_V6, addresses=(V4,))


def test_table_that_the_kernel_refuses_covers_nothing(lab: Lab, kernel: RunningKernel) -> None:
    with owned_table(lab):
        assert beside(lab, kernel, INSIDE, PODS_V4)


def test_rule_that_goes_is_said_no_more_and_observing_tells_too(lab: Lab, kernel: RunningKernel) -> None:
    assert said(lab, kernel, NAT.format(family="ip", rule="masquerade"), mode=Mode.OBSERVE)
    assert not said(lab, kernel, "flush ruleset", mode=Mode.OBSERVE)
