"""Faults of a real Kubernetes around the product: of its API, its stores, its controllers, its nodes, and of people."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.chaos.wires import pause
from tests.cluster.controlplane import API_SERVER, ETCD
from tests.cluster.product import LABEL, MEMBERS, NAMESPACE, Applied, agent_pod

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    Break = Callable[[Applied, str, random.Random], object]

KINDS: dict[str, tuple[Break, bool]] = {}
"""What breaks, and whether no address may move by it."""
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
