"""rtnetlink: messages packed by hand, sent in one batch, their acknowledgements read after.

The hot path of a failover goes through here: a library takes 15 times as long (docs/design/kernel.md).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OWNER = 0x49
"""Tag of everything this agent adds: IFA_PROTO of addresses, protocol of routes and nexthops."""

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
"""The address family by IP version."""

RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
"""Scopes, of addresses and routes alike."""

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWNEXTHOP, RTM_DELNEXTHOP, RTM_GETNEXTHOP = 104, 105, 106

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

BUFFER_BYTES = 8 << 20
"""Socket buffer asked for. An error acknowledgement takes about 1.3 KiB of it."""

BATCH_MESSAGES = 2048
"""Messages in one send: even if the kernel refused every one, its answers fit the buffer."""

RECEIVE_BYTES = 1 << 16

MAX_ERRNO = 4095
"""Of the kernel."""

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_PATCH = struct.Struct("=HI")  # flags, sequence: what a packed message still needs, at offset 6
_FLAGS = struct.Struct("=H")
_ERROR = struct.Struct("=i")
_PATCH_OFFSET = 6

HEADER_BYTES = _HEADER.size
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


@frozen
class Failure:
    """What the kernel refused of a batch."""

    position: int  # in the batch
    error: int  # errno, positive
    text: str  # the kernel's own words, or the name of the errno

    def __str__(self) -> str:
        return f"{self.text} (errno {self.error})"


@frozen
class Message:
    """One message received."""

    kind: int
    flags: int
    port: int  # netlink port of the requester, where the kernel says it
    body: bytes


class OverrunError(OSError):
    """The kernel dropped messages for want of buffer space: what was heard so far is not the whole."""


class InterruptedDumpError(OSError):
    """The kernel's tables changed during every attempt to dump them."""


def attribute(kind: int, payload: bytes) -> bytes:
    """Pack one attribute, padded to 4 bytes."""
    length = len(payload)
    return _ATTRIBUTE.pack(length + 4, kind) + payload + _PADDING[length & 3]


def nested(kind: int, *attributes: bytes) -> bytes:
    """Pack an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def u32(kind: int, value: int) -> bytes:
    """Pack a 32-bit attribute."""
    return _ATTRIBUTE.pack(8, kind) + value.to_bytes(4, sys.byteorder)


def message(kind: int, flags: int, *parts: bytes) -> bytes:
    """Pack a request; the channel fills in sequence and acknowledgement when it sends."""
    body = b"".join(parts)
    return _HEADER.pack(HEADER_BYTES + len(body), kind, flags | NLM_F_REQUEST, 0, 0) + body


def attributes(data: bytes, offset: int) -> dict[int, bytes]:
    """Unpack attributes from `offset` to the end; of a repeated one the last."""
    found = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def repeated(data: bytes, wanted: int) -> list[bytes]:
    """Unpack every attribute of one kind, in order."""
    found = []
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        if kind & NLA_TYPE_MASK == wanted:
            found.append(data[offset + 4 : offset + length])
        offset += (length + 3) & ~3
    return found


def number(payload: bytes) -> int:
    """Unpack an attribute that is an unsigned number in host order."""
    return int.from_bytes(payload, sys.byteorder)


def messages(data: bytes) -> Iterator[Message]:
    """Split one datagram into its messages."""
    offset = 0
    while offset + HEADER_BYTES <= len(data):
        length, kind, flags, _, port = _HEADER.unpack_from(data, offset)
        if length < HEADER_BYTES:
            break
        yield Message(kind, flags, port, data[offset + HEADER_BYTES : offset + length])
        offset += (length + 3) & ~3


def open_socket(groups: Sequence[int] = (), family: int = socket.NETLINK_ROUTE) -> socket.socket:
    """Open a non-blocking netlink socket of the caller's network namespace, with large buffers.

    Args:
        groups: RTNLGRP_* numbers to join.
        family: NETLINK_* number of the subsystem.
    """
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    try:
        for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
            channel.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            channel.setsockopt(SOL_NETLINK, option, 1)
        channel.bind((0, 0))
        for group in groups:
            channel.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        channel.setblocking(False)
    except OSError:
        channel.close()
        raise
    return channel


def read(channel: socket.socket) -> list[Message]:
    """Read one datagram; empty if there is none.

    Raises:
        OverrunError: messages were lost before this one.
    """
    try:
        return list(messages(channel.recv(RECEIVE_BYTES)))
    except BlockingIOError:
        return []
    except OSError as error:
        if error.errno == errno.ENOBUFS:
            raise OverrunError(error.errno, "netlink messages lost: receive buffer overrun") from error
        raise


class Channel:
    """Requests to the kernel, answered before the call returns."""

    def __init__(self) -> None:
        self._socket = open_socket()
        self._sequence = 0

    @property
    def port(self) -> int:
        """The netlink port: notifications that our own requests cause may carry it."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def send(self, requests: Sequence[bytes]) -> list[Failure]:
        """Send packed requests in order, in as few calls as the buffers allow; return what was refused.

        A refused request does not stop the following ones.
        """
        failures: list[Failure] = []
        for start in range(0, len(requests), BATCH_MESSAGES):
            failures += self._send_batch(requests[start : start + BATCH_MESSAGES], start)
        return failures

    def _send_batch(self, requests: Sequence[bytes], start: int) -> list[Failure]:
        first = self._sequence + 1
        self._sequence += len(requests)
        batch = bytearray().join(requests)
        offset = 0
        last = len(requests) - 1
        for position, request in enumerate(requests):
            (flags,) = _FLAGS.unpack_from(request, _PATCH_OFFSET)
            if position == last:
                # Refusals come without being asked for; the one acknowledgement says that all were worked off.
                flags |= NLM_F_ACK
            _PATCH.pack_into(batch, offset + _PATCH_OFFSET, flags, (first + position) & 0xFFFFFFFF)
            offset += len(request)
        try:
            self._socket.send(batch)
        except OSError as error:
            return [_not_sent(start + position, error) for position in range(len(requests))]
        return self._answers(first, len(requests), start)

    def _answers(self, first: int, count: int, start: int) -> list[Failure]:
        """Read refusals up to the final acknowledgement. rtnetlink works inside send: all answers are there."""
        failures: list[Failure] = []
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except OSError as error:
                failures.append(_not_sent(start + count - 1, error))
                return failures
            offset = 0
            while offset + HEADER_BYTES <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
                if length < HEADER_BYTES:
                    break
                position = (sequence - first) & 0xFFFFFFFF
                if kind == NLMSG_ERROR and position < count:
                    answer = data[offset + HEADER_BYTES : offset + length]
                    refusal = refused(answer)
                    if refusal:
                        failures.append(Failure(start + position, refusal, error_text(refusal, flags, answer)))
                    if position == count - 1:
                        return failures
                offset += (length + 3) & ~3

    def ask(self, request: bytes) -> bytes | None:
        """Ask for one object; returns the body of the answer, or None if there is no such object."""
        self._sequence += 1
        asked = bytearray(request)
        _PATCH.pack_into(asked, _PATCH_OFFSET, NLM_F_REQUEST, self._sequence & 0xFFFFFFFF)
        self._socket.send(asked)
        while True:
            data = self._socket.recv(RECEIVE_BYTES)
            if len(data) < HEADER_BYTES:
                continue
            length, kind, _, sequence, _ = _HEADER.unpack_from(data)
            if sequence == self._sequence & 0xFFFFFFFF:
                return None if kind == NLMSG_ERROR else data[HEADER_BYTES:length]


