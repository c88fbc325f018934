"""nf_tables by hand: rules packed from expressions, changes in one transaction, dumps of what is there.

Numbers in nf_tables attributes are big-endian (include/uapi/linux/netfilter/nf_tables.h).
"""

from __future__ import annotations

import asyncio
import errno
import struct
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import netlink
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence

    from ipmp_api.types import Address, Network

EGRESS_PRIORITY = 90
"""Priority of the chain of `podEgress`: before 100, where others have source NAT. The first to map a flow decides."""

NETLINK_NETFILTER = 12

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _NEWRULE, _GETRULE, _GETSETELEM, _GETGEN = (
    0,
    1,
    2,
    3,
    4,
    6,
    7,
    13,
    16,
)

INET, IPV4, IPV6 = 1, 2, 10
"""NFPROTO_* of tables and packets."""

FAMILY_NAMES = {INET: "inet", IPV4: "ip", 3: "arp", 5: "netdev", 7: "bridge", IPV6: "ip6"}
POSTROUTING = 4
"""NF_INET_POST_ROUTING."""

_BATCH_GENERATION = 1
_TABLE_NAME, _TABLE_FLAGS, _TABLE_USE = 1, 2, 3
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE, _CHAIN_FLAGS = 1, 3, 4, 5, 7, 10
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE, _HOOK_DEVICES = 1, 2, 3, 4
_DEVICE_NAME = 1
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_ELEMENT = 1
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_GENERATION = 1
_SET_TABLE, _SET_NAME, _SET_ELEMENTS = 1, 2, 3
_SET_KEY = 1

META_DREG, META_KEY = 1, 2
CMP_SREG, CMP_OP, CMP_DATA = 1, 2, 3
PAYLOAD_DREG, PAYLOAD_BASE, PAYLOAD_OFFSET, PAYLOAD_LENGTH = 1, 2, 3, 4
BITWISE_SREG, BITWISE_DREG, BITWISE_LENGTH, BITWISE_MASK, BITWISE_XOR = 1, 2, 3, 4, 5
IMMEDIATE_DREG, IMMEDIATE_DATA = 1, 2
NAT_TYPE, NAT_FAMILY, NAT_ADDRESS_MIN = 1, 2, 3
NAT_SOURCE = 0
LOOKUP_SET, LOOKUP_SREG = 1, 2
FIB_FLAGS = 3
FIB_SOURCE, FIB_INTERFACE = 1, 8  # by the source address, by the interface that the packet came in by
RPFILTER_LOOSE = 1
META_IIF, META_OIF, META_IIFNAME, META_OIFNAME, META_PROTOCOL_FAMILY = 4, 5, 6, 7, 15
NETWORK_HEADER = 1
CMP_EQ = 0
VERDICT_REGISTER, REGISTER, REGISTER_32 = 0, 1, 8
"""Of verdicts, the first of 16 bytes, and the same place as the first of 4 bytes."""
_JUMP, _GOTO, _RETURN = -3, -4, -5

SOURCE_OFFSET = {4: 12, 6: 8}
DESTINATION_OFFSET = {4: 16, 6: 24}
"""Of the address in its IP header, by IP version."""

RULES_AT_ONCE = 1000
"""Rules looked at before the loop may do something else: a millisecond or so."""

_GENERIC = struct.Struct("!BBH")  # family, version, resource


def _message(kind: int, flags: int, family: int, *attributes: bytes) -> bytes:
    return netlink.message(_SUBSYSTEM << 8 | kind, flags, _GENERIC.pack(family, 0, 0), *attributes)


def _text(kind: int, text: str) -> bytes:
    return netlink.attribute(kind, text.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return netlink.attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


# -- what is written --------------------------------------------------------------------------------------------------


def new_table(family: int, table: str) -> bytes:
    """Request for a table; one that is there stays."""
    return _message(_NEWTABLE, netlink.NLM_F_CREATE, family, _text(_TABLE_NAME, table))


def delete_table(family: int, table: str) -> bytes:
    """Request that deletes a table with all it holds."""
    return _message(_DELTABLE, 0, family, _text(_TABLE_NAME, table))


def new_chain(family: int, table: str, chain: str) -> bytes:
    """Request for a chain that others jump to."""
    return _message(_NEWCHAIN, netlink.NLM_F_CREATE, family, _text(_CHAIN_TABLE, table), _text(_CHAIN_NAME, chain))


def new_nat_chain(family: int, table: str, chain: str, priority: int) -> bytes:
    """Request for a base chain of type nat at the hook postrouting."""
    hook = netlink.nested(_CHAIN_HOOK, _number(_HOOK_NUMBER, POSTROUTING), _number(_HOOK_PRIORITY, priority))
    names = (_text(_CHAIN_TABLE, table), _text(_CHAIN_NAME, chain))
    return _message(_NEWCHAIN, netlink.NLM_F_CREATE, family, *names, hook, _text(_CHAIN_TYPE, "nat"))


def new_rule(family: int, table: str, chain: str, *expressions: bytes) -> bytes:
    """Request for a rule behind those that its chain has."""
    listed = netlink.nested(_RULE_EXPRESSIONS, *expressions)
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_APPEND
    return _message(_NEWRULE, flags, family, _text(_RULE_TABLE, table), _text(_RULE_CHAIN, chain), listed)


def _expression(name: str, *attributes: bytes) -> bytes:
    return netlink.nested(_ELEMENT, _text(_EXPRESSION_NAME, name), netlink.nested(_EXPRESSION_DATA, *attributes))


def _value(kind: int, value: bytes) -> bytes:
    return netlink.nested(kind, netlink.attribute(_DATA_VALUE, value))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(CMP_SREG, REGISTER), _number(CMP_OP, CMP_EQ), _value(CMP_DATA, value))


