"""The product on a cluster: the chart, a group over both data NICs, and what its objects say."""

from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster, condition
from tests.cluster.image import Image

CHART = Path(__file__).resolve().parents[2] / "helm/ipmp"
NAMESPACE = "ipmp-system"
RELEASE = "ipmp"
POOL_IPV4, POOL_IPV6 = "198.18.0.100-198.18.0.109", "2001:db8:0:1::100-2001:db8:0:1::109"
TEST_POOL = "198.18.0.150-198.18.0.169"


def install_chart(cluster: Cluster, image: Image, *settings: str) -> None:
    """Install or upgrade the chart with this image, and wait until its workloads are ready."""
    repository, _, tag = image.name.rpartition(":")
    values = [f"image.repository={repository}", f"image.tag={tag}", "image.pullPolicy=Never", *settings]
    flags = [word for value in values for word in ("--set", value)]
    place = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "2m")
    cluster.helm("upgrade", "--install", RELEASE, str(CHART), *place, *flags)


def group(name: str, **spec: Any) -> dict[str, Any]:
    """An IPMPGroup over net0 and net1 of every node: one data address of each family per node, from pools."""
    pools = [
        {"name": "v4", "ranges": [POOL_IPV4], "perNode": 1, "prefixLength": 24},
        {"name": "v6", "ranges": [POOL_IPV6], "perNode": 1, "prefixLength": 64},
    ]
    whole = {
        "interfaces": [{"name": "net0"}, {"name": "net1"}],
        "dataAddresses": {"pools": pools},
        "testAddresses": {"ipv4": {"pool": {"name": "test", "ranges": [TEST_POOL], "prefixLength": 24}}},
        "failureDetection": {"timeMilliseconds": 1000},
    }
    return {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPGroup", "metadata": {"name": name}, "spec": whole | spec}


def node_group(cluster: Cluster, name: str, node: str) -> dict[str, Any]:
    """The IPMPNodeGroup of a group on a node, or an empty object."""
    shown = cluster.get("ipmpnodegroups", "--selector", f"ipmp.dev/group={name},ipmp.dev/node={node}")
    return shown[0] if shown else {}


def state(cluster: Cluster, name: str, node: str) -> str | None:
    """What the agent of a node says of a group: ok, degraded or failed."""
    said = node_group(cluster, name, node).get("status", {}).get("state")
    return None if said is None else str(said)


def wait_group_ready(cluster: Cluster, name: str, deadline: float = 60) -> None:
    """Wait until the group says that it is ready on every node it selects."""
    cluster.wait(
        lambda: cluster.get("ipmpgroup", name),
        lambda seen: condition(seen, "Ready") == "True",
        what=f"IPMPGroup {name} Ready",
        deadline=deadline,
    )
