"""Each fault of the lab does what it says, measured by the meters; and a lab leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import (
    CommandFailedError,
    Direction,
    Family,
    Form,
    Host,
    Lab,
    Nic,
    NotInTimeError,
    PingReport,
    PingTrain,
    Sender,
    Sniffer,
    TcpStream,
    remove_stale,
    wait_for,
    with_own_sysfs,
)
from tests.lab.carrier import Carrier
from tests.lab.namespaces import NETNS_DIRECTORY, TAG_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST_V4, HOST_V6 = "198.18.0.11", "2001:db8:0:1::11"
ADDRESSES = {"nic0": (f"{HOST_V4}/24", f"{HOST_V6}/64")}
REPOSITORY = Path(__file__).parents[2]


def has_carrier(host: Host, interface: str) -> bool:
    carrier = Carrier(host.namespace)
    try:
        return carrier.present(interface)
    finally:
        carrier.close()


def pinged(lab: Lab, target: str, *, count: int = 20, source: Host | None = None) -> PingReport:
    """Send `count` pings from peer 1, which is a whole network away from the host's first NIC."""
    with PingTrain((source or lab.peer(1)).namespace, target, spacing=0.005, linger=0.2) as train:
        wait_for(lambda: len(train.report().sent), lambda n: n >= count)
    return train.report()


def answers(lab: Lab, target: str, source: Host | None = None) -> bool:
    return pinged(lab, target, source=source).lost == 0


def returns(lab: Lab, target: str, source: Host | None = None) -> None:
    """Service comes back; not with the first ping, for a neighbour that was not found is asked once a second."""
    with PingTrain((source or lab.peer(1)).namespace, target) as train:
        train.wait_answered()


def silent(lab: Lab, target: str, source: Host | None = None) -> bool:
    report = pinged(lab, target, source=source)
    return report.lost == len(report.sent)


@pytest.fixture
def wired() -> Iterator[Lab]:
    """A lab whose host has addresses on nic0, and answers ARP for them there only."""
    with Lab(nic_addresses=ADDRESSES) as running:
        running.host.namespace.sysctl({"ipv4/conf/all/arp_ignore": 1, "ipv4/conf/all/arp_announce": 2})
        yield running


def test_switches_peers_and_hosts_are_one_ip_link(wired: Lab) -> None:
    assert wired.peer(0).only.switch is not wired.peer(1).only.switch
    for target in (HOST_V4, HOST_V6):
        assert answers(wired, target)
        assert answers(wired, target, wired.peer(0))


def test_router_joins_the_network_behind_it() -> None:
    with Lab(router=True) as lab:
        assert answers(lab, lab.hosts["remote"].ipv4)
        assert answers(lab, lab.hosts["remote"].ipv6)


def test_topologies_are_choosable() -> None:
    with Lab(("left", "right", "spare"), hosts=("a", "b"), switches=3, peers=1) as lab:
        assert sorted(lab.hosts) == ["a", "b", "peer0"]
        assert [nic.switch.name for nic in lab.hosts["b"].nics.values()] == ["sw0", "sw1", "sw2"]
        assert all(has_carrier(lab.host, name) for name in ("left", "right", "spare"))


def test_host_joins_a_running_lab(lab: Lab) -> None:
    late = lab.add_host("late", {"eth0": lab.switches[1]}, addresses={"eth0": ("198.18.0.77/24",)})
    with PingTrain(lab.peer(0).namespace, late.ipv4) as train:
        train.wait_answered()


def test_pulled_cable_loses_carrier_on_that_nic_only(lab: Lab) -> None:
    lab.host.nic("nic0").unplug()
    assert not has_carrier(lab.host, "nic0")
    assert has_carrier(lab.host, "nic1")
    lab.host.nic("nic0").plug()
    assert has_carrier(lab.host, "nic0")


def test_ping_train_measures_how_long_a_cable_was_out(wired: Lab) -> None:
    with PingTrain(wired.peer(1).namespace, HOST_V4, spacing=0.002) as train:
        train.wait_answered()
        pulled = wired.host.nic("nic0").unplug()
        threading.Event().wait(0.3)
        plugged = wired.host.nic("nic0").plug()
        train.wait_answered(20)
        report = train.stop()
    (outage,) = report.outages
    # Pings come and go while a cable is on its way, and this process may have waited for a core.
    assert pulled - 0.2 < outage.start < pulled + 0.2
    assert plugged - 0.2 < outage.end
    assert outage.seconds > 0.2
    assert outage.lost == report.lost
    assert report.between(0, pulled - 0.01).lost == 0


def test_silence_drops_frames_and_keeps_the_carrier(wired: Lab) -> None:
    nic = wired.host.nic("nic0")
    nic.silence()
    assert has_carrier(wired.host, "nic0")
    assert silent(wired, HOST_V4)
    assert silent(wired, HOST_V6)
    nic.restore()
    returns(wired, HOST_V4)
    returns(wired, HOST_V6)


