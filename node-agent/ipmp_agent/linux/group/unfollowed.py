"""Routes that leave by members and that no twin can stand for: they are told before they cost a packet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import routes, rules
from ipmp_agent.linux.messages.routes import RT_TABLE_MAIN

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ipmp_agent.linux.group.foreign_routes import RouteSurroundings
    from ipmp_agent.linux.messages.routes import ParticularRoute, Route
    from ipmp_agent.linux.messages.rules import PolicyRule
    from ipmp_agent.linux.shared.devices import Devices

NAMED = 3
"""Routes that are named of each kind; of more the number is told."""


class Unfollowed:
    """Looks through the routes of others for what members cannot stand for each other on.

    Args:
        around: the rest of the group.
        devices: of the namespace, for the tables of VRFs.
    """

    def __init__(self, around: RouteSurroundings, devices: Devices) -> None:
        self._around = around
        self._devices = devices
        self._found: list[Finding] = []

    def read(self, found: Sequence[Route], particular: Sequence[ParticularRoute], policy: Sequence[PolicyRule]) -> None:
        """Take all routes and rules as the whole truth.

        Args:
            found: routes for all packets.
            particular: routes for some packets only.
            policy: all rules.
        """
        theirs = [rule for rule in policy if not rule.owned and rule.action == rules.FR_ACT_TO_TBL]
        led_to = {RT_TABLE_MAIN, *(rule.table for rule in theirs)}
        self._found = [
            *self._particular([each for each in particular if each.route.table in led_to]),
            *self._over_others([route for route in found if route.table in led_to and len(route.legs) > 1]),
        ]
        beyond = {table for table in led_to if table >= routes.TABLES_MAXIMUM and not routes.is_table_of_twins(table)}
        vrfs = {device.table: device.link.name for device in self._devices.all() if device.table}
        if beyond or vrfs:
            used = {r.table for r in found if not r.owned and r.table in beyond | vrfs.keys() and self._by_member(r)}
            self._found += self._beyond(theirs, beyond & used) + self._of_vrfs(vrfs, used)

    def findings(self) -> list[Finding]:
        """What was found."""
        return self._found

    def _by_member(self, route: Route) -> bool:
        return any(self._around.key_of(leg.index) is not None for leg in route.legs)

    def _particular(self, found: Sequence[ParticularRoute]) -> list[Finding]:
        texts = []
        for each in found:
            if self._by_member(each.route):
                words = f"tos {each.type_of_service:#x}" if each.type_of_service else f"from {each.source}"
                texts.append(f"{routes.text_of(each.route.destination)} {words} in table {each.route.table}")
        return _finding(
            texts,
            "for some packets only have no twins, and leave by the member that they name or as the others do. Lay them"
            " without `tos` or `from` in a table of their own, and lead those packets there by a rule",
        )

    def _over_others(self, found: Sequence[Route]) -> list[Finding]:
        texts = []
        for route in found:
            keys = {self._around.key_of(leg.index) for leg in route.legs}
            if None in keys and len(keys) > 1:
                texts.append(f"{routes.text_of(route.destination)} in table {route.table}")
        return _finding(
            texts,
            "over members and other interfaces have no twins, and what leaves by a member does not follow those that"
            " work. Lay a route for each, of different metrics",
        )

    def _beyond(self, theirs: Sequence[PolicyRule], tables: Collection[int]) -> list[Finding]:
        return [
            Finding(
                Reason.ROUTES_NOT_FOLLOWED,
                f"{rule} leads to table {rule.table}, whose routes leave by members, and they do not follow the members"
                f" that work: tables of {routes.TABLES_MAXIMUM} and above get no twins. Give the table a smaller"
                " number.",
            )
            for rule in theirs
            if rule.table in tables
        ]

    def _of_vrfs(self, vrfs: dict[int, str], tables: Collection[int]) -> list[Finding]:
        return [
            Finding(
                Reason.ROUTES_NOT_FOLLOWED,
                f"table {table} of VRF {name} has routes that leave by members, and they do not follow the members that"
                " work: no rule of ours can stand before the rule of VRFs. Lead what is to follow by a rule of its"
                " own.",
            )
            for table, name in vrfs.items()
            if table in tables
        ]


def _finding(texts: Sequence[str], why: str) -> list[Finding]:
    if not texts:
        return []
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return [Finding(Reason.ROUTES_NOT_FOLLOWED, f"routes {why}: {', '.join(texts[:NAMED])}{more}.")]
