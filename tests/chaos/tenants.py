"""Faults by what else is on a host: whoever lays addresses, routes and rules, sets knobs, or floods it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.kinds import NothingToDoError, kind
from tests.chaos.wires import own, pause
from tests.chaos.world import Lasting, data_addresses
from tests.lab.networkd import Networkd
from tests.lab.owners import DROP_IN
from tests.lab.routing import Bird, Frr

if TYPE_CHECKING:
    import random

    from tests.chaos.world import Side, World

VIP = "198.18.0.77"
SETTINGS = ("arp_ignore", "arp_announce", "rp_filter", "promote_secondaries", "arp_filter")
ALONE = ("no zebra nexthop kernel enable",)
"""Without it zebra takes over nexthop objects of others: docs/host.md."""
FIREWALL = "flush ruleset\ntable inet tenant {\n chain input {\n  type filter hook input priority 0; policy accept\n"


@kind(harmless=True)
def vip(world: World, side: Side, chance: random.Random) -> str:
    """A VIP comes to a NIC and goes again"""
    nic = world.present_nic(side, chance)
    words = (f"{VIP}/32", "dev", nic.name)
    side.host.namespace.run("ip", "address", "add", *words, *chance.choice([(), ("proto", "18")]), check=False)
    pause(chance.uniform(0, 0.4))
    _forget(world, side, [VIP])
    return nic.name


def _forget(world: World, side: Side, addresses: list[str]) -> None:
    """Take away what somebody brought, for good; from a NIC without a link it goes when all is well again."""
    side.guests.update(addresses)
    if all(world.linked(side, nic) for nic in side.nics):
        side.forget(addresses)
    else:
        side.sweep(addresses)


@kind()
def vipstays(world: World, side: Side, chance: random.Random) -> str:
    """A VIP comes to a NIC and stays for a while"""
    nic = world.present_nic(side, chance)
    side.host.namespace.run("ip", "address", "add", f"{VIP}/32", "dev", nic.name, check=False)
    world.last("vip", Lasting(mend=lambda: _forget(world, side, [VIP])))
    return nic.name


@kind(harmless=True)
def addressgoes(world: World, side: Side, chance: random.Random) -> str:
    """Somebody deletes a data address"""
    address = chance.choice(data_addresses(side.number))
    for holder in side.host.holders(address):
        side.host.namespace.run("ip", "address", "del", address, "dev", holder, check=False)
    return address


@kind()
def flush(world: World, side: Side, chance: random.Random) -> str:
    """Somebody flushes every address of a NIC, and its owner lays its own again"""
    nic = world.present_nic(side, chance)
    side.host.namespace.ip("address", "flush", "dev", nic.name, "scope", "global")
    pause(chance.uniform(0, 0.3))
    own(world, side, nic)
    return nic.name


@kind()
def owntaken(world: World, side: Side, chance: random.Random) -> str:
    """The owner of an adopted address takes it away and gives it back"""
    for nic in side.nics:
        if nic.addresses and world.present(side, nic):
            address = chance.choice(nic.addresses)
            for holder in side.host.holders(address):
                side.host.namespace.run("ip", "address", "del", address, "dev", holder, check=False)
            pause(chance.uniform(0, 0.5))
            own(world, side, nic)
            return address
    raise NothingToDoError


@kind(harmless=True)
def rules(world: World, side: Side, chance: random.Random) -> str:
    """Somebody lays ip rules and takes them away"""
    count = chance.randint(1, 50)
    family = chance.choice(("-4", "-6"))
    words = [f"priority {20_000 + i} fwmark {i + 1} lookup 200" for i in range(count)]
    side.host.namespace.run("ip", family, "-batch", "-", text="\n".join(f"rule add {one}" for one in words))
    pause(chance.uniform(0, 0.3))
    side.host.namespace.run("ip", family, "-batch", "-", text="\n".join(f"rule del {one}" for one in words))
    return f"{count} of {family}"


@kind(harmless=True)
def routestorm(world: World, side: Side, chance: random.Random) -> str:
    """A routing daemon lays many routes at once and takes them away"""
    count, table = chance.randint(100, 3000), chance.choice((254, 200))
    routes = [f"blackhole 10.{i >> 8}.{i & 255}.0/24 table {table} proto bird" for i in range(count)]
    side.host.namespace.batch(f"route add {one}" for one in routes)
    pause(chance.uniform(0, 0.2))
    side.host.namespace.ip("route", "flush", "table", str(table), "proto", "bird", "type", "blackhole")
    return f"{count} in {table}"


@kind(harmless=True)
def addressstorm(world: World, side: Side, chance: random.Random) -> str:
    """Many addresses come to an interface that is no member, and go"""
    count = chance.randint(20, 400)
    side.host.namespace.batch(
        ["link add storm0 type veth peer name storm1", "link set storm0 up"]
        + [f"address add 10.200.{i >> 8}.{i & 255}/32 dev storm0" for i in range(count)]
    )
    side.host.namespace.ip("link", "del", "storm0")
    return str(count)


@kind()
def memberstorm(world: World, side: Side, chance: random.Random) -> str:
    """Many addresses come to a member, and go"""
    nic, count = chance.choice(side.nics), chance.randint(5, 60)
    world.require(side, nic)
    addresses = [f"10.201.0.{i}" for i in range(1, count)]
    lines = "\n".join(f"address replace {one}/32 dev {nic.name}" for one in addresses)
    side.host.namespace.run("ip", "-force", "-batch", "-", text=lines, check=False)
    pause(chance.uniform(0, 0.2))
    _forget(world, side, addresses)
    return f"{nic.name} {count}"


@kind(harmless=True)
def linkstorm(world: World, side: Side, chance: random.Random) -> str:
    """Interfaces of pods come and go"""
    count = chance.randint(5, 40)
    names = [f"pod{i}" for i in range(count)]
    side.host.namespace.batch(f"link add {one} type veth peer name x{one}" for one in names)
    side.host.namespace.batch(f"link del {one}" for one in names)
    return str(count)


@kind()
def bird(world: World, side: Side, chance: random.Random) -> None:
    """BIRD runs for a while, with a route of its own"""
    world.mend("routing")
    daemon = Bird(side.host, "route 198.18.99.0/24 blackhole;").__enter__()
    world.last("routing", Lasting(mend=daemon.__exit__))


@kind(weight=1)
def frr(world: World, side: Side, chance: random.Random) -> None:
    """zebra and staticd run for a while, with a route of their own"""
    world.mend("routing")
    daemon = Frr(side.host, "ip route 198.18.98.0/24 blackhole", zebra=ALONE).__enter__()
    world.last("routing", Lasting(mend=daemon.__exit__))


class _PatientNetworkd(Networkd):
    """Has an interface that it gives up at its start configured anew, as a person would."""

    def configured(self) -> None:
        self.configured_at_last(self._bus._host.nic("nic0").name)


@kind()
def networkd(world: World, side: Side, chance: random.Random) -> str:
    """systemd-networkd starts and configures a NIC anew, perhaps without the drop-in that has it leave ours alone"""
    nic, keeping, times = side.nics[0], chance.random() < 0.5, chance.randint(1, 3)
    if not world.linked(side, nic):
        raise NothingToDoError  # it would wait for the carrier
    gateways = [route.split() for route in world.own_routes(side.number)]
    text = f"[Match]\nName={nic.name}\n[Network]\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=no\n"
    # With KeepConfiguration= networkd 252 gives a link up whose address is there without the broadcast of its file.
    text += "".join(f"[Address]\nAddress={address}\nBroadcast=no\n" for address in nic.addresses)
    text += "".join(f"[Route]\nGateway={words[2]}\nMetric={words[-1]}\n" for words in gateways)
    files = {"10-nic.network": text} | ({"10-nic.network.d/50-ipmp.conf": DROP_IN} if keeping else {})
    with _PatientNetworkd(side.host, files) as daemon:
        for _ in range(times):
            pause(chance.uniform(0, 0.5))
            daemon.reconfigure(nic.name)
            daemon.configured_at_last(nic.name)
    own(world, side, nic)
    return f"{nic.name} {times} times, {'with' if keeping else 'without'} the drop-in"


@kind(harmless=True)
def firewall(world: World, side: Side, chance: random.Random) -> None:
    """A firewall replaces every rule of the host by its own, and leaves"""
    side.host.namespace.run("nft", "-f", "-", text=FIREWALL + " }\n}\n")
    pause(chance.uniform(0, 0.3))
    side.host.namespace.run("nft", "delete", "table", "inet", "tenant")


@kind()
def badfirewall(world: World, side: Side, chance: random.Random) -> None:
    """A firewall drops every answer for a moment"""
    side.host.namespace.run("nft", "-f", "-", text=FIREWALL + "  meta l4proto { icmp, icmpv6 } drop\n }\n}\n")
    pause(chance.uniform(0, 1.5))
    side.host.namespace.run("nft", "delete", "table", "inet", "tenant")


@kind(harmless=True)
def sysctl(world: World, side: Side, chance: random.Random) -> str:
    """A setting of a member drifts"""
    nic, name = chance.choice(side.nics), chance.choice(SETTINGS)
    world.require(side, nic)
    side.host.namespace.sysctl({f"ipv4/conf/{nic.name}/{name}": 0})
    return f"{nic.name} {name}"


@kind()
def noipv6(world: World, side: Side, chance: random.Random) -> str:
    """IPv6 is switched off on a NIC for a moment"""
    nic = world.present_nic(side, chance)
    side.host.namespace.sysctl({f"ipv6/conf/{nic.name}/disable_ipv6": 1})
    pause(chance.uniform(0, 0.5))
    side.host.namespace.sysctl({f"ipv6/conf/{nic.name}/disable_ipv6": 0})
    own(world, side, nic)
    return nic.name


@kind()
def nexthops(world: World, side: Side, chance: random.Random) -> None:
    """Somebody flushes every nexthop object, and with them the routes that use them"""
    side.host.namespace.run("ip", "nexthop", "flush", check=False)
    pause(chance.uniform(0, 0.2))
    if side.number == 0:
        world.lay_routes()


@kind()
def routes(world: World, side: Side, chance: random.Random) -> None:
    """Somebody flushes the main table, and the owner of the default route lays it again"""
    side.host.namespace.run("ip", "route", "flush", "table", "main", "scope", "global", check=False)
    pause(chance.uniform(0, 0.2))
    if side.number == 0:
        world.lay_routes()


@kind(harmless=True)
def neighbours(world: World, side: Side, chance: random.Random) -> str:
    """The neighbour table is flushed, or filled with strangers"""
    if chance.random() < 0.5:
        side.host.namespace.run("ip", "neigh", "flush", "all", check=False)
        return "flushed"
    nic = chance.choice(side.nics)
    if not world.present(side, nic):
        return "nothing"
    count = chance.randint(50, 400)
    lines = [f"{i >> 8}.{i & 255} lladdr 02:00:00:00:99:99 nud stale dev {nic.name}" for i in range(1, count)]
    side.host.namespace.run(
        "ip", "-batch", "-", text="\n".join(f"neigh replace 198.18.{x}" for x in lines), check=False
    )
    side.host.namespace.run("ip", "neigh", "flush", "dev", nic.name, check=False)
    return f"{count} on {nic.name}"


@kind()
def forged(world: World, side: Side, chance: random.Random) -> str:
    """A neighbour says once that a data address is its own"""
    peers = [host for name, host in world.lab.hosts.items() if name.startswith("peer")]
    if not peers:
        raise NothingToDoError
    peer = chance.choice(peers)
    address = data_addresses(side.number)[chance.randrange(2)].partition("/")[0]
    peer.namespace.run("arping", "-c", "1", "-U", "-I", "eth0", "-s", address, address, check=False)
    return f"{peer.name} {address}"