@pytest.mark.parametrize(("direction", "requests_arrive"), [(Direction.SENT, True), (Direction.RECEIVED, False)])
def test_one_way_silence_stops_that_way_only(wired: Lab, direction: Direction, requests_arrive: bool) -> None:
    def requests() -> int:
        table = wired.host.namespace.run("cat", "/proc/net/snmp")
        names, values = (line.split() for line in table.splitlines() if line.startswith("Icmp:"))
        return int(values[names.index("InEchos")])

    returns(wired, HOST_V4)
    wired.host.nic("nic0").silence(direction)
    before = requests()
    assert silent(wired, HOST_V4)
    assert (requests() > before) is requests_arrive


@pytest.mark.parametrize(
    ("family", "dead", "alive"), [(Family.IPV4, HOST_V4, HOST_V6), (Family.IPV6, HOST_V6, HOST_V4)]
)
def test_one_family_may_fall_silent(wired: Lab, family: Family, dead: str, alive: str) -> None:
    wired.host.nic("nic0").silence(families=[family])
    assert silent(wired, dead)
    assert answers(wired, alive)


def test_random_loss_loses_about_its_share(wired: Lab) -> None:
    assert answers(wired, HOST_V4)
    wired.host.nic("nic0").lose(20, Direction.RECEIVED)
    report = pinged(wired, HOST_V4, count=500)
    # Six standard deviations of a binomial either way.
    assert 0.09 < report.lost / len(report.sent) < 0.31


def test_delay_line_delays_both_ways_and_carries_tcp(lab: Lab) -> None:
    target = lab.peer(1)
    line = lab.delay(target.only, 0.04)
    with PingTrain(lab.peer(0).namespace, target.ipv4) as train:
        train.wait_answered(10)
        report = train.stop()
    times = [arrival - sent for sent, arrival in zip(report.sent, report.answered, strict=True) if arrival]
    assert min(times) >= 0.08
    with TcpStream(lab.peer(0).namespace, target.namespace, target.ipv4) as stream:
        stream.wait_received(10)
        assert stream.stop().error is None
    assert lab.delay(target.only, 0.0) is line
    with PingTrain(lab.peer(0).namespace, target.ipv6) as train:
        train.wait_answered(10)


def test_target_that_ignores_probes_is_still_a_neighbour(lab: Lab) -> None:
    target, asker = lab.peer(1), lab.peer(0)
    target.ignore_probes()
    assert silent(lab, target.ipv4, asker)
    assert silent(lab, target.ipv6, asker)
    with TcpStream(asker.namespace, target.namespace, target.ipv4) as stream:
        stream.wait_received()
    target.ignore_probes(ignore=False)
    returns(lab, target.ipv4, asker)


def test_dead_switch_takes_every_carrier_on_it(lab: Lab) -> None:
    lab.switches[0].die()
    assert not has_carrier(lab.host, "nic0")
    assert not has_carrier(lab.peer(0), "eth0")
    assert has_carrier(lab.host, "nic1")
    lab.switches[0].revive()
    assert has_carrier(lab.host, "nic0")
    returns(lab, lab.peer(0).ipv4)


def test_hung_switch_forwards_nothing_and_keeps_every_carrier(wired: Lab) -> None:
    wired.switches[0].hang()
    assert has_carrier(wired.host, "nic0")
    assert silent(wired, HOST_V4)
    assert silent(wired, HOST_V4, wired.peer(0))


def test_cut_between_switches_parts_them_without_a_carrier_lost(wired: Lab) -> None:
    wired.uplink.unplug()
    assert has_carrier(wired.host, "nic0")
    assert has_carrier(wired.host, "nic1")
    assert silent(wired, HOST_V4)
    assert answers(wired, HOST_V4, wired.peer(0))
    wired.uplink.plug()
    returns(wired, HOST_V4)


def test_hot_unplug_and_replug_with_the_index_and_mac_one_chooses(wired: Lab) -> None:
    def link(nic: Nic) -> tuple[int, str]:
        (found,) = nic.host.namespace.ip_json("link", "show", "dev", nic.name)
        return int(found["ifindex"]), str(found["address"])

    nic = wired.host.nic("nic0")
    index, mac = link(nic)
    nic.remove()
    with pytest.raises(CommandFailedError, match="does not exist"):
        link(nic)
    nic.insert(index=index)
    assert link(nic) == (index, mac)
    assert answers(wired, HOST_V4)
    nic.remove()
    nic.insert(index=index + 100, mac="02:00:00:00:99:99")
    assert link(nic) == (index + 100, "02:00:00:00:99:99")


def test_rename_and_move_to_another_namespace(lab: Lab) -> None:
    nic = lab.host.nic("nic0")
    index = nic.index
    nic.rename("renamed")
    assert nic.index == index
    nic.move_to(lab.peer(0).namespace)
    assert lab.host.namespace.ip_json("link", "show", "type", "veth")[0]["ifname"] == "nic1"
    assert "renamed" in lab.peer(0).namespace.run("ip", "link")


