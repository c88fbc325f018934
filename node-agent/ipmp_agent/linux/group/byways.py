"""IPv4 prefixes by each member alone, in the table `default`: the kernel looks there when `main` has no answer.

A shadow of a prefix hides the prefix on a member that it does not leave by, and there the kernel would refuse the
routes by a gateway that others lay: a network daemon that starts during an outage, or for a standby. For what chooses
no interface `main` has an answer, so no packet goes another way. IPv6 looks further by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from ipmp_agent.linux.messages.routes import Prefix, Route


def differences(
    found: Sequence[Route], prefixes: Iterable[Prefix], members: AbstractSet[int], up: AbstractSet[int]
) -> list[bytes]:
    """Requests that lay every prefix by every member, and take away what is ours and not wanted.

    Args:
        found: the table `default`.
        prefixes: IPv4 prefixes on the link.
        members: interface indexes of the members that are present.
        up: those that are to have the prefixes; the kernel takes no route by an interface that is down.
    """
    wanted = {(prefix, index) for prefix in prefixes for index in up}
    requests = []
    for route in found:
        (index, gateway), *others = [(leg.index, leg.gateway) for leg in route.legs]
        if not route.owned or index not in members:
            continue
        if (route.destination, index) in wanted and gateway is None and not others and route.metric == index:
            wanted.remove((route.destination, index))
        else:
            requests.append(routes.delete(route.body))
    return requests + [routes.add_byway(prefix, index) for prefix, index in sorted(wanted)]
