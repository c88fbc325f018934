"""Which interface a matcher means, what makes one unfit, and which settings it needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group import settings
from ipmp_agent.linux.group.settings import InterfaceSettings
from ipmp_agent.linux.messages import links, netlink
from ipmp_agent.linux.messages.links import Link
from ipmp_api.types import InterfaceMatch

USUAL = links.IFF_UP | links.IFF_LOWER_UP | links.IFF_BROADCAST | links.IFF_MULTICAST


def link(index: int = 2, name: str = "eth0", **changes: Any) -> Link:
    values: dict[str, Any] = {
        "alternative_names": (),
        "mac": "02:00:00:00:00:01",
        "permanent_mac": "",
        "parent": "",
        "kind": "",
        "port_of": "",
        "below": 0,
        "flags": USUAL,
        "media": links.ARPHRD_ETHER,
        "mtu": 1500,
        "settings": (),
        "forwards_ipv6": False,
    }
    return Link(index=index, name=name, **(values | changes))


@pytest.mark.parametrize(
    ("match", "found"),
    [
        (InterfaceMatch(name="eth0"), 2),
        (InterfaceMatch(name="enp3s0"), 3),
        (InterfaceMatch(name="missing"), None),
        (InterfaceMatch(pci_address="0000:AF:00.1"), 4),
        (InterfaceMatch(mac_address="02:00:00:00:00:03"), 3),
        (InterfaceMatch(mac_address="02:00:00:00:00:AA"), 4),  # the permanent address, whatever it wears now
    ],
)
def test_a_matcher_means_one_interface(match: InterfaceMatch, found: int | None) -> None:
    present = [
        link(2),
        link(3, "eth1", alternative_names=("enp3s0",), mac="02:00:00:00:00:03"),
        link(4, "eth2", parent="0000:af:00.1", mac="02:00:00:00:00:04", permanent_mac="02:00:00:00:00:aa"),
    ]
    seen = links.find(match, present)
    assert (seen.index if seen else None) == found


def test_of_those_that_wear_a_mac_the_real_device_is_meant_then_the_oldest() -> None:
    stacked = [link(2, "br0", kind="bridge"), link(5, "eth0"), link(4, "eth0.7", kind="vlan"), link(9, "eth9")]
    found = links.find(InterfaceMatch(mac_address="02:00:00:00:00:01"), stacked)
    assert found is not None
    assert found.name == "eth0"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"kind": "bond"}, None),
        ({"flags": USUAL | links.IFF_LOOPBACK}, Reason.LOOPBACK),
        ({"flags": USUAL | links.IFF_POINTOPOINT}, Reason.POINT_TO_POINT),
        ({"flags": USUAL | links.IFF_NOARP}, Reason.UNSUITABLE_DEVICE),
        ({"flags": USUAL & ~links.IFF_MULTICAST}, Reason.UNSUITABLE_DEVICE),
        ({"flags": USUAL & ~links.IFF_BROADCAST}, Reason.UNSUITABLE_DEVICE),
        ({"media": 32}, Reason.UNSUITABLE_DEVICE),
        ({"kind": "ipvlan"}, Reason.UNSUITABLE_DEVICE),
        ({"port_of": "bond"}, Reason.BOND_MEMBER),
        ({"port_of": "team"}, Reason.BOND_MEMBER),
        ({"port_of": "bridge"}, Reason.BRIDGE_PORT),
        ({"port_of": "openvswitch"}, Reason.BRIDGE_PORT),
        ({"port_of": "vrf"}, Reason.VRF_MEMBER),
        ({"port_of": "unknown"}, Reason.UNSUITABLE_DEVICE),
    ],
)
def test_an_unfit_interface_is_refused_by_what_it_is(changes: dict[str, Any], reason: Reason | None) -> None:
    assert link(**changes).refusal is reason


@pytest.mark.parametrize(
    ("match", "token"),
    [
        (InterfaceMatch(name="eth0"), b"eth0"),
        (InterfaceMatch(mac_address="02:00:00:00:00:AA"), bytes.fromhex("0200000000aa")),
        (InterfaceMatch(pci_address="0000:AF:00.1"), b"0000:af:00.1"),
    ],
)
def test_a_message_about_a_match_contains_its_token(match: InterfaceMatch, token: bytes) -> None:
    assert links.token(match) == token


# -- messages of a Linux 6.18 -----------------------------------------------------------------------------------------


def captured(name: str) -> bytes:
    """The body of an RTM_NEWLINK message, as a kernel sent it."""
    return bytes.fromhex((Path(__file__).parent / "messages" / f"{name}.hex").read_text(encoding="ascii"))


def test_the_message_of_a_virtio_nic_is_read() -> None:
    assert links.decode(captured("virtio")) == link(
        4,
        "eth0",
        mac="52:54:00:12:34:56",
        permanent_mac="52:54:00:12:34:56",
        parent="virtio2",
        mtu=1400,
        flags=0x11043,
        settings=tuple(dict.fromkeys(links.IDENTIFIERS, 0).items()),
    )


def test_the_message_of_a_bridge_port_is_read() -> None:
    assert links.decode(captured("bridge_port")) == link(
        3,
        "nic0",
        alternative_names=("enp1s0f0np0", "uplink-a"),
        kind="veth",
        port_of="bridge",
        flags=0x1003,
        settings=tuple((dict.fromkeys(links.IDENTIFIERS, 0) | {"rp_filter": 2, "promote_secondaries": 1}).items()),
        forwards_ipv6=True,
    )


def test_the_message_of_a_port_of_an_unknown_kind_is_read() -> None:
    head, master = captured("virtio")[:16], netlink.u32(links.IFLA_MASTER, 7)
    assert links.decode(head + netlink.attribute(links.IFLA_IFNAME, b"eth0\0") + master).port_of == "unknown"


def test_a_bare_message_is_an_interface_of_which_little_is_known() -> None:
    found = links.decode(captured("virtio")[:16])
    assert (found.index, found.name, found.mac, found.settings, found.forwards_ipv6) == (4, "", "", (), False)
    assert found.refusal is None, "what kind it is stands in the header"


@given(st.integers(16, 1504), st.sampled_from(["virtio", "bridge_port"]))
def test_a_message_cut_short_is_read_as_far_as_it_goes(length: int, name: str) -> None:
    assert links.decode(captured(name)[:length]).index in (4, 3)


# -- settings ---------------------------------------------------------------------------------------------------------


def having(index: int = 2, **values: int) -> Link:
    return link(index, settings=tuple((dict.fromkeys(settings.WANTED, 0) | values).items()))


def changed(requests: list[bytes]) -> list[dict[str, int]]:
    """What requests set, by name."""
    names = {number: name for name, number in links.IDENTIFIERS.items()}
    found = []
    for request in requests:
        (message,) = netlink.messages(request)
        inet = netlink.attributes(netlink.attributes(message.body, 16)[links.IFLA_AF_SPEC], 0)[2]
        conf = netlink.attributes(netlink.attributes(inet, 0)[links.IFLA_INET_CONF], 0)
        found.append({names[number]: netlink.number(value) for number, value in conf.items()})
    return found


def test_only_what_differs_is_set_and_only_drift_is_counted() -> None:
    counters: Counter[str] = Counter()
    ours = InterfaceSettings(counters)
    found = {"nic0": having(arp_announce=2)}
    assert ours.differences(found) == [], "nothing is changed that is not noted"
    assert ours.note(found)
    assert not ours.note(found), "once"
    assert changed(ours.differences(found)) == [{"arp_ignore": 1, "rp_filter": 2, "promote_secondaries": 1}]
    assert counters["settings_drift"] == 0
    assert ours.differences({"nic0": having(**settings.WANTED)}) == []
    assert changed(ours.differences({"nic0": having(**(settings.WANTED | {"rp_filter": 1}))})) == [{"rp_filter": 2}]
    assert counters["settings_drift"] == 1


def test_values_go_back_unless_somebody_chose_others_meanwhile() -> None:
    ours = InterfaceSettings(Counter())
    ours.note({"nic0": having(rp_filter=1, arp_announce=2)})
    restarted = InterfaceSettings(Counter())
    restarted.remember(ours.memory())
    now = having(**(settings.WANTED | {"promote_secondaries": 0}))
    assert changed(restarted.restore({"nic0": now})) == [{"arp_ignore": 0, "rp_filter": 1}]
    assert restarted.restore({"nic0": now}) == [], "once"


def test_setting_that_an_older_agent_did_not_know_is_noted_as_it_is_found() -> None:
    """What it set is remembered; what it never touched is as the host had it."""
    older = {"rp_filter": 1, "arp_ignore": 0, "arp_announce": 0, "promote_secondaries": 0}
    ours = InterfaceSettings(Counter())
    ours.remember({"nic0": {"index": 2, "values": older}})
    assert ours.note({"nic0": having(**(settings.WANTED | {"arp_filter": 1}))})
    assert ours.memory() == {"nic0": {"index": 2, "values": {**older, "arp_filter": 1}}}


def test_another_interface_under_the_same_key_is_not_given_the_values_of_the_first() -> None:
    ours = InterfaceSettings(Counter())
    ours.note({"nic0": having(2, rp_filter=1)})
    assert ours.restore({"nic0": having(7, **settings.WANTED)}) == []
