"""`kubectl ipmp bundle`: all that somebody needs who helps from afar, in one file; nothing that is secret.

Every part is made by itself: one that fails is named in the file, with what it said, and the others are there.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubectl_ipmp
from kubectl_ipmp.kubectl import AGENTS, API, EVENTS, PRODUCT, PluginError
from kubectl_ipmp.view import NodeView

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from kubectl_ipmp.display import Display
    from kubectl_ipmp.kubectl import Kubectl, Object

AT_ONCE = 4
"""Parts that are made at a time."""
PATIENCE = 30.0
"""Seconds that one part may take."""
LOG_LINES = 20_000
"""Of one container, the last ones."""
HIDDEN = "(left out)"

ON_NODE = {
    "ip-link.txt": ("ip", "-details", "-statistics", "link", "show"),
    "ip-address.txt": ("ip", "-details", "address", "show"),
    "ip-rule.txt": ("ip", "rule", "show"),
    "ip6-rule.txt": ("ip", "-6", "rule", "show"),
    "ip-route.txt": ("ip", "-details", "route", "show", "table", "all"),
    "ip6-route.txt": ("ip", "-6", "-details", "route", "show", "table", "all"),
    "ip-neighbour.txt": ("ip", "-statistics", "neighbour", "show"),
    "ip-nexthop.txt": ("ip", "nexthop", "show"),
    "nft.txt": ("nft", "list", "ruleset"),
    "ipmpstat.json": ("ipmpstat", "--json"),
    "ipmpstat-interfaces.json": ("ipmpstat", "-i", "--json"),
    "ipmpstat-targets.json": ("ipmpstat", "-t", "-n", "--json"),
    "ipmpstat-addresses.json": ("ipmpstat", "-a", "-n", "--json"),
    "versions.txt": ("ipmp-agent", "--version"),
    "kernel.txt": ("cat", "/proc/version", "/proc/uptime", "/proc/loadavg", "/proc/net/dev", "/proc/net/softnet_stat"),
}
"""What is asked of each node, in the agent's container."""

_SECRETS = (
    (re.compile(r"(?i)(authorization\"?\s*[:=]\s*\"?\s*(?:bearer|basic)\s+)[^\s\"',]+"), rf"\g<1>{HIDDEN}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"), HIDDEN),  # JSON Web Token
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/\s:@\"']+:[^/\s@\"']+@"), rf"\g<1>{HIDDEN}@"),
    (
        re.compile(
            r"(?i)(\b[\w-]*(?:password|passwd|secret|token|api[_-]?key)[\w-]*\"?\s*[:=]\s*\"?)"
            r"(?!true\b|false\b|null\b)[^\s\"',{}\[\]]+"
        ),
        rf"\g<1>{HIDDEN}",
    ),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        HIDDEN,
    ),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), HIDDEN),  # mail address
)
"""What looks like a secret or names a person, and what stands in its place."""

