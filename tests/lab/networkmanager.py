"""NetworkManager on a host of the lab: the real daemon, with directories and a message bus of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.lab.bus import PATIENCE, Daemon
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.lab.suites import Suite
    from tests.lab.topology import Host

PREPARE = """
mkdir /run/NetworkManager
mount -t tmpfs tmpfs /etc/NetworkManager
mount -t tmpfs tmpfs /var/lib/NetworkManager
mkdir /etc/NetworkManager/system-connections
cp -r "$1"/. /etc/NetworkManager
chmod -R go= /etc/NetworkManager
"""

# It is to look after interfaces, and not after the resolver, the host's name, or who may speak to it.
CONFIGURATION = """
[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
systemd-resolved=false
auth-polkit=false
hostname-mode=none
no-auto-default=*
"""


class NetworkManager(Daemon):
    """The daemon, from entry to exit.

    Args:
        host: whose interfaces it manages.
        files: texts of /etc/NetworkManager by path below it, beside the main configuration.
        activated: names of the connections to wait for.
        suite: of Debian that the daemon is from; None: the system's own.
    """

    def __init__(
        self, host: Host, files: Mapping[str, str], activated: tuple[str, ...] = (), suite: Suite | None = None
    ) -> None:
        super().__init__(host, {"NetworkManager.conf": CONFIGURATION, **files}, PREPARE)
        self._activated = activated
        self._argv = suite.command("/usr/sbin/NetworkManager") if suite else ["NetworkManager"]
        self._nmcli = suite.command("/usr/bin/nmcli") if suite else ["nmcli"]

    def start(self) -> None:
        """Start the daemon, and wait until it has looked at every interface."""
        self._daemon = self._bus.start([*self._argv, "--no-daemon"], os.environ)
        wait_for(self._is_up, bool, deadline=2 * PATIENCE, what="NetworkManager")

    def configured(self) -> None:
        """Wait until every connection that is to be active is."""
        wait_for(self._active, lambda active: set(self._activated) <= active, deadline=2 * PATIENCE)

    def nmcli(self, *words: str) -> str:
        """Give it an order, and wait until it is carried out."""
        done = self._bus.run(*self._nmcli, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _is_up(self) -> bool:
        return self._bus.run(*self._nmcli, "--get-values", "STARTUP", "general").stdout.strip() == "started"

    def _active(self) -> set[str]:
        listed = self._bus.run(*self._nmcli, "--get-values", "NAME,STATE", "connection", "show", "--active").stdout
        return {line.removesuffix(":activated") for line in listed.splitlines() if line.endswith(":activated")}
