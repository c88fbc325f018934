"""A node's own address and default route, adopted: the node lives on while the NIC they are on does not.

The node has no management network: kubelet, agent, `kubectl exec` and `logs` all go by the address that moves.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.process.namespace import Occupant
from tests import invariants
from tests.cluster.cluster import Cluster
from tests.cluster.product import NAMESPACE, Applied, agent_pod, install_chart
from tests.lab.agent import program
from tests.lab.dump import KernelDump
from tests.lab.ping import PingTrain
from tests.lab.stream import Sender, TcpStream
from tests.lab.topology import bare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.image import Image

NODE = "n1"
FAULTS = {"cable": ("unplug", "plug"), "silence": ("silence", "restore")}
# Nothing but the members is named: no address is spared for pools or for tests.
SPEC: dict[str, Any] = {"dataAddresses": {}, "testAddresses": {}}
# Of the link by which the node lives, and held by nobody.
NOWHERE = ["198.18.0.250/24", "2001:db8:0:1::250/64"]
COUNT = "import itertools, time\nfor i in itertools.count(): print(i, flush=True); time.sleep(0.1)"


@pytest.fixture(scope="module")
def remote(image: Image) -> Iterator[Cluster]:
    """A cluster of one node, which reaches the API server by net0 alone, with the chart installed."""
    with Cluster() as cluster:
        cluster.add_nodes(NODE, on_link=True)
        cluster.load_image(image)
        install_chart(cluster, image)
        account = ("get", "serviceaccount", "default")
        cluster.wait(lambda: cluster.try_kubectl(*account).returncode == 0, what="the default service account")
        yield cluster


@pytest.fixture(scope="module")
def counting(remote: Cluster, image: Image) -> Iterator[str]:
    """A pod on the node that prints a number ten times a second."""
    yield from run_pod(remote, image, "counting")


@pytest.fixture
def adopted(remote: Cluster, counting: str) -> Iterator[Applied]:
    """A group that adopts the node's addresses; on exit the kernel must hold what it held before."""
    assert counting, "its veth is in both dumps"
    with Applied(remote, "uplink", SPEC) as applied:
        yield applied


