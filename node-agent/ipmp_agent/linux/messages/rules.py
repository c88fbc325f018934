"""Policy routing rules as bytes, and where ours belong among those of others. Pure functions.

Each rule that leads to a table with routes by members has a block of ours right before it, with its selector: first the
host's own decision, unless that leaves by a member, then our table, in which the members stand for each other.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import netlink
from ipmp_agent.linux.messages.routes import RT_TABLE_MAIN
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

FR_ACT_TO_TBL, FR_ACT_GOTO = 1, 2
FIB_RULE_INVERT = 2
FRA_GOTO, FRA_PRIORITY, FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN = 4, 6, 13, 14
FRA_TABLE, FRA_PAD, FRA_UID_RANGE, FRA_PROTOCOL = 15, 18, 20, 21

MEMBER_GROUP = 73
"""IFLA_GROUP of members while they are managed: what `suppress_ifgroup` knows them by."""

_MESSAGE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, reserved, reserved, action, flags
_UNSET = 0xFFFFFFFF
# Whoever sends. wg-quick deletes rules until it sees no "from all lookup main suppress_prefixlength 0" any more: ours
# read otherwise.
_EVERYBODY = ((FRA_UID_RANGE, struct.pack("=II", 0, 0xFFFFFFFE)),)
_NO_SELECTOR = frozenset(
    {
        FRA_GOTO,
        FRA_PRIORITY,
        FRA_SUPPRESS_IFGROUP,
        FRA_SUPPRESS_PREFIXLEN,
        FRA_TABLE,
        FRA_PAD,
        FRA_PROTOCOL,
    }
)


@frozen
class PolicyRule:
    """One rule; the selector is kept as the kernel told it, whatever it asks for."""

    family: int
    priority: int
    table: int  # 0: leads to none, or to that of a device
    action: int = FR_ACT_TO_TBL
    protocol: int = netlink.OWNER
    head: tuple[int, int, int, int] = (0, 0, 0, 0)  # length of destination and of source, type of service, flags
    selector: tuple[tuple[int, bytes], ...] = ()
    suppressed_length: int | None = None  # no answer of a prefix this long or shorter is taken
    suppressed_group: int | None = None  # none that leaves by an interface of this group
    target: int = 0  # of a goto

    @property
    def owned(self) -> bool:
        """Whether this agent put it there."""
        return self.protocol == netlink.OWNER

    @property
    def is_for_all(self) -> bool:
        """Whether every packet is looked up, and every answer taken."""
        unsuppressed = self.suppressed_length is None and self.suppressed_group is None
        return not self.selector and self.head == (0, 0, 0, 0) and unsuppressed

    def __str__(self) -> str:
        version = 4 if self.family == socket.AF_INET else 6
        return f"IPv{version} rule {self.priority}"


def get_request(family: int) -> bytes:
    """Body of RTM_GETRULE: all rules of a family."""
    return _MESSAGE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)


def decode(body: bytes) -> PolicyRule | None:
    """Read the body of an RTM_NEWRULE or RTM_DELRULE message; None for families that are not IP."""
    family, to_length, from_length, tos, table, _, _, action, flags = _MESSAGE.unpack_from(body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    found = netlink.attributes(body, _MESSAGE.size)
    length, group = (netlink.number(found[k]) if k in found else _UNSET for k in _SUPPRESSORS)
    return PolicyRule(
        family,
        priority=netlink.number(found.get(FRA_PRIORITY, b"")),
        table=netlink.number(found[FRA_TABLE]) if FRA_TABLE in found else table,
        action=action,
        protocol=netlink.number(found.get(FRA_PROTOCOL, b"")),
        head=(to_length, from_length, tos, flags & FIB_RULE_INVERT),
        selector=tuple(sorted((kind, value) for kind, value in found.items() if kind not in _NO_SELECTOR)),
        suppressed_length=None if length == _UNSET else length,
        suppressed_group=None if group == _UNSET else group,
        target=netlink.number(found.get(FRA_GOTO, b"")),
    )


_SUPPRESSORS = (FRA_SUPPRESS_PREFIXLEN, FRA_SUPPRESS_IFGROUP)


def add(rule: PolicyRule) -> bytes:
    """Request that lays a rule behind all of its priority, also if there is one like it."""
    return netlink.message(netlink.RTM_NEWRULE, netlink.NLM_F_CREATE, *_parts(rule))


def delete(rule: PolicyRule) -> bytes:
    """Request that deletes the first rule that is exactly like this."""
    return netlink.message(netlink.RTM_DELRULE, 0, *_parts(rule))


def _parts(rule: PolicyRule) -> Iterator[bytes]:
    to_length, from_length, tos, flags = rule.head
    yield _MESSAGE.pack(rule.family, to_length, from_length, tos, 0, 0, 0, rule.action, flags)
    yield netlink.u32(FRA_PRIORITY, rule.priority)
    yield netlink.u32(FRA_TABLE, rule.table)
    yield netlink.attribute(FRA_PROTOCOL, bytes([rule.protocol]))
    for kind, value in rule.selector:
        yield netlink.attribute(kind, value)
    for kind, suppressed in zip(_SUPPRESSORS, (rule.suppressed_length, rule.suppressed_group), strict=True):
        if suppressed is not None:
            yield netlink.u32(kind, suppressed)


# -- where ours belong -------------------------------------------------------------------------------------------------


def block(rule: PolicyRule, table: int) -> list[PolicyRule]:
    """The rules of ours that belong right before one that leads to a table with routes by members.

    For the host's own rule for `main` there are four. First come the prefixes that leave by other interfaces, taken as
    they are; then our ways for the prefixes of members; then a prefix of a member that has no twin, as the host laid
    it; last our default routes. Our table has those only where the host would take them.

    Args:
        rule: what the host has.
        table: of ours, for the one that it leads to.
    """
    before = replace(rule, priority=rule.priority - 1, protocol=netlink.OWNER)
    if rule.table == RT_TABLE_MAIN and rule.is_for_all:
        return [
            replace(before, suppressed_group=MEMBER_GROUP, suppressed_length=0, selector=_EVERYBODY),
            replace(before, table=table, suppressed_length=0),
            replace(before, suppressed_length=0, selector=_EVERYBODY),
            replace(before, table=table),
        ]
    return [replace(before, suppressed_group=MEMBER_GROUP), replace(before, table=table)]


def obstacle(rule: PolicyRule, found: Iterable[PolicyRule]) -> str | None:
    """Why a rule can have no block of ours right before it; None: it can.

    Args:
        rule: one that leads to a table with routes by members.
        found: all rules of its family.
    """
    if rule.priority == 0:
        return "nothing can stand before it"
    if rule.suppressed_group is not None:
        return "it suppresses an interface group itself"
    jump = next((r for r in found if r.action == FR_ACT_GOTO and r.target == rule.priority), None)
    return f"rule {jump.priority} jumps to it, past everything before it" if jump is not None else None


def differences(
    found: Sequence[PolicyRule], tables: Mapping[int, int], deleted: Iterable[PolicyRule] = ()
) -> list[bytes]:
    """Requests that put our rules where they belong; at no moment is one missing that was there.

    Args:
        found: all rules of one family, in the order of the kernel.
        tables: ours, by the host's table whose twins it has; empty: no rule of ours is wanted.
        deleted: rules of ours that somebody deleted.
    """
    meant = [rule for rule in found if _was_meant(rule, found, tables, deleted)]
    if meant:
        return [delete(rule) for rule in meant] + differences([rule for rule in found if rule not in meant], tables)
    theirs = [rule for rule in found if not rule.owned]
    wanted: list[PolicyRule] = []
    for _, equals in groupby(theirs, key=lambda rule: rule.priority):
        group = list(equals)
        for rule in group:
            followed = rule.action == FR_ACT_TO_TBL and rule.table in tables
            if followed and obstacle(rule, theirs) is None:
                wanted += block(rule, tables[rule.table])
        wanted += group
    if wanted == list(found):
        return []
    requests = []
    mine = {rule.priority for rule in (*wanted, *found) if rule.owned}
    for priority in sorted(mine):
        now, then = ([rule for rule in some if rule.priority == priority] for some in (found, wanted))
        if now != then:
            requests += [add(rule) for rule in then if rule.owned]
            requests += [delete(rule) for rule in now if rule.owned]
    return requests


def _was_meant(
    rule: PolicyRule, found: Sequence[PolicyRule], tables: Mapping[int, int], deleted: Iterable[PolicyRule]
) -> bool:
    """Whether who deleted a rule of ours meant this one.

    A deletion takes the first rule that it does not rule out, and ours stands before the one that it repeats. Who
    removes what he does not know takes the whole pair.
    """
    if rule.owned or rule.table not in tables or rule.priority == 0:
        return False
    first, *others = block(rule, tables[rule.table])
    return len(others) == 1 and first in deleted and first not in found and others[0] in found
