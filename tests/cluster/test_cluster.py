"""The cluster itself: what the other tests here stand on."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, clusters_directory, condition, remove_cluster, stale_clusters
from tests.cluster.image import Image
from tests.lab.namespaces import NETNS_DIRECTORY
from tests.lab.ping import PingTrain

# Prints what a pod sees of its node, and what it may do there.
LOOK = """
import json, os, pathlib, socket
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
def attempt(action):
    try:
        action()
    except OSError as error:
        return error.strerror
    return "ok"
print(json.dumps({
    "nics": sorted(name for _, name in socket.if_nameindex()),
    "capabilities": int(status["CapEff"], 16),
    "seccomp": status["Seccomp"],
    "root": attempt(lambda: pathlib.Path("/written").touch()),
    "mount": attempt(lambda: pathlib.Path("/state/written").touch()),
    "sysctl": attempt(lambda: pathlib.Path("/proc/sys/net/ipv4/conf/net0/arp_ignore").write_text("1")),
    "api": attempt(lambda: socket.create_connection((os.environ["KUBERNETES_SERVICE_HOST"], 443), 5).close()),
}))
import time; time.sleep(3600)
"""
NET_ADMIN = 1 << 12


def pod(
    image: Image, name: str, node: str, script: str, *, host_network: bool = True, **security: Any
) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "main",
        "image": image.name,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", script],
        "securityContext": {
            "runAsUser": 0,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        | security,
        "volumeMounts": [{"name": "state", "mountPath": "/state"}],
    }
    spec = {
        "nodeName": node,
        "hostNetwork": host_network,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{"name": "state", "hostPath": {"path": "/var/lib/test", "type": "DirectoryOrCreate"}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def apply(cluster: Cluster, namespace: str, thing: dict[str, Any]) -> None:
    cluster.kubectl("--namespace", namespace, "apply", "-f", "-", text=json.dumps(thing))


def logs(cluster: Cluster, namespace: str, name: str) -> str:
    return cluster.try_kubectl("--namespace", namespace, "logs", name).stdout


def test_both_nodes_are_ready_and_run_the_same_release(cluster: Cluster) -> None:
    nodes = {node["metadata"]["name"]: node for node in cluster.get("nodes")}
    assert sorted(nodes) == ["n1", "n2"]
    server = json.loads(cluster.kubectl("get", "--raw", "/version"))["gitVersion"]
    for node in nodes.values():
        assert condition(node, "Ready") == "True"
        assert node["status"]["nodeInfo"]["kubeletVersion"] == server


def test_a_pod_with_net_admin_alone_sees_the_nodes_nics_and_may_not_write(
    cluster: Cluster, image: Image, namespace: str
) -> None:
    apply(cluster, namespace, pod(image, "look", "n1", LOOK))
    seen = json.loads(cluster.wait(lambda: logs(cluster, namespace, "look"), what="what the pod sees"))
    assert {"lo", "mgmt0", "net0", "net1"} <= set(seen.pop("nics"))
    assert seen == {
        "capabilities": NET_ADMIN,
        "seccomp": "2",  # filtered
        "root": "Read-only file system",
        "mount": "ok",
        "sysctl": "Read-only file system",
        "api": "ok",
    }
    assert (cluster.nodes["n1"].state / "var/lib/test/written").exists()
    assert not (cluster.nodes["n2"].state / "var/lib/test/written").exists(), "hostPath volumes are per node"


SERVE = """
import socket
server = socket.create_server(("", 8080))
while True:
    server.accept()[0].sendall(b"hello")
