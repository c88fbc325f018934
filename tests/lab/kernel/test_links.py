"""Members on real interfaces: found, judged fit, and followed through everything that happens to a NIC."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import stat
import struct
import sys
import time
from collections import Counter
from functools import partial
from ipaddress import ip_interface
from operator import eq
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.actions import SetNominee, SetOutbound
from ipmp_agent.core.events import InterfaceFound, InterfaceVanished, LinkChanged, LinksLost
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import links, netlink
from ipmp_agent.linux.shared import ethtool
from ipmp_api.types import InterfaceMatch, Member
from tests.lab import uml, wait_for
from tests.lab.carrier import Carrier
from tests.lab.kernel.bare import Notifications
from tests.lab.kernel.running import GROUP, kernel_group, moves, place
from tests.lab.namespaces import CommandFailedError, batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ipmp_agent.linux.kernel import Kernel
    from ipmp_agent.linux.messages.netlink import Message
    from tests.lab import Lab, Namespace
    from tests.lab.kernel.running import RunningKernel

TUNSETIFF, TUNSETCARRIER = 0x400454CA, 0x400454E2
IFF_TAP, IFF_NO_PI = 0x2, 0x1000


def found(told: Sequence[object]) -> dict[str, InterfaceFound]:
    return {event.interface: event for event in told if isinstance(event, InterfaceFound)}


def test_members_are_told_before_configure_returns(lab: Lab, kernel: RunningKernel) -> None:
    told = found(kernel.configure(kernel_group()))
    for name in ("nic0", "nic1"):
        nic = lab.host.nic(name)
        assert told[name] == InterfaceFound(name, name, nic.index, nic.mac, link=True, speed_megabits=10000)


def test_a_member_without_carrier_is_told_so(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.nic("nic1").unplug()
    told = found(kernel.configure(kernel_group()))
    assert (told["nic0"].link, told["nic1"].link) == (True, False)


def test_members_are_matched_by_alternative_name_and_mac(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.ip("link", "property", "add", "dev", "nic0", "altname", "enp1s0f0np0")
    mac = lab.host.nic("nic1").mac.upper()
    told = found(kernel.configure(kernel_group("enp1s0f0np0", Member(InterfaceMatch(mac_address=mac)))))
    assert (told["enp1s0f0np0"].name, told[mac].name) == ("nic0", "nic1")


def test_a_mac_worn_by_a_stacked_device_too_means_the_one_below(lab: Lab, kernel: RunningKernel) -> None:
    mac = lab.host.nic("nic0").mac
    lab.host.namespace.batch(
        ["link add link nic1 name child type macvlan mode bridge", f"link set child address {mac}"]
    )
    assert found(kernel.configure(kernel_group(Member(InterfaceMatch(mac_address=mac)))))[mac].name == "nic0"


def test_carrier_loss_and_return_are_told_once(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    nic = lab.host.nic("nic0")
    for _ in range(3):
        kernel.forget()
        nic.unplug()
        assert kernel.await_event(LinkChanged) == LinkChanged("nic0", up=False)
        nic.plug()
        kernel.await_event(LinkChanged, lambda e: e.up)
        assert kernel.events(LinkChanged) == [LinkChanged("nic0", up=False), LinkChanged("nic0", up=True)]


@pytest.mark.parametrize("reported", [True, False], ids=["reported", "not reported"])
@pytest.mark.parametrize("lab", [{"switches": 1}], indirect=True)
def test_carriers_that_go_in_the_same_instant_are_told_together(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch, *, reported: bool
) -> None:
    if not reported:
        monkeypatch.setattr(ethtool, "ETHTOOL_GLINK", 0xFFFF)  # no driver answers this
    told = kernel.configure(kernel_group())
    assert [event.link for event in told if isinstance(event, InterfaceFound)] == [True if reported else None] * 2
    ports = [nic.port for nic in lab.host.nics.values()]
    for _ in range(5):
        kernel.forget()
        lab.switches[0].cut(*ports)
        assert set(kernel.await_event(LinksLost).interfaces) == {"nic0", "nic1"}
        lab.switches[0].mend(*ports)
        for name in ("nic0", "nic1"):
            kernel.await_event(LinkChanged, partial(eq, LinkChanged(name, up=True)))
        assert not [event for event in kernel.events(LinkChanged) if not event.up]


def plain_nic(lab: Lab) -> Callable[[], float]:
    """Add nic2 to the host; returns how to pull its cable just after a pod came.

    The kernel hurries with the events of stacked devices, which it knows by an index other than that of their peer. Of
    others the events are held back up to a second after any link event.
    """
    host, switch = lab.host.namespace, lab.switches[0]
    far = f"far index 60 netns {switch.namespace.name}"
    batch([f"link add name nic2 index 60 netns {host.name} type veth peer name {far}"])
    host.ip("link", "set", "nic2", "up")
    switch.set_ports(["far"], up=True)

    def pull() -> float:
        host.batch(["link add name pod0 index 70 up type veth peer name pod1 index 71", "link set pod1 up"])
        time.sleep(0.05)
        return switch.set_ports(["far"], up=False)

    return pull


def test_kernel_holds_a_lost_carrier_back_from_all_but_those_who_ask(lab: Lab) -> None:
    pull = plain_nic(lab)
    carrier = Carrier(lab.host.namespace)

    def lost(told: list[Message]) -> list[links.Link]:
        found = [links.decode(message.body) for message in told if message.kind == netlink.RTM_NEWLINK]
        return [link for link in found if link.name == "nic2" and not link.carrier]

    def held_back() -> bool:
        """Whether the event is still not told when a failover should long be over."""
        lab.switches[0].set_ports(["far"], up=True)
        wait_for(lambda: carrier.present("nic2"))
        time.sleep(1.1)  # nothing waits any more
        with Notifications(lab.host.namespace) as notifications:
            pull()
            time.sleep(0.3)
            told = lost(notifications.pending())
            assert carrier.present("nic2") is False
            assert told or lost(notifications.pending()), "the question has the kernel act on what it knows"
        lab.host.namespace.ip("link", "del", "pod0")
        return not told

    # Held back until a second after the last time, which may be over at once.
    wait_for(held_back, deadline=20)
    carrier.close()


def test_carrier_loss_is_seen_although_the_kernel_holds_its_event_back(lab: Lab, kernel: RunningKernel) -> None:
    pull = plain_nic(lab)
    kernel.configure(kernel_group("nic0", "nic2"))
    kernel.await_event(InterfaceFound, lambda e: e.interface == "nic2" and e.link)
    pulled = pull()
    kernel.await_event(LinkChanged, lambda e: e == LinkChanged("nic2", up=False), deadline=5)
    assert time.monotonic() - pulled < 0.5, "the event alone takes longer, the poll 20 ms"


def test_administratively_down_is_down(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    lab.host.namespace.ip("link", "set", "nic0", "down")
    kernel.await_event(LinkChanged, lambda e: e == LinkChanged("nic0", up=False, taken_down=True))
    lab.host.namespace.ip("link", "set", "nic0", "up")
    kernel.await_event(LinkChanged, lambda e: e == LinkChanged("nic0", up=True))


def test_members_that_are_taken_down_together_are_told_so(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    kernel.call(lambda _: lab.host.namespace.batch(["link set nic0 down", "link set nic1 down"]))
    heard = wait_for(
        lambda: (kernel.events(LinksLost), kernel.events(LinkChanged)), lambda told: told[0] or len(told[1]) == 2
    )
    assert heard in [
        ([LinksLost(("nic0", "nic1"), ("nic0", "nic1"))], []),
        ([], [LinkChanged("nic0", up=False, taken_down=True), LinkChanged("nic1", up=False, taken_down=True)]),
    ]


def test_a_member_that_is_found_taken_down_is_told_so(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.ip("link", "set", "nic0", "down")
    told = found(kernel.configure(kernel_group()))
    assert {name: (told[name].link, told[name].taken_down) for name in told} == {
        "nic0": (False, True),
        "nic1": (True, False),
    }
    lab.host.namespace.ip("link", "set", "nic0", "up")
    kernel.await_event(LinkChanged, partial(eq, LinkChanged("nic0", up=True)))
    kernel.await_event(InterfaceFound, lambda e: e.interface == "nic0" and not e.taken_down)


def test_up_is_believed_when_the_kernel_has_a_carrier_too_and_one_return_is_one_link_up(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some drivers read the cable 2 s before the kernel sends anything, others say always that it is in."""
    kernel.configure(kernel_group())
    monkeypatch.setattr(ethtool.Carrier, "ask", lambda _: True)
    nic = lab.host.nic("nic0")
    nic.unplug()
    kernel.await_event(LinkChanged, partial(eq, LinkChanged("nic0", up=False)))
    lab.host.namespace.ip("link", "set", "nic0", "alias", "a message about a link without carrier")
    kernel.run(lambda k: k.read_links())
    time.sleep(0.5)
    assert len(kernel.events(LinkChanged)) == 1
    nic.plug()
    kernel.await_event(LinkChanged, lambda e: e.up)
    time.sleep(0.2)
    assert kernel.events(LinkChanged) == [LinkChanged("nic0", up=False), LinkChanged("nic0", up=True)]


