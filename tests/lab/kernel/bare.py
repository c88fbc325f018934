"""The kernel by itself: our requests and frames, its answers and notifications, and no agent that mends anything."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING, Self

from ipmp_agent.linux.messages import frames, netlink
from ipmp_agent.linux.shared.monitor import GROUPS

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from tests.lab import Namespace, Nic


def send(namespace: Namespace, *requests: bytes) -> list[str]:
    """Send requests in one batch, as the agent does; returns what the kernel says of those it refuses."""

    def work() -> list[str]:
        channel = netlink.Channel()
        try:
            return [failure.text for failure in channel.send(requests)]
        finally:
            channel.close()

    return namespace.call(work)


def tagged(frame: bytes, vlan: int) -> bytes:
    """A frame of a VLAN, as a trunk port has it; of VLAN 0: with a priority, and of the port's own VLAN (802.1Q)."""
    return frame[:12] + struct.pack("!HH", 0x8100, vlan) + frame[12:]


class Notifications:
    """What the kernel tells of links, addresses, routes and nexthops from now on."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.call(netlink.open_socket, GROUPS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def pending(self) -> list[netlink.Message]:
        """What was told since the last call. The kernel tells what a request did before it acknowledges it."""
        told: list[netlink.Message] = []
        while found := netlink.read(self._socket):
            told += found
        return told


class Wire:
    """Frames sent and ARP heard at a NIC."""

    def __init__(self, nic: Nic) -> None:
        self.nic = nic
        self.mac = frames.mac_bytes(nic.mac)
        self._socket = nic.host.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((nic.name, frames.ETH_P_ARP))
        self._socket.settimeout(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def heard(self) -> list[bytes]:
        """The ARP frames that come within 50 ms."""
        found = []
        with contextlib.suppress(TimeoutError):
            while True:
                found.append(self._socket.recv(2048))
        return found

    def who_has(self, address: IPv4Address, sender: IPv4Address, patience: float = 0.5) -> set[str]:
        """Ask, as `sender`, for an address; returns the MACs of all who answer within `patience` seconds."""
        self.send(
            frames.arp(frames.ARP_REQUEST, frames.BROADCAST, self.mac, sender.packed, frames.NO_MAC, address.packed)
        )
        found = set()
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                reply = frames.read_arp_reply(self._socket.recv(2048))
            except TimeoutError:
                continue
            if reply is not None and reply.address == address:
                found.add(frames.mac_text(reply.mac))
        return found


def known_mac(namespace: Namespace, address: str, interface: str = "eth0") -> str | None:
    """The MAC address that a neighbour believes an address to be at."""
    listed = namespace.ip_json("neigh", "show", "dev", interface)
    return next((entry.get("lladdr") for entry in listed if entry["dst"] == address), None)
