"""Who else owns the network, networkd, NetworkManager or people: what they take away is back at once."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core import timers
from ipmp_agent.linux.group.reconcile import LONGEST_WAIT, REPAIRS_AT_ONCE
from tests.lab import wait_for
from tests.lab.networkd import Networkd
from tests.lab.owners import (
    AT_MOST,
    FIGHT,
    ITS_OWN,
    ITS_OWN_V6,
    KEEPING,
    LONG_OUTAGE,
    MANAGED,
    NETWORK,
    OURS,
    TIMES,
    UNMANAGED,
    a_restart_takes_nothing,
    fights,
    networkmanager,
    survived,
    taken,
    told,
    whole,
)
from tests.lab.scene import V4, Scene

if TYPE_CHECKING:
    from tests.lab import Lab


def test_what_a_reconfiguration_takes_away_is_back_at_once_and_said(lab: Lab) -> None:
    """Without the drop-in networkd removes every address, route and nexthop of the link that is not in its file."""
    with Networkd(lab.host, {"10-nic0.network": NETWORK}) as networkd, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        here = {address for address in OURS if lab.host.holders(address) == ["nic0"]}
        assert here
        with told(lab.host.namespace) as lines:
            for _ in range(TIMES):
                networkd.reconfigure("nic0")
                networkd.configured()
                whole(scene, ITS_OWN)
        wait_for(lambda: fights(scene), bool)
        missing = taken(lines, *here)
        assert missing.keys() == here, lines
        assert max(max(times) for times in missing.values()) < AT_MOST
        survived(scene)


def test_networkd_that_is_restarted_takes_nothing_even_without_the_drop_in(lab: Lab) -> None:
    with Networkd(lab.host, {"10-nic0.network": NETWORK}) as networkd, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        with told(lab.host.namespace) as lines:
            for _ in range(TIMES):
                networkd.stop()
                networkd.start()
                networkd.configured()
                whole(scene, ITS_OWN)
        assert not taken(lines, *OURS, ITS_OWN)
        survived(scene)


def test_drop_in_has_networkd_leave_alone_what_is_ours(lab: Lab) -> None:
    with Networkd(lab.host, KEEPING) as networkd, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        with told(lab.host.namespace) as lines:
            for _ in range(TIMES):
                networkd.reconfigure("nic0")
                networkd.configured()
            networkd.stop()
            networkd.start()
            networkd.configured()
            whole(scene, ITS_OWN)
        assert not [line for line in lines if "Deleted" in line and any(f" {a}/" in line for a in OURS)]
        survived(scene)


def test_networkd_that_starts_during_an_outage_lays_its_gateway(lab: Lab) -> None:
    """The twin of the gateway's prefix does not leave by nic0 then, where networkd lays the route."""
    files = KEEPING | {"10-nic0.network": f"{NETWORK}Gateway=198.18.0.1\n"}
    with Networkd(lab.host, files) as networkd, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        lab.host.nic("nic0").silence()
        wait_for(lambda: lab.host.holders(ITS_OWN), lambda holders: holders == ["nic1"])
        networkd.stop()
        lab.host.namespace.ip("route", "flush", "default", "proto", "static")
        networkd.start()
        networkd.configured_at_last("nic0")  # it gives up where its address is moved before it lays the gateway
        words = ("-4", "route", "show", "default", "protocol", "static")
        wait_for(lambda: lab.host.namespace.ip_json(*words), lambda found: [r["dev"] for r in found] == ["nic0"])
        whole(scene, ITS_OWN)
        lab.host.nic("nic0").restore()
        scene.wait_state("ok")
        whole(scene, ITS_OWN)
        survived(scene)


def test_failover_and_failback_beside_networkd(lab: Lab) -> None:
    """It configures the link anew when the carrier returns."""
    with Networkd(lab.host, KEEPING) as networkd, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        lab.host.nic("nic0").unplug()
        wait_for(lambda: lab.host.holders(ITS_OWN), lambda holders: holders == ["nic1"])
        whole(scene, ITS_OWN)
        networkd.stop()
        networkd.start()
        whole(scene, ITS_OWN)
        lab.host.nic("nic0").plug()
        scene.wait_state("ok")
        whole(scene, ITS_OWN)
        survived(scene)


@pytest.mark.parametrize("drop_in", ["", MANAGED])
@pytest.mark.parametrize(
    "orders",
    [
        ["device reapply nic0"] * TIMES,
        ["connection up nic0"],
        ["device set nic0 managed no", "device set nic0 managed yes"],
    ],
)
def test_what_an_order_to_networkmanager_takes_away_is_back_at_once(lab: Lab, drop_in: str, orders: list[str]) -> None:
    with networkmanager(lab, drop_in) as manager, Scene(lab=lab) as scene:
        every = (ITS_OWN, ITS_OWN_V6)
        whole(scene, *every)
        with told(lab.host.namespace) as lines:
            for order in orders:
                manager.nmcli(*order.split())
                whole(scene, *every)
            manager.configured()
            whole(scene, *every)
        missing = taken(lines, *OURS, *every)
        assert missing, lines
        assert max(max(times) for times in missing.values()) < AT_MOST
        wait_for(lambda: fights(scene), lambda said: bool(said) or len(orders) < TIMES)
        survived(scene)


