"""Random faults of a real Kubernetes around the product: `python -m tests.chaos.cluster --minutes N --seed N`.

Two real nodes, the chart, one group. After every fault each node must come to be well again, in one story with its
kernel and with its own addresses alone, and what touches no cable must move nothing. At the end the group is deleted,
and the nodes must be as they were found.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tests import invariants
from tests.chaos.history import Step
from tests.chaos.wires import pause
from tests.cluster.build import build
from tests.cluster.cluster import Cluster, remove_cluster, stale_clusters
from tests.cluster.controlplane import API_SERVER, ETCD
from tests.cluster.image import build_image
from tests.cluster.product import LABEL, MEMBERS, NAMESPACE, Applied, agent_pod, install_chart
from tests.lab.waiting import NotInTimeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.dump import KernelDump

    Break = Callable[[Applied, str, random.Random], object]

NODES = ("n1", "n2")
GROUP = "chaos"
WELL = 240.0
"""Seconds until all is well after a fault: a node boots, the garbage collector looks after a restart."""
KINDS: dict[str, tuple[Break, bool]] = {}
LIES = ("{}", '{"kind":"Status","status":"Success"}', "<html>busy</html>", '{"kind":"List","items":null}', "")
LIAR = """
import http.server, ssl, sys
class Liar(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Type", "application/json"); self.end_headers()
        self.wfile.write(sys.argv[3].encode())
    do_PATCH = do_PUT = do_POST = do_DELETE = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 4443), Liar)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True); server.serve_forever()
"""
IN_FRONT = """table ip liar {
 chain prerouting { type nat hook prerouting priority -100; tcp dport 443 redirect to :4443; }
}
table inet cut {
 chain input { type filter hook input priority 0; tcp dport 443 ct state established reject with tcp reset; }
}
"""
CUT = "table inet cut {\n chain input { type filter hook input priority 0; tcp dport 443 reject with tcp reset; }\n}\n"


def kind(*, harmless: bool = True) -> Callable[[Break], Break]:
    """Register a kind of fault; `harmless`: no address may move by it."""

    def register(breaks: Break) -> Break:
        KINDS[breaks.__name__] = breaks, harmless
        return breaks

    return register


@contextlib.contextmanager
def _stopped(applied: Applied, process: str) -> Any:
    applied.cluster.processes.signal(process, signal.SIGSTOP)
    try:
        yield
    finally:
        applied.cluster.processes.signal(process, signal.SIGCONT)


@kind()
def apihangs(applied: Applied, node: str, chance: random.Random) -> None:
    """The API server answers nothing for a while."""
    with _stopped(applied, API_SERVER):
        pause(chance.choice([1, 5, 15]))


@kind()
def apislow(applied: Applied, node: str, chance: random.Random) -> None:
    """The API server runs a tenth of the time."""
    for _ in range(15):
        with _stopped(applied, API_SERVER):
            pause(0.27)
        pause(0.03)


@kind()
def apirestarts(applied: Applied, node: str, chance: random.Random) -> None:
    """The API server is started again."""
    applied.cluster.control.restart(API_SERVER)


@kind()
def apilies(applied: Applied, node: str, chance: random.Random) -> str:
    """Somebody with the API server's own certificate answers 200 and says nothing."""
    lie, pki = chance.choice(LIES), applied.cluster.directory / "pki"
    control = applied.cluster.network.control.namespace
    argv = [sys.executable, "-c", LIAR, str(pki / "apiserver.crt"), str(pki / "apiserver.key"), lie]
    liar = control.popen(argv, stderr=subprocess.DEVNULL)
    try:
        pause(1)
        control.run("nft", "-f", "-", text=IN_FRONT)
        pause(chance.choice([3, 8]))
    finally:
        for family, table in (("ip", "liar"), ("inet", "cut")):
            control.run("nft", "delete", "table", family, table, check=False)
        liar.kill()
        liar.wait()
    return lie


@kind()
def watchescut(applied: Applied, node: str, chance: random.Random) -> None:
    """Every connection to the API server is reset."""
    control = applied.cluster.network.control.namespace
    for _ in range(chance.randint(1, 4)):
        control.run("nft", "-f", "-", text=CUT)
        pause(chance.uniform(0.1, 2))
        control.run("nft", "delete", "table", "inet", "cut")
        pause(chance.uniform(0.1, 1))


def _etcd(applied: Applied, path: str, **body: object) -> dict[str, Any]:
    request = urllib.request.Request(f"{ETCD}{path}", json.dumps(body).encode())

    def ask() -> bytes:
        with urllib.request.urlopen(request, timeout=10) as answer:
            said: bytes = answer.read()
        return said

    found: dict[str, Any] = json.loads(applied.cluster.network.control.namespace.call(ask))
    return found


