"""Faults of the agent's process: its end, its limits, its disk, its release, and those who speak with it."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import yaml

from ipmp_agent.disk.directories import SOCKET_NAME
from ipmp_agent.disk.writer import StateWriter
from tests.chaos.kinds import NothingToDoError, kind
from tests.chaos.wires import pause
from tests.chaos.world import Lasting
from tests.lab.load import busy_machine
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.world import Side, World

DISK = 2 << 20
"""Bytes that fill the state's file system."""
UNWRITTEN = 2 * StateWriter.RETRY_MAXIMUM
"""Seconds until a disk that takes it again has the state."""
NEW_FIELDS = ("adoption",)
"""Of data addresses, which the last release does not know: people roll their manifests back with the image."""
CLOCKS = (0.0, 0.4, -3600.0, 3600.0, -366 * 86400.0, 366 * 86400.0)
"""Seconds by which a clock may be off, so far apart that no move seems to be less than minutes from another one."""


def _restart(side: Side) -> None:
    side.agent.start()


@kind(weight=3, harmless=True)
def kill(world: World, side: Side, chance: random.Random) -> None:
    """The agent is killed, and started again"""
    side.agent.kill()
    pause(chance.uniform(0, 0.3))
    _restart(side)


@kind(harmless=True)
def killtwice(world: World, side: Side, chance: random.Random) -> str:
    """The agent is killed, and killed again while it starts"""
    side.agent.kill()
    seconds = chance.uniform(0, 1.0)
    side.agent.start(wait=False)
    pause(seconds)
    side.agent.kill()
    _restart(side)
    return f"after {seconds:.2f} s"


@kind(harmless=True)
def restart(world: World, side: Side, chance: random.Random) -> None:
    """The agent is stopped, and started again"""
    code = side.agent.stop(30)
    assert code == 0, f"the agent ended with code {code}"
    pause(chance.uniform(0, 0.3))
    _restart(side)


@kind(weight=3)
def killedinfailover(world: World, side: Side, chance: random.Random) -> str:
    """The agent is killed within a moment after a cable was pulled"""
    nic = chance.choice(side.nics)
    end = frozenset({(nic.switch.name, nic.port)})
    world.last("failover", Lasting(down=end))
    pause(chance.uniform(0, 0.15))
    side.agent.kill()
    if chance.random() < 0.5:
        world.mend("failover")
    _restart(side)
    world.mend("failover")
    return nic.name


@kind(weight=3, harmless=True)
def stands(world: World, side: Side, chance: random.Random) -> str:
    """The agent stands still for a while (SIGSTOP)"""
    seconds = chance.choice([0.05, 0.2, 0.7, 1.5, 3.0])
    side.agent.suspend()
    pause(seconds)
    side.agent.resume()
    return f"{seconds} s"


@kind(weight=1)
def standsthrough(world: World, side: Side, chance: random.Random) -> str:
    """The agent stands still while a cable is pulled and plugged"""
    nic = chance.choice(side.nics)
    side.agent.suspend()
    world.last("failover", Lasting(down=frozenset({(nic.switch.name, nic.port)})))
    pause(chance.uniform(0, 1))
    world.mend("failover")
    side.agent.resume()
    return nic.name


@kind(harmless=True)
def hangup(world: World, side: Side, chance: random.Random) -> str:
    """The manifest is read again (SIGHUP), many times"""
    times = chance.randint(1, 20)
    for _ in range(times):
        side.agent.reload()
        pause(chance.uniform(0, 0.02))
    return f"{times} times"


@kind(harmless=True)
def hangupatstart(world: World, side: Side, chance: random.Random) -> str:
    """SIGHUP comes while the agent starts"""
    side.agent.kill()
    side.agent.start(wait=False)
    seconds = chance.uniform(0, 0.8)
    pause(seconds)
    # An interpreter that has not reached its first line dies of it, as every program does.
    if seconds > 0.4:
        side.agent.reload()
    side.agent.kill() if side.agent.running.poll() is None else None
    _restart(side)
    return f"after {seconds:.2f} s"