def test_fight_with_networkmanager_is_not_fought_at_full_speed(lab: Lab) -> None:
    """The first repairs come at once, each further one waits twice as long as the one before."""
    with networkmanager(lab, MANAGED) as manager, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        (ours, *_) = [address for address in OURS if lab.host.holders(address) == ["nic0"]]
        orders, end = 0, time.monotonic() + FIGHT
        with told(lab.host.namespace) as lines:
            while time.monotonic() < end:
                manager.nmcli("device", "reapply", "nic0")
                orders += 1
        repairs = sum(f" {ours}/" in line and "Deleted" not in line for line in lines)
        print(f"{orders} orders, {repairs} repairs")
        at_most = 2 * REPAIRS_AT_ONCE + math.log2(FIGHT / timers.REPAIR_FOREIGN) + 1
        assert REPAIRS_AT_ONCE < repairs <= at_most < orders
        wait_for(lambda: lab.host.holders(ours), bool, deadline=2 * LONGEST_WAIT)
        whole(scene, ITS_OWN)
        assert fights(scene)
        survived(scene)


@pytest.mark.parametrize("drop_in", ["", MANAGED, UNMANAGED])
def test_networkmanager_that_is_restarted_takes_nothing(lab: Lab, drop_in: str) -> None:
    with networkmanager(lab, drop_in) as manager, Scene(lab=lab) as scene:
        a_restart_takes_nothing(scene, manager, times=TIMES)


def test_networkmanager_without_a_drop_in_empties_a_device_whose_cable_is_pulled(lab: Lab) -> None:
    """After 6 s, and gives it a link-local address no more."""
    with networkmanager(lab), Scene(lab=lab) as scene:
        whole(scene, ITS_OWN, ITS_OWN_V6)
        lab.host.nic("nic0").unplug()
        link_local = ("-6", "address", "show", "dev", "nic0", "scope", "link")
        wait_for(lambda: lab.host.namespace.ip_json(*link_local), lambda found: not found, deadline=3 * LONG_OUTAGE)
        whole(scene, ITS_OWN, ITS_OWN_V6)
        survived(scene)


@pytest.mark.parametrize("drop_in", [MANAGED, UNMANAGED])
def test_failover_and_failback_beside_networkmanager(lab: Lab, drop_in: str) -> None:
    with networkmanager(lab, drop_in) as manager, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        lab.host.nic("nic0").unplug()
        wait_for(lambda: lab.host.holders(ITS_OWN), lambda holders: holders == ["nic1"])
        with told(lab.host.namespace) as lines:
            time.sleep(LONG_OUTAGE)
        assert not [line for line in lines if "Deleted" in line and " nic0 " in line]
        whole(scene, ITS_OWN)
        manager.stop()
        manager.start()
        whole(scene, ITS_OWN)
        lab.host.nic("nic0").plug()
        scene.wait_state("ok")
        manager.configured()
        wait_for(lambda: lab.host.holders(ITS_OWN), lambda holders: holders == ["nic0"])
        whole(scene, ITS_OWN)
        survived(scene)


@pytest.mark.parametrize(
    "command",
    [
        "address flush dev nic0 scope global",
        "address flush dev nic0",
        "-6 address flush dev nic0 scope global",
        "route flush dev nic0",
        "nexthop flush",
    ],
)
def test_what_people_flush_is_back_at_once(command: str) -> None:
    with Scene() as scene:
        whole(scene)
        with told(scene.lab.host.namespace) as lines:
            scene.lab.host.namespace.ip(*command.split())
            whole(scene)
        missing = taken(lines, *OURS)
        assert all(max(times) < AT_MOST for times in missing.values())
        survived(scene)


def test_data_address_that_somebody_puts_on_another_member_too_is_taken_off(lab: Lab) -> None:
    with Scene(lab=lab) as scene:
        whole(scene)
        other = scene.other(scene.holder(V4))
        with told(lab.host.namespace) as lines:
            lab.host.namespace.ip("address", "add", f"{V4}/32", "dev", other.name)
            wait_for(lambda: lab.host.holders(V4), lambda holders: len(holders) == 1)
        assert any("Deleted" in line and f"{other.name} " in line and V4 in line for line in lines), lines
        whole(scene)
        survived(scene)


def test_interface_bounced_by_hand_fails_over_and_back() -> None:
    with Scene() as scene:
        for name in ("nic0", "nic1"):
            scene.lab.host.namespace.ip("link", "set", name, "down")
            scene.wait_state("degraded")
            whole(scene)
            scene.lab.host.namespace.ip("link", "set", name, "up")
            scene.wait_state("ok")
            whole(scene)
        survived(scene)
