"""The Debian package on a whole machine: boot, reload, watchdog, upgrade, removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ipmp_agent.commands.client import Client, UnreachableError
from tests import invariants
from tests.cluster.debian import build_package, version
from tests.lab import Lab, PingTrain, wait_for
from tests.lab.dump import KernelDump
from tests.lab.machine import Machine
from tests.lab.scene import DATA_ADDRESSES, OTHER_V4, V4, V6, usual_group
from tests.lab.status import group_view
from tests.lab.topology import bare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.invariants import GroupView

UNIT = "ipmp.service"
MANIFEST = "/etc/ipmp/group.yaml"
ONLINE = """
[Unit]
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c "ip -oneline address show > /root/at-online"

[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_package(tmp_path_factory.mktemp("package"))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as running:
        yield running


def manifest(lab: Lab, **changes: Any) -> str:
    return yaml.safe_dump(usual_group(lab, **changes))


def status(machine: Machine) -> GroupView:
    with Client(machine.place("/run/ipmp")) as client:
        return group_view(client.ask(op="snapshot", live=True)["publication"])


def wait_status(machine: Machine, holds: Callable[[GroupView], object], what: str) -> GroupView:
    def look() -> GroupView | None:
        try:
            return status(machine)
        except (AssertionError, UnreachableError):
            return None  # it starts just now

    seen = wait_for(look, lambda view: view is not None and holds(view), deadline=60, what=what, interval=0.1)
    assert seen is not None
    return seen


def kernel(lab: Lab) -> KernelDump:
    return KernelDump.take(lab.host.namespace.run)


def wait_pid(machine: Machine, before: str) -> str:
    """The main process of the unit, once it is another one that is ready."""
    seen = wait_for(
        lambda: machine.show(UNIT, "MainPID", "ActiveState"),
        lambda seen: seen["ActiveState"] == "active" and seen["MainPID"] not in ("0", before),
        deadline=60,
        what="another agent",
        interval=0.1,
    )
    return seen["MainPID"]


def test_addresses_are_there_before_the_network_is_online_and_the_journal_knows_why_they_moved(
    lab: Lab, package: Path
) -> None:
    files = {MANIFEST: manifest(lab), "/etc/systemd/system/online.service": ONLINE, "/etc/hostname": "lab1\n"}
    with Machine(lab.host, files) as machine:
        machine.install(package)
        machine.enable("online.service")
        machine.boot()
        online = machine.place("/root/at-online")
        wait_for(online.exists, deadline=60, what="the network online")
        held = wait_for(online.read_text, deadline=60, what="its addresses").split()
        assert [address for address in DATA_ADDRESSES if address not in held] == []

        with PingTrain(lab.peer(1).namespace, V4) as pings:
            pings.wait_answered()
            home = status(machine).addresses[V4]
            assert home is not None
            lab.host.nic(home).unplug()
            wait_status(machine, lambda view: view.addresses[V4] not in (home, None), "failover")
            pings.wait_answered(20)
        fields = (f"INTERFACE={home}", "REASON=LinkDown", "GROUP=lab")
        entries = wait_for(lambda: machine.journal("--unit", UNIT, *fields), deadline=60, what="the failure's entry")
        assert entries[0]["PRIORITY"] == "3"
        assert entries[0]["SYSLOG_IDENTIFIER"] == "ipmp-agent"
        assert f"({home} failed)" in machine.show(UNIT, "StatusText")["StatusText"]
        lab.host.nic(home).plug()

        fewer = [address for address in DATA_ADDRESSES if bare(address) != OTHER_V4]
        machine.write(MANIFEST, manifest(lab, addresses=fewer))
        machine.run("systemctl", "reload", UNIT)
        wait_status(machine, lambda view: OTHER_V4 not in view.addresses, "the address that the file no longer has")
        machine.write(MANIFEST, "kind: IPMPGroup\n")
        machine.run("systemctl", "reload", UNIT)
        wait_for(
            lambda: machine.journal("--unit", UNIT, "--priority", "err"),
            lambda found: any("not reloaded" in entry["MESSAGE"] for entry in found),
            deadline=60,
            what="the refusal of a broken file",
        )
        assert V4 in status(machine).addresses

        pid = machine.show(UNIT, "MainPID")["MainPID"]
        machine.call("systemctl", "restart", UNIT)
        ended = wait_for(
            lambda: machine.show(UNIT, "ActiveState", "ExecMainStatus", "NRestarts"),
            lambda seen: seen["ActiveState"] == "failed",
            deadline=60,
            what="a start with a broken file",
        )
        assert (ended["ExecMainStatus"], ended["NRestarts"]) == ("2", "0"), "starting again does not help"
        assert lab.host.holders(V4) != [], "whoever stops leaves everything in place"
        machine.write(MANIFEST, manifest(lab))
        machine.run("systemctl", "restart", UNIT)
        assert wait_pid(machine, pid)


def test_an_agent_that_hangs_is_replaced_and_nothing_moves(lab: Lab, package: Path) -> None:
    shorter = "[Service]\nWatchdogSec=5\n"
    files = {MANIFEST: manifest(lab), f"/etc/systemd/system/{UNIT}.d/shorter.conf": shorter, "/etc/hostname": "lab1\n"}
    with Machine(lab.host, files) as machine:
        machine.install(package)
        machine.boot()
        before = wait_status(machine, lambda view: view.state == "ok", "ok")
        homes = invariants.homes(before.addresses, kernel(lab))
        pid = machine.show(UNIT, "MainPID")["MainPID"]
        with PingTrain(lab.peer(1).namespace, V4) as four, PingTrain(lab.peer(0).namespace, V6) as six:
            four.wait_answered()
            six.wait_answered()
            machine.run("sh", "-c", f"kill -STOP {pid}")
            wait_pid(machine, pid)
            wait_status(machine, lambda view: view.state == "ok", "ok again")
            assert (four.stop().lost, six.stop().lost) == (0, 0)
        invariants.nothing_moved(homes, invariants.homes(before.addresses, kernel(lab)), "the watchdog")
        said = [entry["MESSAGE"] for entry in machine.journal("--unit", UNIT)]
        assert any("Watchdog timeout" in message for message in said)


def test_upgrade_moves_nothing_removal_gives_back_and_purge_leaves_nothing(
    lab: Lab, package: Path, tmp_path: Path
) -> None:
    newer = build_package(tmp_path, f"{version()}+next")
    with Machine(lab.host, {"/etc/hostname": "lab1\n"}) as machine:
        machine.boot()
        found, files = kernel(lab), machine.files()
        machine.run("dpkg", "--install", machine.copy(package))
        assert machine.show(UNIT, "ActiveState", "UnitFileState") == {
            "ActiveState": "inactive",
            "UnitFileState": "enabled",
        }, "without a manifest there is nothing to do"
        machine.write(MANIFEST, manifest(lab))
        machine.run("systemctl", "start", UNIT)
        before = wait_status(machine, lambda view: view.state == "ok", "ok")
        homes = invariants.homes(before.addresses, kernel(lab))
        assert all(homes.values()), "ready means that they are there"
        pid = machine.show(UNIT, "MainPID")["MainPID"]
        with PingTrain(lab.peer(1).namespace, V4) as four, PingTrain(lab.peer(0).namespace, V6) as six:
            four.wait_answered()
            six.wait_answered()
            machine.run("dpkg", "--install", machine.copy(newer))
            wait_pid(machine, pid)
            wait_status(machine, lambda view: view.state == "ok", "ok again")
            assert (four.stop().lost, six.stop().lost) == (0, 0)
        invariants.nothing_moved(homes, invariants.homes(before.addresses, kernel(lab)), "the upgrade")

        machine.run("dpkg", "--remove", "ipmp-agent")
        invariants.as_it_was_found(found, kernel(lab))
        machine.run("dpkg", "--purge", "ipmp-agent")
        assert sorted(machine.files() - files) == []