@kind(harmless=True)
def rubbish(world: World, side: Side, chance: random.Random) -> str:
    """The manifest is rubbish for a moment"""
    text = chance.choice(["", "[", "kind: IPMPGroup\n", "x: &x [*x]\n", "{" * 3000, "\x00", "- 0x_\n"])
    side.agent.manifest.write_text(text, encoding="utf-8")
    side.agent.reload()
    pause(chance.uniform(0, 0.3))
    side.agent.write(side.manifest)
    side.agent.reload()
    return repr(text[:20])


@kind()
def change(world: World, side: Side, chance: random.Random) -> str:
    """People change the group: an address more or less, another detection time, a member out and in again"""
    choice = chance.choice(["address", "time", "member", "standby", "spreading"])
    if choice == "member":
        world.require(side, side.nics[0])  # what was on a member that is gone when it leaves stays where it is

    def apply(spec: dict[str, Any]) -> None:
        assigned = spec["dataAddresses"]["assigned"][0]["addresses"]
        if choice == "address":
            assigned[0] = f"198.18.0.{150 + side.number}/24"
        elif choice == "time":
            spec["failureDetection"]["timeMilliseconds"] = 2000
        elif choice == "member":
            spec["interfaces"] = spec["interfaces"][1:]
        elif choice == "standby":
            spec["interfaces"][-1]["role"] = "Standby"
        else:
            spec["outboundSpreading"] = "Disabled"

    side.changed(apply)
    pause(chance.uniform(0, 0.5))
    side.agent.write(side.manifest)
    side.agent.reload()
    return choice


@kind()
def offline(world: World, side: Side, chance: random.Random) -> str:
    """Somebody takes a member out of use for a while"""
    key = chance.choice(list(side.host.nics))
    force = ("--force",) if chance.random() < 0.3 else ()
    side.agent.command("ipmpadm", "offline", *force, key)
    world.last(f"offline {side.number}", Lasting(mend=lambda: _online(side)))
    return key


def _online(side: Side) -> None:
    for key in side.host.nics:
        side.agent.command("ipmpadm", "online", key)


@kind(harmless=True)
def descriptors(world: World, side: Side, chance: random.Random) -> str:
    """The agent may have no more descriptors than it has, for a moment"""
    return _limited(side, resource.RLIMIT_NOFILE, chance.choice([0, 8, 24, 40]), chance)


@kind(harmless=True)
def memory(world: World, side: Side, chance: random.Random) -> str:
    """The agent may have little address space more, for a moment"""
    pages = (side.agent.running.pid and _statm(side.agent.running.pid)) or 0
    return _limited(side, resource.RLIMIT_AS, pages + chance.choice([8, 32]) * 2**20, chance)


def _statm(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:  # noqa: PTH123 - one number of one file
        return int(statm.read().split()[0]) * resource.getpagesize()


def _limited(side: Side, what: int, limit: int, chance: random.Random) -> str:
    pid = side.agent.running.pid
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (limit, before[1]))
    clients = [_client(side, control=bool(i % 2)) for i in range(4)]
    pause(chance.uniform(0, 0.5))
    resource.prlimit(pid, what, before)
    for client in clients:
        client.close()
    return str(limit)


def _client(side: Side, *, control: bool) -> socket.socket:
    """Connect to the control socket, or the port of metrics, and begin a question."""
    one = side.host.namespace.socket(socket.AF_UNIX if control else socket.AF_INET, socket.SOCK_STREAM)
    one.settimeout(0.2)
    with contextlib.suppress(OSError):
        one.connect(str(side.agent.runtime_directory / SOCKET_NAME) if control else ("127.0.0.1", 9478))
        one.send(b"G")
    return one


