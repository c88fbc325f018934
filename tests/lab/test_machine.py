"""The Debian package on a whole machine: boot, reload, watchdog, upgrade, removal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ipmp_agent.commands.client import Client, UnreachableError
from ipmp_agent.disk.state import FILE_NAME
from ipmp_agent.process import handover
from tests import invariants
from tests.cluster.debian import SOURCES, build_package, version
from tests.lab import Agent, Lab, PingTrain, wait_for
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
PAGE = (SOURCES.parents[1] / "docs/file-mode.md").read_text(encoding="utf-8")
MARK = "-- command --"
MANIFEST = "/etc/ipmp/group.yaml"
ONLINE = """
[Unit]
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c "ip -oneline address show > /srv/at-online"

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
        online = machine.place("/srv/at-online")
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


def test_a_node_has_its_addresses_before_its_kubelet_and_keeps_them_while_agents_change(
    lab: Lab, package: Path, tmp_path: Path
) -> None:
    """What the agent of a pod left on the disk is all that the host has; the kernel of another boot is empty."""
    with Agent(lab, usual_group(lab)) as agent:
        agent.wait_for(lambda s: group_view(s).state == "ok", what="ok")
        assert agent.stop() == 0
        saved = (agent.state_directory / FILE_NAME).read_text(encoding="utf-8")
        assert agent.withdraw().returncode == 0
    assert lab.host.holders(V4) == []
    files = {
        f"/var/lib/ipmp/{FILE_NAME}": saved,
        f"/var/lib/ipmp/{handover.MARK}": "",
        f"/etc/systemd/system/{UNIT}.d/stand-in.conf": (SOURCES / "stand-in.conf").read_text(encoding="utf-8"),
        "/etc/systemd/system/kubelet.service": ONLINE,
        "/etc/hostname": "lab1\n",
    }
    with Machine(lab.host, files) as machine:
        machine.install(package)
        machine.enable("kubelet.service")
        machine.boot()
        seen = machine.place("/srv/at-online")
        wait_for(lambda: seen.exists() and seen.read_text(), deadline=60, what="a kubelet")
        held = seen.read_text().split()
        assert [address for address in DATA_ADDRESSES if address not in held] == []
        before = wait_status(machine, lambda view: view.state == "ok", "ok")
        homes = invariants.homes(before.addresses, kernel(lab))
        pid = machine.show(UNIT, "MainPID")["MainPID"]

        with PingTrain(lab.peer(1).namespace, V4) as four, PingTrain(lab.peer(0).namespace, V6) as six:
            four.wait_answered()
            six.wait_answered()
            with Client(machine.place("/run/ipmp")) as client:
                assert client.ask(op="hand over")["ok"]
            says = "standing by: no agent is here"
            wait_for(lambda: machine.show(UNIT, "StatusText")["StatusText"], lambda seen: seen == says, deadline=60)
            wait_status(machine, lambda view: view.state == "ok", "ok again: nobody came")
            assert (four.stop().lost, six.stop().lost) == (0, 0)
        assert machine.show(UNIT, "MainPID", "NRestarts") == {"MainPID": pid, "NRestarts": "0"}
        invariants.nothing_moved(homes, invariants.homes(before.addresses, kernel(lab)), "two hand-overs")

        machine.run("dpkg", "--remove", "ipmp-agent")
        invariants.nothing_moved(homes, invariants.homes(before.addresses, kernel(lab)), "the end of a stand-in")


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


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def translated(text: str, package: Path) -> str:
    """What somebody with these interfaces and this package would type."""
    names = {"eth1": "nic0", "eth2": "nic1", f"./ipmp-agent_{version()}_all.deb": f"/srv/{package.name}"}
    return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)


def typed(machine: Machine, title: str, package: Path) -> list[str]:
    """What each command of a section of the page prints, typed in one shell that ends with the first that fails."""
    text = section(title)
    for path, content in re.findall(r"^```yaml (/\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        machine.write(path, translated(content, package))
    lines = re.findall(r"^    (\S.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    assert lines, title
    script = "\n".join(f"echo {MARK}\n{translated(line, package)}" for line in lines)
    return machine.run("bash", "-euo", "pipefail", "-c", script).split(f"{MARK}\n")[1:]


def test_every_command_of_the_page_does_what_the_page_says(lab: Lab, package: Path) -> None:
    with Machine(lab.host, {"/etc/hostname": "lab1\n"}) as machine:
        machine.boot()
        machine.copy(package)
        typed(machine, "Install", package)
        check, _, interfaces, addresses = typed(machine, "The first group", package)
        assert check == "front: 2 interfaces, 2 data addresses on lab1: ok\n"
        assert re.search(r"^nic1 +yes +front .* ok$", interfaces, re.MULTILINE)
        assert re.search(r"^198.18.0.100 +up +front ", addresses, re.MULTILINE)
        assert lab.host.holders("198.18.0.100"), "ready means that it is there"
        machine.write("/etc/ipmp/front.yaml", machine.place("/etc/ipmp/front.yaml").read_text().replace("e: 2", "e: 1"))
        typed(machine, "Change", package)
        wait_for(lambda: lab.host.holders("198.18.0.101"), lambda seen: not seen, deadline=60, what="one address less")
        status, offline, online, history, journal = typed(machine, "Watch", package)
        assert 'Status: "front ok"' in status
        assert re.search("^TIME .* Offline +nic0 +nic1 ", history, re.DOTALL)
        assert "offline" in journal
        assert "nic0 of group front is offline" in offline
        assert "nic0 of group front is online" in online
        assert float(re.findall(r"says (\S+) of 10", PAGE)[0]) >= exposure(machine)
        typed(machine, "Upgrade", package)
        assert lab.host.holders("198.18.0.100")
        (*_, standing_in) = typed(machine, "On a node of Kubernetes", package)
        assert standing_in.startswith("StatusText=front ")
        machine.run("rm", "/etc/systemd/system/ipmp.service.d/stand-in.conf")
        machine.run("systemctl", "daemon-reload")
        typed(machine, "Remove", package)
        assert not lab.host.holders("198.18.0.100")
        assert not machine.place("/var/lib/ipmp").exists()


def exposure(machine: Machine) -> float:
    """What systemd thinks of the unit's isolation: 10 is none."""
    (found,) = re.findall(r"Overall exposure level for \S+: (\S+)", machine.run("systemd-analyze", "security", UNIT))
    return float(found)
