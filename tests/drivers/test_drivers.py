"""A failover by a pulled cable and the return of the cable, on the drivers of real NICs.

`make test-drivers`. The times are of a guest without hardware for guests: they are printed beside each other, and not
asserted.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.guest import Guest
from tests.lab.agent import NODE_NAME, group_manifest, program
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = {"virtio-net-pci": "virtio_net", "e1000": "e1000", "igb": "igb", "ne2k_pci": "ne2k-pci"}
"""NICs as QEMU names them, and the modules that drive them."""
SILENT = {"ne2k_pci"}
"""Those whose driver never reports whether a cable is in."""
DETECTION = 5000
"""Milliseconds: a guest that runs in software, on a busy machine, is late."""
PATIENCE = 150.0
"""Seconds in which anything happens, on a busy machine."""

HOST = """
ip link set {first} name {name}a
ip link set {second} name {name}b
ip link set {name}a up
ip link set {name}b up
ip netns add {name}
ip link set {neighbour} netns {name}
ip -n {name} link set {neighbour} up
ip -n {name} address add {network}.201/24 dev {neighbour}
"""


class Node:
    """The guest with one agent, which has a group for each model."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.share = guest.share
        self.outages: list[str] = []
        names = dict(re.findall(r"^\d+: (\w+):.*?link/ether ([0-9a-f:]+)", guest.run("ip -o link"), re.MULTILINE))
        by_mac = {mac: name for name, mac in names.items()}
        manifests = []
        for hub, model in enumerate(MODELS):
            first, second, neighbour = (by_mac[guest.mac(model, number)] for number in range(3))
            name, network = MODELS[model].replace("-", "_"), f"198.18.{hub}"
            guest.run(HOST.format(first=first, second=second, neighbour=neighbour, name=name, network=network))
            manifests.append(
                group_manifest(
                    MODELS[model].replace("_", "-"),
                    interfaces=(f"{name}a", f"{name}b"),
                    addresses=(f"{network}.100/24",),
                    targets=(f"{network}.201",),
                    milliseconds=DETECTION,
                )
            )
        (self.share / "groups.yaml").write_text("\n---\n".join(json.dumps(each) for each in manifests))
        words = [program("ipmp-agent"), "run", "--file", "/run/share/groups.yaml", "--node-name", NODE_NAME]
        words += ["--state-dir", "/run/state", "--runtime-dir", "/run/ipmp", "--log-format", "json", "--no-trial"]
        words += ["--record", "/run/share/recording"]
        guest.run(f"mkdir /run/state /run/ipmp; setsid {shlex.join(words)} > /run/share/log 2>&1 < /dev/null &")

    def wait(self, model: str, reason: str, number: int = 1) -> None:
        """Wait until a group has told something so many times."""
        wait_for(
            lambda: self.reasons(model),
            lambda seen: seen.count(reason) >= number,
            deadline=PATIENCE,
            what=f"{model} {reason}",
        )

    def wait_answered(self, model: str) -> None:
        """Wait until a target has answered both members."""
        wait_for(
            lambda: {entry["v"]["interface"] for entry in self.told(model) if entry.get("e") == "ProbeAnswered"},
            lambda seen: len(seen) == 2,
            deadline=PATIENCE,
            what=f"{model} answered",
        )

    def holder(self, model: str) -> int:
        """Which of the two NICs of a model has the address."""
        hub, name = list(MODELS).index(model), MODELS[model].replace("-", "_")
        found = wait_for(
            lambda: self.guest.run(f"ip -brief -4 address show to 198.18.{hub}.100").split(),
            lambda words: words[:1] in ([f"{name}a"], [f"{name}b"]),
            deadline=PATIENCE,
            what=f"a home for the address of {model}",
        )
        return "ab".index(found[0][-1])

    def told(self, model: str) -> list[dict[str, Any]]:
        """What the core of a group was told and what it ordered, from the beginning."""
        path = self.share / "recording"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines if line.endswith("}")]
        return [entry for entry in entries if entry.get("g") == MODELS[model].replace("_", "-")]

    def links(self, model: str, number: int) -> list[bool]:
        """Every word of a link that was told, in order."""
        name = MODELS[model].replace("-", "_") + "ab"[number]
        found = [entry["v"] for entry in self.told(model) if entry.get("e") == "LinkChanged"]
        return [event["up"] for event in found if event["interface"] == name]

    def reasons(self, model: str) -> list[str]:
        """The reasons of all that people were told of a group."""
        orders = [order for entry in self.told(model) for order in entry.get("d", ()) if order[0] == "Notify"]
        return [order[1]["reason"] for order in orders]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Guest(MODELS) as guest:
        found = Node(guest)
        yield found
        print("\n".join(["", *found.outages]), file=sys.__stdout__)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", MODELS)
def test_pulled_cable_moves_the_address_and_its_return_is_one_link_up(node: Node, model: str) -> None:
    guest, address = node.guest, f"198.18.{list(MODELS).index(model)}.100"
    node.wait_answered(model)
    broken = node.holder(model)
    other = 1 - broken
    links = len(node.links(model, broken))
    guest.forget(model)
    pulled = guest.link(model, broken, up=False)
    outage = guest.heard(model, guest.mac(model, other), address) - pulled
    node.wait(model, "GroupDegraded")
    assert node.holder(model) == other
    node.outages.append(f"{model}: announced by the other NIC {outage * 1000:.0f} ms after the cable was pulled")
    guest.link(model, broken, up=True)
    node.wait(model, "GroupOk")
    told = node.links(model, broken)[links:]
    if model in SILENT:
        assert told == []
        assert "ProbesLost" in node.reasons(model)
    else:
        assert told == [False, True], "one loss, one return"
        assert "LinkDown" in node.reasons(model)


def test_nothing_unhandled_is_in_the_agents_log(node: Node) -> None:
    lines = Path(node.share / "log").read_text(encoding="utf-8").splitlines()
    assert lines
    assert not [line for line in lines if "Traceback" in line]