@kind()
def compaction(applied: Applied, node: str, chance: random.Random) -> None:
    """etcd forgets the past, and every watch is cut: who resumes one is told 410."""
    key = base64.b64encode(b"none").decode()
    revision = _etcd(applied, "/v3/kv/range", key=key)["header"]["revision"]
    _etcd(applied, "/v3/kv/compaction", revision=revision)
    watchescut(applied, node, chance)


@kind()
def etcdhangs(applied: Applied, node: str, chance: random.Random) -> None:
    """etcd answers nothing for a while."""
    with _stopped(applied, "etcd"):
        pause(chance.choice([1, 5, 15]))


@kind()
def etcdrestarts(applied: Applied, node: str, chance: random.Random) -> None:
    """etcd is started again, and the API server with it."""
    applied.cluster.control.restart("etcd")


def _kubectl(applied: Applied, *words: str) -> None:
    applied.cluster.kubectl("--namespace", NAMESPACE, *words)


@kind()
def operatorkilled(applied: Applied, node: str, chance: random.Random) -> None:
    """The operator's process is killed."""
    for each in applied.cluster.nodes.values():
        for pid in each.pids("ipmp-operator"):
            os.kill(pid, signal.SIGKILL)


@kind()
def operatordeleted(applied: Applied, node: str, chance: random.Random) -> None:
    """The operator's pod is deleted."""
    _kubectl(applied, "delete", "pod", "-l", f"{LABEL},app.kubernetes.io/component=operator", "--wait=false")


@kind()
def twooperators(applied: Applied, node: str, chance: random.Random) -> None:
    """There are two operators for a while, and one of them is killed."""
    _kubectl(applied, "scale", "deployment", "--all", "--replicas=2")
    pause(chance.uniform(3, 10))
    operatorkilled(applied, node, chance)
    _kubectl(applied, "scale", "deployment", "--all", "--replicas=1")


@kind()
def leasedeleted(applied: Applied, node: str, chance: random.Random) -> None:
    """The operator's lease is deleted."""
    _kubectl(applied, "delete", "lease", "--all")


@kind()
def agentkilled(applied: Applied, node: str, chance: random.Random) -> None:
    """The agent's process is killed."""
    for pid in applied.cluster.nodes[node].pids("ipmp-agent"):
        os.kill(pid, signal.SIGKILL)


@kind()
def agentdeleted(applied: Applied, node: str, chance: random.Random) -> None:
    """The agent's pod is deleted."""
    pod = agent_pod(applied.cluster, node)
    if pod:
        _kubectl(applied, "delete", "pod", pod["metadata"]["name"], "--wait=false")


@kind()
def agentstands(applied: Applied, node: str, chance: random.Random) -> None:
    """The agent stands still for a while."""
    pids = applied.cluster.nodes[node].pids("ipmp-agent")
    for number, seconds in ((signal.SIGSTOP, chance.choice([1, 4])), (signal.SIGCONT, 0)):
        for pid in pids:
            os.kill(pid, number)
        pause(seconds)


@kind()
def daemonsetdeleted(applied: Applied, node: str, chance: random.Random) -> None:
    """The agents' DaemonSet is deleted."""
    _kubectl(applied, "delete", "daemonset", "--all", "--wait=false")


