"""Proxy entries hang on one member: neighbours learn its MAC address for what stands behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.reasons import OBSTACLES, Reason
from tests.lab.kernel.running import GROUP, kernel_group

if TYPE_CHECKING:
    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel


def told(kernel: RunningKernel) -> str:
    """What is said of proxy entries, after a comparison."""
    kernel.run(lambda facade: facade.reconcile(GROUP))
    findings = kernel.call(lambda facade: facade.findings(GROUP))
    return " ".join(finding.message for finding in findings if finding.reason is Reason.PROXY_NEIGHBOR)


@pytest.mark.parametrize("address", ["198.18.0.77", "2001:db8:0:1::77"])
def test_address_that_a_member_answers_for_by_a_proxy_entry_is_named(
    lab: Lab, kernel: RunningKernel, address: str
) -> None:
    host = lab.host.namespace
    host.ip("link", "add", "spare", "type", "bridge")
    host.ip("neigh", "add", "proxy", "203.0.113.9", "dev", "spare")
    kernel.configure(kernel_group())
    assert not told(kernel)
    host.ip("neigh", "add", "proxy", address, "dev", "nic0")
    assert told(kernel).startswith(f"proxy entries have members answer for {address} (nic0): ")
    host.ip("neigh", "add", "proxy", address, "dev", "nic1")
    assert f"{address} (nic0, nic1)" in told(kernel)
    for name in ("nic0", "nic1"):
        host.ip("neigh", "del", "proxy", address, "dev", name)
    assert not told(kernel)
    assert Reason.PROXY_NEIGHBOR in OBSTACLES
