"""systemd-networkd on a host of the lab: the real daemon, with a /run and a message bus of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.lab.bus import PATIENCE, Daemon
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.lab.suites import Suite
    from tests.lab.topology import Host

DAEMON = "/lib/systemd/systemd-networkd"

# It asks nobody whether a link is ready where it takes itself to be in a container.
PREPARE = """
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/host
echo systemd-nspawn > /run/host/container-manager
cp -r "$1"/. /run/systemd/network
chown -R systemd-network:systemd-network /run/systemd/netif
"""


class Networkd(Daemon):
    """The daemon, from entry to exit.

    Args:
        host: whose interfaces it manages.
        files: texts of /etc/systemd/network by path below it.
        suite: of Debian that the daemon is from; None: the system's own.
    """

    def __init__(self, host: Host, files: Mapping[str, str], suite: Suite | None = None) -> None:
        super().__init__(host, files, PREPARE)
        self._argv = suite.command("/usr/lib/systemd/systemd-networkd") if suite else [DAEMON]
        self._networkctl = suite.command("/usr/bin/networkctl") if suite else ["networkctl"]

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        environment = {**os.environ, "container": "lab", "SYSTEMD_LOG_TARGET": "console"}
        self._daemon = self._bus.start(self._argv, environment)
        wait_for(self._states, bool, deadline=PATIENCE, what="networkd")

    def configured(self) -> None:
        """Wait until every interface that it has a file for is configured, for which it needs a carrier."""
        wait_for(self._states, lambda states: "configured" in states and "configuring" not in states, deadline=PATIENCE)

    def configured_at_last(self, interface: str) -> None:
        """Wait for the same, and have an interface that it gave up configured anew, as a person would."""

        def configured() -> bool:
            states = self._states()
            if "failed" in states and "configuring" not in states:
                self.reconfigure(interface)
            return "configured" in states and not {"configuring", "failed"} & set(states)

        wait_for(configured, deadline=6 * PATIENCE, interval=0.5, what=f"{interface} configured")

    def reconfigure(self, interface: str) -> None:
        """Have an interface configured anew."""
        self._order("reconfigure", interface)

    def write(self, name: str, text: str) -> None:
        """Put another text in place of a file of /etc/systemd/network, which a reload reads."""
        self._bus.run("sh", "-c", 'printf %s "$2" > "/run/systemd/network/$1"', "sh", name, text)

    def reload(self) -> None:
        """Have the files read again."""
        self._order("reload")

    def _order(self, *words: str) -> None:
        done = self._bus.run(*self._networkctl, *words)
        assert done.returncode == 0, done.stderr

    def _states(self) -> list[str]:
        listed = self._bus.run(*self._networkctl, "list", "--no-legend", "--no-pager").stdout
        return [line.split()[-1] for line in listed.splitlines() if line.split()]
