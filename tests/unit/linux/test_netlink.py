"""Netlink messages, packed and read by hand."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipmp_agent.linux.messages import addresses, netlink

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("payload", "packed"),
    [
        (b"", "04000100"),
        (b"\x01", "0500010001000000"),
        (b"\x01\x02\x03\x04", "0800010001020304"),
        (b"\x01\x02\x03\x04\x05", "090001000102030405000000"),
    ],
)
def test_an_attribute_is_padded_and_its_length_is_not(payload: bytes, packed: str) -> None:
    assert netlink.attribute(1, payload) == bytes.fromhex(packed)


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40)))
def test_attributes_are_read_as_they_were_packed(wanted: dict[int, bytes]) -> None:
    data = b"head" + b"".join(netlink.attribute(kind, payload) for kind, payload in wanted.items())
    assert netlink.attributes(data, 4) == wanted


@given(st.binary(max_size=200))
def test_garbage_ends_the_reading_and_nothing_else(data: bytes) -> None:
    netlink.attributes(data, 0)
    netlink.repeated(data, 0)
    list(netlink.messages(data))


def test_of_a_repeated_attribute_the_last_counts_or_every_one() -> None:
    data = netlink.u32(8, 1) + netlink.u32(7, 9) + netlink.u32(8, 2)
    assert netlink.attributes(data, 0)[8] == struct.pack("=I", 2)
    assert netlink.repeated(data, 8) == [struct.pack("=I", 1), struct.pack("=I", 2)]


def test_nesting_is_marked() -> None:
    packed = netlink.nested(26, netlink.u32(1, 5))
    assert struct.unpack_from("=HH", packed) == (12, 26 | netlink.NLA_F_NESTED)
    assert netlink.attributes(packed, 0) == {26: netlink.u32(1, 5)}


def test_a_message_says_its_length_and_asks() -> None:
    packed = netlink.message(netlink.RTM_NEWADDR, netlink.NLM_F_CREATE, b"12345678", netlink.u32(1, 7))
    (message,) = netlink.messages(packed)
    assert (message.kind, message.flags) == (netlink.RTM_NEWADDR, netlink.NLM_F_CREATE | netlink.NLM_F_REQUEST)
    assert message.body == b"12345678" + netlink.u32(1, 7)


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", netlink.HEADER_BYTES + len(body), kind, flags, 0, 0) + body


def test_a_dump_that_is_broken_off_is_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing in it would be taken for gone, and be mended."""
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    monkeypatch.setattr(netlink, "open_socket", lambda **_: ours)
    one = packet(netlink.RTM_NEWADDR, b"1234")
    broken_off = struct.pack("=i", -errno.ENOMEM) + netlink.attribute(netlink.NLMSGERR_ATTR_MSG, b"no room\0")
    answers = [
        [one, packet(netlink.NLMSG_DONE, broken_off, netlink.NLM_F_ACK_TLVS)],
        [one, packet(netlink.NLMSG_DONE, struct.pack("=i", -errno.ENODEV))],
        [one, one, packet(netlink.NLMSG_DONE, struct.pack("=i", 0))],
    ]

    async def dumps() -> list[Any]:
        dumper = netlink.Dumper()
        outcomes: list[Any] = []
        for answer in answers:
            for datagram in answer:
                kernels.send(datagram)
            try:
                outcomes.append(await dumper.dump(netlink.RTM_GETADDR, b""))
            except OSError as error:
                outcomes.append((error.errno, error.strerror))
        return outcomes

    with ours, kernels:
        outcomes = asyncio.run(dumps())
    assert outcomes == [(errno.ENOMEM, "no room"), (errno.ENODEV, os.strerror(errno.ENODEV)), [b"1234", b"1234"]]


@pytest.mark.parametrize("text", ["198.18.0.1/24", "198.18.0.1/32", "2001:db8::1/64", "2001:db8::1/128"])
def test_an_address_request_reads_back(text: str) -> None:
    address = ip_interface(text)
    (message,) = netlink.messages(addresses.add(7, address, scope=netlink.RT_SCOPE_LINK))
    read = addresses.decode(message.body)
    assert read is not None
    assert (read.index, read.address, read.scope, read.owned) == (7, address, netlink.RT_SCOPE_LINK, True)
    assert bool(read.flags & addresses.IFA_F_NOPREFIXROUTE)
    assert bool(read.flags & addresses.IFA_F_NODAD) == (address.version == 6)


