"""What ipmpstat shows: the rows of each mode, their columns, and the same as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ipmp_agent.commands.table import Column
from ipmp_agent.core.words import TargetMode, TargetState
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ipmp_agent.commands.names import Names
    from ipmp_agent.core.actions import ProbeClosed
    from ipmp_agent.core.events import MacAddress
    from ipmp_agent.core.findings import NotAdopted
    from ipmp_agent.core.snapshot import AddressSnapshot, InterfaceSnapshot, ProberSnapshot
    from ipmp_agent.publication import GroupView, PastFailover, Publication
    from ipmp_api.types import Address


@frozen
class AddressRow:
    """One data address."""

    group: GroupView
    address: AddressSnapshot

    @property
    def state(self) -> str:
        """Whether it can be used at all: an address that is on no interface cannot."""
        return "up" if self.address.interface and not self.address.refusal else "down"

    @property
    def inbound(self) -> str:
        """The interface that holds it."""
        return _name(self.group, self.address.interface) if self.address.interface else ""

    @property
    def outbound(self) -> list[str]:
        """The interfaces that may send for it."""
        if self.address.refusal or not self.address.interface:
            return []
        snapshot = self.group.snapshot
        keys = snapshot.outbound_ipv4 if self.address.address.version == 4 else snapshot.outbound_ipv6
        active = {interface.interface for interface in snapshot.interfaces if interface.active}
        return [_name(self.group, key) for key in keys if key in active]


@frozen
class IgnoredRow:
    """One address of the host on a member that is left alone."""

    group: GroupView
    address: NotAdopted
    state: str = "ignored"

    @property
    def inbound(self) -> str:
        """The interface that holds it."""
        return _name(self.group, self.address.interface)

    @property
    def outbound(self) -> list[str]:
        """Why it is left alone, where others name the interfaces that send for them."""
        return [f"({self.address.reason})"]


@frozen
class InterfaceRow:
    """One interface."""

    group: GroupView
    interface: InterfaceSnapshot


@frozen
class TargetRow:
    """One family of one interface; no prober: probing is disabled."""

    interface: InterfaceSnapshot
    prober: ProberSnapshot | None

    @property
    def targets(self) -> list[Address | MacAddress]:
        """Those probed, in firing order."""
        targets = self.prober.targets if self.prober else ()
        return [target.address for target in targets if target.state is TargetState.ACTIVE]


@frozen
class PastRow:
    """Addresses that went from one interface to another."""

    group: GroupView
    past: PastFailover


@frozen
class ProbeRow:
    """One probe, answered or lost."""

    interface: str
    probe: ProbeClosed
    time: float  # seconds since the start of the command


def _name(view: GroupView, key: str) -> str:
    return next((i.name for i in view.snapshot.interfaces if i.interface == key), key)


def _words(view: GroupView) -> str:
    active, inactive, unusable = _uses(view)
    parts = list(active)
    if inactive:
        parts.append(f"({' '.join(inactive)})")
    if unusable:
        parts.append(f"[{' '.join(unusable)}]")
    return " ".join(parts)


def _uses(view: GroupView) -> tuple[list[str], list[str], list[str]]:
    """Names of the active, the inactive and the unusable members."""
    members = view.snapshot.interfaces
    return (
        [m.name for m in members if m.active],
        [m.name for m in members if m.usable and not m.active],
        [m.name for m in members if not m.usable and not m.active],
    )


def _milliseconds(seconds: float | None) -> str:
    return f"{seconds * 1000:.2f}ms" if seconds else ""


def group_columns(_: Names) -> tuple[Column[GroupView], ...]:
    """`-g`."""
    return (
        Column("GROUP", 12, lambda view: view.snapshot.group),
        Column("GROUPNAME", 12, lambda view: view.snapshot.group),
        Column("STATE", 10, lambda view: view.snapshot.state.value),
        Column("FDT", 10, lambda view: f"{view.snapshot.detection_time:.2f}s" if view.snapshot.probing else ""),
        Column("INTERFACES", 30, _words),
    )


def interface_columns(_: Names) -> tuple[Column[InterfaceRow], ...]:
    """`-i`."""
    return (
        Column("INTERFACE", 12, lambda row: row.interface.name),
        Column("ACTIVE", 8, lambda row: "yes" if row.interface.active else "no"),
        Column("GROUP", 12, lambda row: row.group.snapshot.group),
        Column("FLAGS", 10, lambda row: row.interface.flags),
        Column("LINK", 10, lambda row: row.interface.link.value),
        Column("PROBE", 10, lambda row: row.interface.probe.value),
        Column("STATE", 10, lambda row: row.interface.state.value),
    )


def address_columns(names: Names) -> tuple[Column[AddressRow | IgnoredRow], ...]:
    """`-a`."""
    return (
        Column("ADDRESS", 26, lambda row: names.of(row.address.address.ip)),
        Column("STATE", 7, lambda row: row.state),
        Column("GROUP", 12, lambda row: row.group.snapshot.group),
        Column("INBOUND", 12, lambda row: row.inbound),
        Column("OUTBOUND", 23, lambda row: " ".join(row.outbound)),
    )


def probe_columns(names: Names) -> tuple[Column[ProbeRow], ...]:
    """`-p`."""
    return (
        Column("TIME", 10, lambda row: f"{row.time:.2f}s"),
        Column("INTERFACE", 12, lambda row: row.interface),
        Column("PROBE", 7, lambda row: str(row.probe.sequence)),
        Column("NETRTT", 10, lambda row: _milliseconds(row.probe.network_rtt)),
        Column("RTT", 10, lambda row: _milliseconds(row.probe.rtt)),
        Column("RTTAVG", 10, lambda row: _milliseconds(row.probe.average)),
        Column("TARGET", 20, lambda row: names.of(row.probe.target)),
        Column("RTTDEV", 10, lambda row: _milliseconds(row.probe.deviation)),
    )


def past_columns(names: Names) -> tuple[Column[PastRow], ...]:
    """`-H`."""
    return (
        Column("TIME", 25, lambda row: _moment(row.past.time)),
        Column("GROUP", 9, lambda row: row.group.snapshot.group),
        Column("REASON", 12, lambda row: row.past.reason.value),
        Column("FROM", 8, lambda row: _name(row.group, row.past.source) if row.past.source else ""),
        Column("TO", 8, lambda row: _name(row.group, row.past.destination) if row.past.destination else ""),
        Column("OUTAGE", 11, lambda row: _milliseconds(row.past.outage)),
        Column("ADDRS", 6, lambda row: str(len(row.past.addresses))),
        Column("FIRSTLOSS", 25, lambda row: _moment(row.past.first_loss)),
        Column("DECIDED", 25, lambda row: _moment(row.past.decided)),
        Column("MOVE", 10, lambda row: _milliseconds(row.past.duration)),
        Column("ADDRESSES", 40, lambda row: " ".join(names.of(address.ip) for address in row.past.addresses)),
    )


def _moment(seconds: float | None) -> str:
    """Seconds since the epoch as people and programs read them, in UTC, to the millisecond."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def target_columns(names: Names) -> tuple[Column[TargetRow], ...]:
    """`-t`."""

    def test_address(row: TargetRow) -> str:
        return names.of(row.prober.test_address) if row.prober and row.prober.test_address else ""

    return (
        Column("INTERFACE", 12, lambda row: row.interface.name),
        Column("MODE", 10, lambda row: (row.prober.mode if row.prober else TargetMode.DISABLED).value),
        Column("TESTADDR", 20, test_address),
        Column("TARGETS", 38, lambda row: " ".join(map(names.of, row.targets))),
    )


