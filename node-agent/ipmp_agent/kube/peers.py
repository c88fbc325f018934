"""Where peers answer over IPv6: at a link-local address of a member, which their own agents report.

The operator names the nodes. What is reported there is asked for here, and seldom: were the addresses written into the
specs, the first report of each node would rewrite five of them; were they watched, each agent would hear of every
report. An address that is not there yet is asked for again, later each time; one that is, once an hour.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from ipmp_agent.kube.watch import PATH
from ipmp_api.types import TestAddressIPv6
from ipmp_service.api_server import ApiError
from ipmp_service.threads import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipmp_api.types import Address, NodeGroup
    from ipmp_service.api_server import ApiServer, Object

FIRST = 2.0
"""Seconds until a peer is asked for again whose address is not there."""
GROWTH = 3.0
"""How much longer each further wait is: a rollout of thousands of nodes asks for addresses before they are there."""
LAST = 3600.0
"""Seconds between two questions, at most; an address that has changed is a dead target until then."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Peer:
    """One node group of another node, as far as it was asked for."""

    due: float
    wait: float = FIRST
    address: Address | None = None
    asked: bool = False


class Peers:
    """Asks the API server where the peers of this node's groups answer, in a thread of its own.

    Args:
        api: where their reports are.
        changed: called in that thread when an address came, went or changed.
    """

    def __init__(self, api: ApiServer, changed: Callable[[], None]) -> None:
        self._api = api
        self._changed = changed
        self._peers: dict[str, _Peer] = {}  # by name of the object
        self._before: dict[str, tuple[Address, ...]] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = kept(self._run, "peers")

    def start(self, saved: Iterable[NodeGroup]) -> None:
        """Begin to ask. What the last run knew counts until every peer of the group was asked for once."""
        self._before = {group.name: tuple(filter(_is_link_local, group.peers)) for group in saved}
        self._thread.start()

    def stop(self) -> None:
        """End; a request under way is left to end by itself."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def want(self, groups: Iterable[NodeGroup]) -> None:
        """Take all groups of this node: the peers of others are forgotten."""
        names = {name for group in groups for name in _names(group)}
        with self._wake:
            now = time.monotonic()
            self._peers = {name: self._peers.get(name) or _Peer(now) for name in sorted(names)}
            self._wake.notify()

    def resolve(self, group: NodeGroup) -> NodeGroup:
        """The group with the addresses of its peers in place of their nodes."""
        with self._wake:
            peers = [self._peers.get(name) for name in _names(group)]
        found = [peer.address for peer in peers if peer is not None and peer.address is not None]
        if any(peer is None or not peer.asked for peer in peers):
            found += self._before.get(group.name, ())
        return replace(group, peers=tuple(dict.fromkeys((*group.peers, *found))), peer_nodes=())

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._stopping:
                    return
                now = time.monotonic()
                due = min((peer.due for peer in self._peers.values()), default=None)
                if due is None or due > now:
                    self._wake.wait(None if due is None else due - now)
                    continue
                asked = [(name, peer) for name, peer in self._peers.items() if peer.due <= now]
            news = [self._ask(name, peer) for name, peer in asked]
            if any(news):
                self._changed()

    def _ask(self, name: str, peer: _Peer) -> bool:
        """Ask for one peer; whether that tells something new of it."""
        before = peer.asked, peer.address
        try:
            # Of an age that the server chooses: it looks into its cache, and etcd is spared.
            found, _ = self._api.list_all(PATH, {"fieldSelector": f"metadata.name={name}", "resourceVersion": "0"})
        except ApiError as error:
            log.info("asking where node group %s answers: %s", name, error)
        else:
            peer.asked, peer.address = True, next((address for obj in found if (address := _where(obj))), None)
        if peer.address is not None and peer.asked:
            peer.wait = LAST
        peer.due = time.monotonic() + peer.wait * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
        peer.wait = min(LAST, GROWTH * peer.wait)
        return (peer.asked, peer.address) != before


def _names(group: NodeGroup) -> list[str]:
    """The objects that say where the peers of a group answer; none where nobody would probe that."""
    policies = group.policies
    if not policies.targets.peers or policies.test_ipv6 is not TestAddressIPv6.LINK_LOCAL:
        return []
    return [f"{group.group_name}.{node}" for node in group.peer_nodes]


def _where(obj: Object) -> Address | None:
    """A link-local address of a member, by preference of one that works; None where the report has none."""
    status = obj.get("status")
    members = status.get("interfaces") if isinstance(status, dict) else None
    found = [
        (member.get("state") != "ok", address)
        for member in (members if isinstance(members, list) else ())
        if isinstance(member, dict)
        for address in _link_local(member.get("testAddresses"))
    ]
    return min(found, key=lambda one: one[0])[1] if found else None


def _link_local(texts: Any) -> list[Address]:
    addresses = []
    for text in texts if isinstance(texts, list) else ():
        try:
            address = IPv6Address(str(text).partition("%")[0])
        except ValueError:
            continue  # an IPv4 address, or none at all: what others report is not ours to judge
        if address.is_link_local:
            addresses.append(address)
    return list(addresses)


def _is_link_local(address: Address) -> bool:
    return address.version == 6 and address.is_link_local
