"""Lost carriers by the kernel's counts: found though no event comes and no driver answers."""

from __future__ import annotations

import subprocess
from functools import partial
from operator import le
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core import timers
from ipmp_agent.core.events import LinkChanged, LinksLost
from ipmp_agent.linux.kernel import Kernel
from ipmp_agent.linux.shared import ethtool
from ipmp_agent.linux.shared.losses import Losses
from tests.lab import wait_for
from tests.lab.kernel.running import kernel_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel


@pytest.fixture
def sysfs(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """Where this kernel shows the interfaces of the lab's host."""
    lab.host.namespace.run("mount", "-t", "sysfs", "sysfs", str(tmp_path))
    try:
        yield tmp_path / "class/net"
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.fixture
def deaf(sysfs: Path, monkeypatch: pytest.MonkeyPatch, start_kernel: Callable[[], RunningKernel]) -> RunningKernel:
    """A façade that hears no events and asks no driver after the start: both may wait for a lock of the kernel."""
    monkeypatch.setattr(ethtool, "SYSFS", sysfs)
    monkeypatch.setattr(timers, "CARRIER_POLL", 3600.0)
    monkeypatch.setattr(Kernel, "_heard", lambda *_: None)
    kernel = start_kernel()
    kernel.configure(kernel_group())
    return kernel


def losses_of(lab: Lab, name: str, directory: Path) -> Losses:
    (link,) = lab.host.namespace.ip_json("link", "show", name)
    return Losses(name, link["ifindex"], link["address"], directory)


def test_a_loss_counts_until_the_carrier_is_back(lab: Lab, sysfs: Path) -> None:
    nic, losses = lab.host.nic("nic0"), losses_of(lab, "nic0", sysfs)
    assert not losses.moved()
    assert not losses.lost()
    nic.unplug()
    assert losses.moved()
    assert losses.lost()
    assert losses.lost(), "until it is back or noted"
    nic.plug()
    assert losses.moved()
    assert not losses.lost()
    assert not losses.moved(), "a loss that is over is told once"
    nic.unplug()
    losses.note()
    assert not losses.lost()


def test_another_interface_of_that_name_is_not_believed(lab: Lab, sysfs: Path) -> None:
    (link,) = lab.host.namespace.ip_json("link", "show", "nic0")
    with pytest.raises(FileNotFoundError):
        Losses("nic0", link["ifindex"] + 1, link["address"], sysfs)
    with pytest.raises(FileNotFoundError):
        Losses("nic0", link["ifindex"], "02:00:00:00:99:99", sysfs)
    with pytest.raises(FileNotFoundError):
        Losses("nic9", 1, link["address"], sysfs)


def test_an_interface_that_is_gone_or_renamed_has_no_new_losses(lab: Lab, sysfs: Path) -> None:
    gone, renamed = losses_of(lab, "nic0", sysfs), losses_of(lab, "nic1", sysfs)
    lab.host.namespace.ip("link", "delete", "nic0")
    assert not gone.moved()
    assert not gone.lost()
    lab.host.namespace.batch(["link set nic1 down", "link set nic1 name other", "link set other up"])
    assert not renamed.lost(), "it went with the interface, and came back"


def test_a_pulled_cable_is_found_by_the_count_alone(lab: Lab, deaf: RunningKernel) -> None:
    lab.host.nic("nic0").unplug()
    deaf.await_event(LinkChanged, lambda event: event == LinkChanged("nic0", up=False))
    assert deaf.call(lambda kernel: kernel.counters["carrier_by_count"]) == 1
    assert not [event for event in deaf.events(LinkChanged) if event.interface != "nic0"]


def test_a_dead_switch_takes_all_its_members_in_one_event(lab: Lab, deaf: RunningKernel) -> None:
    deaf.call(lambda _: [lab.host.nic(name).unplug() for name in ("nic0", "nic1")])  # the loop looks at both
    event = deaf.await_event(LinksLost)
    assert set(event.interfaces) == {"nic0", "nic1"}


def test_a_link_that_returns_is_counted_anew(
    lab: Lab, sysfs: Path, monkeypatch: pytest.MonkeyPatch, start_kernel: Callable[[], RunningKernel]
) -> None:
    monkeypatch.setattr(ethtool, "SYSFS", sysfs)
    kernel = start_kernel()
    kernel.configure(kernel_group())
    nic = lab.host.nic("nic0")
    for pulled in range(1, 4):
        nic.unplug()
        wait_for(lambda: [event.up for event in kernel.events(LinkChanged)].count(False), partial(le, pulled))
        nic.plug()
        wait_for(lambda: kernel.events(LinkChanged), lambda events: events[-1].up)