def run_pod(cluster: Cluster, image: Image, name: str) -> Iterator[str]:
    container = {"name": "main", "image": image.name, "imagePullPolicy": "Never", "command": ["python", "-c", COUNT]}
    # Without any grace the API server forgets the pod before the node has removed its veth.
    spec = {"nodeName": NODE, "terminationGracePeriodSeconds": 1, "containers": [container]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    cluster.wait(lambda: numbers(cluster, name), what=f"the numbers of pod {name}")
    yield name
    cluster.kubectl("delete", "pod", name, "--timeout=60s")


def numbers(cluster: Cluster, pod: str) -> list[str]:
    return cluster.try_kubectl("logs", pod, "--tail=3").stdout.split()


def connections(cluster: Cluster, program: str) -> set[tuple[str, str]]:
    """Both ends of each connection that a program of the node has to the API server."""
    shown = cluster.nodes[NODE].run("ss", "-Htnp", "state", "established", "dport", "=", ":443")
    return {(line.split()[2], line.split()[3]) for line in shown.splitlines() if f'("{program[:15]}"' in line}


def heart(cluster: Cluster) -> tuple[str, str, str]:
    """What must not change: Ready, since when, and the InternalIP."""
    status = cluster.get("node", NODE)["status"]
    ready = next(one for one in status["conditions"] if one["type"] == "Ready")
    (address,) = [one["address"] for one in status["addresses"] if one["type"] == "InternalIP"]
    return ready["status"], ready["lastTransitionTime"], address


def wait_heartbeat(cluster: Cluster) -> None:
    """Wait until the kubelet has renewed its lease once more."""

    def renewed() -> str:
        lease = cluster.get("lease", NODE, "--namespace", "kube-node-lease")
        return str(lease["spec"]["renewTime"])

    before = renewed()
    cluster.wait(renewed, lambda seen: seen != before, what=f"the next heartbeat of {NODE}")


def kill_and_wait(cluster: Cluster, program: str) -> None:
    """Kill a program of the node, and wait until another is connected to the API server."""
    old = set(cluster.nodes[NODE].signal(program, signal.SIGKILL))
    cluster.wait(lambda: set(cluster.nodes[NODE].pids(program)) - old, what=f"another {program}")
    cluster.wait(lambda: connections(cluster, program), what=f"{program} at the API server")


@contextlib.contextmanager
def following(cluster: Cluster, pod: str, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`kubectl logs --follow` of a pod, from now on."""
    command = cluster.control.command("kubectl", "logs", pod, "--follow", "--tail=1")
    environment = os.environ | {"KUBECONFIG": str(cluster.control.kubeconfig)}
    with file.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output) as process:
        try:
            cluster.wait(lambda: file.read_text().split(), what="the first line of the log")
            yield process
        finally:
            process.kill()


def uses_the_node_address(cluster: Cluster) -> bool:
    """Whether all that the kubelet and the agent say to the API server leaves by the address that is adopted."""
    address = cluster.network.plan(NODE).address
    ends = connections(cluster, "kubelet") | connections(cluster, "ipmp-agent")
    return {near.rpartition(":")[0] for near, _ in ends} == {address}


def test_group_that_cuts_the_node_off_is_undone_by_the_agent_alone_and_reported(remote: Cluster, counting: str) -> None:
    node = remote.network.nodes[NODE].namespace
    node.batch(["link add dead0 type veth peer name dead0-far", "link set dead0-far up", "link set dead0 up"])
    group = {
        "interfaces": [{"name": "net0", "role": "Standby"}, {"name": "dead0"}],
        "dataAddresses": {"assigned": [{"nodeName": NODE, "addresses": NOWHERE}]},
        "deletionPolicy": "Retain",
        "probes": {"method": "Disabled"},  # they would find dead0 within a second, and net0 would be used
    }
    manifest = {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPGroup", "metadata": {"name": "wrong"}, "spec": group}
    dump, ready = KernelDump.take(node.run), heart(remote)

    def programmed() -> dict[str, Any]:
        found = remote.get("ipmpnodegroups", "--selector", "ipmp.dev/group=wrong")
        conditions = found[0].get("status", {}).get("conditions", ()) if found else ()
        return next((one for one in conditions if one["type"] == "Programmed"), {})

    try:
        with PingTrain(remote.network.control.namespace, remote.network.plan(NODE).address) as pings:
            pings.wait_answered()
            remote.apply(manifest)
            undone = remote.wait(
                programmed, lambda seen: seen.get("reason") == "ChangeUndone", what="the report", deadline=90
            )
            pings.wait_answered(20)
            cut_off = pings.stop().longest_outage
        assert cut_off > 1, "else nothing was lost, and nothing had to be undone"
        print(f"the node was cut off for {cut_off:.1f} s")
        assert undone["status"] == "False"
        assert "the API server" in undone["message"]
        remote.wait(
            lambda: dump.difference(KernelDump.take(node.run)), lambda found: not found, what="the kernel as it was"
        )
        troubled = [{"nodeName": NODE, "state": "degraded", "reason": "ChangeUndone"}]
        remote.wait(
            lambda: remote.get("ipmpgroup", "wrong")["status"].get("troubledNodes"),
            lambda seen: seen == troubled,
            what="the trouble in the group's status",
        )
        remote.wait(
            lambda: [one["reason"] for one in remote.get("events", "--namespace", "default")],
            lambda reasons: "ChangeUndone" in reasons,
            what="the Event",
        )
        assert heart(remote) == ready
        assert connections(remote, "kubelet")
    finally:
        remote.kubectl("delete", "ipmpgroup", "wrong", "--cascade=foreground", "--timeout=60s")
        node.batch(["link del dead0"])


@pytest.mark.parametrize("fault", FAULTS)
def test_node_stays_in_the_cluster_while_its_nic_does_not(
    adopted: Applied, counting: str, image: Image, tmp_path: Path, fault: str
) -> None:
    cluster, (fail, repair) = adopted.cluster, FAULTS[fault]
    plan, control = cluster.network.plan(NODE), cluster.network.control.namespace
    own = {bare(address) for address in plan.link_addresses}
    assert set(adopted.view(NODE).addresses) == own
    assert uses_the_node_address(cluster)
    nic, before = adopted.nic(NODE, "net0"), heart(cluster)
    assert before[0::2] == ("True", plan.address)
    kubelet, agent = connections(cluster, "kubelet"), connections(cluster, "ipmp-agent")
    assert kubelet
    assert agent

    node, followed = cluster.network.nodes[NODE].namespace, tmp_path / "followed"
    with (
        PingTrain(control, plan.address) as pings,
        TcpStream(control, node, plan.address, Sender.CLIENT) as inward,
        TcpStream(control, node, plan.address, Sender.SERVER) as outward,
        following(cluster, counting, followed) as log,
    ):
        pings.wait_answered()
        pings6 = adopted.ping(NODE, bare(plan.link_addresses[1]))
        broken = getattr(nic, fail)()
        for address in own:
            adopted.wait_moved(NODE, address, nic)
        pings.wait_answered(20)
        pings6.wait_answered(20)
        view = adopted.wait_state(NODE, "degraded")  # the agent's report came by the address that it moved
        assert view.addresses == dict.fromkeys(own, "net1")
        wait_heartbeat(cluster)
        assert heart(cluster) == before
        assert connections(cluster, "kubelet") >= kubelet
        assert connections(cluster, "ipmp-agent") & agent
        assert cluster.kubectl("exec", counting, "--", "echo", "here").strip() == "here"
        assert numbers(cluster, counting)
        for born in run_pod(cluster, image, f"born-{fault}"):
            status = cluster.get("pod", born)["status"]
            assert (status["phase"], status["hostIP"]) == ("Running", plan.address)

        repaired = getattr(nic, repair)()
        view = adopted.wait_state(NODE, "ok", deadline=90)
        assert view.addresses == dict.fromkeys(own, "net0"), "failback: everything is where the host put it"
        pings.wait_answered(20)
        wait_heartbeat(cluster)
        assert heart(cluster) == before
        assert connections(cluster, "kubelet") >= kubelet
        last = numbers(cluster, counting)[-1]
        cluster.wait(lambda: last in followed.read_text().split(), what=f"{last} in the log that is followed")
        assert log.poll() is None
        pings6.wait_answered(20)
        account = pings.stop()
        away, back = account.between(broken - 0.1, repaired - 0.1), account.between(repaired - 0.1, float("inf"))
        for stream in (inward, outward):
            stream.wait_received(20)
            report = stream.stop()
            assert report.error is None
            print(f"{fault}: TCP, {stream.sender} sends: longest gap {report.longest_gap * 1e3:.0f} ms")
    print(f"{fault}: from the API server's host: failure {away}; failback {back}")
    lines = [int(line) for line in followed.read_text().split()]
    assert lines == list(range(lines[0], lines[0] + len(lines))), "no line of the followed log is missing"


@contextlib.contextmanager
def standing_in(cluster: Cluster, log: Path) -> Iterator[int]:
    """An agent of the host, which stands in for the pod's; yields its pid."""
    node = cluster.nodes[NODE]
    before = set(node.pids("ipmp-agent"))
    begun = node.begin(program("ipmp-agent"), "run", "--stand-in", "--node-name", NODE, log=log)
    try:
        cluster.wait(lambda: "standing by" in log.read_text(), what="an agent that stands by")
        (pid,) = set(node.pids("ipmp-agent")) - before
        yield pid
        assert begun.poll() is None, log.read_text()
        os.kill(pid, signal.SIGTERM)
    except BaseException as failure:
        looks = [node.run("ip", *look.split(), check=False) for look in ("address", "rule", "route show table all")]
        failure.add_note("\n".join((log.read_text(), *looks)))
        raise
    finally:
        begun.kill()
        begun.wait(30)


@contextlib.contextmanager
def no_more_pods(cluster: Cluster) -> Iterator[None]:
    """A quota that the operator's pod uses up: what is deleted does not come back."""
    place = ("--namespace", NAMESPACE)
    cluster.kubectl("create", "quota", "full", *place, "--hard=pods=1")
    try:
        cluster.wait(
            lambda: cluster.get("resourcequota", "full", *place).get("status", {}).get("used"),
            what="a quota that counts",
        )
        yield
    finally:
        cluster.kubectl("delete", "quota", "full", *place)
        looks = itertools.count()

        def pod() -> dict[str, Any]:
            # The controller waits longer and longer where pods are refused, and looks at once where something changes.
            poke = f"ipmp.test/looks={next(looks)}"
            cluster.kubectl("annotate", *place, "daemonset", "ipmp-agent", poke, "--overwrite")
            return agent_pod(cluster, NODE)

        cluster.wait(pod, what="a pod of the agents again")


def agent_here(cluster: Cluster) -> int:
    """The pid of the agent that has the node; 0: there is none."""

    def look() -> int:
        with Occupant() as other:
            return other.pid

    return cluster.network.nodes[NODE].namespace.call(look)


def test_an_agent_of_the_host_stands_in_while_there_is_no_pod_and_no_packet_is_lost(
    adopted: Applied, tmp_path: Path
) -> None:
    cluster, place, log = adopted.cluster, ("--namespace", NAMESPACE), tmp_path / "log"
    address, control = cluster.network.plan(NODE).address, cluster.network.control.namespace
    home, before = adopted.nic(NODE, "net0"), adopted.homes(NODE)
    pod = agent_here(cluster)
    assert pod
    with standing_in(cluster, log) as pid:
        assert agent_here(cluster) == pod, "the pod's agent keeps the node"
        with contextlib.ExitStack() as full:
            full.enter_context(no_more_pods(cluster))
            with PingTrain(control, address) as pings:
                pings.wait_answered()
                cluster.kubectl("delete", "pod", *place, agent_pod(cluster, NODE)["metadata"]["name"], "--timeout=60s")
                cluster.wait(lambda: agent_here(cluster), lambda seen: seen == pid, what="the agent of the host")
                cluster.wait(lambda: "running with 2 interfaces" in log.read_text(), what="the group with it")
                pings.wait_answered(20)
                assert pings.stop().lost == 0
            invariants.nothing_moved(before, adopted.homes(NODE), "the end of the pod")

            home.unplug()
            adopted.wait_moved(NODE, address, home)
            wait_heartbeat(cluster)
            home.plug()
            cluster.wait(
                lambda: adopted.kernel(NODE).holders(address),
                lambda seen: seen == ["net0"],
                what="failback",
                deadline=90,
            )

            with PingTrain(control, address) as pings:
                pings.wait_answered()
                full.close()
                cluster.wait(
                    lambda: agent_here(cluster),
                    lambda seen: seen not in (0, pid),
                    what="the agent of a new pod",
                    deadline=90,
                )
                cluster.wait(log.read_text, lambda text: text.count("standing by") == 2, what="standing by again")
                adopted.wait_state(NODE, "ok")
                pings.wait_answered(20)
                assert pings.stop().lost == 0
        invariants.nothing_moved(before, adopted.homes(NODE), "the begin of a pod")


def test_killed_agent_and_restarted_kubelet_find_the_address_where_it_is(adopted: Applied, counting: str) -> None:
    cluster = adopted.cluster
    address, nic = cluster.network.plan(NODE).address, adopted.nic(NODE, "net0")
    nic.unplug()
    adopted.wait_state(NODE, "degraded")
    before, homes = heart(cluster), adopted.homes(NODE)
    assert set(homes.values()) == {("net1",)}
    with PingTrain(cluster.network.control.namespace, address) as pings:
        pings.wait_answered()
        for program in ("ipmp-agent", "kubelet"):
            kill_and_wait(cluster, program)
            wait_heartbeat(cluster)
            invariants.nothing_moved(homes, adopted.homes(NODE), f"SIGKILL of {program}")
            assert heart(cluster)[0::2] == before[0::2]
        adopted.wait_state(NODE, "degraded")
        cluster.wait_nodes_ready(NODE)
        assert cluster.kubectl("exec", counting, "--", "echo", "here").strip() == "here"
        assert pings.stop().lost == 0
    assert uses_the_node_address(cluster)

    nic.plug()
    assert set(adopted.wait_state(NODE, "ok", deadline=90).addresses.values()) == {"net0"}
    assert heart(cluster)[0::2] == before[0::2]
