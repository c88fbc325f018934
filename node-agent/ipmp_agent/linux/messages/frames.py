"""Packets of ARP, neighbour discovery and ICMP echo, packed and read by hand. Pure functions of bytes."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ipmp_api.frozen import frozen

ETH_P_IPV6, ETH_P_ARP, ETH_P_TRANSITIVE = 0x86DD, 0x0806, 0x88B5
BROADCAST = b"\xff" * 6
NO_MAC = b"\0" * 6
ALL_HOSTS_IPV4 = IPv4Address("224.0.0.1")
ALL_NODES_IPV6 = IPv6Address("ff02::1")
UNSPECIFIED_IPV6 = IPv6Address("::")

ARP_REQUEST, ARP_REPLY = 1, 2
ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST = 0, 8
ICMPV6_ECHO_REQUEST, ICMPV6_ECHO_REPLY = 128, 129
ICMPV6_SOLICITATION, ICMPV6_ADVERTISEMENT = 135, 136
IPPROTO_ICMPV6 = 58
IGMP_QUERY = 0x11
ND_SOURCE_MAC, ND_TARGET_MAC = 1, 2  # options, RFC 4861 section 4.6.1
NA_ROUTER, NA_SOLICITED, NA_OVERRIDE = 0x80000000, 0x40000000, 0x20000000

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_ND = struct.Struct("!BBHI16s")
_ECHO = struct.Struct("!BBHHHB7xQ")  # type, code, checksum, identifier, sequence; kind, random bits

ECHO_BYTES = _ECHO.size


def mac_bytes(mac: str) -> bytes:
    """Turn a MAC address with colons into six bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def mac_text(mac: bytes) -> str:
    """Turn six bytes into lower case with colons."""
    return mac.hex(":")


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071): to add words with end-around carry is to count modulo 0xFFFF."""
    number = int.from_bytes(data + b"\0" if len(data) & 1 else data)
    return 0xFFFF - (number % 0xFFFF or 0xFFFF) if number else 0xFFFF


# -- ARP -------------------------------------------------------------------------------------------------------------


def arp(operation: int, destination: bytes, source: bytes, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    """Pack an Ethernet ARP frame; addresses are given as bytes."""
    return _ETHERNET.pack(destination, source, ETH_P_ARP) + _ARP.pack(
        1, 0x0800, 6, 4, operation, source, sender, target_mac, target
    )


def arp_probe(source: bytes, target: IPv4Address, destination: bytes = BROADCAST) -> bytes:
    """ARP request with sender 0.0.0.0 (RFC 5227): changes nobody's cache, and a Linux owner answers it."""
    return arp(ARP_REQUEST, destination, source, b"\0\0\0\0", NO_MAC, target.packed)


def arp_question(source: bytes, sender: IPv4Address, target: IPv4Address, destination: bytes = BROADCAST) -> bytes:
    """Ordinary ARP request: who is asked, and who hears it, learns where the sender is (RFC 826)."""
    return arp(ARP_REQUEST, destination, source, sender.packed, NO_MAC, target.packed)


def who_has(source: bytes, address: IPv4Address | IPv6Address) -> bytes:
    """Ask who has an address, in the name of nobody: the question before it is used (RFC 5227, RFC 4862)."""
    if isinstance(address, IPv4Address):
        return arp_probe(source, address)
    return neighbor_solicitation(source, UNSPECIFIED_IPV6, address)


def gratuitous_arp_request(source: bytes, address: IPv4Address) -> bytes:
    """Announcement in request form: passes the neighbour lock time of Linux receivers."""
    return arp(ARP_REQUEST, BROADCAST, source, address.packed, NO_MAC, address.packed)


def gratuitous_arp_reply(source: bytes, address: IPv4Address) -> bytes:
    """Announcement in reply form. Linux takes it for gratuitous only if target and sender hardware are equal."""
    return arp(ARP_REPLY, BROADCAST, source, address.packed, source, address.packed)


