"""The main job on real interfaces: what breaks moves the addresses, what does not break them leaves them alone."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from tests import invariants
from tests.lab import Direction, Lab, Sender, TcpStream
from tests.lab.scene import OTHER_V4, OTHER_V6, V4, V6, Scene
from tests.lab.status import targets_heard

DETECTION_TIME = 1.0


def wait_whole_detection_times(count: float = 3) -> None:
    """Give a wrong verdict the time to show itself."""
    threading.Event().wait(count * DETECTION_TIME)


def test_pulled_cable_moves_every_address_and_no_stream_breaks() -> None:
    with Scene() as scene:
        before = scene.settle()
        assert sorted(before.addresses) == sorted([V4, OTHER_V4, V6, OTHER_V6])
        broken = scene.holder(V4)
        healthy = scene.other(broken)
        pulled = broken.unplug()
        scene.sniffer.wait_announced(V4, healthy.mac, since=pulled)
        scene.wait_moved(V4, broken)
        scene.wait_state("degraded")
        scene.flows()
        after = scene.settle()
        assert set(after.addresses.values()) == {healthy.name}
        assert [member.name for member in after.members if not member.usable] == [broken.name]
        for stream in scene.streams.values():
            assert stream.stop().error is None


def test_standby_takes_over_with_its_way_out_and_nobody_else_is_blamed() -> None:
    """With the last leg the kernel drops nexthop group and routes; they are laid again with the move."""
    with Scene(changes={"standby": ("nic1",)}) as scene:
        scene.holder(V4).unplug()
        scene.wait_moved(V4, scene.lab.host.nic("nic0"))
        scene.flows()
        scene.settle()
        assert "ipmp_foreign_changes_total 0.0" in scene.agent.metrics()
        assert not [line for line in scene.agent.log() if "another program" in line.get("message", "")]


@pytest.mark.parametrize("address", [V4, V6])
def test_address_is_announced_in_every_form_and_again_later(address: str) -> None:
    with Scene(watched=()) as scene:
        broken = scene.holder(address)
        healthy = scene.other(broken)
        pulled = broken.unplug()
        first = scene.sniffer.wait_announced(address, healthy.mac, since=pulled)
        threading.Event().wait(1.5)
        heard = scene.sniffer.announcements(address, mac=healthy.mac, since=pulled)
        assert len({one.form for one in heard}) == (2 if address == V4 else 1)
        assert max(one.time for one in heard) > first.time + 1.0, "some ignore an update within 1 s of the last"
        assert all(one.override for one in heard)
        assert {one.ethernet_source for one in heard} == {healthy.mac}


def test_cable_back_repairs_and_spreads_the_addresses_again() -> None:
    with Scene() as scene:
        broken = scene.holder(V4)
        broken.unplug()
        scene.wait_state("degraded")
        scene.flows()
        broken.plug()
        view = scene.wait_state("ok")
        scene.flows()
        view = scene.settle()
        assert Counter(view.addresses.values()) == {broken.name: 2, scene.other(broken).name: 2}
        for stream in scene.streams.values():
            assert stream.stop().error is None


def test_failback_disabled_leaves_a_repaired_standby_pair_where_it_is() -> None:
    with Scene(changes={"failback": "Disabled", "standby": ["nic1"]}) as scene:
        assert scene.holder(V4).name == "nic0"
        scene.holder(V4).unplug()
        scene.wait_state("degraded")
        homes = scene.homes()
        scene.lab.host.nic("nic0").plug()
        scene.wait_state("ok")
        invariants.nothing_moved(homes, scene.homes(), "a repair without failback")


@pytest.mark.parametrize(
    "directions",
    [(), (Direction.SENT,), (Direction.RECEIVED,)],
    ids=["both ways", "sent frames only", "received frames only"],
)
def test_silent_failure_moves_both_families(directions: tuple[Direction, ...]) -> None:
    with Scene() as scene:
        broken = scene.holder(V4)
        started = time.monotonic()
        broken.silence(*directions)
        scene.wait_moved(V4, broken)
        scene.wait_moved(V6, broken)
        scene.wait_state("degraded")
        scene.flows()
        scene.settle()
        outage = scene.pings[V4].report().between(started - 0.1, time.monotonic() - 0.1).longest_outage
        assert outage < 10 * DETECTION_TIME
        broken.restore()
        scene.wait_state("ok")
        scene.flows()
        scene.settle()
        for stream in scene.streams.values():
            assert stream.stop().error is None


@pytest.mark.parametrize(
    "addresses", [(f"{V4}/24", f"{OTHER_V4}/24"), (f"{V6}/64", f"{OTHER_V6}/64")], ids=["v4", "v6"]
)
def test_group_of_one_family_survives_silence(addresses: tuple[str, ...]) -> None:
    watched = addresses[0].partition("/")[0]
    with Scene(changes={"addresses": addresses}, watched=(watched,)) as scene:
        broken = scene.holder(watched)
        broken.silence()
        scene.wait_moved(watched, broken)
        scene.flows()
        scene.settle()


@pytest.mark.parametrize("how", ["ignores probes", "cable out", "silent"])
def test_dead_target_moves_nothing(how: str) -> None:
    with Scene() as scene:
        scene.agent.wait_for(targets_heard, what="an answer of every target to every member")
        homes = scene.homes()
        target = scene.lab.peer(1)
        {"ignores probes": target.ignore_probes, "cable out": target.only.unplug, "silent": target.only.silence}[how]()
        wait_whole_detection_times()
        invariants.nothing_moved(homes, scene.homes(), f"a target that {how}")
        assert scene.view().state == "ok"
        assert scene.pings[V4].stop().lost == 0


def test_all_targets_dead_is_a_group_failure_and_moves_nothing() -> None:
    with Scene() as scene:
        scene.agent.wait_for(targets_heard, what="an answer of every target to every member")
        homes = scene.homes()
        for peer in (scene.lab.peer(0), scene.lab.peer(1)):
            peer.ignore_probes()
        scene.wait_state("failed")
        wait_whole_detection_times()
        invariants.nothing_moved(homes, scene.homes(), "the death of all targets")
        assert all(stream.report().error is None for stream in scene.streams.values())
        for stream in scene.streams.values():
            stream.wait_received()
        for peer in (scene.lab.peer(0), scene.lab.peer(1)):
            peer.ignore_probes(ignore=False)
        scene.wait_state("ok")
        scene.settle()


def test_pulled_cable_moves_the_addresses_though_no_target_answers() -> None:
    with Scene() as scene:
        scene.agent.wait_for(targets_heard, what="an answer of every target to every member")
        for peer in (scene.lab.peer(0), scene.lab.peer(1)):
            peer.ignore_probes()
        scene.wait_state("failed")
        for _ in range(2):
            broken = scene.holder(V4)
            broken.unplug()
            assert scene.wait_moved(V4, broken, deadline=1.0) is scene.other(broken)
            scene.flows()
            assert scene.view().state == "failed"
            broken.plug()
            wait_whole_detection_times()
        assert all(stream.report().error is None for stream in scene.streams.values())
        for peer in (scene.lab.peer(0), scene.lab.peer(1)):
            peer.ignore_probes(ignore=False)
        scene.wait_state("ok")
        scene.flows()
        scene.settle()


def test_dead_switch_with_its_uplink_leaves_the_other_nic_in_charge() -> None:
    with Scene() as scene:
        scene.lab.switches[1].die()
        scene.wait_state("degraded")
        scene.flows()
        view = scene.settle()
        assert view.usable == {"nic0"}
        scene.lab.switches[1].revive()
        scene.wait_state("ok")
        scene.flows()
        scene.settle()


def test_cut_between_switches_strands_no_address_on_the_side_without_targets() -> None:
    """Peer 1 is gone with its switch; peer 0 answers nic0 only, so nic1 has nobody: it failed, nic0 did not."""
    with Scene() as scene:
        scene.lab.peer(1).only.unplug()
        scene.lab.uplink.unplug()
        scene.wait_state("degraded")
        assert scene.settle().usable == {"nic0"}
        scene.flows()


def test_switch_that_takes_both_nics_along_fails_the_group_and_moves_nothing() -> None:
    with Scene(Lab(switches=1)) as scene:
        nics = scene.lab.host.nics.values()
        for _ in range(3):
            homes = scene.homes()
            scene.lab.switches[0].cut(*(nic.port for nic in nics))
            scene.wait_state("failed")
            invariants.nothing_moved(homes, scene.homes(), "the failure of all links")
            scene.lab.switches[0].mend(*(nic.port for nic in nics))
            scene.wait_state("ok")
            scene.flows()
        scene.settle()


def test_only_nic_left_fails_the_group_and_the_addresses_stay() -> None:
    with Scene() as scene:
        scene.lab.host.nic("nic0").unplug()
        scene.wait_state("degraded")
        scene.settle()
        homes = scene.homes()
        scene.lab.host.nic("nic1").unplug()
        scene.wait_state("failed")
        invariants.nothing_moved(homes, scene.homes(), "group failure")
        scene.lab.host.nic("nic0").plug()
        scene.wait_state("degraded")
        scene.wait_moved(V4, scene.lab.host.nic("nic1"))
        scene.flows()


@pytest.mark.parametrize("gateway", ["198.18.0.1", "2001:db8:0:1::1"], ids=["v4", "v6"])
def test_traffic_of_the_host_itself_survives_through_the_router(gateway: str) -> None:
    """The default route leaves by a member: its twin must follow, the route itself stays as the host made it."""
    lab = Lab(router=True, nic_addresses={"nic0": ("198.18.0.11/24", "2001:db8:0:1::11/64")})
    remote = lab.hosts["remote"]
    with Scene(lab) as scene:
        lab.host.namespace.ip("route", "add", "default", "via", gateway, "dev", "nic0")
        address = remote.ipv6 if ":" in gateway else remote.ipv4
        with TcpStream(lab.host.namespace, remote.namespace, address, Sender.CLIENT) as stream:
            stream.wait_received()
            lab.host.nic("nic0").unplug()
            scene.wait_state("degraded")
            stream.wait_received(deadline=30)
            lab.host.nic("nic0").plug()
            scene.wait_state("ok")
            stream.wait_received(deadline=30)
            assert stream.stop().error is None
        scene.settle()


def test_three_addresses_pulled_back_and_forth_keep_every_stream() -> None:
    with Scene(lab=Lab(("nic0", "nic1", "nic2"))) as scene:
        for name in ("nic0", "nic1", "nic2"):
            nic = scene.lab.host.nic(name)
            nic.unplug()
            scene.wait_state("degraded")
            scene.flows()
            nic.plug()
            scene.wait_state("ok")
            scene.flows()
            scene.settle()
        for stream in scene.streams.values():
            assert stream.stop().error is None
