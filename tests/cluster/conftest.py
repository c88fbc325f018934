"""Fixtures: one real cluster of two nodes for the session, with the project's image on both."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.cluster.build import build
from tests.cluster.cluster import Cluster, remove_cluster, stale_clusters
from tests.cluster.image import Image, build_image
from tests.cluster.product import install_chart

NODES = ("n1", "n2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(__file__.rpartition("/")[0]):
            item.add_marker(pytest.mark.cluster)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {number}")


@pytest.fixture(scope="session")
def tools(request: pytest.FixtureRequest) -> Path:
    """The built Kubernetes; and what a killed run left behind is removed."""
    # SIGTERM as Ctrl-C: the finalizers run, and the cluster goes.
    signal.signal(signal.SIGTERM, _terminated)
    for tag in stale_clusters():
        remove_cluster(tag)
    with _progress_shown(request.config):
        return build()


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Image:
    """The project's image, of the sources as they are now."""
    with _progress_shown(request.config):
        return build_image()


@contextlib.contextmanager
def _progress_shown(config: pytest.Config) -> Iterator[None]:
    """Let progress past pytest's capture: a first build takes minutes."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        yield


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
    install_chart(cluster, image)
    return cluster


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
