"""Set-ups of real hosts in which a group works as it is: settings, prefixes, firewalls, devices that come and go."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests import invariants
from tests.lab import Agent, Lab, PingTrain, wait_for
from tests.lab.agent import group_manifest
from tests.lab.filters import Direction
from tests.lab.scene import V4, V6, Scene
from tests.lab.status import group_status, group_view

if TYPE_CHECKING:
    from collections.abc import Iterator

HARDENED = {
    "ipv4/conf/all/rp_filter": 1,
    "ipv4/conf/all/arp_ignore": 1,
    "ipv4/conf/all/drop_gratuitous_arp": 1,
    "ipv4/conf/all/ignore_routes_with_linkdown": 1,
    "ipv4/conf/all/shared_media": 0,
}
ROUTING = {
    "ipv4/fib_multipath_use_neigh": 1,
    "ipv4/conf/all/arp_notify": 1,
    "ipv4/conf/all/ignore_routes_with_linkdown": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/ip_forward": 1,
}
STATEFUL = """
table inet fw { chain in {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
}; }
"""
CHURN = """
while ip link add br9 type bridge && ip link add ve9 type veth peer name vf9; do ip link del ve9; ip link del br9; done
"""


def test_addresses_move_and_return_whatever_the_settings_of_all_interfaces() -> None:
    with Scene() as scene:
        scene.lab.host.namespace.sysctl(HARDENED)
        scene.flows()
        broken = scene.holder(V4)
        broken.unplug()
        scene.wait_moved(V4, broken)
        scene.flows()
        broken.plug()
        scene.wait_state("ok")
        scene.lab.host.namespace.sysctl(ROUTING)
        silent = scene.other(broken)
        silent.silence()
        scene.wait_state("degraded")
        scene.flows()
        silent.restore()
        scene.wait_state("ok")
        scene.flows()
        scene.settle()


@pytest.mark.parametrize(
    ("address", "host", "peer"),
    [
        ("198.18.0.20/31", (), ("address add 198.18.0.21/31 dev eth0",)),
        (
            "198.19.0.22/32",
            ("route add default via {peer} dev nic0 onlink",),
            ("route add 198.19.0.22 dev eth0",),
        ),
    ],
    ids=["two hosts", "one host"],
)
def test_an_address_of_the_smallest_prefixes_moves_and_returns(
    address: str, host: tuple[str, ...], peer: tuple[str, ...]
) -> None:
    own = address.partition("/")[0]
    lab = Lab(nic_addresses={"nic0": (address,)})
    with lab:
        lab.peer(0).namespace.batch(peer)
        lab.host.namespace.batch(line.format(peer=lab.peer(0).ipv4) for line in host)
        target = "198.18.0.21" if address.endswith("/31") else lab.peer(0).ipv4
        with Agent(lab, group_manifest(targets=[target])) as agent:
            agent.wait_for(lambda s: group_view(s).addresses == {own: "nic0"}, what="adopted")
            agent.wait_for(lambda s: group_view(s).state == "ok", what="ok")
            with PingTrain(lab.peer(0).namespace, own, 0.01) as pings:
                pings.wait_answered()
                lab.host.nic("nic0").unplug()
                wait_for(lambda: lab.host.holders(own), lambda holders: holders == ["nic1"], what="moved")
                pings.wait_answered()
                lab.host.nic("nic0").plug()
                wait_for(lambda: lab.host.holders(own), lambda holders: holders == ["nic0"], deadline=30, what="home")
                pings.wait_answered()


def test_a_member_that_is_deaf_or_mute_fails_and_returns() -> None:
    with Scene() as scene:
        for direction in Direction:
            broken = scene.holder(V6)
            broken.silence(direction)
            scene.wait_moved(V6, broken)
            scene.flows()
            broken.restore()
            scene.wait_state("ok")
            scene.flows()
        scene.settle()


def test_a_firewall_that_lets_answers_in_and_nothing_else_fails_nobody() -> None:
    with Scene(watched=()) as scene:
        homes = scene.homes()
        scene.lab.host.namespace.run("nft", "-f", "-", text=STATEFUL)
        answered = {(key, family): count for key, family, count in counts(scene)}
        assert answered
        wait_for(
            lambda: {(key, family): count for key, family, count in counts(scene)},
            lambda now: all(now[prober] >= before + 10 for prober, before in answered.items()),
            deadline=30,
            what="ten answers to each prober through the firewall",
        )
        invariants.nothing_moved(homes, scene.homes(), "a firewall")
        assert scene.view().state == "ok"


def counts(scene: Scene) -> Iterator[tuple[str, str, int]]:
    """Answers so far, by member and IP version."""
    for member in group_status(scene.agent.status())["interfaces"]:
        for prober in member["probers"]:
            yield member["interface"], prober["family"], prober["answered"]


@contextlib.contextmanager
def devices_that_come_and_go(lab: Lab) -> Iterator[None]:
    """Make and delete bridges and pairs of veth as fast as the kernel takes it."""
    with lab.host.namespace.popen(["sh", "-c", CHURN]) as making:
        try:
            wait_for(lambda: "br9" in lab.host.namespace.run("ip", "-brief", "link"), what="the first device")
            yield
            assert making.poll() is None
        finally:
            making.kill()


def test_devices_that_come_and_go_keep_no_failover_waiting() -> None:
    with Scene() as scene, devices_that_come_and_go(scene.lab):
        broken = scene.holder(V4)
        broken.unplug()
        scene.wait_moved(V4, broken)
        scene.flows()
        broken.plug()
        scene.wait_state("ok")
        scene.flows()


def test_a_member_that_gets_another_mac_address_keeps_its_addresses_and_is_found_by_it() -> None:
    with Scene() as scene:
        nic = scene.holder(V4)
        scene.lab.host.namespace.ip("link", "set", nic.name, "address", "02:00:00:00:77:78")
        seen = lambda: scene.lab.peer(0).namespace.run("ip", "neighbor", "show", V4)  # noqa: E731
        wait_for(seen, lambda text: "02:00:00:00:77:78" in text, what="the new MAC address at a neighbour")
        scene.flows()
        assert scene.wait_state("ok").addresses[V4] == nic.name
        scene.settle()