@kind()
def finalizerremoved(applied: Applied, node: str, chance: random.Random) -> None:
    """People remove the finalizer of a node group."""
    name = applied.node_group(node)["metadata"]["name"]
    applied.cluster.kubectl("patch", "ipmpnodegroup", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


@kind(harmless=False)
def nodegroupdeleted(applied: Applied, node: str, chance: random.Random) -> None:
    """People delete a node group: the operator makes it again."""
    name = applied.node_group(node)["metadata"]["name"]
    applied.cluster.kubectl("delete", "ipmpnodegroup", name, "--wait=false")
    if chance.random() < 0.5:
        pause(chance.uniform(0, 1))
        finalizers = ("--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        applied.cluster.try_kubectl("patch", "ipmpnodegroup", name, *finalizers)


@kind()
def controllersrestart(applied: Applied, node: str, chance: random.Random) -> None:
    """Kubernetes' own controllers are started again."""
    applied.cluster.control.restart("kube-controller-manager")


@kind(harmless=False)
def reboot(applied: Applied, node: str, chance: random.Random) -> str:
    """A node loses power and boots again, perhaps after its Node object was deleted."""
    one, deleted = applied.cluster.nodes[node], chance.random() < 0.5
    one.power_off()
    if deleted:
        applied.cluster.kubectl("delete", "node", node)
    one.power_on()
    one.wait_booted()
    applied.cluster.wait_nodes_ready(node)
    return "deleted" if deleted else ""


@kind(harmless=False)
def cable(applied: Applied, node: str, chance: random.Random) -> str:
    """A NIC loses its cable, or its frames, for a while; perhaps the API server hangs meanwhile."""
    nic, fault = applied.nic(node, chance.choice(MEMBERS)), chance.choice(["unplug", "silence"])
    hung = _stopped(applied, API_SERVER) if chance.random() < 0.5 else contextlib.nullcontext()
    with hung:
        getattr(nic, fault)()
        pause(chance.uniform(0.5, 4))
        nic.plug() if fault == "unplug" else nic.restore()
    return f"{nic.name} {fault}"


class Broken(Applied):
    """The group; what the CNI lays for pods, which come and go with the operator, is no part of what is compared."""

    def kernel(self, node: str) -> KernelDump:
        """What the kernel of a node holds besides."""
        dump = super().kernel(node)
        return replace(
            dump, addresses=_hosts(dump.addresses), routes=_hosts(dump.routes), settings=_hosts(dump.settings)
        )


def _hosts(lines: tuple[str, ...]) -> tuple[str, ...]:
    pods = re.compile(r'^(cni|veth)|"dev": "(cni|veth)')
    return tuple(line for line in lines if not pods.search(line))


def check(applied: Applied) -> None:
    """Wait until every node is well, and no address is on two.

    Raises:
        NotInTimeError: they are not, with what was seen.
    """
    for node in NODES:
        applied.cluster.wait(partial(_unwell, applied, node), lambda complaint: not complaint, what=node, deadline=WELL)
    every = [address for node in NODES for address in applied.view(node).addresses]
    if twice := invariants.duplicates(every):
        raise NotInTimeError(f"{twice} are given twice")


def _unwell(applied: Applied, node: str) -> str:
    try:
        view = applied.view(node)
        invariants.settled(view, applied.kernel(node))
        if not agent_pod(applied.cluster, node):
            return "no agent"
    except (RuntimeError, AssertionError, ValueError, KeyError) as found:
        return str(found)
    return "" if view.state == "ok" and len(view.addresses) == 4 else f"{view}"


def main() -> int:
    """Bring a cluster up, break it, and look; 1 when something did not hold."""
    parser = argparse.ArgumentParser(
        "python -m tests.chaos.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="how long, beside --hours")
    parser.add_argument("--hours", type=float, default=0.0, help="how long, beside --minutes")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--without", action="append", default=[], choices=KINDS, help="not this kind")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    for tag in stale_clusters():
        remove_cluster(tag)
    build()
    image = build_image()
    chance = random.Random(options.seed)
    names = [name for name in KINDS if name not in options.without]
    counts: Counter[str] = Counter()
    slowest: dict[str, float] = {}
    with Cluster() as cluster:
        cluster.add_nodes(*NODES)
        cluster.load_image(image)
        install_chart(cluster, image)
        began = time.monotonic()
        end = began + 60 * (options.minutes + 60 * options.hours)
        steps: list[Step] = []
        try:
            with Broken(cluster, GROUP) as applied:
                applied.wait_kept()
                while time.monotonic() < end:
                    steps.append(Step(chance.choice(names), chance.randrange(2), chance.randrange(10**6)))
                    _take(applied, steps[-1], slowest)
                    counts[steps[-1].kind] += 1
                    print(f"  {time.monotonic() - began:6.0f} {steps[-1]}", flush=True)
        except (AssertionError, RuntimeError) as failed:
            print(f"VIOLATED after {', '.join(map(str, steps[-5:]))}\n{failed}\n{getattr(failed, '__notes__', '')}")
            return 1
        finally:
            for name in KINDS:
                about = (KINDS[name][0].__doc__ or "").strip()
                print(f"{name:20} {counts[name]:5} {slowest.get(name, 0.0):6.1f} s  {about}")
            print(f"{sum(counts.values())} faults, seed {options.seed}, {time.monotonic() - began:.0f} s", flush=True)
    return 0


def _take(applied: Applied, step: Step, slowest: dict[str, float]) -> None:
    breaks, harmless = KINDS[step.kind]
    before = {node: applied.homes(node) for node in NODES}
    breaks(applied, NODES[step.host], random.Random(step.number))
    began = time.monotonic()
    check(applied)
    slowest[step.kind] = max(slowest.get(step.kind, 0.0), time.monotonic() - began)
    if harmless:
        for node in NODES:
            invariants.nothing_moved(before[node], applied.homes(node), f"{step} on {node}")


if __name__ == "__main__":
    sys.exit(main())