@frozen
class ArpClaim:
    """Who says to have an address, in a question or an answer."""

    mac: bytes
    address: IPv4Address
    reply: bool


def read_arp(frame: bytes) -> ArpClaim | None:
    """Read an Ethernet frame; None unless it is well-formed ARP for Ethernet and IPv4, in the name of an address."""
    if len(frame) < _ETHERNET.size + _ARP.size:
        return None
    hardware, protocol, hlen, plen, operation, mac, sender, _, _ = _ARP.unpack_from(frame, _ETHERNET.size)
    if (hardware, protocol, hlen, plen) != (1, 0x0800, 6, 4) or operation not in (ARP_REQUEST, ARP_REPLY):
        return None
    return ArpClaim(mac, IPv4Address(sender), reply=operation == ARP_REPLY) if any(sender) else None


def read_arp_reply(frame: bytes) -> ArpClaim | None:
    """Read an Ethernet frame; None unless it is a well-formed ARP reply for Ethernet and IPv4."""
    claim = read_arp(frame)
    return claim if claim is not None and claim.reply else None


# -- IPv6 neighbour discovery ----------------------------------------------------------------------------------------


def solicited_node(target: IPv6Address) -> IPv6Address:
    """The multicast address that the owner of `target` listens to (RFC 4291 section 2.7.1)."""
    return IPv6Address(b"\xff\x02" + b"\0" * 9 + b"\x01\xff" + target.packed[13:])


def multicast_mac(group: IPv6Address) -> bytes:
    """Ethernet address of an IPv6 multicast group (RFC 2464 section 7)."""
    return b"\x33\x33" + group.packed[12:]


def ipv6_frame(
    destination: bytes, source: bytes, sender: IPv6Address, receiver: IPv6Address, message: bytes, hop_limit: int = 255
) -> bytes:
    """Pack an ICMPv6 message into IPv6 and Ethernet, and fill in its checksum."""
    pseudo = sender.packed + receiver.packed + struct.pack("!II", len(message), IPPROTO_ICMPV6)
    summed = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    header = _IPV6.pack(6 << 28, len(message), IPPROTO_ICMPV6, hop_limit, sender.packed, receiver.packed)
    return _ETHERNET.pack(destination, source, ETH_P_IPV6) + header + summed


def neighbor_solicitation(
    source: bytes, sender: IPv6Address, target: IPv6Address, destination: bytes | None = None
) -> bytes:
    """Ask who has an address. From `::` it is the question of duplicate address detection (RFC 4862)."""
    message = _ND.pack(ICMPV6_SOLICITATION, 0, 0, 0, target.packed)
    if sender != UNSPECIFIED_IPV6:
        message += struct.pack("!BB6s", ND_SOURCE_MAC, 1, source)
    if destination is None:
        group = solicited_node(target)
        return ipv6_frame(multicast_mac(group), source, sender, group, message)
    return ipv6_frame(destination, source, sender, target, message)


def neighbor_advertisement(source: bytes, address: IPv6Address, *, router: bool) -> bytes:
    """Unsolicited advertisement with the override flag, to all nodes (RFC 4861 section 7.2.6)."""
    flags = NA_OVERRIDE | (NA_ROUTER if router else 0)
    message = _ND.pack(ICMPV6_ADVERTISEMENT, 0, 0, flags, address.packed)
    message += struct.pack("!BB6s", ND_TARGET_MAC, 1, source)
    return ipv6_frame(multicast_mac(ALL_NODES_IPV6), source, address, ALL_NODES_IPV6, message)


@frozen
class Advertisement:
    """Who says to have an IPv6 address; `mac` is None if the advertisement does not say."""

    target: IPv6Address
    mac: bytes | None


def read_advertisement(message: bytes) -> Advertisement | None:
    """Read an ICMPv6 message; None unless it is a well-formed neighbour advertisement."""
    if len(message) < _ND.size:
        return None
    kind, code, _, _, target = _ND.unpack_from(message)
    if kind != ICMPV6_ADVERTISEMENT or code != 0:
        return None
    offset = _ND.size
    while offset + 2 <= len(message):
        option, units = message[offset], message[offset + 1]
        if units == 0:
            return None
        if option == ND_TARGET_MAC and units == 1 and offset + 8 <= len(message):
            return Advertisement(IPv6Address(target), message[offset + 2 : offset + 8])
        offset += units * 8
    return Advertisement(IPv6Address(target), None)


