"""What tests of other owners of the network share: their files, and what is taken from a group and comes back."""

from __future__ import annotations

import contextlib
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from tests.lab.networkmanager import NetworkManager
from tests.lab.scene import OTHER_V4, OTHER_V6, V4, V6, Scene
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab import Lab, Namespace
    from tests.lab.suites import Suite

ITS_OWN, ITS_OWN_V6 = "198.18.0.50", "2001:db8:0:1::50"
NETWORK = f"""
[Match]
Name=nic0
[Network]
Address={ITS_OWN}/24
LinkLocalAddressing=ipv6
IPv6AcceptRA=no
"""
EXAMPLES = Path(__file__).resolve().parents[2] / "examples/host-network"
DROP_IN = (EXAMPLES / "networkd/50-ipmp.conf").read_text(encoding="utf-8")
KEEPING = {"10-nic0.network": NETWORK, "10-nic0.network.d/50-ipmp.conf": DROP_IN}

PROFILE = f"""
[connection]
id=nic0
type=ethernet
interface-name=nic0
[ipv4]
method=manual
address1={ITS_OWN}/24
gateway=198.18.0.1
[ipv6]
method=manual
address1={ITS_OWN_V6}/64
"""


def networkmanager(lab: Lab, drop_in: str = "", suite: Suite | None = None) -> NetworkManager:
    """With a profile for nic0; where the drop-in does not let it be used, the address is laid by hand."""
    if drop_in == UNMANAGED:
        lab.host.namespace.ip("address", "add", f"{ITS_OWN}/24", "dev", "nic0")
    files = {"system-connections/nic0.nmconnection": PROFILE, **drop_in_files(drop_in)}
    return NetworkManager(lab.host, files, () if drop_in == UNMANAGED else ("nic0",), suite)


def drop_in_files(drop_in: str) -> dict[str, str]:
    """A drop-in of the examples with the names of the lab."""
    if not drop_in:
        return {}
    text = (EXAMPLES / "NetworkManager" / drop_in).read_text(encoding="utf-8")
    return {f"conf.d/{drop_in}": text.replace("eth1", "nic0").replace("eth2", "nic1")}


UNMANAGED, MANAGED = "50-ipmp-unmanaged.conf", "50-ipmp-managed.conf"


OURS = (V4, OTHER_V4, V6, OTHER_V6)
TIMES = 4
LONG_OUTAGE = 8.0
"""Seconds after which NetworkManager has given a device without a carrier up: it takes 6."""
OUTAGE = 10.0
"""Seconds in which any daemon that takes something for it has done so."""
FIGHT = 5.0
AT_MOST = 10 * timers.REPAIR_FOREIGN


@contextlib.contextmanager
def told(namespace: Namespace) -> Iterator[list[str]]:
    """What the kernel tells of addresses meanwhile; complete after the end."""
    lines: list[str] = []
    monitor = namespace.popen(["ip", "-ts", "-o", "monitor", "address"], stdout=subprocess.PIPE)
    try:
        yield lines
    finally:
        monitor.terminate()
        lines += monitor.communicate(timeout=10)[0].decode().splitlines()


def absences(lines: list[str], address: str) -> list[float]:
    """Seconds that an address was on no interface, each time; it must have returned."""
    found, gone = [], None
    places: set[str] = set()
    for line in lines:
        words = line.split()
        if not any(word.partition("/")[0] == address for word in words):
            continue
        when = datetime.fromisoformat(words[0].strip("[]"))
        place = words[words.index("inet6" if ":" in address else "inet") - 1]
        if "Deleted" in words:
            places.discard(place)
            gone = gone or (None if places else when)
        else:
            places.add(place)
            if gone is not None:
                found.append((when - gone).total_seconds())
                gone = None
    assert gone is None, f"{address} did not come back:\n" + "\n".join(lines)
    return found


def whole(scene: Scene, *others: str) -> None:
    """Wait until every address is in one place, and whatever flows does so again."""
    host, every = scene.lab.host, (*OURS, *others)
    wait_for(lambda: {a: host.holders(a) for a in every}, lambda seen: all(len(h) == 1 for h in seen.values()))
    scene.flows()


def fights(scene: Scene) -> list[str]:
    """What the agent says of another program that works against it."""
    (group,) = scene.agent.status()["groups"]
    return [finding["message"] for finding in group["findings"] if finding["reason"] == "ForeignChange"]


def survived(scene: Scene) -> None:
    reports = {address: stream.report() for address, stream in scene.streams.items()}
    assert all(report.error is None for report in reports.values()), reports
    print({address: str(report) for address, report in reports.items()})
    scene.settle()


def a_restart_takes_nothing(scene: Scene, manager: NetworkManager, *, times: int) -> None:
    """Start a NetworkManager anew, and have it load its files again: no address is away for a moment."""
    whole(scene, ITS_OWN)
    with told(scene.lab.host.namespace) as lines:
        for _ in range(times):
            manager.stop()
            manager.start()
            manager.configured()
        manager.nmcli("general", "reload")
        manager.nmcli("connection", "reload")
        whole(scene, ITS_OWN)
    assert not taken(lines, *OURS, ITS_OWN)
    survived(scene)


def an_outage_takes_nothing(scene: Scene) -> None:
    """Pull the cable of nic0 for longer than a daemon bears it: no address is deleted meanwhile."""
    host = scene.lab.host
    whole(scene, ITS_OWN)
    host.nic("nic0").unplug()
    wait_for(lambda: host.holders(ITS_OWN), lambda holders: holders == ["nic1"])
    with told(host.namespace) as lines:
        time.sleep(OUTAGE)
    assert not [line for line in lines if "Deleted" in line]
    host.nic("nic0").plug()
    whole(scene, ITS_OWN)
    survived(scene)


def taken(lines: list[str], *addresses: str) -> dict[str, list[float]]:
    """How long each address was away each time; those that never were are not in it."""
    found = {address: times for address in addresses if (times := absences(lines, address))}
    print({address: [f"{seconds * 1e3:.1f} ms" for seconds in times] for address, times in found.items()})
    return found
