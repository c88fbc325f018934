"""Addresses of others that this host answers for on its link by proxy entries (`ip neigh add proxy`): named only.

The kernel answers for them with the MAC address of the member that has the entry, and nobody announces them elsewhere.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import neighbors, netlink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipmp_agent.linux.messages.netlink import Dumper
    from ipmp_api.types import Address

log = logging.getLogger(__name__)

NAMED_MAX = 5
"""Addresses that a finding names."""


async def findings(dumper: Dumper, members: Mapping[int, str]) -> list[Finding]:
    """What members of one group answer for by proxy entries.

    Args:
        dumper: reads tables of the kernel.
        members: their names, by interface index.
    """
    found: dict[Address, set[str]] = {}
    for version in (4, 6):
        try:
            bodies = await dumper.dump(netlink.RTM_GETNEIGH, neighbors.proxies_request(version))
        except OSError as error:
            log.debug("cannot look for proxy entries: %s", error)
            continue
        for index, address in filter(None, map(neighbors.decode_proxy, bodies)):
            if index in members:
                found.setdefault(address, set()).add(members[index])
    if not found:
        return []
    listed = [f"{address} ({', '.join(sorted(names))})" for address, names in found.items()]
    more = f" and {len(listed) - NAMED_MAX} more" if len(listed) > NAMED_MAX else ""
    message = (
        f"proxy entries have members answer for {', '.join(listed[:NAMED_MAX])}{more}: neighbours learn the MAC address"
        " of that member, and nobody corrects it when it fails. Have neighbours or their router reach these by a route"
        " by way of a data address, and take the entries away."
    )
    return [Finding(Reason.PROXY_NEIGHBOR, message)]