def leaves_by(interface: str) -> bytes:
    """Expressions: the packet leaves by the interface of this name."""
    load = _expression("meta", _number(META_KEY, META_OIFNAME), _number(META_DREG, REGISTER))
    return load + _equals(interface.encode().ljust(16, b"\0"))


def address_in(network: Network, offset: int) -> bytes:
    """Expressions: the packet is of the network's IP version, and the address at this offset of its header in it."""
    family = IPV4 if network.version == 4 else IPV6
    load = _expression("meta", _number(META_KEY, META_PROTOCOL_FAMILY), _number(META_DREG, REGISTER))
    packed, mask = network.network_address.packed, network.netmask.packed
    length = len(packed)
    fetch = _expression(
        "payload",
        _number(PAYLOAD_DREG, REGISTER),
        _number(PAYLOAD_BASE, NETWORK_HEADER),
        _number(PAYLOAD_OFFSET, offset),
        _number(PAYLOAD_LENGTH, length),
    )
    cut = _expression(
        "bitwise",
        _number(BITWISE_SREG, REGISTER),
        _number(BITWISE_DREG, REGISTER),
        _number(BITWISE_LENGTH, length),
        _value(BITWISE_MASK, mask),
        _value(BITWISE_XOR, bytes(length)),
    )
    return load + _equals(bytes([family])) + fetch + cut + _equals(packed)


def jump_to(chain: str) -> bytes:
    """Expression: go on in another chain, and come back."""
    return _verdict(_JUMP, _text(_VERDICT_CHAIN, chain))


def leave_chain() -> bytes:
    """Expression: go back to where the chain was jumped to from."""
    return _verdict(_RETURN)


def _verdict(code: int, *chain: bytes) -> bytes:
    verdict = netlink.nested(_DATA_VERDICT, _number(_VERDICT_CODE, code), *chain)
    return _expression("immediate", _number(IMMEDIATE_DREG, VERDICT_REGISTER), netlink.nested(IMMEDIATE_DATA, verdict))


def source_nat(address: Address) -> bytes:
    """Expressions: the flow gets this source address."""
    family = IPV4 if address.version == 4 else IPV6
    load = _expression("immediate", _number(IMMEDIATE_DREG, REGISTER), _value(IMMEDIATE_DATA, address.packed))
    kind = (_number(NAT_TYPE, NAT_SOURCE), _number(NAT_FAMILY, family), _number(NAT_ADDRESS_MIN, REGISTER))
    return load + _expression("nat", *kind)


_INTERFACE_TOKENS = [_number(META_KEY, key) for key in (META_IIF, META_OIF, META_IIFNAME, META_OIFNAME)]
_INTERFACE_TOKENS += [b"fib\0", b"rpfilter\0"]
"""Bytes of any rule that asks for an interface, or for the one that an answer would leave by."""


# -- what is read -----------------------------------------------------------------------------------------------------


@frozen
class Chain:
    """A base chain."""

    family: int
    table: str
    name: str
    type: str
    hook: int
    priority: int
    devices: tuple[str, ...] = ()  # that it is hooked to, where not to all


@frozen
class NftRule:
    """A rule; `packed` is its list of expressions as the kernel tells it."""

    chain: str
    packed: bytes

    def expressions(self) -> Iterator[tuple[str, dict[int, bytes]]]:
        """Name and attributes of each expression, in order."""
        for element in netlink.repeated(self.packed, _ELEMENT):
            found = netlink.attributes(element, 0)
            yield _string(found.get(_EXPRESSION_NAME, b"")), netlink.attributes(found.get(_EXPRESSION_DATA, b""), 0)


