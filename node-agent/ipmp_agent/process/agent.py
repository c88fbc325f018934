"""The agent's process: one data-plane loop, and around it the threads that must never hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import ipmp_agent
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.dataplane.configurator import Configurator
from ipmp_agent.dataplane.loop import DataPlane
from ipmp_agent.dataplane.trials import Trials
from ipmp_agent.disk import state
from ipmp_agent.disk.directories import Directory
from ipmp_agent.disk.recording import LIMIT, Recorder
from ipmp_agent.disk.writer import StateWriter
from ipmp_agent.linux.kernel import Kernel
from ipmp_agent.process import handover
from ipmp_agent.process.control import ControlSocket
from ipmp_agent.process.namespace import NamespaceLock
from ipmp_api.frozen import frozen
from ipmp_service.http import HealthServer
from ipmp_service.threads import aside

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from ipmp_agent.dataplane.loop import Observer
    from ipmp_agent.disk.state import SavedState
    from ipmp_agent.measurements import Measurements
    from ipmp_agent.process.hangup import Hangup
    from ipmp_agent.process.supervision import Supervision
    from ipmp_agent.publication import Reporting
    from ipmp_api.types import NodeGroup
    from ipmp_service.http import Health

T = TypeVar("T")

SWITCH_INTERVAL = 0.0005
"""Seconds after which another thread yields to the data plane. CPython's 5 ms would be half of a failover."""

GC_THRESHOLDS = (50_000, 20, 100)
"""What lives is frozen after the start; the little that comes later is collected rarely."""

DESCRIPTORS = 65536
"""Open files that the agent asks for, where the hard limit permits: the soft one is often 1,024."""

STALE = 30.0
"""Seconds without a publication (one a second is normal) after which the agent counts as dead."""

CAPABILITIES = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW"}

log = logging.getLogger(__name__)


class StartError(Exception):
    """The agent cannot start; the message says what to do."""


class Source(Protocol):
    """Where the configuration comes from."""

    def start(self, want: Callable[[tuple[NodeGroup, ...]], None], saved: SavedState) -> Observer | None:
        """Begin to hand over complete configurations, from any thread; return who wants to be told of everything.

        `saved` is what an earlier agent knew, for a source that cannot be reached.
        """

    def reload(self) -> None:
        """Read everything again. Called in a thread that may wait."""

    def api_server_answers(self) -> bool | None:
        """Whether the API server answers a fresh connection; None without one. Called in a thread that may wait."""

    def reporting(self) -> Reporting | None:
        """How far an API server is told; None without one. Called from any thread."""

    def close(self) -> None:
        """Hand over no more."""


@frozen
class AgentOptions:
    """What the command line says."""

    state_directory: Path
    runtime_directory: Path
    metrics_address: tuple[str, int] | None = None
    record: Path | None = None
    record_bytes: int = LIMIT
    stand_in: bool = False  # hand over to whoever asks
    asks: bool = False  # have an agent that stands in hand over
    trials: bool = True  # undo a change of configuration by which the node loses what it reached before


