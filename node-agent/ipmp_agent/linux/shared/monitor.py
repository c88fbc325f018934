"""What the kernel tells unasked: links, addresses, routes, rules and nexthops of this network namespace."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import netlink

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipmp_agent.linux.messages.netlink import Message
    from ipmp_agent.linux.shared.readers import Readers

log = logging.getLogger(__name__)

RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE = 1, 5, 7
RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_NEXTHOP = 9, 11, 32
RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE = 8, 19
GROUPS = (
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_NEXTHOP,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_RULE,
)

DATAGRAMS_PER_WAKE = 256
"""A flood of notifications gives way to probes and timers after this many."""


class Monitor:
    """Reads notifications as they come; after an overrun it starts afresh and says so.

    Args:
        heard: takes each message.
        overrun: called when messages were lost: only a dump tells what is true now.
        readers: read its socket.
    """

    def __init__(self, heard: Callable[[Message], None], overrun: Callable[[], None], readers: Readers) -> None:
        self._heard = heard
        self._overrun = overrun
        self._readers = readers
        self._socket = netlink.open_socket(GROUPS)
        self._readers.add(self._socket, self._read)
        self.overruns = 0

    def _read(self) -> None:
        for _ in range(DATAGRAMS_PER_WAKE):
            try:
                pending = netlink.read(self._socket)
            except netlink.OverrunError:
                self._reopen()
                return
            if not pending:
                return
            for message in pending:
                try:
                    self._heard(message)
                except Exception:
                    # What one message does spoils no other; a dump tells what it would have told.
                    log.exception("a notification could not be taken (kind %d): comparing anew", message.kind)
                    self._overrun()

    def _reopen(self) -> None:
        self.overruns += 1
        log.warning("netlink notifications were lost (%d times so far): comparing with the kernel anew", self.overruns)
        try:
            fresh = netlink.open_socket(GROUPS)
        except OSError as error:
            # Without a descriptor to be had the old one goes on: its queue is what it was, with a gap.
            log.warning("no fresh socket for netlink notifications: %s", error)
        else:
            self.close()
            self._socket = fresh
            self._readers.add(self._socket, self._read)
        self._overrun()

    def close(self) -> None:
        """Listen no more."""
        self._readers.remove(self._socket)
        self._socket.close()