@frozen
class NftTable:
    """All that decides what a table does, as the kernel tells it: the same for as long as nobody changes it."""

    flags: bytes  # dormant, owned by a process
    holds: bytes  # how many chains, sets, objects and flow tables
    chains: tuple[tuple[bytes, ...], ...]  # of each: name, hook with priority, type, policy, flags
    rules: tuple[NftRule, ...]


class ChangedMeanwhileError(OSError):
    """Somebody changed nf_tables since the generation that a transaction is meant for: nothing was done."""


def following(generation: int) -> int:
    """The generation that a transaction leads to; there is no 0."""
    return (generation + 1) & 0xFFFFFFFF or 1


def number(payload: bytes) -> int:
    """Unpack a number."""
    return int.from_bytes(payload, "big")


def value(payload: bytes) -> bytes:
    """Unpack a constant that an expression compares with or loads; empty: it holds none."""
    return netlink.attributes(payload, 0).get(_DATA_VALUE, b"")


def target(expression: dict[int, bytes]) -> str | None:
    """The chain that an `immediate` expression jumps or goes to, if it does."""
    data = netlink.attributes(expression.get(IMMEDIATE_DATA, b""), 0)
    verdict = netlink.attributes(data.get(_DATA_VERDICT, b""), 0)
    chain = verdict.get(_VERDICT_CHAIN)
    return _string(chain) if chain is not None else None


def filters_reverse_path(name: str, expression: Mapping[int, bytes]) -> bool:
    """Whether an expression asks if an answer would leave by the very interface that a packet came in by.

    That is `fib saddr . iif`, or the match `rpfilter` of iptables (NFTA_MATCH_NAME, NFTA_MATCH_INFO), if not loose.
    """
    if name == "fib":
        return number(expression.get(FIB_FLAGS, b"")) & (FIB_SOURCE | FIB_INTERFACE) == FIB_SOURCE | FIB_INTERFACE
    if name == "match" and _string(expression.get(1, b"")) == "rpfilter":
        return not expression.get(3, b"\0")[0] & RPFILTER_LOOSE
    return False


def target_name(expression: dict[int, bytes]) -> str:
    """The name of an extension of iptables that a `target` expression is (NFTA_TARGET_NAME)."""
    return _string(expression.get(1, b""))


