"""Socket filters: the kernel wakes us for what we asked for, and for nothing else.

Programs of the classic BPF machine, as (code, true jump, false jump, constant).
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import frames

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Address

SO_ATTACH_FILTER = 26
ICMPV6_FILTER = 1

LOAD_BYTE, LOAD_HALF, LOAD_WORD = 0x30, 0x28, 0x20  # ld b|h|w [k]
LOAD_BYTE_INDEXED, LOAD_HALF_INDEXED = 0x50, 0x48  # ld b|h [x + k]
LOAD_IPV4_HEADER_LENGTH = 0xB1  # x = 4 * ([k] & 0xf)
JUMP, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL = 0x05, 0x15, 0x35
RETURN = 0x06
ACCEPT, REJECT = 0x40000, 0

PACKET_TYPE = 0xFFFFF000 + 4  # SKF_AD_OFF + SKF_AD_PKTTYPE
PACKET_HOST, PACKET_OTHERHOST = 0, 3
INTERFACE_INDEX = 0xFFFFF000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX
_FAR = 48  # as many of each that a jump, of 255 at most, goes over all of them
NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF
_HOP_LIMIT = NETWORK_HEADER + 7

LEAF = 4
"""Values that are compared one after the other."""

Instruction = tuple[int, int, int, int]


def _all_of(checks: Sequence[tuple[Sequence[Instruction], int]]) -> list[Instruction]:
    """Accept what passes every check: instructions that load a value, and what it must be."""
    program: list[Instruction] = []
    lengths = [len(load) + 1 for load, _ in checks]
    for position, (load, wanted) in enumerate(checks):
        rest = sum(lengths[position + 1 :])
        program += [*load, (JUMP_EQUAL, 0, rest + 1, wanted)]
    return [*program, (RETURN, 0, 0, ACCEPT), (RETURN, 0, 0, REJECT)]


def echo_reply_ipv4(identifier: int) -> list[Instruction]:
    """Echo replies with our identifier; the raw socket sees the packet from its IPv4 header."""
    return _all_of(
        [
            ([(LOAD_IPV4_HEADER_LENGTH, 0, 0, 0), (LOAD_BYTE_INDEXED, 0, 0, 0)], frames.ICMP_ECHO_REPLY),
            ([(LOAD_HALF_INDEXED, 0, 0, 4)], identifier),
        ]
    )


def echo_reply_ipv6(identifier: int) -> list[Instruction]:
    """Echo replies with our identifier; the raw socket sees the packet from its ICMPv6 header."""
    return _all_of([([(LOAD_BYTE, 0, 0, 0)], frames.ICMPV6_ECHO_REPLY), ([(LOAD_HALF, 0, 0, 4)], identifier)])


def advertisement() -> list[Instruction]:
    """Neighbour advertisements from this link: a router would have lowered the hop limit (RFC 4861 section 7.1.2)."""
    return _all_of([([(LOAD_BYTE, 0, 0, 0)], frames.ICMPV6_ADVERTISEMENT), ([(LOAD_BYTE, 0, 0, _HOP_LIMIT)], 255)])


def arp(watched: Iterable[IPv4Address] = ()) -> list[Instruction]:
    """ARP replies sent to this very interface, and any ARP of this link in the name of a watched address.

    The packet socket sees the frame from its Ethernet header. Which addresses are watched costs a frame ten steps.
    A frame of a VLAN that has no device here comes without its tag, as one that is meant for another host: the address
    in it is one of that VLAN.
    """
    return [
        (LOAD_BYTE, 0, 0, PACKET_TYPE),
        (JUMP_EQUAL, 0, 1, PACKET_OTHERHOST),
        (RETURN, 0, 0, REJECT),
        (JUMP_EQUAL, 0, 3, PACKET_HOST),
        (LOAD_HALF, 0, 0, 20),
        (JUMP_EQUAL, 0, 1, frames.ARP_REPLY),
        (RETURN, 0, 0, ACCEPT),
        (LOAD_WORD, 0, 0, 28),
        *_one_of(sorted(int(address) for address in watched)),
    ]


def _one_of(values: Sequence[int]) -> list[Instruction]:
    """Accept what is loaded if it is one of these, in ascending order: a search by halves."""
    if len(values) <= LEAF:
        found = [step for value in values for step in ((JUMP_EQUAL, 0, 1, value), (RETURN, 0, 0, ACCEPT))]
        return [*found, (RETURN, 0, 0, REJECT)]
    middle = len(values) // 2
    low, high = _one_of(values[:middle]), _one_of(values[middle:])
    return [(JUMP_GREATER_OR_EQUAL, 1, 0, values[middle]), (JUMP, 0, 0, len(high)), *high, *low]


def transitive() -> list[Instruction]:
    """Frames between members that were sent to this very interface, from their Ethernet header."""
    return _all_of(
        [
            ([(LOAD_BYTE, 0, 0, PACKET_TYPE)], PACKET_HOST),
            ([(LOAD_WORD, 0, 0, 14)], int.from_bytes(frames.TRANSITIVE_MAGIC)),
        ]
    )


def sent_by(macs: Sequence[bytes], elsewhere_than: Sequence[int]) -> list[Instruction]:
    """Frames of this link from these MAC addresses, on any interface but those of these indexes; 48 of each at most.

    A NIC sends by the same MAC address in each of its VLANs: what comes of one that has no device here does not count.
    """
    macs, indexes = macs[:_FAR], elsewhere_than[:_FAR]
    reject = 1 + len(indexes) + 4 * len(macs)
    program: list[Instruction] = [(LOAD_BYTE, 0, 0, PACKET_TYPE), (JUMP_EQUAL, reject, 0, PACKET_OTHERHOST)]
    program += [(LOAD_WORD, 0, 0, INTERFACE_INDEX)]
    program += [(JUMP_EQUAL, reject - position - 2, 0, index) for position, index in enumerate(indexes)]
    for position, mac in enumerate(macs):
        high, low = int.from_bytes(mac[:2]), int.from_bytes(mac[2:])
        program += [(LOAD_HALF, 0, 0, 6), (JUMP_EQUAL, 0, 2, high)]
        program += [(LOAD_WORD, 0, 0, 8), (JUMP_EQUAL, 1 + 4 * (len(macs) - 1 - position), 0, low)]
    # Order: a MAC address that matches jumps over the rejection, an index that matches jumps onto it.
    return [*program, (RETURN, 0, 0, REJECT), (RETURN, 0, 0, ACCEPT)]


def attach(receiver: socket.socket, program: Sequence[Instruction]) -> None:
    """Install a filter on a socket."""
    packed = array("B", b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    receiver.setsockopt(1, SO_ATTACH_FILTER, struct.pack("HP", len(program), packed.buffer_info()[0]))


def accept_icmpv6(receiver: socket.socket, kind: int) -> None:
    """Let one ICMPv6 type through to a raw socket: the kernel's own filter, checked before a packet is cloned."""
    blocked = [0xFFFFFFFF] * 8
    blocked[kind >> 5] &= ~(1 << (kind & 31))
    receiver.setsockopt(frames.IPPROTO_ICMPV6, ICMPV6_FILTER, struct.pack("=8I", *blocked))