_PLAIN_NAMES = frozenset(
    {"NODE_NAME", "POD_NAME", "IPMP_RUNTIME_DIR", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"}
)
"""Environment variables of our pods whose values are shown; others may hold a proxy's password."""

README = """\
Support bundle of IPMP for Kubernetes, made by kubectl ipmp {version} at {time}.

In it: both kinds of objects, their Events, our Deployment, DaemonSet, pods and their logs, and of each node what its
kernel and its agent say. Names of nodes, IP and MAC addresses are in it: without them it explains nothing. Left out:
Secrets (none was read), who wrote an object, values of environment variables, and what looks like a password, token,
key or mail address in logs. Look through it before you hand it on.

{summary}
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the bundle, and how to make its text."""

    path: str
    make: Callable[[], str]


def run(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Make the bundle; returns 0 when all of it could be made."""
    began = time.gmtime()
    path = options.file or Path(time.strftime("ipmp-bundle-%Y%m%d-%H%M%S.tar.gz", began))
    try:
        file = path.open("xb")
    except FileExistsError:
        raise PluginError(f"{path} is there already: name another by --file") from None
    except OSError as error:
        raise PluginError(f"cannot write {path}: {error.strerror}") from None
    with file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        name = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
        failed = _fill(archive, name, options, kubectl, began)
    for part, why in failed.items():
        display.line(f"not in it: {part}: {why.splitlines()[0]}")
    display.line(f"{path}")
    return 0 if not failed else 1


def _fill(
    archive: tarfile.TarFile, name: str, options: argparse.Namespace, kubectl: Kubectl, began: time.struct_time
) -> dict[str, str]:
    failed: dict[str, str] = {}
    when = int(time.mktime(began)) - time.timezone

    def add(path: str, text: str) -> None:
        data = text.encode(errors="replace")
        entry = tarfile.TarInfo(f"{name}/{path}")
        entry.size, entry.mtime, entry.mode = len(data), when, 0o644
        archive.addfile(entry, io.BytesIO(data))

    made: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for part, text, why in pool.map(_made, _parts(options, kubectl, failed)):
            if why:
                failed[part.path] = why
            else:
                add(part.path, text)
                made.append(part.path)
    add("failed.json", json.dumps({path: redact(why) for path, why in failed.items()}, indent=2))
    summary = "\n".join([*made, *(f"{path}: NOT HERE: {redact(why).splitlines()[0]}" for path, why in failed.items())])
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", began)
    add("README.txt", README.format(version=kubectl_ipmp.__version__, time=stamp, summary=summary))
    return failed


def _made(part: Part) -> tuple[Part, str, str]:
    """A part, its text, and why there is none."""
    try:
        return part, redact(part.make()) if part.path.endswith((".log", ".txt")) else part.make(), ""
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a part, the others are worth having
        return part, "", str(error) or type(error).__name__


def _parts(options: argparse.Namespace, kubectl: Kubectl, failed: dict[str, str]) -> Iterator[Part]:
    """All parts. What must be known to name them is asked here, and noted in `failed` where it is not answered."""
    yield Part("versions.json", partial(kubectl.run, "version", "--output=json", timeout=PATIENCE))
    for kind in ("ipmpgroups", "ipmpnodegroups"):
        yield Part(f"objects/{kind}.json", partial(_listed, partial(kubectl.read, f"{API}/{kind}")))
    yield Part("objects/crds.json", partial(_listed, partial(_crds, kubectl)))
    yield Part("objects/nodes.json", partial(_listed, partial(_nodes, kubectl)))
    yield Part("events.json", partial(_listed, partial(kubectl.read, EVENTS)))
    for kind in ("deployments", "daemonsets", "pods", "leases", "events"):
        yield Part(f"{kubectl.namespace}/{kind}.json", partial(_listed, partial(_own, kubectl, kind)))
    yield from _logs(kubectl, failed)
    yield from _on_nodes(options, kubectl, failed)


def _own(kubectl: Kubectl, kind: str) -> Object:
    which = ["--selector", PRODUCT] if kind in {"deployments", "daemonsets", "pods"} else []
    found: Object = json.loads(
        kubectl.run("--namespace", kubectl.namespace, "get", kind, *which, "--output=json", timeout=PATIENCE)
    )
    return found


def _crds(kubectl: Kubectl) -> Object:
    """Versions and conditions; the schemas are known from the version."""
    found = kubectl.read("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    ours = [each for each in found["items"] if each["spec"]["group"] == "ipmp.dev"]
    return {"items": [{key: each.get(key) for key in ("metadata", "status")} for each in ours]}


def _nodes(kubectl: Kubectl) -> Object:
    found = kubectl.read("/api/v1/nodes")
    kept = ("nodeInfo", "conditions", "addresses")
    return {
        "items": [
            {
                "metadata": {key: each["metadata"].get(key) for key in ("name", "labels", "creationTimestamp")},
                "spec": {key: each["spec"].get(key) for key in ("taints", "unschedulable")},
                "status": {key: each.get("status", {}).get(key) for key in kept},
            }
            for each in found["items"]
        ]
    }


def _logs(kubectl: Kubectl, failed: dict[str, str]) -> Iterator[Part]:
    try:
        pods = kubectl.pods(PRODUCT)
    except PluginError as error:
        failed["logs"] = str(error)
        return
    for pod in pods:
        name = str(pod["metadata"]["name"])
        for status in pod.get("status", {}).get("containerStatuses") or []:
            log = ["--namespace", kubectl.namespace, "logs", name, f"--container={status['name']}"]
            log += ["--timestamps", f"--tail={LOG_LINES}"]
            where = f"logs/{name}.{status['name']}"
            yield Part(f"{where}.log", partial(kubectl.run, *log, timeout=PATIENCE))
            if status.get("restartCount"):
                yield Part(f"{where}.previous.log", partial(kubectl.run, *log, "--previous", timeout=PATIENCE))


def _on_nodes(options: argparse.Namespace, kubectl: Kubectl, failed: dict[str, str]) -> Iterator[Part]:
    try:
        agents = {str(pod["spec"].get("nodeName")): str(pod["metadata"]["name"]) for pod in kubectl.pods(AGENTS)}
        wanted = {NodeView(each).node for each in kubectl.node_groups()}
    except PluginError as error:
        failed["nodes"] = str(error)
        return
    wanted = set(options.nodes) or wanted | agents.keys()
    for node in sorted(wanted):
        if node not in agents:
            failed[f"nodes/{node}"] = f"no agent's pod runs there (namespace {kubectl.namespace})"
            continue
        for file, command in ON_NODE.items():
            asked = partial(kubectl.in_agent, agents[node], *command, timeout=PATIENCE)
            yield Part(f"nodes/{node}/{file}", asked)


# -- what is left out


def redact(text: str) -> str:
    """The text without what looks like a secret, or names a person."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _listed(ask: Callable[[], Object]) -> str:
    return json.dumps({"items": [clean(each) for each in ask().get("items", [])]}, indent=1)


def clean(whole: Object) -> Object:
    """An object without who wrote it, copies of itself in annotations, and values of environment variables."""
    metadata = {key: value for key, value in (whole.get("metadata") or {}).items() if key != "managedFields"}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {
            key: value for key, value in annotations.items() if not key.endswith("last-applied-configuration")
        }
    kept = {key: _cleaned(value) for key, value in whole.items() if key != "metadata"}
    return {**({"metadata": metadata} if metadata else {}), **kept}


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_cleaned(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: _environment(each) if key == "env" else _cleaned(each) for key, each in value.items()}


def _environment(variables: Sequence[Object] | None) -> list[Object]:
    return [
        each if each.get("name") in _PLAIN_NAMES or "value" not in each else {**each, "value": HIDDEN}
        for each in variables or []
    ]