@pytest.mark.parametrize(
    ("address", "flags", "protocol", "leased"),
    [
        ("198.18.0.1/24", addresses.IFA_F_PERMANENT, 0, False),
        ("198.18.0.1/24", addresses.IFA_F_PERMANENT | 0x01, 0, False),  # secondary: of IPv6 the same bit is temporary
        ("198.18.0.1/24", 0, 0, True),
        ("2001:db8::1/64", addresses.IFA_F_PERMANENT, 0, False),
        ("2001:db8::1/64", 0, 0, True),
        ("2001:db8::1/64", addresses.IFA_F_PERMANENT, addresses.IFAPROT_KERNEL_RA, True),
        ("2001:db8::1/64", addresses.IFA_F_PERMANENT | addresses.IFA_F_MANAGETEMPADDR, 0, True),
    ],
)
def test_an_address_given_for_a_time_is_leased(address: str, flags: int, protocol: int, *, leased: bool) -> None:
    installed = addresses.InstalledAddress(1, ip_interface(address), 0, flags, protocol, b"")
    assert installed.leased is leased


def test_a_foreign_ipv6_address_comes_back_without_detection_and_then_with_its_own_flags() -> None:
    body = struct.pack("=BBBBI", 10, 64, 0x80, 0, 3) + netlink.attribute(1, ip_interface("2001:db8::1/64").packed)
    body += netlink.u32(addresses.IFA_FLAGS, addresses.IFA_F_PERMANENT)
    flags = []
    for request in addresses.restore(9, body):
        (message,) = netlink.messages(request)
        read = addresses.decode(message.body)
        assert read is not None
        assert read.index == 9
        flags.append(bool(read.flags & addresses.IFA_F_NODAD))
    assert flags == [True, False]


@contextlib.contextmanager
def answered(monkeypatch: pytest.MonkeyPatch, *datagrams: bytes) -> Iterator[netlink.Channel]:
    """A channel to which the kernel has answered this already."""
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    monkeypatch.setattr(netlink, "open_socket", lambda **_: ours)
    with ours, kernels:
        for datagram in datagrams:
            kernels.send(datagram)
        yield netlink.Channel()


SHORT = {
    "length 0": struct.pack("=IHHII", 0, netlink.NLMSG_ERROR, 0, 1, 0) + b"\0" * 20,
    "no body": struct.pack("=IHHII", 16, netlink.NLMSG_ERROR, 0, 1, 0),
    "half a body": struct.pack("=IHHII", 18, netlink.NLMSG_ERROR, 0, 1, 0) + b"\xff\xff",
    "half a header": b"\x10\0\0\0\2\0",
    "words without a request": struct.pack("=IHHIIi", 20, netlink.NLMSG_ERROR, netlink.NLM_F_ACK_TLVS, 1, 0, -22),
    "no error": struct.pack("=IHHIIi", 20, netlink.NLMSG_ERROR, 0, 1, 0, -(2**31)),
}


@pytest.mark.parametrize("datagram", SHORT.values(), ids=SHORT)
def test_answers_that_are_too_short_end_the_wait_and_are_a_refusal(
    monkeypatch: pytest.MonkeyPatch, datagram: bytes
) -> None:
    request = netlink.message(netlink.RTM_NEWADDR, 0, b"12345678")
    with answered(monkeypatch, datagram) as channel:
        (failure,) = channel.send([request])
    assert failure.position == 0
    assert failure.error > 0
    assert failure.text
    # Where nothing of it is an answer, there is no other either.
    with answered(monkeypatch, datagram) as channel, contextlib.suppress(BlockingIOError):
        assert channel.ask(request) in (None, b"")


@pytest.mark.parametrize("body", [b"", b"\0\0", struct.pack("=i", -(2**31))])
def test_a_dump_that_ends_with_half_a_message_is_no_table(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    monkeypatch.setattr(netlink, "open_socket", lambda **_: ours)
    kernels.send(packet(netlink.NLMSG_DONE, body))

    async def dump() -> list[bytes]:
        return await netlink.Dumper().dump(netlink.RTM_GETADDR, b"")

    with ours, kernels, pytest.raises(OSError, match=r"Bad message|error 2147483648"):
        asyncio.run(dump())
