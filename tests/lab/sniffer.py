"""Announcements as a neighbour hears them: gratuitous ARP in both forms, unsolicited neighbour advertisements."""

from __future__ import annotations

import ctypes
import ipaddress
import itertools
import select
import socket
import struct
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from tests.lab import clock
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab.namespaces import Namespace

ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
SO_ATTACH_FILTER = 26
NEIGHBOUR_ADVERTISEMENT, TARGET_LINK_ADDRESS_OPTION = 136, 2
NA_SOLICITED, NA_OVERRIDE = 0x40, 0x20
ETHERNET, IPV6_HEADER = 14, 40


class Form(StrEnum):
    """Which kind of frame announced, or asked."""

    ARP_REQUEST = "arp-request"
    ARP_REPLY = "arp-reply"
    NEIGHBOUR_ADVERTISEMENT = "neighbour-advertisement"


@dataclass(frozen=True)
class Announcement:
    """One frame that says where an address lives. `gratuitous`: nobody asked, and it speaks of its own sender."""

    time: float
    form: Form
    address: str
    mac: str
    ethernet_source: str
    gratuitous: bool
    override: bool = True


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def decode(frame: bytes, time: float) -> Announcement | None:
    """Return what an ARP or NA frame says, or None for any other frame."""
    (ether_type,) = struct.unpack_from("!H", frame, 12)
    source = _mac(frame[6:12])
    if ether_type == ETH_P_ARP and len(frame) >= ETHERNET + 28:
        operation, sender_mac, sender, _, target = struct.unpack_from("!6xH6s4s6s4s", frame, ETHERNET)
        form = Form.ARP_REQUEST if operation == 1 else Form.ARP_REPLY
        return Announcement(time, form, str(ipaddress.ip_address(sender)), _mac(sender_mac), source, sender == target)
    start = ETHERNET + IPV6_HEADER
    if ether_type == ETH_P_IPV6 and len(frame) >= start + 24 and frame[start] == NEIGHBOUR_ADVERTISEMENT:
        flags, address = frame[start + 4], frame[start + 8 : start + 24]
        options = frame[start + 24 :]
        has_mac = len(options) >= 8 and options[0] == TARGET_LINK_ADDRESS_OPTION
        return Announcement(
            time,
            Form.NEIGHBOUR_ADVERTISEMENT,
            str(ipaddress.ip_address(address)),
            _mac(options[2:8]) if has_mac else "",
            source,
            not flags & NA_SOLICITED,
            bool(flags & NA_OVERRIDE),
        )
    return None


@dataclass
class Sniffer:
    """Records every ARP and neighbour advertisement that arrives at an interface, with the kernel's timestamps."""

    namespace: Namespace
    interface: str = "eth0"
    heard: list[Announcement] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event, repr=False)
    _ready: threading.Event = field(default_factory=threading.Event, repr=False)

    def __enter__(self) -> Self:
        self._thread = self.namespace.thread(self._run, f"sniff-{self.interface}")
        self._thread.start()
        if not self._ready.wait(5):
            raise RuntimeError(f"no packet socket on {self.interface} of {self.namespace.name}; is it up?")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def announcements(self, address: str, *, mac: str | None = None, since: float = 0.0) -> list[Announcement]:
        """Return the gratuitous ones for an address, heard from `since` on, oldest first."""
        wanted = str(ipaddress.ip_address(address))
        return [
            one
            for one in list(self.heard)
            if one.gratuitous and one.address == wanted and one.time >= since and mac in (None, one.mac)
        ]

    def moves(self, address: str) -> list[float]:
        """Return the times at which an address was first announced at another MAC than before."""
        heard = self.announcements(address)
        return [one.time for before, one in itertools.pairwise(heard) if one.mac != before.mac]

    def wait_announced(self, address: str, mac: str, *, since: float = 0.0, deadline: float = 10.0) -> Announcement:
        """Wait until `address` is announced at `mac`; returns the first such announcement."""
        wait_for(
            lambda: self.announcements(address, since=since),
            lambda _: self.announcements(address, mac=mac, since=since),
            deadline=deadline,
            what=f"announcement of {address} at {mac}",
        )
        return self.announcements(address, mac=mac, since=since)[0]

    def _run(self) -> None:
        with self._open(ETH_P_ARP) as arp, self._open(ETH_P_IPV6) as ipv6:
            _only_advertisements(ipv6)
            self._ready.set()
            while not self._stopping.is_set():
                for line in select.select([arp, ipv6], [], [], 0.05)[0]:
                    said = decode(*clock.receive(line, 2048))
                    if said:
                        self.heard.append(said)

    def _open(self, protocol: int) -> socket.socket:
        line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        clock.ask_for_timestamps(line)
        line.bind((self.interface, protocol))
        return line


def _only_advertisements(line: socket.socket) -> None:
    """Attach a classic BPF program: next header ICMPv6 and type 136, so that other traffic costs nothing."""
    load_byte, jump_equal, give_back = 0x30, 0x15, 0x06
    program = (
        (load_byte, 0, 0, ETHERNET + 6),
        (jump_equal, 0, 3, socket.IPPROTO_ICMPV6),
        (load_byte, 0, 0, ETHERNET + IPV6_HEADER),
        (jump_equal, 0, 1, NEIGHBOUR_ADVERTISEMENT),
        (give_back, 0, 0, 0xFFFF),
        (give_back, 0, 0, 0),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    line.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
