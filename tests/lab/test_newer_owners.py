"""Network daemons as newer releases of Debian have them, unpacked and run beside the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.networkd import Networkd
from tests.lab.owners import (
    AT_MOST,
    DROP_IN,
    ITS_OWN,
    ITS_OWN_V6,
    KEEPING,
    MANAGED,
    NETWORK,
    OURS,
    UNMANAGED,
    a_restart_takes_nothing,
    an_outage_takes_nothing,
    networkmanager,
    survived,
    taken,
    told,
    whole,
)
from tests.lab.scene import Scene
from tests.lab.suites import TESTED, Suite

if TYPE_CHECKING:
    from tests.lab import Lab
    from tests.lab.networkmanager import NetworkManager

FILE = "10-nic0.network"
pytestmark = pytest.mark.parametrize("suite", TESTED)


def networkd(lab: Lab, suite: str, *, keeping: bool) -> Networkd:
    files = KEEPING if keeping else {FILE: NETWORK}
    return Networkd(lab.host, files, Suite(suite, "systemd").unpack())


def test_what_networkd_takes_when_it_is_restarted_is_back_at_once(lab: Lab, suite: str) -> None:
    """From 257 on without the drop-in: every address, route and nexthop of ours on its link."""
    with networkd(lab, suite, keeping=False) as daemon, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        here = {address for address in OURS if lab.host.holders(address) == ["nic0"]}
        assert here
        with told(lab.host.namespace) as lines:
            daemon.stop()
            daemon.start()
            daemon.configured()
            whole(scene, ITS_OWN)
        missing = taken(lines, *OURS)
        assert missing.keys() == here
        assert all(max(times) < AT_MOST for times in missing.values())
        survived(scene)


def test_what_networkd_takes_when_it_configures_a_link_anew_is_back(lab: Lab, suite: str) -> None:
    """A reload does so where the file of the link is newer, and by itself takes nothing."""
    with networkd(lab, suite, keeping=False) as daemon, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        here = {address for address in OURS if lab.host.holders(address) == ["nic0"]}
        rules = lab.host.namespace.run("ip", "rule")

        def reload_changed() -> None:
            daemon.write(FILE, f"{NETWORK}# a file that is newer is a link to be configured anew\n")
            daemon.reload()

        nothing: set[str] = set()
        deeds = ((daemon.reload, nothing), (reload_changed, here), (lambda: daemon.reconfigure("nic0"), here))
        for deed, expected in deeds:
            with told(lab.host.namespace) as lines:
                deed()
                daemon.configured()
                whole(scene, ITS_OWN)
            assert taken(lines, *OURS).keys() == expected
        assert lab.host.namespace.run("ip", "rule") == rules
        survived(scene)


def test_networkd_with_the_drop_in_takes_nothing(lab: Lab, suite: str) -> None:
    with networkd(lab, suite, keeping=True) as daemon, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        with told(lab.host.namespace) as lines:
            daemon.stop()
            daemon.start()
            daemon.configured()
            daemon.write(FILE, f"{NETWORK}# a file that is newer is a link to be configured anew\n")
            daemon.reload()
            daemon.configured()
            daemon.reconfigure("nic0")
            daemon.configured()
            whole(scene, ITS_OWN)
        assert not taken(lines, *OURS, ITS_OWN)
        survived(scene)


@pytest.mark.parametrize("drop_in", ["", DROP_IN], ids=["plain", "drop-in"])
def test_networkd_takes_nothing_of_ours_during_an_outage(lab: Lab, suite: str, drop_in: str) -> None:
    with networkd(lab, suite, keeping=bool(drop_in)), Scene(lab=lab) as scene:
        an_outage_takes_nothing(scene)


def manager_of(lab: Lab, suite: str, drop_in: str) -> NetworkManager:
    return networkmanager(lab, drop_in, Suite(suite, "network-manager").unpack())


@pytest.mark.parametrize("drop_in", ["", MANAGED, UNMANAGED])
def test_networkmanager_that_is_restarted_takes_nothing(lab: Lab, suite: str, drop_in: str) -> None:
    with manager_of(lab, suite, drop_in) as manager, Scene(lab=lab) as scene:
        a_restart_takes_nothing(scene, manager, times=1)


def test_what_networkmanager_takes_when_it_applies_a_profile_anew_is_back_at_once(lab: Lab, suite: str) -> None:
    with manager_of(lab, suite, MANAGED) as manager, Scene(lab=lab) as scene:
        whole(scene, ITS_OWN)
        with told(lab.host.namespace) as lines:
            manager.nmcli("device", "reapply", "nic0")
            whole(scene, ITS_OWN)
        assert all(max(times) < AT_MOST for times in taken(lines, *OURS).values())
        survived(scene)


def test_what_networkmanager_takes_by_its_orders_is_back(lab: Lab, suite: str) -> None:
    orders = ("connection up nic0", "device set nic0 managed no", "device set nic0 managed yes")
    with manager_of(lab, suite, MANAGED) as manager, Scene(lab=lab) as scene:
        every = (ITS_OWN, ITS_OWN_V6)
        whole(scene, *every)
        with told(lab.host.namespace) as lines:
            for order in orders:
                manager.nmcli(*order.split())
                whole(scene, *every)
            manager.configured()
            whole(scene, *every)
        assert taken(lines, *OURS, *every)
        survived(scene)


@pytest.mark.parametrize("drop_in", [MANAGED, UNMANAGED])
def test_networkmanager_with_a_drop_in_takes_nothing_during_an_outage(lab: Lab, suite: str, drop_in: str) -> None:
    with manager_of(lab, suite, drop_in), Scene(lab=lab) as scene:
        an_outage_takes_nothing(scene)
