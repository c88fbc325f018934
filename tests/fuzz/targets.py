"""What is fuzzed: each parser of bytes from the wire, the kernel, the disk, a socket, the API server and people.

The corpora are made here, by our own packers and from what this kernel says of this host.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ipmp_agent.commands import ipmp_agent as command_line
from ipmp_agent.disk import recording, state
from ipmp_agent.linux.group import memory, multicast
from ipmp_agent.linux.messages import (
    addresses,
    frames,
    links,
    neighbors,
    netlink,
    nftables,
    routes,
    tunnel_devices,
)
from ipmp_agent.linux.shared import devices
from ipmp_agent.process import control, files
from ipmp_agent.simulate import documents
from ipmp_api.addresses import parse_address, parse_block, parse_interface_address, parse_network, parse_range
from ipmp_api.errors import ManifestError, ValidationError
from ipmp_api.manifest import load_manifest
from ipmp_api.parse import parse_group, parse_node_group
from ipmp_service import api_server, command
from tests.node_groups import node_group, node_group_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

MALFORMED = (struct.error, ValueError, IndexError, OverflowError)
"""What decoders of a kernel's messages raise for parts of other lengths than theirs: no kernel sends such a message."""

REPOSITORY = Path(__file__).parents[2]
RELEASES = REPOSITORY / "tests/unit/agent/releases"
MAC, OTHER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
WORDS = [b"node-1.example", b"[::1]:9478", b"127.0.0.1:9478", b"198.18.0.1-198.18.0.9", b"2001:db8::/64"]
PAGE = "\f"
"""Between two files in one input."""
V4, V6 = IPv4Address("198.18.0.1"), IPv6Address("fe80::1")


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: on the command line.
        parse: parses; what it returns does not matter.
        seeds: makes inputs that it reads.
        declared: what it may raise.
        grow: makes an input of about n parts, whose parsing must take time in proportion; None: its length is bounded.
    """

    name: str
    parse: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    declared: tuple[type[Exception], ...] = ()
    grow: Callable[[int], bytes] | None = None

    def __call__(self, data: bytes) -> None:
        """Parse these bytes; what is declared is in order."""
        try:
            self.parse(data)
        except self.declared:
            return


# -- the wire ---------------------------------------------------------------------------------------------------------


def _arp() -> list[bytes]:
    return [
        frames.arp(frames.ARP_REPLY, MAC, OTHER_MAC, OTHER_MAC, MAC, V4.packed),
        frames.arp_probe(MAC, V4),
        frames.gratuitous_arp_reply(MAC, V4),
    ]


def _advertisements() -> list[bytes]:
    whole = frames.neighbor_advertisement(MAC, V6, router=True)
    return [whole[14 + 40 :], frames.neighbor_solicitation(MAC, V6, V6)[14 + 40 :]]


def _echoes(version: int) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        request = frames.echo_request(version, 7, 8, 1, 9)
        reply = bytes((0 if version == 4 else 129,)) + request[1:]
        header = bytes.fromhex("4500002400000000ff0100000a0000010a000002") if version == 4 else b""
        return [header + reply, header + request]

    return seeds


def _transitive() -> list[bytes]:
    probe = frames.Transitive(MAC, question=True, kind=1, sequence=5, bits=77)
    return [frames.transitive(OTHER_MAC, probe), frames.transitive(frames.BROADCAST, probe)]


# -- the kernel -------------------------------------------------------------------------------------------------------


def _dumped(kind: int, *requests: bytes) -> list[bytes]:
    """What this kernel says of this host: the bodies of some objects."""

    async def dump() -> list[bytes]:
        dumper = netlink.Dumper()
        try:
            found = [body for request in requests for body in await dumper.dump(kind, request)]
        finally:
            dumper.close()
        return found

    return asyncio.run(dump())[:50]


def _split(data: bytes) -> None:
    for message in netlink.messages(data):
        for offset in (0, 4, 8, 12, 16):
            netlink.attributes(message.body, offset)
        netlink.repeated(message.body, 1)
        for flags in (0, netlink.NLM_F_ACK_TLVS, netlink.NLM_F_ACK_TLVS | netlink.NLM_F_CAPPED):
            for ended in (False, True):
                netlink.error_text(netlink.refused(message.body), flags, message.body, ended=ended)


def _messages() -> list[bytes]:
    refusal = struct.pack("=iIHHII", -22, 20, 24, 5, 1, 0) + netlink.attribute(netlink.NLMSGERR_ATTR_MSG, b"no\0")
    return [
        addresses.add(7, ip_interface("198.18.0.1/24")),
        routes.set_group(1, (1, 2)) + netlink.message(netlink.NLMSG_ERROR, netlink.NLM_F_ACK_TLVS, refusal),
        netlink.message(netlink.NLMSG_DONE, 0, struct.pack("=i", 0)),
    ]


def _many_messages(parts: int) -> bytes:
    return netlink.message(netlink.RTM_NEWADDR, 0, bytes(8), *[netlink.u32(1, 5)] * parts)


def _link(data: bytes) -> None:
    links.index_of(data)
    links.family_of(data)
    links.name_of(data)
    links.decode(data)


def _address(data: bytes) -> None:
    found = addresses.decode(data)
    if found is not None:
        addresses.restore(9, found.body)
        addresses.plain(found)


def _route(data: bytes) -> None:
    routes.is_local(data)
    found = routes.decode(data)
    if found is not None:
        routes.prepend(found.body)
        routes.restore(found.body, {leg.index: 9 for leg in found.legs})
        routes.delete(found.body)


def _routes() -> list[bytes]:
    way = netlink.attribute(1, bytes((198, 18, 0, 0))) + netlink.u32(4, 2)
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, 24, 0, 0, 254, 3, 0, 1, 0)
    hop = struct.pack("=HBBi", 16, 0, 0, 2) + netlink.attribute(5, bytes((198, 18, 0, 1)))
    several = netlink.attribute(1, bytes((198, 18, 0, 0))) + netlink.attribute(9, hop + hop)
    families = [routes.get_request(family) for family in (socket.AF_INET, socket.AF_INET6)]
    return [head + way, head + several, *_dumped(netlink.RTM_GETROUTE, *families)]


def _nexthops() -> list[bytes]:
    head = struct.pack("=BBBBI", socket.AF_INET, 0, netlink.OWNER, 0, 0)
    return [
        head + netlink.u32(1, 5) + netlink.u32(5, 2) + netlink.attribute(6, V4.packed),
        head + netlink.u32(1, 6) + netlink.attribute(2, struct.pack("=IBBHIBBH", 5, 0, 0, 0, 6, 0, 0, 0)),
        *_dumped(netlink.RTM_GETNEXTHOP, routes.get_nexthops_request()),
    ]


def _neighbors() -> list[bytes]:
    head = struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, 2, 2, 0, 1)
    return [head + netlink.attribute(1, V4.packed) + netlink.attribute(2, MAC) + netlink.attribute(3, bytes(16))]


def _tunnels() -> list[bytes]:
    data = netlink.nested(2, netlink.u32(1, 7), netlink.u32(3, 2), netlink.attribute(4, V4.packed))
    info = netlink.nested(18, netlink.attribute(1, b"vxlan\0"), data)
    head = struct.pack("=BxHiII", 0, 1, 9, 0, 0) + netlink.attribute(3, b"vx1\0")
    return [head + info, *_dumped(netlink.RTM_GETLINK, links.get_request())]


def _chains() -> list[bytes]:
    hook = netlink.nested(4, netlink.u32(1, 4 << 24), netlink.u32(2, 100 << 24))
    names = (netlink.attribute(1, b"nat\0"), netlink.attribute(3, b"post\0"), netlink.attribute(7, b"nat\0"))
    return [struct.pack("=BBH", 2, 0, 0) + b"".join(names) + hook]


def _groups(data: bytes) -> None:
    igmp, _, igmp6 = data.decode(errors="replace").partition(PAGE)
    multicast.memberships(igmp, igmp6)


def _group_lines(parts: int) -> bytes:
    head = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"
    igmp = head + "2\tnic0      :     2      V3\n" + "\t\t\t\t050000EF     1 0:00000000\t\t0\n" * parts
    return (igmp + PAGE + "2    nic0            ff020000000000000000000000000005     1 00000004 0\n" * parts).encode()


# -- the disk ---------------------------------------------------------------------------------------------------------


def _state(data: bytes) -> None:
    text = data.decode()
    found = state.parse(text, None, lambda _: None)
    for group in found.groups.values():
        kept, _ = memory.read(group.kernel)
        memory.former_members(kept)
        if memory.read(kept) != (kept, []):
            raise AssertionError(f"read once more it is another memory: {kept}")
    if state.parse(state.dump(found, None), None) != found:
        raise AssertionError("what was read is written as something else")


def _states() -> list[bytes]:
    return [path.read_bytes() for path in sorted(RELEASES.glob("*/state*.json"))]


def _long_state(parts: int) -> bytes:
    document = json.loads(_states()[0])
    lab = document["groups"]["lab"]
    lab["history"] = lab["history"][:1] * parts
    lab["kernel"]["routes"] = lab["kernel"]["routes"][:1] * parts
    return json.dumps(document).encode()


def _recording(data: bytes) -> None:
    for _ in recording.read(data.decode().splitlines(keepends=True)):
        pass


def _recorded(parts: int) -> bytes:
    (path,) = sorted(RELEASES.glob("*/*.jsonl"))[:1]
    head, *lines = path.read_bytes().splitlines(keepends=True)
    return head + b"".join((lines * (parts // len(lines) + 1))[:parts])


# -- sockets, the API server, people ----------------------------------------------------------------------------------


def _requests() -> list[bytes]:
    asked: list[dict[str, Any]] = [
        {"op": "ping"},
        {"op": "snapshot", "live": False},
        {"op": "offline", "interface": "nic0", "group": None, "force": True},
    ]
    return [json.dumps(each).encode() + b"\n" for each in asked]


def _object(data: bytes) -> None:
    """What a 200 answer or a watch may hold, and what an agent takes of it: unknown fields are none of its business."""
    found = json.loads(data)
    if isinstance(found, dict):
        for parse in (parse_group, parse_node_group):
            for strict in (False, True):
                try:
                    parse(found, strict=strict)
                except ValidationError as error:
                    str(error)


def _refusal(data: bytes) -> None:
    """A refusal of the API server, or of whatever stands before it, and what its Retry-After says."""
    text, _, retry_after = data.decode(errors="replace").partition(PAGE)
    api_server._refusal(429, text, retry_after)


def _refusals() -> list[bytes]:
    status = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "slow down"}
    return [json.dumps(status).encode() + PAGE.encode() + after for after in (b"1", b"99999999999999", b"-1", b"")]


def _events() -> list[bytes]:
    (group, *_) = (json.loads(each) for each in _objects())
    group["metadata"]["resourceVersion"] = "7"
    bookmark = {"metadata": {"resourceVersion": "8"}}
    return [json.dumps({"type": k, "object": o}).encode() for k, o in (("ADDED", group), ("BOOKMARK", bookmark))]


def _objects() -> list[bytes]:
    group = node_group("lab", ("nic0", "nic1"), addresses=("198.18.0.100/24",), targets=("198.18.0.1",))
    return [json.dumps(each).encode() for each in (node_group_manifest(group), *_examples())]


def _large_node_group(parts: int) -> bytes:
    numbers = range(min(parts, 4000))
    group = node_group("lab", ("nic0",), addresses=[f"198.18.{i // 250}.{i % 250}/32" for i in numbers])
    return json.dumps(node_group_manifest(group)).encode()


def _examples() -> list[Any]:
    texts = [path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "examples").glob("*.yaml"))]
    return [document.content for text in texts for document in load_manifest(text)]


def _manifest(data: bytes) -> None:
    for document in load_manifest(data.decode()):
        try:
            files._compile(document, "node1", lambda _: None)
        except ValidationError as error:
            str(error)


def _manifests() -> list[bytes]:
    texts = [path.read_bytes() for path in sorted((REPOSITORY / "examples").glob("*.yaml"))]
    listed = b"kind: List\nitems: [{kind: A, b: 0x1f}, &a {c: !!float 1e3, d: ~}]\n"
    tagged = b"kind: B\na: &a {b: [!!set {c, d}]}\ne: *a\n"
    return [*texts, listed, tagged, yaml.safe_dump({"kind": "List", "items": _examples()}).encode()]


def _long_manifest(parts: int) -> bytes:
    entries = [{"nodeName": f"node{i}", "addresses": [f"198.18.{i // 250}.{i % 250}"]} for i in range(min(parts, 1000))]
    spec = {"interfaces": [{"name": "nic0"}], "dataAddresses": {"assigned": entries}}
    group = {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPGroup", "metadata": {"name": "lab"}, "spec": spec}
    return yaml.safe_dump(group).encode()


def _script(data: bytes) -> None:
    path = Path("/dev/shm") / f"ipmp-fuzz-{id(data)}"
    path.write_bytes(data)
    try:
        documents.load([path])
    finally:
        path.unlink()


def _scripts() -> list[bytes]:
    group = (REPOSITORY / "examples/lab.yaml").read_bytes()
    scripts = sorted((REPOSITORY / "examples/simulations").glob("*.yaml"))
    return [group + b"\n---\n" + path.read_bytes() for path in scripts]


def _words(data: bytes) -> None:
    """What people write into one field, or after one option."""
    text = data.decode()
    for field in (parse_address, parse_interface_address, parse_network, parse_range, parse_block):
        try:
            field(text)
        except ValueError:
            continue
    for parse in (command_line._node_name, command.address, command.seconds):
        try:
            parse(text)
        except argparse.ArgumentTypeError:
            continue


TARGETS = {
    target.name: target
    for target in (
        Target("arp", frames.read_arp_reply, _arp),
        Target("advertisement", frames.read_advertisement, _advertisements),
        Target("echo-ipv4", lambda data: frames.read_echo_reply(4, data), _echoes(4)),
        Target("echo-ipv6", lambda data: frames.read_echo_reply(6, data), _echoes(6)),
        Target("transitive", frames.read_transitive, _transitive),
        Target("netlink", _split, _messages, grow=_many_messages),
        Target("link", _link, lambda: _dumped(netlink.RTM_GETLINK, links.get_request()), MALFORMED),
        Target("address", _address, lambda: _dumped(netlink.RTM_GETADDR, addresses.get_request()), MALFORMED),
        Target("route", _route, _routes, MALFORMED),
        Target("nexthop", routes.decode_nexthop, _nexthops, MALFORMED),
        Target("neighbor", neighbors.decode, _neighbors, MALFORMED),
        Target("tunnel", tunnel_devices.decode, _tunnels, MALFORMED),
        Target("device", devices.decode, lambda: _dumped(netlink.RTM_GETLINK, links.get_request()), MALFORMED),
        Target("chain", nftables._decode_chain, _chains, MALFORMED),
        Target("memberships", _groups, lambda: [_group_lines(3)], grow=_group_lines),
        Target("state", _state, _states, (ValueError, RecursionError), _long_state),
        Target("recording", _recording, lambda: [_recorded(40)], (ValueError,), _recorded),
        Target("request", control._request, _requests, (control.RefusedError,), lambda n: b"[" * n),
        Target("object", _object, _objects, (ValueError, RecursionError), _large_node_group),
        Target("refusal", _refusal, _refusals),
        Target(
            "watch",
            api_server._read_event,
            _events,
            (api_server.ApiError, ValueError, RecursionError),
            lambda n: b"[" * n,
        ),
        Target("manifest", _manifest, _manifests, (ManifestError, UnicodeDecodeError), _long_manifest),
        Target("script", _script, _scripts, (command.BadInputError,)),
        Target(
            "words",
            _words,
            lambda: WORDS,
            (UnicodeDecodeError,),
        ),
    )
}
