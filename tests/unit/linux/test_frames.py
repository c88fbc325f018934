"""Packets of ARP, neighbour discovery and echo, byte for byte."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipmp_agent.linux.messages import frames

MAC = bytes.fromhex("020000000001")
OTHER = bytes.fromhex("020000000002")


def folded(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0")) for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_the_checksum_is_the_example_of_the_rfc() -> None:
    assert frames.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # RFC 1071, section 3


@given(st.binary(max_size=100))
def test_data_with_its_checksum_sums_to_all_ones(data: bytes) -> None:
    even = data + b"\0" * (len(data) % 2)
    assert folded(even + frames.checksum(data).to_bytes(2)) == 0xFFFF


def test_an_arp_probe_has_no_sender_address() -> None:
    assert frames.arp_probe(MAC, IPv4Address("198.18.0.9")) == bytes.fromhex(
        "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 00000000 000000000000 c6120009"
    )


def test_a_gratuitous_request_speaks_of_itself() -> None:
    assert frames.gratuitous_arp_request(MAC, IPv4Address("198.18.0.9")) == bytes.fromhex(
        "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 c6120009 000000000000 c6120009"
    )


def test_a_gratuitous_reply_has_the_same_hardware_as_target_and_sender() -> None:
    assert frames.gratuitous_arp_reply(MAC, IPv4Address("198.18.0.9")) == bytes.fromhex(
        "ffffffffffff 020000000001 0806 0001 0800 06 04 0002 020000000001 c6120009 020000000001 c6120009"
    )


def test_only_arp_replies_for_ethernet_and_ipv4_are_read() -> None:
    reply = frames.gratuitous_arp_reply(MAC, IPv4Address("198.18.0.9"))
    assert frames.read_arp_reply(reply) == frames.ArpClaim(MAC, IPv4Address("198.18.0.9"), reply=True)
    assert frames.read_arp_reply(frames.gratuitous_arp_request(MAC, IPv4Address("198.18.0.9"))) is None
    assert frames.read_arp_reply(reply[:41]) is None
    assert frames.read_arp_reply(reply[:14] + b"\0\x06" + reply[16:]) is None


def test_the_solicited_node_group_ends_like_the_address() -> None:
    group = frames.solicited_node(IPv6Address("2001:db8::12:3456"))
    assert group == IPv6Address("ff02::1:ff12:3456")
    assert frames.multicast_mac(group) == bytes.fromhex("3333ff123456")


@pytest.mark.parametrize("router", [True, False])
def test_an_advertisement_overrides_and_tells_whether_we_route(*, router: bool) -> None:
    frame = frames.neighbor_advertisement(MAC, IPv6Address("2001:db8::9"), router=router)
    assert frame[:14] == bytes.fromhex("333300000001 020000000001 86dd")
    assert frame[21] == 255  # hop limit
    message = frame[54:]
    assert int.from_bytes(message[4:8]) == 0x20000000 | (0x80000000 if router else 0)
    pseudo = frame[22:54] + len(message).to_bytes(4) + (58).to_bytes(4)
    assert folded(pseudo + message) == 0xFFFF
    assert frames.read_advertisement(message) == frames.Advertisement(IPv6Address("2001:db8::9"), MAC)


def test_a_solicitation_from_nowhere_names_no_source() -> None:
    target = IPv6Address("2001:db8::9")
    question = frames.neighbor_solicitation(MAC, frames.UNSPECIFIED_IPV6, target)
    assert len(question) == 14 + 40 + 24
    assert len(frames.neighbor_solicitation(MAC, IPv6Address("fe80::1"), target)) == 14 + 40 + 32
    direct = frames.neighbor_solicitation(MAC, IPv6Address("fe80::1"), target, OTHER)
    assert direct[:6] == OTHER
    assert direct[38:54] == target.packed


@given(st.binary(max_size=120))
def test_nothing_that_arrives_raises(data: bytes) -> None:
    frames.read_arp_reply(data)
    frames.read_advertisement(data)
    frames.read_transitive(data)
    frames.read_echo_reply(4, data)
    frames.read_echo_reply(6, data)


def test_an_advertisement_with_an_endless_option_is_refused() -> None:
    message = bytes([136, 0, 0, 0]) + bytes(20) + bytes([2, 0, 1, 2])
    assert frames.read_advertisement(message) is None


def as_reply(version: int, request: bytes) -> bytes:
    header = bytes([0x46]) + bytes(23) if version == 4 else b""  # with an IPv4 option, which must not confuse
    return header + bytes([0 if version == 4 else 129]) + request[1:]


@pytest.mark.parametrize("version", [4, 6])
def test_an_echo_brings_back_what_was_sent(version: int) -> None:
    request = frames.echo_request(version, 0xBEEF, 7, 2, 0x0123456789ABCDEF)
    assert request[0] == (8 if version == 4 else 128)
    if version == 4:
        assert folded(request) == 0xFFFF
    assert frames.read_echo_reply(version, as_reply(version, request)) == frames.Echo(0xBEEF, 7, 2, 0x0123456789ABCDEF)
    assert frames.read_echo_reply(version, as_reply(version, request)[:-1]) is None
    assert frames.read_echo_reply(version, request) is None


def test_a_transitive_frame_is_read_back_and_has_the_least_size() -> None:
    probe = frames.Transitive(MAC, question=True, kind=1, sequence=65535, bits=2**64 - 1)
    frame = frames.transitive(OTHER, probe)
    assert (len(frame), frame[:6], frame[12:14]) == (60, OTHER, b"\x88\xb5")
    assert frames.read_transitive(frame) == probe
    assert frames.read_transitive(frame[:12] + b"\x08\x00" + frame[14:]) is None
    assert frames.read_transitive(frame[:14] + b"MPLS" + frame[18:]) is None