# -- ICMP echo -------------------------------------------------------------------------------------------------------


class Echo(NamedTuple):
    """What an echo reply brings back."""

    identifier: int
    sequence: int
    kind: int
    bits: int


def echo_request(version: int, identifier: int, sequence: int, kind: int, bits: int) -> bytes:
    """Pack an ICMP echo request. The kernel fills in the ICMPv6 checksum, not the other."""
    request = ICMP_ECHO_REQUEST if version == 4 else ICMPV6_ECHO_REQUEST
    message = _ECHO.pack(request, 0, 0, identifier, sequence, kind, bits)
    if version == 6:
        return message
    return _ECHO.pack(request, 0, checksum(message), identifier, sequence, kind, bits)


def read_echo_reply(version: int, packet: bytes) -> Echo | None:
    """Read what a raw socket received: with the IPv4 header, without the IPv6 header. None: not whole, or no reply."""
    offset = (packet[0] & 0xF) * 4 if version == 4 and packet else 0
    if len(packet) < offset + ECHO_BYTES:
        return None
    kind, code, _, identifier, sequence, probe_kind, bits = _ECHO.unpack_from(packet, offset)
    if kind != (ICMP_ECHO_REPLY if version == 4 else ICMPV6_ECHO_REPLY) or code != 0:
        return None
    return Echo(identifier, sequence, probe_kind, bits)


# -- between members -------------------------------------------------------------------------------------------------


def igmp_general_query() -> bytes:
    """Ask for all groups (RFC 3376 section 4.1), to be answered within 0.1 s; zeros stand for what nobody sets."""
    query = struct.Struct("!BBH4sBBH")  # type, response time in tenths, checksum, group, robustness, interval, sources
    blank = query.pack(IGMP_QUERY, 1, 0, b"", 0, 0, 0)
    return query.pack(IGMP_QUERY, 1, checksum(blank), b"", 0, 0, 0)


_TRANSITIVE = struct.Struct("!4sBBHQ")  # magic, question or answer, kind, sequence, random bits
TRANSITIVE_MAGIC = b"IPMP"
_SHORTEST_FRAME = 60  # IEEE 802.3, without the frame check sequence
FULL_FRAME = 255  # the kind of a question whether frames of full size pass, beside the kinds of the probers


@frozen
class Transitive:
    """A link-layer probe between two members of one host, or its answer."""

    source: bytes  # MAC address
    question: bool
    kind: int
    sequence: int
    bits: int


def transitive(destination: bytes, probe: Transitive, size: int = 0) -> bytes:
    """Pack a probe into a frame of the EtherType for local experiments (IEEE 802).

    Args:
        destination: MAC address.
        probe: what it says.
        size: bytes behind the Ethernet header at least, at most the MTU.
    """
    head = _ETHERNET.pack(destination, probe.source, ETH_P_TRANSITIVE)
    body = _TRANSITIVE.pack(TRANSITIVE_MAGIC, probe.question, probe.kind, probe.sequence, probe.bits)
    return (head + body).ljust(max(_SHORTEST_FRAME, _ETHERNET.size + size), b"\0")


def read_transitive(frame: bytes) -> Transitive | None:
    """Read a frame; None unless it is one of ours."""
    if len(frame) < _ETHERNET.size + _TRANSITIVE.size:
        return None
    _, source, ethertype = _ETHERNET.unpack_from(frame)
    magic, question, kind, sequence, bits = _TRANSITIVE.unpack_from(frame, _ETHERNET.size)
    if ethertype != ETH_P_TRANSITIVE or magic != TRANSITIVE_MAGIC:
        return None
    return Transitive(source, bool(question), kind, sequence, bits)