class Dumper:
    """Whole tables of the kernel, read without holding up the loop for longer than one datagram."""

    ATTEMPTS = 5

    def __init__(self, family: int = socket.NETLINK_ROUTE) -> None:
        self._socket = open_socket(family=family)
        self._turn = asyncio.Lock()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    async def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of all objects that a GET request with this body selects.

        Raises:
            OSError: the kernel refuses the request, or its tables never held still.
        """
        async with self._turn:
            for _ in range(self.ATTEMPTS):
                try:
                    found = await self._attempt(message(kind, NLM_F_DUMP, body))
                except asyncio.CancelledError:
                    self._discard()
                    raise
                if found is not None:
                    return found
        raise InterruptedDumpError(errno.EAGAIN, f"dump {kind} interrupted {self.ATTEMPTS} times")

    async def _attempt(self, request: bytes) -> list[bytes] | None:
        self._socket.send(request)
        found: list[bytes] = []
        whole = True
        while True:
            for got in read(self._socket):
                whole = whole and not got.flags & NLM_F_DUMP_INTR
                if got.kind in (NLMSG_DONE, NLMSG_ERROR):
                    error = refused(got.body)
                    if error:  # also at the end: what was sent before it is not the whole table
                        words = error_text(error, got.flags, got.body, ended=got.kind == NLMSG_DONE)
                        raise OSError(error, words)
                    return found if whole else None
                found.append(got.body)
            await asyncio.sleep(0)

    def _discard(self) -> None:
        """Read an abandoned dump to its end: the socket takes no other before that."""
        while not any(got.kind in (NLMSG_DONE, NLMSG_ERROR) for got in read(self._socket)):
            pass


def _not_sent(position: int, error: OSError) -> Failure:
    return Failure(position, error.errno or errno.EIO, error.strerror or str(error))


def refused(answer: bytes) -> int:
    """The errno in the body of an NLMSG_ERROR or NLMSG_DONE, positive; 0: all is well."""
    if len(answer) < _ERROR.size:
        return errno.EBADMSG
    return abs(int(_ERROR.unpack_from(answer)[0]))


def error_text(error: int, flags: int, answer: bytes, *, ended: bool = False) -> str:
    """The kernel's explanation of a refusal (the body of an NLMSG_ERROR), or the name of the error.

    That of a dump that `ended` with an error (NLMSG_DONE) does not repeat the request.
    """
    if flags & NLM_F_ACK_TLVS:
        # errno, then the header of the request, whole unless capped.
        offset = 4
        if not ended:
            length = number(answer[4:8])
            offset += HEADER_BYTES if flags & NLM_F_CAPPED else (length + 3) & ~3
        words = attributes(answer, offset).get(NLMSGERR_ATTR_MSG)
        if words:
            return words.rstrip(b"\0").decode(errors="replace")
    return os.strerror(error) if error <= MAX_ERRNO else f"error {error}"
