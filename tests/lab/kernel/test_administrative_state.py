"""Members that are administratively down are set up where that is wanted, and left as they were found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.events import InterfaceFound, LinkChanged
from ipmp_api.types import AdministrativeState, DeletionPolicy
from tests.lab import wait_for
from tests.lab.kernel.running import GROUP, kernel_group

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel


def wanting_up(**policies: Any) -> Any:
    return kernel_group(administrative_state=AdministrativeState.UP, **policies)


def is_up(lab: Lab, nic: str) -> bool:
    (found,) = lab.host.namespace.ip_json("link", "show", "dev", nic)
    return "UP" in found["flags"]


def take_down(lab: Lab, nic: str = "nic0") -> None:
    lab.host.namespace.ip("link", "set", nic, "down")


def wait_up(lab: Lab, nic: str = "nic0") -> None:
    wait_for(lambda: is_up(lab, nic), what=f"{nic} up")


def test_a_member_that_is_down_is_left_so_unless_it_is_to_be_up(lab: Lab, kernel: RunningKernel) -> None:
    take_down(lab)
    kernel.configure(kernel_group())
    kernel.run(lambda k: k.reconcile(GROUP))
    assert not is_up(lab, "nic0")
    kernel.configure(wanting_up())
    wait_up(lab)
    kernel.await_event(LinkChanged, lambda event: event == LinkChanged("nic0", up=True))


def test_a_member_that_is_found_down_is_up_with_its_settings_and_down_again_at_withdrawal(
    lab: Lab, kernel: RunningKernel
) -> None:
    take_down(lab)
    kernel.configure(wanting_up())
    wait_up(lab)
    kernel.run(lambda k: k.withdraw(GROUP))
    assert not is_up(lab, "nic0")
    assert is_up(lab, "nic1")


def test_a_member_that_somebody_takes_down_is_up_again_at_once(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(wanting_up())
    take_down(lab)
    wait_up(lab)


def test_a_member_that_is_plugged_in_as_down_is_taken_up(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(wanting_up())
    nic = lab.host.nic("nic0")
    nic.remove()
    kernel.forget()
    nic.insert()
    take_down(lab)
    kernel.await_event(InterfaceFound, lambda event: event.interface == "nic0")
    wait_up(lab)


def test_a_member_that_is_offline_is_left_down(lab: Lab, kernel: RunningKernel) -> None:
    take_down(lab)
    configuration = wanting_up()
    object.__setattr__(configuration, "offline", ("nic0",))
    kernel.configure(configuration)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert not is_up(lab, "nic0")


@pytest.mark.parametrize("how", ["used by others", "retained"])
def test_what_others_use_and_what_is_retained_stays_up(lab: Lab, kernel: RunningKernel, how: str) -> None:
    take_down(lab)
    policy = DeletionPolicy.RETAIN if how == "retained" else DeletionPolicy.RESTORE
    kernel.configure(wanting_up(deletion_policy=policy))
    wait_up(lab)
    if how == "used by others":
        lab.host.namespace.ip("address", "add", "198.18.0.77/24", "dev", "nic0")
    kernel.run(lambda k: k.withdraw(GROUP))
    assert is_up(lab, "nic0")


def test_the_next_agent_leaves_it_as_the_one_that_was_killed_found_it(
    lab: Lab, start_kernel: Callable[[], RunningKernel]
) -> None:
    take_down(lab)
    first = start_kernel()
    first.configure(wanting_up())
    wait_up(lab)
    memory = json.loads(json.dumps(first.call(lambda k: k.memory(GROUP))))
    first.close()
    second = start_kernel()
    second.configure(wanting_up(), memory)
    assert is_up(lab, "nic0")
    second.run(lambda k: k.withdraw(GROUP))
    assert not is_up(lab, "nic0")