def _fill(directory: Path) -> Path:
    path = directory / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as filler:
        for _ in range(DISK // 4096):
            filler.write(bytes(4096))
    return path


@kind(harmless=True)
def fulldisk(world: World, side: Side, chance: random.Random) -> None:
    """The disk of the state is full for a while"""
    path = _fill(side.agent.state_directory)

    def mend() -> None:
        path.unlink(missing_ok=True)
        # Until it is written again, an agent that is killed leaves an old memory to the next.
        wait_for(lambda: _unwritten(side), lambda unwritten: not unwritten, deadline=UNWRITTEN, what="state file")

    world.last(f"disk {side.number}", Lasting(mend=mend))


def _unwritten(side: Side) -> bool:
    text = side.agent.log_path.read_text(encoding="utf-8", errors="replace").rpartition(" started")[2]
    return text.rfind("cannot write the state file") > text.rfind("is written again")


@kind(harmless=True)
def readonlydisk(world: World, side: Side, chance: random.Random) -> None:
    """The disk of the state becomes read-only, as after an error, and the agent is started again on it"""
    where = str(side.agent.state_directory)
    side.agent.kill()
    subprocess.run(["mount", "-o", "remount,ro", where], check=True)
    try:
        _restart(side)
    finally:
        writable = ["mount", "-o", "remount,rw", where]
        subprocess.run(writable, check=True)
        # The agent has a copy of the mount, made while it was read-only.
        pid = side.agent.running.pid
        subprocess.run(["nsenter", f"--target={pid}", "--mount", *writable], check=side.agent.running.poll() is None)


@kind(harmless=True)
def runtimegone(world: World, side: Side, chance: random.Random) -> None:
    """A cleaner removes what is in the runtime directory"""
    for path in side.agent.runtime_directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@kind(harmless=True)
def slowclients(world: World, side: Side, chance: random.Random) -> str:
    """Clients connect to every port and say nothing, or half a line, and leave"""
    count = chance.randint(4, 64)
    clients = [_client(side, control=bool(i % 2)) for i in range(count)]
    pause(chance.uniform(0, 0.3))
    for one in clients:
        one.close()
    return str(count)


@kind(weight=1, harmless=True)
def starved(world: World, side: Side, chance: random.Random) -> None:
    """Others keep every processor busy for a moment"""
    with busy_machine():
        pause(0.7)


@kind(harmless=True)
def clock(world: World, side: Side, chance: random.Random) -> str:
    """The wall clock is set, by up to a year, or right again"""
    seconds = chance.choice(CLOCKS)
    side.agent.set_clock(seconds)
    pause(chance.uniform(0, 0.3))
    return f"{seconds} s off"


@kind(weight=1, harmless=True)
def flood(world: World, side: Side, chance: random.Random) -> str:
    """A neighbour floods the link with broadcasts for a moment"""
    neighbour = world.lab.hosts.get("peer0") or world.side(side.number + 1).host
    interface = next(iter(neighbour.nics.values())).name
    ether_type = chance.choice((0x0806, 0x88B5, 0x86DD))
    script = (
        "import socket,sys,time\n"
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((sys.argv[1], 0))\n"
        "frame = b'\\xff' * 6 + b'\\2\\0\\0\\0\\x66\\x66' + int(sys.argv[2]).to_bytes(2, 'big') + bytes(46)\n"
        "end = time.monotonic() + 0.4\n"
        "while time.monotonic() < end:\n"
        "    try: s.send(frame)\n"
        "    except OSError: break\n"
    )
    neighbour.namespace.run(sys.executable, "-c", script, interface, str(ether_type), check=False)
    return f"{ether_type:#06x}"


@kind(weight=1, harmless=True)
def otherrelease(world: World, side: Side, chance: random.Random) -> str:
    """The image is rolled back to another release for a moment, and forward again (needs --old)"""
    if world.old is None:
        raise NothingToDoError
    ending = chance.choice((signal.SIGTERM, signal.SIGKILL))
    manifest: dict[str, Any] = yaml.safe_load(yaml.safe_dump(side.manifest))
    for name in NEW_FIELDS:
        del manifest["spec"]["dataAddresses"][name]
    _exchange(side, ending, world.old, manifest)
    pause(chance.uniform(0, 1))
    _exchange(side, ending, None, side.manifest)
    return ending.name


def _exchange(side: Side, ending: signal.Signals, tree: Path | None, manifest: dict[str, Any]) -> None:
    side.agent.running.send_signal(ending)
    side.agent.running.wait(30)
    side.agent.tree = tree
    side.agent.write(manifest)
    _restart(side)