"""
FETCH = """
import os, socket, time
socket.create_connection((os.environ["KUBERNETES_SERVICE_HOST"], 443), 5)
print(socket.create_connection(("{server}", 8080), 20).recv(5).decode())
time.sleep(3600)
"""


def test_pods_of_two_nodes_reach_each_other_and_the_api(cluster: Cluster, image: Image, namespace: str) -> None:
    apply(cluster, namespace, pod(image, "server", "n1", SERVE, host_network=False))
    status = cluster.wait(
        lambda: cluster.get("--namespace", namespace, "pod", "server")["status"],
        lambda seen: seen.get("podIP") and seen["phase"] == "Running",
        what="the server Running with an address",
    )
    fetch = FETCH.format(server=status["podIP"])
    apply(cluster, namespace, pod(image, "client", "n2", fetch, host_network=False))
    cluster.wait(lambda: logs(cluster, namespace, "client"), lambda seen: seen == "hello\n", what="an answer")


def test_data_nics_bring_no_address_and_are_on_one_link(cluster: Cluster, later: Callable[..., object]) -> None:
    for node in cluster.network.nodes.values():
        for nic in ("net0", "net1"):
            shown = node.namespace.ip_json("address", "show", "dev", nic)[0]
            assert [a["scope"] for a in shown["addr_info"] if a["scope"] != "link"] == []
    # One link: what leaves by net1, on the second switch, reaches the peer on the first.
    n1 = cluster.network.nodes["n1"].namespace
    n1.ip("address", "add", "198.18.0.99/24", "dev", "net1")
    later(n1.ip, "address", "del", "198.18.0.99/24", "dev", "net1")
    with PingTrain(n1, cluster.network.peers[0].ipv4) as train:
        train.wait_answered()


@pytest.mark.parametrize(("fault", "repair", "carrier"), [("unplug", "plug", False), ("silence", "restore", True)])
def test_a_fault_stops_frames_and_its_repair_lets_them_pass(
    cluster: Cluster, later: Callable[..., object], fault: str, repair: str, *, carrier: bool
) -> None:
    nic = cluster.network.nic("n2", "net0")
    n2 = nic.host.namespace
    n2.ip("address", "add", "198.18.0.98/24", "dev", "net0")
    later(n2.ip, "address", "del", "198.18.0.98/24", "dev", "net0")
    later(getattr(nic, repair))
    with PingTrain(n2, cluster.network.peers[1].ipv4) as train:
        train.wait_answered()
        broken = getattr(nic, fault)()
        cluster.wait(lambda: train.report().between(broken, broken + 1).lost >= 10, what="ten pings lost", deadline=5)
        flags = n2.ip_json("link", "show", "dev", "net0")[0]["flags"]
        assert ("NO-CARRIER" not in flags) is carrier
        repaired = getattr(nic, repair)()
        train.wait_answered()
    # The kernel keeps the last packets of an unresolved neighbour: an answer may come, but not before the repair.
    arrivals = train.report().between(broken, broken + 0.1).answered
    assert [arrival for arrival in arrivals if arrival and arrival < repaired] == []


def test_nodes_outlive_an_api_server_that_hangs_and_one_that_restarts(cluster: Cluster) -> None:
    cluster.processes.signal("kube-apiserver", signal.SIGSTOP)
    try:
        assert cluster.try_kubectl("get", "nodes", "--request-timeout=1s").returncode != 0
    finally:
        cluster.processes.signal("kube-apiserver", signal.SIGCONT)
    cluster.control.restart("kube-apiserver")
    cluster.wait_nodes_ready("n1", "n2")


def test_a_killed_kubelet_comes_back_and_pods_do_not_notice(cluster: Cluster, image: Image, namespace: str) -> None:
    apply(cluster, namespace, pod(image, "steady", "n1", "import time; print('here', flush=True); time.sleep(3600)"))
    cluster.wait(lambda: logs(cluster, namespace, "steady"), what="the pod's first word")
    (old,) = cluster.nodes["n1"].signal("kubelet", signal.SIGKILL)
    cluster.wait(lambda: cluster.nodes["n1"].pids("kubelet"), lambda seen: seen and old not in seen, what="a kubelet")
    # Its API answers again, from the same container.
    cluster.wait(lambda: logs(cluster, namespace, "steady"), lambda seen: seen == "here\n", what="the pod's log")
    status = cluster.get("--namespace", namespace, "pod", "steady")["status"]["containerStatuses"][0]
    assert status["restartCount"] == 0


def test_fake_nodes_run_pods_in_name(
    cluster: Cluster, image: Image, namespace: str, later: Callable[..., object]
) -> None:
    cluster.control.add_fake_nodes(5)
    later(cluster.kubectl, "delete", "nodes", "--selector", "ipmp.test/node=fake")
    later(cluster.kubectl, "--namespace", namespace, "delete", "pod", "--all", "--grace-period=0", "--force")
    apply(cluster, namespace, pod(image, "nowhere", "fake-0003", "pass"))
    cluster.wait(
        lambda: cluster.get("--namespace", namespace, "pod", "nowhere")["status"].get("phase"),
        lambda phase: phase == "Running",
        what="the pod of a fake node Running",
    )


def traces(tag: str) -> list[str]:
    """Everything on the machine that carries the tag."""
    found = [f"netns {path.name}" for path in NETNS_DIRECTORY.glob(f"{tag}-*")]
    found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"**/{tag}-*")]
    found += [f"directory {path}" for path in [clusters_directory() / tag] if path.exists()]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if tag in line]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"/{tag}/" in command or f" {tag}-" in command:
            found.append(f"process {entry.parent.name} {command}")
    return found


def test_a_second_cluster_beside_the_first_leaves_nothing_behind(cluster: Cluster) -> None:
    with Cluster() as other:
        other.add_nodes("a1")
        assert other.ready_nodes() == {"a1"}
        assert len(traces(other.tag)) > 5
    assert traces(other.tag) == []
    assert cluster.ready_nodes() == {"n1", "n2"}


def test_a_killed_test_run_is_cleaned_up_by_the_next(tools: Path) -> None:
    script = (
        "from tests.cluster.cluster import Cluster; c = Cluster(); c.up(); c.add_nodes('a1'); print(c.tag, flush=True)"
    )
    script += "; import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    try:
        tag = child.stdout.readline().strip()
        assert tag not in stale_clusters(), "its owner lives"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert tag in stale_clusters()
    assert traces(tag)
    remove_cluster(tag)
    assert traces(tag) == []


def test_an_emulated_older_release_says_so(tools: Path) -> None:
    older = Cluster()
    try:
        older.up(emulated_version="1.34")
        version = json.loads(older.kubectl("get", "--raw", "/version"))
    finally:
        older.remove()
    assert version["emulationMinor"] == "34"