def group_rows(publication: Publication) -> Iterator[GroupView]:
    """`-g`."""
    yield from publication.groups


def interface_rows(publication: Publication) -> Iterator[InterfaceRow]:
    """`-i`."""
    for view in publication.groups:
        for interface in view.snapshot.interfaces:
            yield InterfaceRow(view, interface)


def address_rows(publication: Publication) -> Iterator[AddressRow | IgnoredRow]:
    """`-a`: the data addresses of each group, then what it leaves alone."""
    for view in publication.groups:
        yield from (AddressRow(view, address) for address in view.snapshot.addresses)
        yield from (IgnoredRow(view, address) for address in view.not_adopted)


def target_rows(publication: Publication) -> Iterator[TargetRow]:
    """`-t`: a row for each family that probes, or one that says disabled."""
    for view in publication.groups:
        for interface in view.snapshot.interfaces:
            probing = [prober for prober in interface.probers if prober.mode is not TargetMode.DISABLED]
            yield from (TargetRow(interface, prober) for prober in probing)
            if not probing:
                yield TargetRow(interface, None)


def past_rows(publication: Publication) -> Iterator[PastRow]:
    """`-H`: of all groups, the last one first."""
    rows = [PastRow(view, past) for view in publication.groups for past in view.history]
    yield from sorted(rows, key=lambda row: row.past.time, reverse=True)