@pytest.mark.parametrize("sender", list(Sender))
@pytest.mark.parametrize("address", [HOST_V4, HOST_V6])
def test_tcp_stream_measures_the_gap_in_either_direction(wired: Lab, sender: Sender, address: str) -> None:
    with TcpStream(wired.peer(1).namespace, wired.host.namespace, address, sender) as stream:
        stream.wait_received(20)
        before = time.monotonic()
        quiet_from = wired.host.nic("nic0").silence()
        threading.Event().wait(0.25)
        quiet_to = time.monotonic()
        wired.host.nic("nic0").restore()
        stream.wait_received(20)
        report = stream.stop()
    assert report.error is None
    assert report.received == report.sent
    assert report.longest_gap >= quiet_to - quiet_from
    assert report.between(0, before - 0.02).longest_gap < quiet_to - quiet_from


def test_tcp_stream_says_what_broke_it(wired: Lab) -> None:
    with TcpStream(wired.peer(1).namespace, wired.host.namespace, HOST_V4) as stream:
        stream.wait_received()
        chain = "type filter hook input priority 0\n  tcp dport 1-65535 reject with tcp reset"
        rules = f"table inet t {{\n chain c {{\n  {chain}\n }}\n}}\n"
        wired.host.namespace.run("nft", "-f", "-", text=rules)
        error = wait_for(lambda: stream.report().error, what="an error")
    assert "reset" in str(error)


def test_sniffer_hears_announcements_of_either_family_on_the_other_switch(lab: Lab) -> None:
    mac = bytes.fromhex(lab.host.nic("nic0").mac.replace(":", ""))
    address = socket.inet_aton("198.18.0.99")
    broadcast = b"\xff" * 6
    arp = b"\x00\x01\x08\x00\x06\x04\x00\x01" + mac + address + bytes(6) + address
    v6 = socket.inet_pton(socket.AF_INET6, "2001:db8::99")
    advertisement = b"\x88\x00\x00\x00\x20\x00\x00\x00" + v6 + b"\x02\x01" + mac
    ipv6 = b"\x60\x00\x00\x00" + len(advertisement).to_bytes(2) + b"\x3a\xff" + v6 + v6
    with (
        lab.host.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW) as line,
        Sniffer(lab.peer(1).namespace) as sniffer,
    ):
        line.bind(("nic0", 0))
        before = time.monotonic()
        line.send(broadcast + mac + b"\x08\x06" + arp)
        line.send(broadcast + mac + b"\x86\xdd" + ipv6 + advertisement)
        request = sniffer.wait_announced("198.18.0.99", lab.host.nic("nic0").mac)
        advert = sniffer.wait_announced("2001:db8::99", lab.host.nic("nic0").mac)
    assert (request.form, advert.form) == (Form.ARP_REQUEST, Form.NEIGHBOUR_ADVERTISEMENT)
    assert before - 0.001 <= request.time <= advert.time <= time.monotonic()
    assert advert.override


def test_waiting_in_vain_says_what_it_saw() -> None:
    with pytest.raises(NotInTimeError, match=r"(?s)moon not within 0 s.*first seen: 41"):
        wait_for(lambda: 41, lambda n: n == 42, deadline=0, what="moon")


def test_own_sysfs_shows_the_interfaces_of_the_namespace(lab: Lab) -> None:
    assert lab.host.namespace.run(*with_own_sysfs(["ls", "/sys/class/net"])).split() == ["lo", "nic0", "nic1"]


def test_failure_in_the_middle_leaves_nothing() -> None:
    lab = Lab()
    sleepers = []

    def break_in_the_middle() -> None:
        with lab:
            sleepers.append(lab.host.namespace.popen(["sleep", "60"]))
            assert list(NETNS_DIRECTORY.glob(f"{lab.tag}-*"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_in_the_middle()
    assert not list(NETNS_DIRECTORY.glob(f"{lab.tag}-*"))
    assert sleepers[0].wait(5) == -signal.SIGKILL


def test_failure_while_it_is_built_leaves_nothing() -> None:
    lab = Lab(nic_addresses={"nic0": ("no-address/24",)})
    with pytest.raises(CommandFailedError, match="no-address"), lab:
        pass
    assert not list(NETNS_DIRECTORY.glob(f"{lab.tag}-*"))


# A shell that runs this in the background hands down an ignored SIGINT.
CHILD = """
import signal, tempfile, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.lab import Lab
with Lab() as lab:
    directory = tempfile.mkdtemp(prefix=f"{lab.tag}-agent-")
    lab.host.namespace.popen(["sleep", "60"])
    print(lab.tag, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_lab_of_an_ended_process_goes_by_itself_or_with_the_next_lab(ending: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY
    ) as child:
        assert child.stdout is not None
        tag = child.stdout.readline().strip()
        assert tag.startswith(f"{TAG_PREFIX}-{child.pid}-")
        assert list(NETNS_DIRECTORY.glob(f"{tag}-*"))
        assert not [name for name in remove_stale() if name.startswith(tag)], "a living lab is nobody's to remove"
        os.kill(child.pid, ending)
        child.wait(10)
    if ending is signal.SIGKILL:
        assert [name for name in remove_stale() if name.startswith(tag)]
    remove_stale()
    assert not list(NETNS_DIRECTORY.glob(f"{tag}-*"))
    assert not list(Path(tempfile.gettempdir()).glob(f"{tag}-*"))
