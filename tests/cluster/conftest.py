"""Fixtures: one real cluster of two nodes for the session, with the project's image on both."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.build import build, build_judge, tools_directory
from tests.cluster.cluster import Cluster, remove_cluster, stale_clusters
from tests.cluster.image import Image, build_image
from tests.cluster.operating import FAKES, prepare
from tests.cluster.product import NAMESPACE, install_chart
from tests.prerequisites import LADDERS, missing_packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

HERE = Path(__file__).parent
NODES = ("n1", "n2")
IMAGE = pytest.StashKey[Image]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build here, not in a fixture: a first build takes minutes, which no test's time limit should count."""
    if session.config.option.collectonly or not any(HERE in item.path.parents for item in session.items):
        return
    if os.geteuid() != 0:
        pytest.exit("the cluster makes network namespaces and mounts: run it as root", returncode=2)
    if missing := missing_packages(LADDERS["lab"] | LADDERS["cluster"]):
        pytest.exit(f"missing {', '.join(missing)}: run python -m tests.prerequisites lab cluster", returncode=2)
    # SIGTERM as Ctrl-C: the finalizers run, and the cluster goes.
    signal.signal(signal.SIGTERM, _terminated)
    for tag in stale_clusters():
        remove_cluster(tag)
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        build()
        build_judge()
        if any("image" in item.fixturenames for item in session.items if isinstance(item, pytest.Function)):
            session.config.stash[IMAGE] = build_image()


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {number}")


@pytest.fixture(scope="session")
def tools() -> Path:
    """Where the built Kubernetes is."""
    return tools_directory()


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Image:
    """The project's image, of the sources as they were when the tests began."""
    return request.config.stash[IMAGE]


@pytest.fixture(scope="session")
def cluster(tools: Path, image: Image) -> Iterator[Cluster]:
    """A control plane and two real nodes with the image, for the whole session."""
    with Cluster() as cluster:
        cluster.add_nodes(*NODES)
        cluster.load_image(image)
        yield cluster


@pytest.fixture(scope="session")
def installed(cluster: Cluster, image: Image) -> Cluster:
    """The session's cluster with the chart installed."""
    install_chart(cluster, image, "agent.record.enabled=true")
    return cluster


@pytest.fixture(scope="session")
def control(tools: Path) -> Iterator[Cluster]:
    """A control plane and a few fake nodes, with the chart's roles but no operator."""
    with Cluster() as cluster:
        cluster.control.add_fake_nodes(FAKES)
        prepare(cluster)
        yield cluster


@pytest.fixture
def fakes(control: Cluster) -> Iterator[Cluster]:
    """The control plane with fake nodes, without groups before and after the test."""
    yield control
    control.kubectl("delete", "ipmpgroups.ipmp.dev", "--all")
    # After a restart of the API server the garbage collector may take most of a minute.
    control.kubectl("delete", "ipmpnodegroups.ipmp.dev", "--all", "--wait=false")
    for one in control.get("ipmpnodegroups"):
        patch = ("--type=merge", "--patch", '{"metadata":{"finalizers":null}}')
        control.try_kubectl("patch", "ipmpnodegroup", one["metadata"]["name"], *patch)
    control.wait(lambda: control.get("ipmpnodegroups"), lambda left: left == [], what="no node groups")
    control.kubectl("--namespace", NAMESPACE, "delete", "daemonsets,leases", "--all")
    missing = {f"fake-{number:04}" for number in range(FAKES)} - control.ready_nodes()
    for name in missing:
        control.control.add_fake_nodes(1, first=int(name.removeprefix("fake-")))
    if missing:
        control.wait_nodes_ready(*missing)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A Kubernetes namespace of the test's own."""
    name = request.node.name.replace("_", "-").lower()[:60].strip("-")
    cluster.kubectl("create", "namespace", name)
    # Pods are refused until a controller has made the namespace's account.
    account = ("--namespace", name, "get", "serviceaccount", "default")
    cluster.wait(lambda: cluster.try_kubectl(*account).returncode == 0, what=f"the service account of {name}")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def later() -> Iterator[Callable[..., object]]:
    """Undo, in reverse order, what a test did to the session's cluster, however it ended."""
    with contextlib.ExitStack() as stack:
        yield stack.callback