def require_capabilities() -> None:
    """Raises StartError naming what this process may not do."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    missing = [name for bit, name in CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise StartError(
            f"needs {' and '.join(missing)}: run it as root, or give the container these capabilities "
            "(securityContext.capabilities.add, without the CAP_)"
        )


def raise_descriptor_limit() -> None:
    """Permit this process as many open files as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Agent:
    """One running agent. `run` returns when it was told to stop."""

    def __init__(self, options: AgentOptions, source: Source, measurements: Measurements, hangup: Hangup) -> None:
        self._options = options
        self._hangup = hangup
        self._reloads: set[asyncio.Task[None]] = set()
        self._source = source
        self._measurements = measurements
        self._supervision: Supervision | None = None
        self._asked = asyncio.Event()  # by another agent, to end for it
        self._handed_over = False

    def run(self) -> bool:
        """Work until SIGTERM or SIGINT, or, returning True, until another agent asks for the host.

        Raises StartError, InUseError and OSError while nothing has been touched.
        """
        self._hangup.catch()
        require_capabilities()
        with contextlib.ExitStack() as stack:
            if self._options.asks:
                handover.obtain(self._options.runtime_directory, lambda: self._occupy(stack))
                handover.mark(self._options.state_directory)
            else:
                self._occupy(stack)
            raise_descriptor_limit()
            sys.setswitchinterval(SWITCH_INTERVAL)
            asyncio.run(self._work())
        return self._handed_over

    def _occupy(self, outer: contextlib.ExitStack) -> None:
        """Be the agent of this host, and hold both directories: all of it, or nothing and InUseError."""
        options = self._options
        with contextlib.ExitStack() as stack:
            for path, option, mode in (
                (options.runtime_directory, "--runtime-dir", 0o755),
                (options.state_directory, "--state-dir", 0o700),
            ):
                stack.callback(Directory(path, option, mode).release)
            stack.callback(NamespaceLock().release)
            outer.push(stack.pop_all())

    async def _work(self) -> None:
        with contextlib.ExitStack() as stack:
            saved = state.load(self._options.state_directory, self._options.runtime_directory)
            plane, configurator = self._data_plane(stack, saved)
            await plane.kernel.open({name: group.kernel for name, group in saved.groups.items()})
            try:
                self._surround(stack, plane, configurator, saved)
                await self._until_stopped(plane, configurator)
            finally:
                try:
                    plane.stop()
                finally:
                    await plane.kernel.close()
        how = "handed over to another agent" if self._handed_over else "stopped"
        log.info("%s; addresses and routes stay as they are", how)

    def _data_plane(self, stack: contextlib.ExitStack, saved: SavedState) -> tuple[DataPlane, Configurator]:
        options, errors = self._options, self._measurements.errors

        def count(part: str) -> Callable[[], None]:
            def add() -> None:
                errors[part] += 1

            return add

        writer = StateWriter(options.state_directory, count("state"), options.runtime_directory)
        stack.callback(writer.close)
        recorder = None
        if options.record:
            recorder = Recorder(options.record, count("recording"), options.record_bytes)
            stack.callback(recorder.close)
        seed = int.from_bytes(os.urandom(8))
        plane = DataPlane(
            make_kernel=Kernel,
            make_core=lambda configuration, seed: Multipathing(configuration, seed=seed),
            measurements=self._measurements,
            seed=seed,
            save=writer.put,
            written=writer.written,
            record=recorder.put if recorder else None,
        )
        if recorder:
            recorder.cores = lambda: {name: (group.configuration, group.core) for name, group in plane.groups.items()}
        plane.host_findings.append(writer.findings)

        async def api_server_answers() -> bool | None:
            return await aside(self._source.api_server_answers)

        trials = Trials(plane.kernel, api_server_answers, saved, plane.unplugged, enabled=options.trials)
        return plane, Configurator(plane, saved, trials)

    def _surround(
        self, stack: contextlib.ExitStack, plane: DataPlane, configurator: Configurator, saved: SavedState
    ) -> None:
        """Start the threads that let others see and ask."""
        self._report_to_the_host(stack, plane)
        loop = asyncio.get_running_loop()
        hand_over = partial(loop.call_soon_threadsafe, self._asked.set) if self._options.stand_in else None
        control = ControlSocket(self._options.runtime_directory, plane, configurator, hand_over)
        stack.callback(control.close)
        plane.host_findings.append(control.findings)
        if self._options.metrics_address is not None:
            server = HealthServer(
                self._options.metrics_address, lambda: self._metrics(plane), lambda: alive(plane), lambda: ready(plane)
            )
            stack.callback(server.close)
            log.info("metrics at http://%s:%d/metrics", *server.address)
        observer = self._source.start(lambda groups: _hand_over(plane, configurator, groups), saved)
        stack.callback(self._source.close)
        if observer is not None:
            plane.observers.append(observer)

    def _metrics(self, plane: DataPlane) -> CollectorRegistry:
        from ipmp_agent.views.metrics import AgentCollector, registry_of  # noqa: PLC0415 - a tenth of the start

        return registry_of(
            AgentCollector(
                lambda: plane.publication,
                self._measurements,
                lambda: dict(plane.kernel.counters),
                self._source.reporting,
            )
        )

    def _report_to_the_host(self, stack: contextlib.ExitStack, plane: DataPlane) -> None:
        if "NOTIFY_SOCKET" not in os.environ:
            return
        from ipmp_agent.process.supervision import Supervision  # noqa: PLC0415 - nothing that a container needs
        from ipmp_service.service_manager import ServiceManager  # noqa: PLC0415

        if (manager := ServiceManager.of(os.environ)) is not None:
            stack.callback(manager.close)
            self._supervision = Supervision(manager, plane.kernel.arriving, time.monotonic())
            plane.observers.append(self._supervision)

    async def _until_stopped(self, plane: DataPlane, configurator: Configurator) -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        self._hangup.obey(lambda: loop.call_soon_threadsafe(self._reload_soon))
        plane.refresh()
        log.info("ipmp-agent %s started", ipmp_agent.__version__)
        work = [
            asyncio.create_task(configurator.run()),
            asyncio.create_task(_settle_memory(configurator)),
            asyncio.create_task(stopping.wait()),
            asyncio.create_task(self._asked.wait()),
        ]
        try:
            # These end only by a fault, by a signal, and by an agent that asks.
            await asyncio.wait((work[0], *work[2:]), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hangup.ignore()
            self._handed_over = self._asked.is_set() and not stopping.is_set()
            if self._supervision is not None:
                self._supervision.stopping(for_good=not self._handed_over)
            for task in (*work, *self._reloads):
                task.cancel()
            results = await asyncio.gather(*work, return_exceptions=True)
        fault = results[0]
        if isinstance(fault, Exception):
            raise fault
        configurator.stopped()

    def _reload_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        if self._supervision is not None:
            self._supervision.reloading()
        try:
            await aside(self._source.reload)
        except Exception:
            log.exception("not reloaded, everything stays as it is")
        finally:
            if self._supervision is not None:
                self._supervision.reloaded()


def _hand_over(plane: DataPlane, configurator: Configurator, groups: tuple[NodeGroup, ...]) -> None:
    plane.call(lambda: configurator.want(groups))


async def _settle_memory(configurator: Configurator) -> None:
    """Take all that stays out of the collector's sight: a full collection takes milliseconds.

    What was imported goes before the first group, where none of it is garbage, and what groups have after they are
    there: with very much of that, looking through all would hold up the loop.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    await configurator.applied.wait()
    gc.collect(0)
    gc.freeze()


def alive(plane: DataPlane) -> Health:
    """Whether the data plane turns."""
    age = time.monotonic() - plane.publication.monotonic
    if age > STALE:
        return False, f"the data plane has not turned for {age:.0f} s"
    return True, "ok"


def ready(plane: DataPlane) -> Health:
    """Whether the agent obeys its configuration."""
    publication = plane.publication
    if not publication.configured:
        return False, "no configuration yet"
    waiting = [view.snapshot.group for view in publication.groups if not view.ready]
    if waiting:
        return False, f"not in the kernel: {', '.join(waiting)}"
    return True, "ok"
