"""The data addresses of one group: where each one is to be, and the requests that bring it there."""

from __future__ import annotations

import asyncio
import errno
import logging
from functools import cache
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from ipmp_agent.core.events import AddressAdopted, AddressCleared, AddressFound, AddressRefused, AddressReleased
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group.adoption import Adoption, oldest_first
from ipmp_agent.linux.group.multicast import speakers_of_vrrp
from ipmp_agent.linux.messages import addresses, frames, netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ipmp_agent.core.actions import Move
    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_agent.linux.messages.netlink import Failure
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import HostMember, Members
    from ipmp_api.types import Address, InterfaceAddress, Network, NodeGroup

log = logging.getLogger(__name__)

REFUSED_RETRY = 30.0
"""Seconds until an address that cannot be had is tried again."""

EARLY = 16
"""Addresses of one move that are announced before the kernel has moved them, the most important ones."""


class GroupDataAddresses:
    """Places addresses as the core orders, and knows which ones are this agent's own.

    `placement` is the desired state: an address is on that member, or will be when its conflict check is over, or when
    the member is back.
    """

    def __init__(
        self,
        group: str,
        host: Host,
        members: Members,
        sink: Callable[[Event], None],
        changed: Callable[[set[str], set[Address]], None],
    ) -> None:
        self._group = group
        self._host = host
        self._members = members
        self._sink = sink
        self._changed = changed  # called with the members that addresses left, and the addresses that came or went
        self._loop = asyncio.get_running_loop()
        self._configured: dict[Address, InterfaceAddress] = {}
        self.placement: dict[InterfaceAddress, str] = {}
        self.held: set[InterfaceAddress] = set()  # on the link through us or found there: no check before a move
        # Found and not ours, the oldest first: its home and what it is there. What is no data address goes back.
        self._foreign: dict[InterfaceAddress, tuple[str, bytes]] = {}
        self.heirs: dict[str, str] = {}  # of members that are gone and are no members any more: who has what they had
        # Adopted until a moment ago, and left where they are on a member that leaves: by that, until it is let go.
        self._left: dict[str, dict[InterfaceAddress, bytes]] = {}
        self.adoption = Adoption()
        self._adopted: set[InterfaceAddress] = set()
        self._lengths: dict[InterfaceAddress, InterfaceAddress] = {}  # found with another prefix length than configured
        self._remembered: dict[InterfaceAddress, str] = {}  # where an earlier run had its own
        self.doubted: frozenset[Address] = frozenset()  # adopted ones that are gone, and it is not known yet why
        self._taken_off: list[tuple[str, Address]] = []  # by the last comparison, off members where they are not to be
        self._swept: set[Address] = set()  # adopted ones that are gone against their owner's will, and are put back
        self._retries: dict[InterfaceAddress, asyncio.TimerHandle] = {}
        self._kernel_refused: set[InterfaceAddress] = set()  # of those that are to be tried again

    # -- configuration and memory ------------------------------------------------------------------------------------

    def configure(self, configuration: NodeGroup) -> None:
        """Take the list of data addresses; those dropped are withdrawn by the core's orders."""
        configured = {data.address.ip: data.address for data in configuration.data_addresses}
        self.adoption.configure(configuration)
        for address in list(self._adopted):
            if address.ip in configured:
                self._name(address, configured[address.ip])
            elif not self.adoption.keeps(*self._foreign[address]):
                adopting = self.adoption.may_live_on(self._foreign[address][0])
                self._let_go(address)
                if adopting:  # if not, the core knows by itself
                    self._sink(AddressReleased(address))
        for member in configuration.members:
            self._left.pop(member.key, None)  # it stays
        self._configured = configured | {address.ip: address for address in self._foreign if address in self._adopted}
        for address in list(self._retries):
            if address.ip not in self._configured:
                self._retries.pop(address).cancel()

    def _name(self, adopted: InterfaceAddress, configured: InterfaceAddress) -> None:
        """Keep an adopted address that the configuration now names, perhaps with another prefix length."""
        self._adopted.discard(adopted)
        if adopted == configured:
            return
        self._lengths[configured] = adopted
        self._foreign = {configured if a == adopted else a: original for a, original in self._foreign.items()}
        if adopted in self.placement:
            self.placement[configured] = self.placement.pop(adopted)
        if adopted in self.held:
            self.held.remove(adopted)
            self.held.add(configured)

    def _let_go(self, address: InterfaceAddress) -> None:
        """Adopt an address no more: what is not at its home is brought there by the next comparison."""
        self._adopted.discard(address)
        self._swept.discard(address.ip)
        self.held.discard(address)
        self._host.announcer.cancel([address])
        self._configured.pop(address.ip, None)
        if self.placement.pop(address, None) == self._foreign[address][0]:
            del self._foreign[address]

    def memory(self) -> dict[str, Any]:
        """What a restarted agent must know: JSON."""
        return {
            "placement": {str(address): key for address, key in self.placement.items() if address in self.held},
            "foreign": {str(a): {"member": key, "message": body.hex()} for a, (key, body) in self._foreign.items()},
            "looked_at": self.adoption.memory(),
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take over what an earlier run remembered."""
        self.adoption.remember(memory.get("looked_at", ()))
        for text, original in memory.get("foreign", {}).items():
            found = ip_interface(text)
            address = self._configured.get(found.ip, found)
            self._foreign[address] = (original["member"], bytes.fromhex(original["message"]))
            if address != found:
                self._lengths[address] = found
            elif found.ip not in self._configured and self.adoption.keeps(*self._foreign[address]):
                self._adopt(found)
        known = {str(address): address for address in self._configured.values()}
        for text, key in memory.get("placement", {}).items():
            if text in known:
                self._remembered[known[text]] = key

    def _adopt(self, address: InterfaceAddress) -> None:
        self._adopted.add(address)
        self._configured[address.ip] = address

    def follow(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> None:
        """Let go what is not where it was, on the members that are there (by key): a group that observes moves nothing.

        What is elsewhere is found there.
        """
        present = {(key, each.address.ip) for key, found in installed.items() for each in found}
        for address, key in list(self.placement.items()):
            if key not in installed or (key, address.ip) in present:
                continue
            if address in self._adopted:
                self._let_go(address)
                self._foreign.pop(address, None)
                self._sink(AddressReleased(address))
                continue
            if address in self.held:  # if not, its check begins again when the group manages
                self.held.remove(address)
                del self.placement[address]
            self._sink(AddressFound(address, None))

    def find(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> None:
        """Tell which data addresses are on the members (by key) without an order of ours."""
        # Of two members that have an address, the one remembered is right: a move was cut short.
        for first in (True, False):
            for key, found in installed.items():
                for each in found:
                    address = self._configured.get(each.address.ip)
                    if address is None or address in self.held:
                        continue
                    if self.placement.get(address, key) == key and (not first or self._remembered.get(address) == key):
                        self._found(address, key, each)
        self._miss(installed)
        self._remembered.clear()
        self._look_home(installed)
        by_ip = {address.ip: address for address in self._foreign}
        going = {a.ip for a, (home, _) in self._foreign.items() if not self._may_stay_away(home)}
        homes: dict[str, list[InterfaceAddress]] = {}
        for address, (its_home, _) in self._foreign.items():
            homes.setdefault(its_home, []).append(address)
        is_known = lambda address: self.is_data(address) or address in going  # noqa: E731
        chosen = self.adoption.choose(installed, is_known, homes, cache(self._speaks_vrrp))
        for key, each in chosen:
            known = by_ip.get(each.address.ip, each.address)
            home, _ = self._foreign.get(known, (None, b""))
            if home is None and each.borrowed:
                log.warning("%s was moved to %s by an agent whose memory is lost: that is its home now", known, key)
                self._foreign[known] = (key, addresses.plain(each))
            elif home is not None and not self.adoption.may_live_on(home):
                log.warning("%s was moved to %s from %s, which is gone: that is its home now", known, key, home)
                self._foreign[known] = (key, addresses.plain(each))
                self.heirs.setdefault(home, key)
            self._adopt(known)
            self._found(known, key, each)

    def _miss(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> None:
        """Tell of what was adopted and went while no agent ran: it is judged as what goes before our eyes.

        What a member took along that is gone itself is put back at home.
        """
        for address in [a for a in self._adopted if a not in self.placement]:
            home = self._foreign[address][0]
            last = self._remembered.get(address, home)
            if last not in installed and home in installed:
                last = home
                self.swept(address.ip)
            if last in installed:
                self.placement[address] = last
                self.held.add(address)
                self._sink(AddressAdopted(address, home, last))

    def _may_stay_away(self, home: str) -> bool:
        """Whether addresses of this home are adopted, or cannot go there for now."""
        return self.adoption.may_live_on(home) or self._index(home) is None

    def _look_home(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> None:
        """Adopted addresses at home belong to the host: it may change them, or give them to DHCP."""
        for key, found in installed.items():
            for each in found:
                address = self._configured.get(each.address.ip)
                if address not in self._adopted or each.owned or each.borrowed or self.placement.get(address) != key:
                    continue
                if self._foreign[address][0] == key and each.leased:
                    self._let_go(address)
                    self._sink(AddressReleased(address))
                elif self._foreign[address][0] == key and each.usable:
                    self._foreign[address] = (key, each.body)

    def _speaks_vrrp(self, key: str) -> bool:
        member = self._members.of(self._group).get(key)
        return member is not None and member.link is not None and member.link.name in speakers_of_vrrp()

    def _found(self, address: InterfaceAddress, key: str, each: InstalledAddress) -> None:
        self._host.checks.cancel(address)
        self.placement[address] = key
        self.held.add(address)
        if each.address != address:
            self._lengths[address] = each.address
        # Kernels before 5.18 do not keep the tag: there the memory says what is ours.
        if not each.owned and address not in self._remembered:
            self._foreign.setdefault(address, (key, each.body))
        if address in self._adopted:
            self._sink(AddressAdopted(address, self._foreign[address][0], key, self._remembered.get(address)))
        else:
            self._sink(AddressFound(address, key, self._remembered.get(address)))

    def heard(self, kind: int, each: InstalledAddress, member: HostMember) -> bool:
        """Somebody, perhaps we, changed an address of a member; returns whether it may differ from what is wanted.

        A notification tells of a moment that later orders may have overtaken: the comparison that follows decides.
        """
        address = self._configured.get(each.address.ip)
        if address is None:
            return False
        here = self.placement.get(address) == member.key
        if kind == netlink.RTM_DELADDR:
            return here and address in self.held and address not in self._adopted
        if address not in self.held or (here and address in self._adopted):
            self._changed(set(), set())
            return False
        return not here

    # -- what becomes of adopted addresses that are gone ---------------------------------------------------------------

    def is_wanted(self, key: str, address: Address) -> bool:
        """Whether a data address is to be on this member, as far as anybody has ordered."""
        found = self._configured.get(address)
        return found is not None and found in self.held and self.placement.get(found) == key

    def is_adopted(self, address: Address) -> bool:
        """Whether this is an address of the host that is taken care of."""
        return self._configured.get(address) in self._adopted

    def swept(self, address: Address) -> None:
        """An adopted address is gone by accident: the next comparison puts it back."""
        self._swept.add(address)

    def unexplained(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> list[tuple[str, InterfaceAddress]]:
        """The adopted addresses that are missing where they are to be, with the members; of those put back, none."""
        present = {(key, each.address.ip) for key, found in installed.items() for each in found}
        found = [(key, a) for a in self._adopted if (key := self.placement.get(a)) is not None and key in installed]
        self._swept -= {a.ip for key, a in found if (key, a.ip) in present}
        there = {address for _, address in present}  # on a member, though not on the one where it is to be
        return [(key, a) for key, a in found if a.ip not in there and a.ip not in self._swept]

    def give_up(self, address: Address) -> None:
        """Its owner took an adopted address away: it is not looked after any more, and goes nowhere again."""
        adopted = self._configured[address]
        self.adoption.given_up(self._foreign[adopted][0], address)
        self._let_go(adopted)
        self._foreign.pop(adopted, None)
        self._sink(AddressReleased(adopted, given_up=True))

    def let_member_go(self, key: str) -> None:
        """What the host has on this member is the host's alone again."""
        self._left.pop(key, None)

    def gather(self, key: str, heir: str) -> None:
        """Lay on another member what was left on one whose interface went before it was let go.

        The next comparison adopts it there, as whatever is found moved away from a home that is gone.
        """
        if not self.adoption.may_live_on(heir):
            return
        left = {a: body for a, body in self._left.pop(key, {}).items() if a.ip not in self._configured}
        requests: list[bytes] = []
        for address, body in left.items():
            self._foreign[address] = (key, body)
            self.placement[address] = heir
            self.held.add(address)
            requests += self._add(address, heir)
        self._host.send(requests)
        if left:
            self.heirs[key] = heir
            self.announce(heir, left)
            self._changed({key}, {address.ip for address in left})

    def abandon(self, key: str) -> None:
        """Its interface is there and no member any more: what the host has on it is the host's alone again."""
        for address in [a for a in self._adopted if self._foreign[a][0] == key]:
            if self.placement.get(address, self._remembered.get(address, key)) == key:
                self._let_go(address)
                self._foreign.pop(address, None)
                self._sink(AddressReleased(address))

    # -- the fast path -----------------------------------------------------------------------------------------------

    def move(self, moves: Sequence[Move]) -> None:
        """Add on the destination, then delete on the source, in one batch; refusals become events."""
        adds: list[bytes] = []
        adding: list[InterfaceAddress] = []
        deletes: list[tuple[Move, bytes]] = []
        for move in moves:
            address = move.address
            if move.source is not None and move.destination is not None and address not in self.placement:
                continue  # let go or refused in this very moment, and the core is about to learn it
            self._host.checks.cancel(address)
            self._forget_retry(address)
            if move.destination is None:
                returned = self._return(address)
                adds += returned
                adding += [address] * len(returned)
                if not self._is_home(address, move.source) and not self._is_stranded(address):
                    deletes += [(move, request) for request in self._delete(address, move.source)]
                self._forget(address)
                continue
            self.placement[address] = move.destination
            if address not in self.held:
                self._check(address)
                continue
            added = self._add(address, move.destination)
            adds += added
            adding += [address] * len(added)
            if move.source != move.destination:
                deletes += [(move, request) for request in self._delete(address, move.source)]
        self._announce_early(moves)
        refused = {adding[failure.position]: failure for failure in self._host.send(adds)}
        # A source is given up only when the destination holds the address.
        self._host.send([request for move, request in deletes if move.address not in refused])
        self._keep(moves, refused)
        # With an address go its connected route, all routes that name it as source, and with the last IPv4 address of
        # an interface every IPv4 route there; the kernel does not tell.
        self._changed({move.source for move in moves if move.source is not None}, {move.address.ip for move in moves})

    def _announce_early(self, moves: Sequence[Move]) -> None:
        """Announce what a dead link leaves behind before the kernel, which others may keep waiting, has moved it.

        A host takes what is for any of its addresses on any member, and a member without a link answers nobody.
        """
        early: dict[str, list[InterfaceAddress]] = {}
        for move in moves[:EARLY]:
            if move.destination is not None and move.source is not None and self._is_cut_off(move.source):
                early.setdefault(move.destination, []).append(move.address)
        for key, left in early.items():
            self._host.announcer.cancel(left)
            self.announce(key, left, once=True)

    def _is_cut_off(self, key: str) -> bool:
        """Whether a member is there, without a link."""
        member = self._members.of(self._group).get(key)
        return member is not None and member.index is not None and member.up is False

    def _keep(self, moves: Sequence[Move], refused: Mapping[InterfaceAddress, Failure]) -> None:
        """Leave what a destination was refused where it was."""
        for move in moves:
            failure = refused.get(move.address)
            if failure is None or failure.error == errno.ENODEV or move.destination is None:
                continue  # moved; or the destination is gone, and the core is about to learn it; or let go
            self._refuse(move.address, Reason.KERNEL_REFUSED, str(failure))
            if move.source is not None and self._index(move.source) is not None:
                self.placement[move.address] = move.source
                self.held.add(move.address)
                self._sink(AddressFound(move.address, move.source))

    def _index(self, key: str | None) -> int | None:
        member = self._members.of(self._group).get(key) if key is not None else None
        return member.index if member is not None else None

    def _add(self, address: InterfaceAddress, key: str) -> list[bytes]:
        """Requests that put an address on a member: as ours, or at its home as it was."""
        index = self._index(key)
        if index is None:
            return []
        home, body = self._foreign.get(address, (None, b""))
        if home == key:
            return addresses.restore(index, body)
        there = self._lengths.get(address, address)
        return [addresses.add(index, there) if home is None else addresses.lend(index, there, body)]

    def _is_home(self, address: InterfaceAddress, key: str | None) -> bool:
        """Whether a member had the address before this group."""
        return address in self._foreign and self._foreign[address][0] == key

    def _is_stranded(self, address: InterfaceAddress) -> bool:
        """Whether an address was adopted from a member that is gone: it is the host's, and has no other place."""
        return address in self._adopted and self._index(self._foreign[address][0]) is None

    def _return(self, address: InterfaceAddress) -> list[bytes]:
        """Requests that give an address back to the host that had it, if it is away from home."""
        home, body = self._foreign.get(address, (None, b""))
        index = self._index(home)
        if index is None or self.placement.get(address) == home:
            return []
        return addresses.restore(index, body)

    def _forget(self, address: InterfaceAddress) -> None:
        """Place an address no more; one that cannot go home for now waits for it."""
        self._host.announcer.cancel([address])
        self.placement.pop(address, None)
        self.held.discard(address)
        if address in self._adopted:
            home, body = self._foreign[address]
            self._left.setdefault(home, {})[address] = body
            self._adopted.remove(address)
            del self._configured[address.ip]
        if self._index(self._foreign.get(address, (None, b""))[0]) is not None:
            del self._foreign[address]

    def _delete(self, address: InterfaceAddress, key: str | None) -> list[bytes]:
        index = self._index(key)
        return [] if index is None else [addresses.delete(index, self._lengths.get(address, address))]

    # -- first activation --------------------------------------------------------------------------------------------

    def _check(self, address: InterfaceAddress) -> None:
        port = self._host.ports.get((self._group, self.placement[address]))
        if port is not None:
            self._host.checks.start(address, port.wire, lambda mac: self._checked(address, mac))

    def check_again(self, key: str) -> None:
        """Begin the checks that could not begin on a member, and those whose questions nobody hears any more."""
        for address, destination in self.placement.items():
            if destination == key and address not in self.held:
                self._check(address)

    def _checked(self, address: InterfaceAddress, mac: bytes | None) -> None:
        key = self.placement.get(address)
        if key is None:
            return
        if mac is not None:
            self._refuse(address, Reason.ADDRESS_CONFLICT, f"{frames.mac_text(mac)} has it already")
            return
        requests = self._add(address, key)
        failures = self._host.send(requests)
        if failures and failures[0].error == errno.ENODEV:
            return  # the member is gone, and the core is about to learn it
        if failures:
            self._refuse(address, Reason.KERNEL_REFUSED, str(failures[0]))
        elif requests:
            self.held.add(address)
            self.announce(key, [address])
            self._changed(set(), {address.ip})

    def _refuse(self, address: InterfaceAddress, reason: Reason, detail: str) -> None:
        self.placement.pop(address, None)
        self.held.discard(address)
        self._forget_retry(address)
        self._retries[address] = self._loop.call_later(REFUSED_RETRY, self._retry, address)
        if reason is Reason.KERNEL_REFUSED:
            self._kernel_refused.add(address)
        self._changed(set(), {address.ip})
        self._sink(AddressRefused(address, reason, detail))

    @property
    def arriving(self) -> tuple[InterfaceAddress, ...]:
        """The addresses that have a place on a member and are not there yet: nobody else may be found to have them."""
        return tuple(address for address in self.placement if address not in self.held)

    def retry_refused(self) -> None:
        """Something changed that the kernel may have refused addresses for: try them again now."""
        for address in [a for a in self._retries if a in self._kernel_refused]:
            self._retry(address)

    def _retry(self, address: InterfaceAddress) -> None:
        """Let the core try again: its order starts with a check."""
        self._forget_retry(address)
        self._sink(AddressCleared(address))

    def _forget_retry(self, address: InterfaceAddress) -> None:
        self._kernel_refused.discard(address)
        timer = self._retries.pop(address, None)
        if timer is not None:
            timer.cancel()

    def announce_again(self) -> None:
        """Announce once whatever is here, but for what is announced just now."""
        for key in set(self.placement.values()):
            self.announce(key, [each for each, holder in self.placement.items() if holder == key], once=True)

    def announce(self, key: str, announced: Iterable[InterfaceAddress], *, once: bool = False) -> None:
        """Announce those addresses of a member that are there; the others follow when their check is over."""
        port = self._host.ports.get((self._group, key))
        if port is not None:
            present = [a for a in announced if a in self.held and self.placement.get(a) == key]
            port.announce(present, once=once)

    def is_home(self, key: str, version: int) -> bool:
        """Whether the host had an address of this IP version on a member."""
        return any(home == key and address.version == version for address, (home, _) in self._foreign.items())

    def adopts(self, address: InterfaceAddress) -> bool:
        """Whether an address that the host had is taken care of."""
        return address in self._adopted

    def origins(self) -> tuple[set[str], set[Address]]:
        """The members that had addresses before this group, and these."""
        return {home for home, _ in self._foreign.values()}, {address.ip for address in self._foreign}

    # -- for routes --------------------------------------------------------------------------------------------------

    def addresses(self) -> Iterable[Address]:
        """The group's data addresses."""
        return self._configured

    def configured(self, address: Address) -> InterfaceAddress | None:
        """A data address as it is configured."""
        return self._configured.get(address)

    def is_data(self, address: Address) -> bool:
        """Whether this is one of the group's data addresses."""
        return address in self._configured

    def holder(self, address: Address) -> str | None:
        """The member that has a data address, and is there."""
        configured = self._configured.get(address)
        here = configured is not None and configured in self.held and address not in self.doubted
        key = self.placement.get(configured) if configured is not None and here else None
        return key if self._index(key) is not None else None

    def has_any(self, key: str, version: int) -> bool:
        """Whether a member has a data address of this IP version."""
        return any(k == key and a.version == version and a in self.held for a, k in self.placement.items())

    def prefixes(self) -> set[Network]:
        """Prefixes wider than one address that data addresses bring."""
        networks = {self._lengths.get(address, address).network for address in self.held}
        return {network for network in networks if network.prefixlen < network.max_prefixlen}

    def homes(self) -> dict[Address, str]:
        """The addresses that the host had before this group, and the member of each."""
        return {address.ip: home for address, (home, _) in self._foreign.items()}

    def sources(self) -> tuple[dict[Network, Address], dict[int, Address]]:
        """The first data address there is of each prefix, and of each IP version."""
        here = [address for ip, address in self._configured.items() if self.holder(ip) is not None]
        here.sort(key=lambda address: address not in self._adopted)  # the host's own first, as it was
        by_prefix: dict[Network, Address] = {}
        by_version: dict[int, Address] = {}
        for address in here:
            by_prefix.setdefault(self._lengths.get(address, address).network, address.ip)
            by_version.setdefault(address.version, address.ip)
        return by_prefix, by_version

    # -- comparing ---------------------------------------------------------------------------------------------------

    def differences(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> list[bytes]:
        """Requests that turn what is on the members (by key) into what is wanted. Other foreign addresses stay."""
        requests: list[bytes] = []
        self._taken_off = []
        for unheld in [a for a in self.placement if a not in self.held and a not in self._host.checks]:
            self._check(unheld)  # its check was ended, or could not begin
        present = {(key, each.address.ip) for key, found in installed.items() for each in found}
        there = {address for _, address in present}
        for wanted in [*(a for a in self._foreign if a in self.held), *(self.held - self._foreign.keys())]:
            key = self.placement.get(wanted)
            if key is None or key not in installed or (key, wanted.ip) in present:
                continue
            # One that its owner laid on another member in its place goes from there to where it is to be.
            if wanted not in self._adopted or wanted.ip in self._swept or wanted.ip in there:
                requests += self._add(wanted, key)
        returned = self._returns(present)
        for key, index, each in self._on_members(installed):
            address = self._configured.get(each.address.ip)
            if address is not None and address in self.held:
                if self.placement.get(address) != key:
                    if not (each.owned or each.borrowed):
                        self._foreign.setdefault(address, (key, each.body))
                    requests.append(addresses.delete(index, each.address))
                    self._taken_off.append((key, each.address.ip))
            elif each.owned or (each.borrowed and each.address.ip in returned):
                requests.append(addresses.delete(index, each.address))
        return [request for back in returned.values() for request in back] + requests

    def taken_off(self) -> tuple[set[str], set[Address]]:
        """The members and addresses of which the requests of `differences` rid each other; asked once they are sent."""
        taken, self._taken_off = self._taken_off, []
        return {key for key, _ in taken}, {address for _, address in taken}

    def _returns(self, present: set[tuple[str, Address]]) -> dict[Address, list[bytes]]:
        """Requests that bring home what is no data address any more, by address; what is home is the host's again."""
        requests: dict[Address, list[bytes]] = {}
        for address, (home, body) in list(self._foreign.items()):
            index = self._index(home)
            if address.ip in self._configured or index is None:
                continue
            requests[address.ip] = []
            if (home, address.ip) in present:
                del self._foreign[address]
            else:
                requests[address.ip] = addresses.restore(index, body)
        return requests

    def refuges(self) -> dict[str, str]:
        """The members that are gone for which others keep addresses, and of each the one that is to keep them all."""
        found: dict[str, str] = {}
        for address, (home, _) in self._foreign.items():
            holder = self.placement.get(address)
            if holder is not None and self._index(home) is None and self._index(holder) is not None:
                found.setdefault(home, holder)
        return found

    def withdraw(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> list[bytes]:
        """Requests that put everything back as it was found; what has no home any more becomes the refuge's own."""
        requests: list[bytes] = []
        refuges = self.refuges()
        homes = {address.ip: refuges.get(home, home) for address, (home, _) in self._foreign.items()}
        homeless = {a.ip: self.placement.get(a) for a, (home, _) in self._foreign.items() if home in refuges}
        again = self._misplaced(installed)
        again += [each for key, _, each in self._on_members(installed) if homeless.get(each.address.ip) == key]
        requests += [addresses.delete(each.index, each.address) for each in again]
        present = {(key, each.address.ip) for key, found in installed.items() for each in found if each not in again}
        for found, (home, body) in self._foreign.items():
            index = self._index(homes[found.ip])
            if index is not None and (homes[found.ip], found.ip) not in present:
                requests += addresses.restore(index, body, self._label(refuges.get(home)))
        for key, index, each in self._on_members(installed):
            address = self._configured.get(each.address.ip)
            home = homes.get(each.address.ip, "")
            if each in again or (home and (home == key or self._index(home) is None)):
                continue
            if each.owned or (each.borrowed and home) or (address is not None and address in self.held):
                requests.append(addresses.delete(index, each.address))
        return requests

    def _label(self, refuge: str | None) -> str | None:
        member = self._members.of(self._group).get(refuge) if refuge is not None else None
        return member.link.name if member is not None and member.link is not None else None

    def _misplaced(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> list[InstalledAddress]:
        """Addresses at home that must go once more, for all to come back in their order.

        The kernel chooses a source by it, and of an IPv4 prefix makes the first the primary address.
        """
        found: list[InstalledAddress] = []
        for key, version in {(home, address.version) for address, (home, _) in self._foreign.items()}:
            wanted = [a.ip for a, (home, _) in self._foreign.items() if home == key and a.version == version]
            here = [each for each in oldest_first(installed.get(key, ())) if each.address.ip in wanted]
            here = [each for each in here if each.address.version == version]
            right = 0
            while right < len(here) and here[right].address.ip == wanted[right] and not here[right].borrowed:
                right += 1
            found += here[right:]
        return found

    def _on_members(
        self, installed: Mapping[str, Sequence[InstalledAddress]]
    ) -> Iterator[tuple[str, int, InstalledAddress]]:
        """Everything on present members but test addresses and link-local ones."""
        for key, found in installed.items():
            index = self._index(key)
            if index is not None:
                yield from ((key, index, each) for each in found if each.scope == netlink.RT_SCOPE_UNIVERSE)

    def rest(self) -> None:
        """Stop checks and announcements: nothing comes to a member, and nothing is said of what is there."""
        self._host.announcer.cancel(list(self.placement))
        for address in list(self.placement):
            self._host.checks.cancel(address)

    def close(self) -> None:
        """Stop checks, retries and announcements."""
        self.rest()
        for address in list(self._retries):
            self._forget_retry(address)