def test_the_speed_is_told_again_when_the_cable_is_back(lab: Lab, kernel: RunningKernel) -> None:
    """A driver does not say it while there is no link."""
    nic = lab.host.nic("nic0")
    kernel.configure(kernel_group())
    nic.unplug()
    lab.host.namespace.ip("link", "set", "nic0", "mtu", "1400")  # whatever is told of it meanwhile
    kernel.await_event(InterfaceFound, lambda e: e.interface == "nic0" and e.speed_megabits is None)
    kernel.forget()
    nic.plug()
    kernel.await_event(InterfaceFound, lambda e: e.interface == "nic0" and e.speed_megabits == 10000, deadline=5)


def test_a_dead_link_is_asked_less_often_than_a_living_one(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question costs some drivers 100 microseconds under the kernel's one lock while the cable is out."""
    kernel.configure(kernel_group())
    lab.host.nic("nic0").unplug()
    kernel.await_event(LinkChanged)
    asked: Counter[str] = Counter()
    ask = ethtool.Carrier.ask

    def counting(carrier: ethtool.Carrier) -> bool | None:
        asked[carrier.names[0]] += 1
        return ask(carrier)

    monkeypatch.setattr(ethtool.Carrier, "ask", counting)
    time.sleep(1)
    assert asked["nic1"] > 3 * asked["nic0"] > 0


@contextlib.contextmanager
def tap(namespace: Namespace, name: str, directory: Path) -> Iterator[Callable[[bool], float]]:
    """A NIC whose carrier can be set; returns how. The kernel holds its events back as those of a real one."""
    node = directory / "tun"  # the user-mode kernel has no /dev/net/tun
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(10, 200))
    descriptor = namespace.call(os.open, node, os.O_RDWR)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("=16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))

        def set_carrier(present: bool) -> float:
            fcntl.ioctl(descriptor, TUNSETCARRIER, struct.pack("=i", present))
            return time.monotonic()

        yield set_carrier
    finally:
        os.close(descriptor)


def delays_of_a_member_on(
    lab: Lab, kernel: RunningKernel, directory: Path, *devices: str
) -> tuple[list[float], list[float]]:
    """Seconds until losses and returns of a carrier are told of a member on top of these devices on a NIC."""
    host = lab.host.namespace
    with tap(host, "base", directory) as set_carrier:
        host.ip("link", "set", "base", "up")
        set_carrier(True)
        member = "base"
        for device in devices:
            below, member = member, f"{member}.7"
            host.ip("link", "add", "link", below, "name", member, "type", *device.split())
            host.ip("link", "set", member, "up")
        wait_for(lambda: "LOWER_UP" in host.ip_json("link", "show", member)[0]["flags"])
        kernel.configure(kernel_group("nic0", member))
        kernel.await_event(InterfaceFound, lambda e: e.interface == member and bool(e.link))
        delays: tuple[list[float], list[float]] = ([], [])
        for present in (False, True) * 3:
            time.sleep(0.1)
            kernel.forget()
            at = set_carrier(present)
            kernel.await_event(LinkChanged, partial(eq, LinkChanged(member, up=present)), deadline=5)
            delays[present].append(time.monotonic() - at)
    return delays


@pytest.mark.parametrize("stories", [1, 2])
def test_a_member_on_another_device_is_as_fast_as_that_one(
    lab: Lab, kernel: RunningKernel, tmp_path: Path, stories: int
) -> None:
    """The kernel holds back what becomes of a VLAN or macvlan for up to a second."""
    losses, returns = delays_of_a_member_on(lab, kernel, tmp_path, *["macvlan mode bridge"] * stories)
    assert max(losses) < 0.2, losses
    assert max(returns) < 0.4, returns


@pytest.mark.skipif(
    platform.machine() not in {"x86_64", "i686"}, reason="Debian has the user-mode kernel for x86 alone"
)
def test_a_vlan_member_is_as_fast_as_its_nic(lab: Lab, kernel: RunningKernel, tmp_path: Path) -> None:
    if not has_vlans(lab.host.namespace):  # then the same test again under a kernel that has them
        test = f"{__file__}::test_a_vlan_member_is_as_fast_as_its_nic"
        assert uml.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test], 300) == 0
        return
    losses, returns = delays_of_a_member_on(lab, kernel, tmp_path, "vlan id 7")
    assert max(losses) < 0.4, losses
    assert max(returns) < 0.4, returns


