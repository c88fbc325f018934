"""A switch port that takes smaller frames than the members send is found, though every probe passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.reasons import OBSTACLES, Reason
from ipmp_agent.linux.group import full_frames
from ipmp_api.types import ProbeMethod
from tests.lab import Lab, wait_for
from tests.lab.kernel.running import GROUP, kernel_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipmp_agent.core.findings import Finding
    from tests.lab import Nic
    from tests.lab.kernel.running import RunningKernel


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A host with three NICs."""
    with Lab(("nic0", "nic1", "nic2")) as running:
        yield running


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_frames, "PAUSE", 0.2)


def told(kernel: RunningKernel) -> list[Finding]:
    """What is said of full frames, after a comparison."""
    kernel.run(lambda facade: facade.reconcile(GROUP))
    findings = kernel.call(lambda facade: facade.findings(GROUP))
    return [finding for finding in findings if finding.reason is Reason.FULL_FRAMES_LOST]


def looks(kernel: RunningKernel, number: int) -> list[Finding]:
    """What is said after so many looks more, which begin with a new one."""
    frames = kernel.kernel._groups[GROUP]._features.full_frames
    for _ in range(number):
        before = frames._due
        wait_for(lambda: told(kernel) is not None and frames._due != before, what="another look")  # noqa: B023
    return told(kernel)


def take(nic: Nic, mtu: int) -> None:
    """Have the switch port of a NIC take frames of this size."""
    nic.switch.namespace.ip("link", "set", nic.port, "mtu", str(mtu))


def test_port_that_drops_full_frames_is_told_and_forgotten_when_it_takes_them(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group("nic0", "nic1", "nic2"))
    assert not looks(kernel, full_frames.LOOKS + 2)
    take(lab.host.nic("nic1"), 1400)
    (finding,) = wait_for(lambda: told(kernel), lambda found: [each.interface for each in found] == ["nic1"])
    for pair in ("from nic0 to nic1", "from nic1 to nic0", "from nic1 to nic2", "from nic2 to nic1"):
        wait_for(lambda: told(kernel), lambda found: f"{pair} (1500 bytes)" in found[0].message)  # noqa: B023
    assert "from nic0 to nic2" not in finding.message
    take(lab.host.nic("nic1"), 1500)
    wait_for(lambda: told(kernel), lambda found: not found)
    assert Reason.FULL_FRAMES_LOST in OBSTACLES


def test_silence_says_nothing_of_the_size_of_frames(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group("nic0", "nic1", "nic2"))
    lab.host.nic("nic1").silence()
    lab.host.nic("nic2").unplug()
    assert not looks(kernel, full_frames.LOOKS + 2)


def test_members_take_frames_of_the_size_that_all_of_them_can(lab: Lab, kernel: RunningKernel) -> None:
    """What differs on the host is told as that, and is no fault of a port."""
    lab.host.namespace.ip("link", "set", "nic1", "mtu", "1400")
    kernel.configure(kernel_group("nic0", "nic1", "nic2"))
    assert not looks(kernel, full_frames.LOOKS + 2)


def test_nobody_is_asked_where_no_probes_are_wanted(lab: Lab, kernel: RunningKernel) -> None:
    take(lab.host.nic("nic1"), 1400)
    kernel.configure(kernel_group("nic0", "nic1", "nic2"))
    wait_for(lambda: told(kernel))
    kernel.configure(kernel_group("nic0", "nic1", "nic2", probe_method=ProbeMethod.DISABLED))
    assert not told(kernel)
    assert not kernel.kernel._host.asked_frames


def test_nothing_is_waited_for_after_the_end(kernel: RunningKernel) -> None:
    kernel.configure(kernel_group("nic0", "nic1", "nic2"))
    host = kernel.kernel._host
    wait_for(lambda: (looks(kernel, 1), len(host.asked_frames)), lambda seen: seen[1] == 12)
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert not host.asked_frames
