"""Faults of cables, switches, NICs and of those who answer probes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tests.chaos.kinds import NothingToDoError, kind
from tests.chaos.world import EVERYTHING, Lasting, key_of
from tests.lab.filters import Direction, Family, PortFilter

if TYPE_CHECKING:
    import random

    from tests.chaos.world import Side, World
    from tests.lab.topology import Host, Nic


def pause(seconds: float) -> None:
    """Let the world go on."""
    threading.Event().wait(seconds)


def _end(nic: Nic) -> tuple[str, str]:
    return nic.switch.name, nic.port


@kind(weight=4)
def unplug(world: World, side: Side, chance: random.Random) -> str:
    """A cable is pulled"""
    nic = chance.choice(side.nics)
    key = key_of(side, nic)
    world.last(f"cable {side.number} {key}", Lasting(down=frozenset({_end(nic)}), dead=frozenset({(side.number, key)})))
    return key


@kind(weight=4)
def plug(world: World, side: Side, chance: random.Random) -> str:
    """One fault that lasts is mended"""
    if not world.lasting:
        raise NothingToDoError
    key = chance.choice(list(world.lasting))
    world.mend(key)
    return key


@kind()
def flap(world: World, side: Side, chance: random.Random) -> str:
    """A cable is pulled and plugged a few times within a second"""
    nic = chance.choice(side.nics)
    key = f"cable {side.number} {key_of(side, nic)}"
    times = chance.randint(1, 4)
    for _ in range(times):
        world.last(key, Lasting(down=frozenset({_end(nic)})))
        pause(chance.uniform(0, 0.12))
        world.mend(key)
        pause(chance.uniform(0, 0.12))
    return f"{nic.name} {times} times"


@kind(weight=3)
def silence(world: World, side: Side, chance: random.Random) -> str:
    """A switch port forwards nothing, its carrier up"""
    nic = chance.choice(side.nics)
    key = key_of(side, nic)
    fault = Lasting(filters=((*_end(nic), EVERYTHING),), dead=frozenset({(side.number, key)}))
    world.last(f"port {side.number} {key}", fault)
    return key


@kind()
def oneway(world: World, side: Side, chance: random.Random) -> str:
    """A switch port forwards in one direction, or one family, alone"""
    nic = chance.choice(side.nics)
    wanted = chance.choice(
        [
            PortFilter(drop=frozenset({Direction.SENT})),
            PortFilter(drop=frozenset({Direction.RECEIVED})),
            *(PortFilter(drop=frozenset(Direction), families=frozenset({family})) for family in Family),
        ]
    )
    world.last(f"port {side.number} {key_of(side, nic)}", Lasting(filters=((*_end(nic), wanted),)))
    return f"{nic.name} {wanted}"


@kind()
def loss(world: World, side: Side, chance: random.Random) -> str:
    """A switch port loses a share of the frames"""
    nic, percent = chance.choice(side.nics), chance.choice([1, 2, 5, 20, 60])
    wanted = PortFilter(drop=frozenset(Direction), percent=percent)
    world.last(f"port {side.number} {key_of(side, nic)}", Lasting(filters=((*_end(nic), wanted),)))
    return f"{nic.name} {percent} %"


def _on_switch(world: World, name: str) -> frozenset[tuple[int, str]]:
    return frozenset(
        (side.number, key_of(side, nic)) for side in world.sides for nic in side.nics if nic.switch.name == name
    )


def _ports(world: World, name: str) -> set[tuple[str, str]]:
    nics = (nic for host in world.lab.hosts.values() for nic in host.nics.values() if nic.switch.name == name)
    uplinks = ((each.name, up.port) for up in world.lab.uplinks for each in (up.near, up.far) if each.name == name)
    return {_end(nic) for nic in nics} | set(uplinks)


@kind()
def switchdies(world: World, side: Side, chance: random.Random) -> str:
    """A switch loses power"""
    name = chance.choice(("sw0", "sw1"))
    world.last(f"power {name}", Lasting(down=frozenset(_ports(world, name)), dead=_on_switch(world, name)))
    return name


@kind()
def switchhangs(world: World, side: Side, chance: random.Random) -> str:
    """A switch forwards nothing, carriers up everywhere"""
    name = chance.choice(("sw0", "sw1"))
    filters = tuple((*end, EVERYTHING) for end in sorted(_ports(world, name)))
    world.last(f"power {name}", Lasting(filters=filters, dead=_on_switch(world, name)))
    return name


@kind()
def uplink(world: World, side: Side, chance: random.Random) -> None:
    """The cable between the switches is pulled"""
    world.last("uplink", Lasting(down=frozenset({(world.lab.uplink.near.name, world.lab.uplink.port)})))


@kind()
def admindown(world: World, side: Side, chance: random.Random) -> str:
    """A NIC is set down by an administrator, who sets it up again later"""
    nic = chance.choice(side.nics)
    key = key_of(side, nic)
    world.mend(f"nic {side.number} {key}")
    world.require(side, nic)
    side.host.namespace.ip("link", "set", nic.name, "down")

    def up() -> None:
        side.host.namespace.ip("link", "set", nic.name, "up")
        own(world, side, nic)

    world.last(f"nic {side.number} {key}", Lasting(dead=frozenset({(side.number, key)}), mend=up))
    return key


def own(world: World, side: Side, nic: Nic) -> None:
    """Lay what the host itself has on a NIC, as ifupdown does when it comes up."""
    for address in nic.addresses:
        words = (address, "dev", nic.name, *(("nodad",) if ":" in address else ()))
        side.host.namespace.run("ip", "address", "add", *words, check=False)
    if nic.addresses:
        world.lay_routes()


@kind()
def hotunplug(world: World, side: Side, chance: random.Random) -> str:
    """A NIC is taken out, and is put in again later, under another index"""
    nic = chance.choice(side.nics)
    key = key_of(side, nic)
    world.mend(f"nic {side.number} {key}")
    world.require(side, nic)
    nic.remove()

    def back() -> None:
        # The agent may be the first to put an adopted address on it.
        addresses, nic.addresses = nic.addresses, ()
        nic.insert()
        nic.addresses = addresses
        own(world, side, nic)

    gone = frozenset({(side.number, key)})
    world.last(f"nic {side.number} {key}", Lasting(dead=gone, absent=gone, mend=back))
    return key


@kind()
def rename(world: World, side: Side, chance: random.Random) -> str:
    """A NIC has another name for a while"""
    nic = chance.choice(side.nics)
    key = key_of(side, nic)
    world.mend("name")
    world.require(side, nic)
    nic.rename("enp0s0")

    def back() -> None:
        nic.rename(key)
        own(world, side, nic)

    gone = frozenset({(side.number, key)})
    world.last("name", Lasting(dead=gone, absent=gone, mend=back))
    return key


@kind()
def elsewhere(world: World, side: Side, chance: random.Random) -> str:
    """A NIC is in another network namespace for a moment"""
    nic = world.present_nic(side, chance)
    other = world.lab.hosts["router"] if "router" in world.lab.hosts else world.side(side.number + 1).host
    other.namespace.run("ip", "link", "show", "lo")
    side.host.namespace.ip("link", "set", nic.name, "netns", other.namespace.name, "name", "moved0")
    pause(chance.uniform(0, 0.5))
    other.namespace.ip("link", "set", "moved0", "netns", side.host.namespace.name, "name", nic.name)
    side.host.namespace.ip("link", "set", nic.name, "up")
    own(world, side, nic)
    return nic.name


@kind()
def othermac(world: World, side: Side, chance: random.Random) -> str:
    """A NIC has another MAC address for a moment"""
    nic = world.present_nic(side, chance)
    side.host.namespace.ip("link", "set", nic.name, "address", f"02:00:00:00:77:{chance.randrange(256):02x}")
    pause(chance.uniform(0, 0.5))
    side.host.namespace.ip("link", "set", nic.name, "address", nic.mac)
    return nic.name


@kind()
def mtu(world: World, side: Side, chance: random.Random) -> str:
    """A NIC has another MTU for a moment, perhaps too small for IPv6"""
    nic, size = chance.choice(side.nics), chance.choice([600, 1280, 1400, 9000])
    world.require(side, nic)
    side.host.namespace.ip("link", "set", nic.name, "mtu", str(size))
    pause(chance.uniform(0, 0.5))
    side.host.namespace.ip("link", "set", nic.name, "mtu", "1500")
    return f"{nic.name} {size}"


@kind()
def enslave(world: World, side: Side, chance: random.Random) -> str:
    """A NIC becomes a bridge's port for a moment"""
    nic = world.present_nic(side, chance)
    lines = ["link add name tenant0 type bridge", "link set tenant0 up", f"link set {nic.name} master tenant0"]
    side.host.namespace.batch(lines)
    pause(chance.uniform(0, 0.8))
    side.host.namespace.batch([f"link set {nic.name} nomaster", "link del tenant0"])
    own(world, side, nic)
    return nic.name