def group_json(view: GroupView) -> dict[str, Any]:
    """One object of `-g --json`."""
    active, inactive, unusable = _uses(view)
    return {
        "group": view.snapshot.group,
        "state": view.snapshot.state.value,
        "failureDetectionTimeSeconds": view.snapshot.detection_time if view.snapshot.probing else None,
        "active": active,
        "inactive": inactive,
        "unusable": unusable,
    }


def interface_json(row: InterfaceRow) -> dict[str, Any]:
    """One object of `-i --json`."""
    return {
        "interface": row.interface.name,
        "active": row.interface.active,
        "group": row.group.snapshot.group,
        "flags": row.interface.flags,
        "link": row.interface.link.value,
        "probe": row.interface.probe.value,
        "state": row.interface.state.value,
        "reason": row.interface.reason.value if row.interface.reason else None,
    }


def address_json(row: AddressRow | IgnoredRow) -> dict[str, Any]:
    """One object of `-a --json`."""
    if isinstance(row, IgnoredRow):
        return {
            "address": str(row.address.address),
            "state": row.state,
            "group": row.group.snapshot.group,
            "inbound": row.inbound,
            "outbound": [],
            "reason": row.address.reason.value,
            "message": row.address.message,
        }
    return {
        "address": str(row.address.address),
        "state": row.state,
        "group": row.group.snapshot.group,
        "inbound": row.inbound or None,
        "outbound": row.outbound,
    }


def target_json(row: TargetRow) -> dict[str, Any]:
    """One object of `-t --json`."""
    return {
        "interface": row.interface.name,
        "mode": (row.prober.mode if row.prober else TargetMode.DISABLED).value,
        "protocol": row.prober.protocol.value if row.prober and row.prober.protocol else None,
        "testAddress": str(row.prober.test_address) if row.prober and row.prober.test_address else None,
        "targets": [str(target) for target in row.targets],
    }


def past_json(row: PastRow) -> dict[str, Any]:
    """One object of `-H --json`."""
    past = row.past
    return {
        "group": row.group.snapshot.group,
        "reason": past.reason.value,
        "from": _name(row.group, past.source) if past.source else None,
        "to": _name(row.group, past.destination) if past.destination else None,
        "firstLoss": _moment(past.first_loss) or None,
        "decided": _moment(past.decided),
        "announced": _moment(past.time),
        "outageSeconds": past.outage,
        "moveSeconds": past.duration,
        "addresses": [str(address) for address in past.addresses],
    }


def probe_json(row: ProbeRow) -> dict[str, Any]:
    """One object of `-p --json`."""
    return {
        "timeSeconds": row.time,
        "interface": row.interface,
        "probe": row.probe.sequence,
        "networkRoundTripSeconds": row.probe.network_rtt,
        "roundTripSeconds": row.probe.rtt,
        "averageSeconds": row.probe.average or None,
        "deviationSeconds": row.probe.deviation or None,
        "target": str(row.probe.target),
    }


@frozen
class StatMode:
    """One of -a, -g, -H, -i and -t: its columns, rows, objects, and the addresses whose names it shows."""

    columns: Callable[[Names], Sequence[Column[Any]]]
    rows: Callable[[Publication], Iterable[Any]]
    to_json: Callable[[Any], dict[str, Any]]
    addresses: Callable[[Any], Iterable[Address | MacAddress]]


def _target_addresses(row: TargetRow) -> Iterator[Address | MacAddress]:
    yield from row.targets
    if row.prober and row.prober.test_address:
        yield row.prober.test_address


MODES = {
    "a": StatMode(address_columns, address_rows, address_json, lambda row: (row.address.address.ip,)),
    "g": StatMode(group_columns, group_rows, group_json, lambda _: ()),
    "H": StatMode(past_columns, past_rows, past_json, lambda row: (address.ip for address in row.past.addresses)),
    "i": StatMode(interface_columns, interface_rows, interface_json, lambda _: ()),
    "t": StatMode(target_columns, target_rows, target_json, _target_addresses),
}