def _string(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")


class Nftables:
    """nf_tables of the calling thread's network namespace. Opened when first used: a kernel may be without.

    Every method raises OSError where the kernel has no nf_tables or refuses.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._dumper: netlink.Dumper | None = None

    def close(self) -> None:
        """Give the sockets back."""
        for each in (self._socket, self._dumper):
            if each is not None:
                each.close()
        self._socket = self._dumper = None

    def generation(self) -> int:
        """A number that changes with every transaction, whoever's it is."""
        return number(self._ask(_GETGEN, 0)[_GENERATION])

    def commit(self, changes: Sequence[bytes], generation: int) -> None:
        """Apply all these changes at once, or none of them.

        Raises:
            ChangedMeanwhileError: it is another generation by now.
        """
        head = _GENERIC.pack(0, 0, _SUBSYSTEM)
        *first, final = changes
        last = bytearray(final)
        struct.pack_into("=H", last, 6, struct.unpack_from("=H", last, 6)[0] | netlink.NLM_F_ACK)
        begin = netlink.message(_BATCH_BEGIN, 0, head, _number(_BATCH_GENERATION, generation))
        self._channel().send(b"".join([begin, *first, last, netlink.message(_BATCH_END, 0, head)]))
        heard = False
        for answer in self._answers():
            _raise(answer)
            heard = True
        if not heard:
            raise OSError(errno.EIO, "no answer from nf_tables")

    async def base_chains(self) -> list[Chain]:
        """Every base chain of every family."""
        bodies = await self._dump(_GETCHAIN, 0)
        return [chain for body in bodies if (chain := _decode_chain(body)) is not None]

    async def table(self, family: int, name: str) -> tuple[NftTable | None, int]:
        """A table, if it is there, and the generation that it is of.

        Raises:
            InterruptedDumpError: others changed nf_tables during every attempt.
        """
        for _ in range(netlink.Dumper.ATTEMPTS):
            generation = self.generation()
            found = await self._table(family, name)
            if self.generation() == generation:
                return found, generation
        raise netlink.InterruptedDumpError(errno.EAGAIN, f"table {name} changed during every look at it")

    async def _table(self, family: int, name: str) -> NftTable | None:
        try:
            table = self._ask(_GETTABLE, family, _text(_TABLE_NAME, name))
        except FileNotFoundError:
            return None
        chains = [netlink.attributes(body, _GENERIC.size) for body in await self._dump(_GETCHAIN, family)]
        deciding = (_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE, _CHAIN_POLICY, _CHAIN_FLAGS)
        return NftTable(
            table.get(_TABLE_FLAGS, b""),
            table.get(_TABLE_USE, b""),
            tuple(tuple(c.get(kind, b"") for kind in deciding) for c in chains if _string(c[_CHAIN_TABLE]) == name),
            tuple(await self.rules(family, name)),
        )

    async def rules(self, family: int, table: str, chain: str | None = None) -> list[NftRule]:
        """The rules of a table, or of one chain of it; none if it is not there."""
        names = [_text(_RULE_TABLE, table)] + ([_text(_RULE_CHAIN, chain)] if chain is not None else [])
        try:
            bodies = await self._dump(_GETRULE, family, *names)
        except FileNotFoundError:
            return []
        found = [netlink.attributes(body, _GENERIC.size) for body in bodies]
        return [NftRule(_string(each[_RULE_CHAIN]), each.get(_RULE_EXPRESSIONS, b"")) for each in found]

    async def chains_by_interface(self) -> set[tuple[int, str, str]]:
        """Family, table and name of each chain with a rule that asks for an interface.

        A host may have very many rules: most are not even unpacked, and the loop goes on between them.
        """
        found = set()
        for position, body in enumerate(await self._dump(_GETRULE, 0)):
            if any(token in body for token in _INTERFACE_TOKENS):
                rule = netlink.attributes(body, _GENERIC.size)
                found.add((body[0], _string(rule[_RULE_TABLE]), _string(rule[_RULE_CHAIN])))
            if position % RULES_AT_ONCE == 0:
                await asyncio.sleep(0)
        return found

    async def keys(self, family: int, table: str, lookup: Mapping[int, bytes]) -> list[bytes]:
        """The keys of the set or map that a `lookup` expression looks into; none if it is not there."""
        name = netlink.attribute(_SET_NAME, lookup.get(LOOKUP_SET, b""))
        try:
            bodies = await self._dump(_GETSETELEM, family, _text(_SET_TABLE, table), name)
        except FileNotFoundError:
            return []
        lists = [netlink.attributes(body, _GENERIC.size).get(_SET_ELEMENTS, b"") for body in bodies]
        elements = [netlink.attributes(each, 0) for found in lists for each in netlink.repeated(found, _ELEMENT)]
        return [value(element[_SET_KEY]) for element in elements if _SET_KEY in element]

    async def _dump(self, kind: int, family: int, *names: bytes) -> list[bytes]:
        if self._dumper is None:
            self._dumper = netlink.Dumper(NETLINK_NETFILTER)
        return await self._dumper.dump(_SUBSYSTEM << 8 | kind, _GENERIC.pack(family, 0, 0) + b"".join(names))

    def _ask(self, kind: int, family: int, *names: bytes) -> dict[int, bytes]:
        """The attributes of one object."""
        self._channel().send(_message(kind, 0, family, *names))
        for answer in self._answers():
            if answer.kind == netlink.NLMSG_ERROR:
                _raise(answer)
            return netlink.attributes(answer.body, _GENERIC.size)
        raise OSError(errno.EIO, "no answer from nf_tables")

    def _channel(self) -> socket.socket:
        if self._socket is None:
            self._socket = netlink.open_socket(family=NETLINK_NETFILTER)
        for _ in self._answers():
            pass  # of a request that was broken off
        return self._socket

    def _answers(self) -> Iterator[netlink.Message]:
        """What has been answered: nf_tables works inside send, so that is everything."""
        assert self._socket is not None  # noqa: S101 - whoever asks has sent
        while found := netlink.read(self._socket):
            yield from found


def _raise(answer: netlink.Message) -> None:
    """Raise what an acknowledgement says, unless it says that all is well."""
    error = netlink.refused(answer.body)
    if error == errno.ERESTART:
        raise ChangedMeanwhileError(error, "nf_tables was changed meanwhile")
    if error:
        raise OSError(error, netlink.error_text(error, answer.flags, answer.body))


def _decode_chain(body: bytes) -> Chain | None:
    found = netlink.attributes(body, _GENERIC.size)
    if not {_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE} <= found.keys():
        return None
    hook = netlink.attributes(found[_CHAIN_HOOK], 0)
    if not {_HOOK_NUMBER, _HOOK_PRIORITY} <= hook.keys():
        return None
    table, name, kind = (_string(found[each]) for each in (_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_TYPE))
    priority = int.from_bytes(hook[_HOOK_PRIORITY], "big", signed=True)
    packed = [hook.get(_HOOK_DEVICE, b""), *netlink.repeated(hook.get(_HOOK_DEVICES, b""), _DEVICE_NAME)]
    devices = tuple(dict.fromkeys(_string(device) for device in packed if device))
    return Chain(body[0], table, name, kind, number(hook[_HOOK_NUMBER]), priority, devices)
