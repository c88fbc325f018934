"""Members that are not alike are named: what works by one is lost by the other, and probes see nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.reasons import OBSTACLES, Reason
from ipmp_api.types import Mode
from tests.lab.kernel.running import GROUP, kernel_group

if TYPE_CHECKING:
    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel


def told(kernel: RunningKernel) -> str:
    """What is said of members that differ, after a comparison."""
    kernel.run(lambda facade: facade.reconcile(GROUP))
    findings = kernel.call(lambda facade: facade.findings(GROUP))
    return " ".join(finding.message for finding in findings if finding.reason is Reason.MEMBERS_DIFFER)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("setting", ["ipv4/conf/{}/forwarding", "ipv6/conf/{}/forwarding", "ipv6/conf/{}/proxy_ndp"])
def test_what_one_member_takes_and_another_drops_is_named_until_they_are_alike(
    lab: Lab, kernel: RunningKernel, setting: str, mode: Mode
) -> None:
    kernel.configure(kernel_group(mode=mode))
    assert not told(kernel)
    lab.host.namespace.sysctl({setting.format("nic0"): 1})
    words = told(kernel)
    assert words.startswith(f"net.{setting.format('nic1').replace('/', '.')} is less than on nic0, which has 1: ")
    assert words.endswith("Set it alike on all members.")
    lab.host.namespace.sysctl({setting.format("nic1"): 1})
    assert not told(kernel)
    assert Reason.MEMBERS_DIFFER in OBSTACLES


def test_members_of_another_mtu_are_named_until_they_are_alike(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    assert not told(kernel)
    lab.host.namespace.ip("link", "set", "nic1", "mtu", "1400")
    assert told(kernel).startswith("the MTUs of members differ (nic0 1500, nic1 1400): frames of more than 1400 bytes")
    lab.host.namespace.ip("link", "set", "nic0", "mtu", "1400")
    assert not told(kernel)
