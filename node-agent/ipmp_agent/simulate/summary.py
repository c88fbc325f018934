"""What a simulation amounts to: failures, repairs and moves, and how long addresses sat where no frame passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.simulate.timeline import AddressChange, Judged, Passing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ipmp_agent.core.snapshot import GroupSnapshot
    from ipmp_agent.simulate.timeline import Entry

_NEVER = -1.0


class _Stay:
    """How long something lasted, at the longest."""

    __slots__ = ("longest", "since")

    def __init__(self) -> None:
        self.since = _NEVER
        self.longest = 0.0

    def note(self, at: float, *, lasts: bool) -> None:
        """Whether it is so from now on."""
        if lasts and self.since == _NEVER:
            self.since = at
        elif not lasts and self.since != _NEVER:
            self.longest = max(self.longest, at - self.since)
            self.since = _NEVER


class Summary:
    """Adds up the entries of one simulation.

    Args:
        interfaces: the keys of the group's interfaces.
        truth: whether the entries say what is really so; a recording of a real agent does not.
    """

    def __init__(self, interfaces: Iterable[str], *, truth: bool) -> None:
        self._truth = truth
        self._passes = dict.fromkeys(interfaces, True)
        self.failures = dict.fromkeys(self._passes, 0)
        self.repairs = dict.fromkeys(self._passes, 0)
        self.moves: dict[str, int] = {}
        self._holder: dict[str, str | None] = {}
        self._dead: dict[str, _Stay] = {}  # on an interface that passes nothing
        self._stranded: dict[str, _Stay] = {}  # the same while another interface works

    def take(self, entry: Entry) -> None:
        """Count one entry."""
        match entry:
            case Judged(_, _, verdict):
                counts = self.failures if verdict.failed else self.repairs
                counts[verdict.interface] = counts.get(verdict.interface, 0) + 1
            case AddressChange(at, address, interface, before):
                moved = interface is not None and before is not None
                self.moves[address] = self.moves.get(address, 0) + moved
                self._holder[address] = interface
                self._note(at, address)
            case Passing(at, interface, passes):
                self._passes[interface] = passes
                for address in self._holder:
                    self._note(at, address)

    def _note(self, at: float, address: str, *, over: bool = False) -> None:
        holder = self._holder[address]
        dead = holder is not None and not self._passes.get(holder, True) and not over
        self._dead.setdefault(address, _Stay()).note(at, lasts=dead)
        self._stranded.setdefault(address, _Stay()).note(at, lasts=dead and any(self._passes.values()))

    def lines(self, at: float, snapshot: GroupSnapshot) -> Iterator[str]:
        """The tables, when it is over."""
        for address in self._holder:
            self._note(at, address, over=True)
        rows: list[tuple[str, ...]] = [
            ("INTERFACE", "FAILURES", "REPAIRS", "SENT", "ANSWERED", "LOST", "MISSED", "STATE")
        ]
        for one in snapshot.interfaces:
            counts = [(p.sent, p.answered, p.lost, p.missed) for p in one.probers]
            probes = [str(sum(column)) for column in zip(*counts, strict=True)] or ["0"] * 4
            numbers = (str(self.failures.get(one.interface, 0)), str(self.repairs.get(one.interface, 0)))
            rows.append((one.interface, *numbers, *probes, one.state.value))
        yield from _columns(rows)
        if not snapshot.addresses:
            return
        yield ""
        head = ("ADDRESS", "MOVES", *(("ON A DEAD NIC", "WHILE ANOTHER WORKED") if self._truth else ()), "INTERFACE")
        rows = [head]
        for placed in snapshot.addresses:
            address = str(placed.address.ip)
            stays = [stay.get(address, _Stay()).longest for stay in (self._dead, self._stranded)] if self._truth else []
            seconds = [f"{stay:.3f} s" for stay in stays]
            rows.append((address, str(self.moves.get(address, 0)), *seconds, placed.interface or "--"))
        yield from _columns(rows)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
