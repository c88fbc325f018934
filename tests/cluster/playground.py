"""The cluster of `make cluster`: two workers, the chart installed, an IPMPGroup applied, left up to play with."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.cluster import Cluster
from tests.cluster.image import build_image
from tests.cluster.product import group_manifest, install_chart, targets, wait_group_ready

NAME = "play"
GROUP = "data"
TRY = """\
To play with:
  .venv/bin/python -m tests.cluster shell                 # a shell in which the commands of docs/ work as they stand
  .venv/bin/python -m tests.cluster kubectl get ipmp,ipmpn
  .venv/bin/python -m tests.cluster unplug n1 net0        # and plug; silence and restore for a silent failure
  .venv/bin/python -m tests.cluster ipmpstat n1 -i
`make cluster-down` removes everything.
"""


def play(emulated_version: str | None = None) -> None:
    """Bring the cluster up and print what to try; on any failure remove what had been made."""
    image = build_image()
    cluster = Cluster(NAME)
    if cluster.directory.exists():
        raise RuntimeError("the cluster is up already: use it, or `make cluster-down` first")
    try:
        with _step("control plane"):
            cluster.up(emulated_version)
        with _step("nodes n1 and n2"):
            cluster.add_nodes("n1", "n2")
        with _step("image"):
            cluster.load_image(image)
        with _step("chart"):
            install_chart(cluster, image)
        with _step(f"IPMPGroup {GROUP}"):
            cluster.apply(group_manifest(GROUP, targets(cluster)))
            wait_group_ready(cluster, GROUP)
    except BaseException:
        cluster.remove()
        raise
    print(TRY, end="")


@contextmanager
def _step(title: str) -> Iterator[None]:
    begun = time.monotonic()
    print(f"{title} ... ", end="", flush=True)
    yield
    print(f"{time.monotonic() - begun:.1f} s", flush=True)
