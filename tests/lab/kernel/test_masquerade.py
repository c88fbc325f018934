"""Rules of others that masquerade what leaves by members are found in the real kernel, and said."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.reasons import Reason
from ipmp_api.types import Mode
from tests.lab.kernel.running import GROUP, node_group

if TYPE_CHECKING:
    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

NAT = "table {family} cni {{ chain post {{ type nat hook postrouting priority srcnat; {rule}; }}; }}"
BEHIND_A_JUMP = (
    "table ip kube-proxy { chain masquerading { meta mark and 0x4000 == 0 return; masquerade fully-random; };"
    " chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }; }"
)


def said(lab: Lab, kernel: RunningKernel, *rulesets: str, **policies: object) -> str:
    """What is said of masquerading, with these rules on the host."""
    for ruleset in rulesets:
        lab.host.namespace.run("nft", "-f", "-", text=ruleset)
    kernel.configure(node_group(**policies))
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


def test_source_that_pod_egress_names_is_not_said_again(lab: Lab, kernel: RunningKernel) -> None:
    ruleset = NAT.format(family="ip", rule="ip saddr 198.19.64.0/24 masquerade")
    assert not said(lab, kernel, ruleset, pod_egress=(ip_network("198.19.64.0/20"),))
    assert said(lab, kernel, pod_egress=(ip_network("198.19.96.0/20"),))


def test_rule_that_goes_is_said_no_more_and_observing_tells_too(lab: Lab, kernel: RunningKernel) -> None:
    assert said(lab, kernel, NAT.format(family="ip", rule="masquerade"), mode=Mode.OBSERVE)
    assert not said(lab, kernel, "flush ruleset", mode=Mode.OBSERVE)