def has_vlans(namespace: Namespace) -> bool:
    try:
        namespace.ip("link", "add", "link", "nic1", "name", "nic1.7", "type", "vlan", "id", "7")
    except CommandFailedError as error:
        if "Unknown device type" in str(error):
            return False
        raise
    return True


def test_a_nic_that_vanishes_and_returns_under_another_index(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    nic = lab.host.nic("nic0")
    nic.remove()
    kernel.await_event(InterfaceVanished)
    kernel.forget()
    nic.insert(index=77)
    event = kernel.await_event(InterfaceFound)
    assert (event.interface, event.index) == ("nic0", 77)
    if not event.link:  # it may be up by the time it is looked at
        kernel.await_event(LinkChanged, lambda e: e.up)
    assert not [e for e in kernel.events(InterfaceFound) if e.interface == "nic1"], "the other member is left alone"


def test_what_goes_with_a_nic_is_not_blamed_on_another_program(
    lab: Lab, kernel: RunningKernel, caplog: pytest.LogCaptureFixture
) -> None:
    address = ip_interface("198.18.0.10/24")
    lab.host.namespace.batch(["address add 198.18.0.20/24 dev nic1", "route add default via 198.18.0.201"])
    kernel.configure(kernel_group(addresses=(address,)))
    place(lab, kernel, address)
    both = ("nic0", "nic1")
    kernel.perform(SetOutbound(both, both), SetNominee("nic0", "nic0", both))
    kernel.run(lambda k: k.reconcile(GROUP))
    for _ in range(3):
        lab.host.nic("nic0").remove()
        kernel.await_event(InterfaceVanished)
        kernel.perform(moves(address, source="nic0", destination="nic1"), SetOutbound(("nic1",), ("nic1",)))
        time.sleep(0.5)
        kernel.forget()
        lab.host.nic("nic0").insert()
        kernel.await_event(InterfaceFound, lambda e: e.interface == "nic0")
        time.sleep(0.5)
        kernel.perform(moves(address, source="nic1", destination="nic0"), SetOutbound(both, both))
        time.sleep(0.5)
    assert kernel.call(lambda k: k.counters["foreign_changes"]) == 0, caplog.text
    assert "another program" not in caplog.text
    lab.host.namespace.ip("address", "del", "198.18.0.10/24", "dev", "nic0")
    wait_for(lambda: kernel.call(lambda k: k.counters["foreign_changes"]))


def test_a_nic_that_appears_after_the_start(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.nic("nic1").remove()
    assert set(found(kernel.configure(kernel_group()))) == {"nic0"}
    lab.host.nic("nic1").insert()
    assert kernel.await_event(InterfaceFound, lambda e: e.interface == "nic1").refusal is None


def test_a_rename_loses_a_member_by_name_and_not_one_by_mac(lab: Lab, kernel: RunningKernel) -> None:
    nic = lab.host.nic("nic0")
    kernel.configure(kernel_group(Member(InterfaceMatch(mac_address=nic.mac)), "nic1"))
    nic.rename("uplink7")
    assert kernel.await_event(InterfaceFound, lambda e: e.name == "uplink7").interface == nic.mac
    lab.host.nic("nic1").rename("uplink8")
    kernel.await_event(InterfaceVanished, lambda e: e.interface == "nic1")
    kernel.forget()
    nic.unplug()
    kernel.await_event(LinkChanged, lambda e: e == LinkChanged(nic.mac, up=False))


def test_a_nic_moved_to_another_namespace_has_vanished(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    lab.host.nic("nic0").move_to(lab.peer(0).namespace)
    kernel.await_event(InterfaceVanished, lambda e: e.interface == "nic0")


def test_changes_of_mac_and_mtu_are_told(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    lab.host.namespace.batch(["link set nic0 mtu 1400", "link set nic0 address 02:00:00:00:99:01"])
    event = kernel.await_event(InterfaceFound, lambda e: e.mac == "02:00:00:00:99:01")
    assert event.mtu == 1400


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        (["link add br9 type bridge", "link set nic0 master br9"], Reason.BRIDGE_PORT),
        (["link set nic0 arp off"], Reason.UNSUITABLE_DEVICE),
        (["link set nic0 multicast off"], Reason.UNSUITABLE_DEVICE),
    ],
)
def test_an_unfit_interface_is_refused_and_harms_no_other(
    lab: Lab, kernel: RunningKernel, commands: list[str], reason: Reason
) -> None:
    lab.host.namespace.batch(commands)
    told = found(kernel.configure(kernel_group()))
    assert (told["nic0"].refusal, told["nic1"].refusal) == (reason, None)
    assert kernel.call(lambda k: list(k._host.ports)) == [(GROUP, "nic1")]


def test_loopback_and_point_to_point_are_refused(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(["tuntap add name tun9 mode tun", "link set tun9 up"])
    told = found(kernel.configure(kernel_group("lo", "tun9", "nic0")))
    assert [told[name].refusal for name in ("lo", "tun9", "nic0")] == [Reason.LOOPBACK, Reason.POINT_TO_POINT, None]


def test_a_member_that_becomes_a_bridge_port_is_refused_while_it_is_one(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    lab.host.namespace.batch(["link add br9 type bridge", "link set nic0 master br9"])
    kernel.await_event(InterfaceFound, lambda e: e.refusal is Reason.BRIDGE_PORT)
    kernel.forget()
    lab.host.namespace.ip("link", "set", "nic0", "nomaster")
    assert kernel.await_event(InterfaceFound, lambda e: e.refusal is None).interface == "nic0"


def test_two_members_that_match_one_interface_do_not_share_it(lab: Lab, kernel: RunningKernel) -> None:
    mac = lab.host.nic("nic0").mac
    told = found(kernel.configure(kernel_group("nic0", Member(InterfaceMatch(mac_address=mac)))))
    assert (told["nic0"].refusal, told[mac].refusal) == (None, Reason.INTERFACE_CONFLICT)


@pytest.mark.parametrize("speaker", ["nic0", "nic1"])
def test_members_are_told_in_the_order_of_the_configuration_whoever_speaks_first(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch, speaker: str
) -> None:
    host = lab.host.namespace
    configuration = kernel_group("nic1", "nic0", Member(InterfaceMatch(mac_address=lab.host.nic("nic1").mac)))
    dumper = kernel.kernel._host.dumper
    dump = dumper.dump

    async def interrupted(kind: int, request: bytes) -> list[bytes]:
        bodies = await dump(kind, request)
        if kind == netlink.RTM_GETLINK:
            host.ip("link", "set", speaker, "alias", "heard before the dump")
            kernel.kernel.drain()
        return bodies

    monkeypatch.setattr(dumper, "dump", interrupted)
    told = [e for e in kernel.configure(configuration) if isinstance(e, InterfaceFound)]
    by_mac = configuration.members[2].key
    assert [(e.interface, e.refusal) for e in told] == [
        ("nic1", None),
        ("nic0", None),
        (by_mac, Reason.INTERFACE_CONFLICT),
    ]


def test_lost_notifications_are_made_up_for(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    host = lab.host.namespace

    def starve(facade: Kernel) -> None:
        """Hear nothing while more happens than the socket can hold."""
        facade._monitor._socket.setsockopt(1, 8, 2048)  # SO_RCVBUF
        host.batch([f"address add 198.18.9.{i}/32 dev nic1" for i in range(1, 200)])
        host.ip("link", "set", "nic0", "address", "02:00:00:00:99:02")

    kernel.call(starve)
    kernel.await_event(InterfaceFound, lambda e: e.mac == "02:00:00:00:99:02")
    counters = wait_for(lambda: kernel.call(lambda k: k.counters), lambda c: c["netlink_overruns"])
    assert counters["netlink_overruns"] == 1
    kernel.forget()
    lab.host.nic("nic1").unplug()
    kernel.await_event(LinkChanged, lambda e: e == LinkChanged("nic1", up=False))
