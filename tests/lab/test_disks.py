"""Disks that take nothing: full, read-only, or gone. The network of the host goes on, and people are told."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from tests import invariants
from tests.lab import Agent, Lab, wait_for
from tests.lab.own_network import ALL, HOST, V4, V6, dumped, manifest, wait_home
from tests.lab.status import group_view

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def host_with(**changes: Any) -> Iterator[tuple[Lab, Agent, Any]]:
    """A host whose address and default route a group adopts; what it was; and an agent that has not started."""
    with Lab(router=True, nic_addresses={"nic0": (f"{V4}/24", f"{V6}/64")}) as lab:
        lab.host.namespace.batch(HOST)
        wait_for(lambda: dumped(lab), lambda dump: dump == dumped(lab), what="a kernel at rest", interval=0.5)
        before = dumped(lab)
        agent = Agent(lab, manifest(lab, **changes))
        try:
            yield lab, agent, before
        except BaseException as error:
            agent.__exit__(type(error))
            raise
        agent.__exit__(None)


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of a few pages at this path."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> Path:
    """Leave no block free."""
    ballast = path / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def reasons(status: dict[str, Any]) -> set[str]:
    return {finding["reason"] for group in status["groups"] for finding in group["findings"]}


def test_what_a_full_disk_does_not_take_is_kept_beside_it_and_the_host_is_given_back() -> None:
    with host_with() as (lab, agent, before), small_disk(agent.state_directory):
        fill(agent.state_directory)
        agent.start()
        agent.wait_for(lambda s: "StateElsewhere" in reasons(s), what="people are told")
        wait_home(agent, "nic0")
        lab.host.nic("nic0").unplug()
        wait_home(agent, "nic1")
        agent.kill()
        lab.host.nic("nic0").plug()
        done = agent.withdraw()
        assert done.returncode == 0, done.stderr
        invariants.as_it_was_found(before, agent.dump())


def test_what_no_disk_takes_is_not_adopted_until_one_does() -> None:
    with (
        host_with() as (lab, agent, before),
        small_disk(agent.state_directory),
        small_disk(agent.runtime_directory),
    ):
        full = [fill(agent.state_directory), fill(agent.runtime_directory)]
        agent.start()
        agent.wait_for(lambda s: "StateNotKept" in reasons(s), what="people are told")
        lab.host.nic("nic0").unplug()
        agent.wait_for(lambda s: group_view(s).state == "degraded", what="the failure")
        assert not group_view(agent.status()).addresses, "nobody could put it back"
        lab.host.nic("nic0").plug()
        for ballast in full:
            ballast.unlink()
        agent.wait_for(lambda s: group_view(s).addresses.keys() == ALL, what="adopted at last", deadline=60)
        agent.wait_for(lambda s: "StateNotKept" not in reasons(s), what="told", deadline=60)
        agent.kill()
        assert agent.withdraw().returncode == 0
        invariants.as_it_was_found(before, agent.dump())


def test_an_agent_starts_on_a_read_only_disk_and_knows_everything_after_a_restart() -> None:
    with host_with() as (lab, agent, before):
        path = str(agent.state_directory)
        subprocess.run(["mount", "--bind", "-o", "ro", path, path], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        try:
            agent.start()
            agent.wait_for(lambda s: "StateElsewhere" in reasons(s), what="people are told")
            lab.host.nic("nic0").unplug()
            wait_home(agent, "nic1")
            agent.kill()
            agent.start()
            wait_home(agent, "nic1")
            lab.host.nic("nic0").plug()
            wait_home(agent, "nic0")
            assert agent.stop() == 0
            assert agent.withdraw().returncode == 0
            invariants.as_it_was_found(before, agent.dump())
        finally:
            subprocess.run(["umount", "--lazy", path], check=True)


def test_a_runtime_directory_that_goes_is_made_again() -> None:
    with host_with() as (_, agent, _):
        agent.start()
        shutil.rmtree(agent.runtime_directory)
        wait_for(lambda: agent.command("ipmpstat", "-g"), lambda done: done.returncode == 0, deadline=30, interval=0.5)
        assert agent.running.poll() is None
        agent.runtime_directory.joinpath("agent.sock").unlink()
        wait_for(lambda: agent.command("ipmpstat", "-g"), lambda done: done.returncode == 0, deadline=30, interval=0.5)
