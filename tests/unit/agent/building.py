"""What tests of the agent are made of: configurations, a scripted core, a data plane over the fake kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core.events import StateRestored
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.core.snapshot import GroupSnapshot
from ipmp_agent.core.words import GroupState
from ipmp_agent.dataplane.configurator import Configurator
from ipmp_agent.dataplane.loop import DataPlane
from ipmp_agent.dataplane.trials import Trials
from ipmp_agent.disk.state import SavedState
from ipmp_agent.measurements import Measurements
from ipmp_api.types import (
    NodeGroup,
    ProbeMethod,
)
from tests.fake_kernel import FakeKernel
from tests.node_groups import node_group

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from ipmp_agent.core.actions import Action, ProbeClosed
    from ipmp_agent.core.events import Event
    from ipmp_agent.disk.recording import Entry
    from ipmp_agent.publication import Occurrence, Publication
    from ipmp_api.types import NodeGroup

ADDRESSES = ("198.18.0.100/24", "198.18.0.101/24")
WALL = 1_700_000_000.0


def unprobed_group(
    name: str = "lab",
    *,
    interfaces: Iterable[str] = ("nic0", "nic1"),
    standby: Collection[str] = (),
    addresses: Iterable[str] = ADDRESSES,
    targets: Iterable[str] = (),
    method: ProbeMethod = ProbeMethod.DISABLED,
    offline: Iterable[str] = (),
) -> NodeGroup:
    """A group judged by its links alone, unless told otherwise."""
    return node_group(
        name,
        interfaces,
        standby=standby,
        addresses=addresses,
        targets=targets,
        offline=offline,
        probe_method=method,
    )


def snapshot(name: str = "lab") -> GroupSnapshot:
    """An empty picture."""
    return GroupSnapshot(
        group=name,
        state=GroupState.OK,
        detection_time=1.0,
        detection_time_configured=1.0,
        probing=False,
        interfaces=(),
        addresses=(),
        outbound_ipv4=(),
        outbound_ipv6=(),
        nominee_ipv4=None,
        nominee_ipv6=None,
        findings=(),
    )


class ScriptedCore:
    """Answers what the test says, and remembers what it was asked: ("handle" or "tick", event, time)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Event | None, float]] = []
        self.on_event: Callable[[Event], list[Action]] = lambda _: []
        self.on_tick: Callable[[], list[Action]] = list
        self.deadline: float | None = None
        self.known = StateRestored(())

    def handle(self, event: Event, now: float) -> list[Action]:
        self.asked.append(("handle", event, now))
        return self.on_event(event)

    def tick(self, now: float) -> list[Action]:
        self.asked.append(("tick", None, now))
        self.deadline = None
        return self.on_tick()

    def next_deadline(self) -> float | None:
        return self.deadline

    def snapshot(self) -> GroupSnapshot:
        return snapshot()

    def keeps_offline(self, interface: str) -> bool:
        return False

    def saved(self) -> StateRestored:
        return self.known

    @property
    def events(self) -> list[Event | None]:
        return [event for kind, event, _ in self.asked if kind == "handle"]


class Watcher:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.occurrences: list[Occurrence] = []
        self.probes: list[tuple[str, ProbeClosed]] = []

    def published(self, publication: Publication) -> None:
        self.publications.append(publication)

    def occurred(self, occurrence: Occurrence) -> None:
        self.occurrences.append(occurrence)

    def watch(self, group: str, probe: ProbeClosed) -> None:
        self.probes.append((group, probe))


class Rig:
    """A data plane and its configurator over a fake kernel; made inside a running loop."""

    def __init__(
        self,
        saved: SavedState | None = None,
        core: ScriptedCore | None = None,
        record: Callable[[Entry], None] | None = None,
        *,
        trials: bool = False,
    ) -> None:
        self.saved: list[SavedState] = []
        self.watcher = Watcher()
        self.core = core
        self.plane = DataPlane(
            make_kernel=FakeKernel,
            make_core=lambda configuration, seed: self.core or Multipathing(configuration, seed=seed),
            measurements=Measurements(),
            seed=1,
            save=self.saved.append,
            record=record,
            wall=lambda: WALL,
        )
        kernel = self.plane.kernel
        assert isinstance(kernel, FakeKernel)
        self.kernel = kernel
        self.plane.observers.append(self.watcher)
        self.api_server: bool | None = None  # whether it answers; None: there is none
        saved = saved or SavedState()
        changes = Trials(self.kernel, self._ask_api_server, saved, self.plane.unplugged, enabled=trials)
        self.configurator = Configurator(self.plane, saved, changes)

    async def _ask_api_server(self) -> bool | None:
        return self.api_server

    async def apply(self, *groups: NodeGroup) -> bool:
        """Apply a configuration now; whether all of it succeeded."""
        return await self.configurator._apply({group.group_name: group for group in groups})

    @property
    def holders(self) -> dict[str, str]:
        """Where the kernel has the data addresses."""
        return {str(a.ip): i for group in self.kernel.groups.values() for a, i in group.holders.items()}