def _answering(world: World) -> list[Host]:
    return [host for name, host in world.lab.hosts.items() if name.startswith("peer") or name == "router"]


@kind(harmless=True)
def deadtarget(world: World, side: Side, chance: random.Random) -> str:
    """A target stops answering probes for a while, and is there otherwise"""
    hosts = _answering(world)
    if not hosts:
        raise NothingToDoError
    host = chance.choice(hosts)
    host.ignore_probes()
    world.last("target", Lasting(mend=lambda: _answer(host)))
    return host.name


def _answer(host: Host) -> None:
    host.ignore_probes(ignore=False)


@kind(harmless=True)
def targetgone(world: World, side: Side, chance: random.Random) -> str:
    """A target goes from the link for a moment"""
    hosts = _answering(world)
    if not hosts:
        raise NothingToDoError
    nic = chance.choice(hosts).nics["eth0"]
    world.last("target", Lasting(down=frozenset({_end(nic)})))
    pause(chance.uniform(0, 1))
    world.mend("target")
    return nic.host.name


@kind()
def alltargets(world: World, side: Side, chance: random.Random) -> None:
    """Every target stops answering for a moment, one after the other"""
    for host in _answering(world):
        host.ignore_probes()
    pause(chance.uniform(0, 1))
    for host in _answering(world):
        host.ignore_probes(ignore=False)


@kind(weight=1)
def slowpeer(world: World, side: Side, chance: random.Random) -> str:
    """A target answers late for a while"""
    peers = [host for name, host in world.lab.hosts.items() if name.startswith("peer")]
    if not peers:
        raise NothingToDoError
    peer, seconds = chance.choice(peers), chance.choice([0.02, 0.1])
    line = world.lab.delay(peer.only, seconds)
    world.last("slow", Lasting(mend=lambda: setattr(line, "seconds", 0.0)))
    return f"{peer.name} {seconds} s"
