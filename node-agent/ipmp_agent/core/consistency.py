"""What does not fit together in a group: reported, never fatal.

Every finding names the interface, a reason, and in words what to do. One bad member never takes a good one down.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ipmp_agent.core import timers, transitive
from ipmp_agent.core.actions import Severity
from ipmp_agent.core.events import IP_FAMILIES, Family
from ipmp_agent.core.findings import Finding
from ipmp_agent.core.interface import BROKEN
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import ProbeMethod

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ipmp_agent.core.interface import Interface
    from ipmp_api.types import Address, NodeGroup

SEVERITIES = {
    Reason.MINIMUM_REDUNDANCY: Severity.WARNING,
    Reason.TEST_ADDRESS_MISSING: Severity.INFO,
}
"""How bad a finding is where it is not an error."""


def addresses_used_twice(interfaces: Sequence[Interface]) -> set[Address]:
    """The test addresses that more than one member has: no reply could be told apart."""
    used = Counter(address for interface in interfaces for address in interface.test_addresses.values())
    return {address for address, times in used.items() if times > 1}


def find(configuration: NodeGroup, interfaces: Sequence[Interface]) -> list[Finding]:
    """Everything that does not fit together now."""
    findings: dict[tuple[str, Reason], list[str]] = {}
    twice = addresses_used_twice(interfaces)
    for interface in interfaces:
        if not interface.present or interface.offline:
            continue
        for reason, detail in (
            *_test_addresses(interface, interfaces, twice),
            *_families(interface, interfaces, configuration),
            *_never_answered(interface, interfaces),
        ):
            findings.setdefault((interface.key, reason), []).append(detail)
    for one, other in transitive.deaf_pairs(interfaces):
        detail = f"no frame passes between {one.name} and {other.name}: members must be on one link"
        findings.setdefault((other.key, Reason.NOT_ONE_LINK), []).append(detail)
    return [Finding(reason, "; ".join(details), key) for (key, reason), details in findings.items()]


def _test_addresses(
    interface: Interface, interfaces: Sequence[Interface], twice: set[Address]
) -> Iterator[tuple[Reason, str]]:
    for family in IP_FAMILIES:
        address = interface.test_addresses.get(family)
        if family in interface.duplicates:
            yield (
                Reason.TEST_ADDRESS_DUPLICATE,
                (
                    f"somebody else on the link has the IPv{family.value} test address of {interface.name}: "
                    "it is not used; give it a free one"
                ),
            )
        elif address in twice:
            others = [o.name for o in interfaces if o is not interface and address in o.test_addresses.values()]
            yield (
                Reason.TEST_ADDRESS_DUPLICATE,
                (
                    f"{interface.name} and {', '.join(others)} have the same test address {address}: "
                    "it is not used; give each its own"
                ),
            )


def _families(
    interface: Interface, interfaces: Sequence[Interface], configuration: NodeGroup
) -> Iterator[tuple[Reason, str]]:
    """What is missing, once it has had its time to come."""
    method = configuration.policies.probe_method
    if interface.test_addresses_due < timers.NEVER or method is ProbeMethod.DISABLED:
        return
    for family in IP_FAMILIES:
        if family in interface.test_addresses or family in interface.duplicates:
            continue
        wanted = family is Family.IPV4 and interface.member.test_ipv4
        if wanted:
            yield Reason.TEST_ADDRESS_MISSING, f"{interface.name} does not have its test address {wanted} yet"
        elif any(family in other.test_addresses for other in interfaces if other.present):
            yield (
                Reason.FAMILY_MISSING,
                (
                    f"{interface.name} has no IPv{family.value} address to probe from, other members have: "
                    f"IPv{family.value} addresses may not work on it"
                ),
            )
        elif family is Family.IPV4 and method is ProbeMethod.ICMP:
            yield (
                Reason.TEST_ADDRESS_MISSING,
                (
                    f"{interface.name} has no IPv4 test address, and probes.method ICMP needs one: "
                    "give testAddresses.ipv4 or use Auto"
                ),
            )


def _never_answered(interface: Interface, interfaces: Sequence[Interface]) -> Iterator[tuple[Reason, str]]:
    """A member that has never had an answer, while others have, is more likely on another link than broken."""
    if interface.state not in BROKEN or interface.cause is not Reason.PROBES_LOST:
        return
    probers = interface.probers.values()
    if any(prober.answered_count for prober in probers) or not any(prober.lost_count for prober in probers):
        return
    if any(o.functioning and any(p.answered_count for p in o.probers.values()) for o in interfaces):
        yield (
            Reason.NOT_ONE_LINK,
            f"{interface.name} has never reached a target, other members do: members must be on one link",
        )
