"""The cluster, through `kubectl` as a child process: it knows contexts, credential plugins and proxies."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Object = dict[str, Any]
    """An object of the API as JSON has it."""

API = "/apis/ipmp.dev/v1alpha1"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
"""Where the API server keeps the events of objects without a namespace."""
NAMESPACE = "ipmp-system"
PRODUCT = "app.kubernetes.io/name=ipmp"
AGENTS = f"{PRODUCT},app.kubernetes.io/component=agent"
PROGRAM = "kubectl"

TIMEOUT = 60.0
"""Seconds that one call of kubectl may take."""


class PluginError(Exception):
    """Ends the command with 1; the message says what is wrong and what to do."""


class KubectlError(PluginError):
    """kubectl failed; the message is what it said, `output` what it printed before."""

    def __init__(self, said: str, output: str = "") -> None:
        super().__init__(said)
        self.output = output


class Kubectl:
    """Calls kubectl with the options that say which cluster is meant.

    Args:
        options: such as `--context=edge`, put before the verb.
        namespace: where the product's pods are.
        program: the kubectl to call; None: $KUBECTL, else the one in $PATH.
    """

    def __init__(self, options: Sequence[str] = (), namespace: str = NAMESPACE, program: str | None = None) -> None:
        self.namespace = namespace
        self._command = [program or os.environ.get("KUBECTL") or PROGRAM, *options]

    def run(self, *arguments: str, text: str | None = None, timeout: float = TIMEOUT) -> str:
        """What kubectl printed. Raises KubectlError with its words."""
        done = self.bytes(*arguments, text=None if text is None else text.encode(), timeout=timeout)
        return done.decode(errors="replace")

    def bytes(self, *arguments: str, text: bytes | None = None, timeout: float = TIMEOUT) -> bytes:
        """As `run`, for what is no text."""
        try:
            # Without text it has our standard input: a credential plugin may ask for a password.
            done = subprocess.run(  # noqa: S603 - no shell; the user's own kubectl
                [*self._command, *arguments], input=text, capture_output=True, check=False, timeout=timeout
            )
        except FileNotFoundError:
            raise PluginError(
                f"there is no {self._command[0]}: put it into the PATH, or name it with $KUBECTL"
            ) from None
        except PermissionError:
            raise PluginError(f"may not run {self._command[0]}: $KUBECTL names a program that can be run") from None
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl {arguments[0]} has not ended after {timeout:.0f} s") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip() or f"kubectl ended with {done.returncode}"
            raise KubectlError(said, done.stdout.decode(errors="replace"))
        return done.stdout

    def read(self, path: str, **query: str) -> Object:
        """The object or the list at a path of the API. Raises PluginError."""
        whole = path
        if query:
            from urllib.parse import urlencode  # noqa: PLC0415 - it imports ipaddress, a tenth of the start of `status`

            whole = f"{path}?{urlencode(query)}"
        try:
            found: Object = json.loads(self.bytes("get", "--raw", whole))
        except KubectlError as error:
            raise PluginError(_explained(path, str(error))) from None
        except ValueError:
            raise PluginError(f"the server answered {path} with what is no JSON: is a proxy in between?") from None
        return found

    def groups(self) -> list[Object]:
        """All IPMPGroups, by name."""
        return _by_name(self.read(f"{API}/ipmpgroups"))

    def node_groups(self) -> list[Object]:
        """All IPMPNodeGroups, by name."""
        return _by_name(self.read(f"{API}/ipmpnodegroups"))

    def node_group(self, name: str) -> Object:
        """One IPMPNodeGroup."""
        return self.read(f"{API}/ipmpnodegroups/{name}")

    def events(self) -> list[Object]:
        """The Events about objects of both kinds, oldest first."""
        found = []
        for kind in ("IPMPGroup", "IPMPNodeGroup"):
            found += self.read(EVENTS, fieldSelector=f"regarding.kind={kind}").get("items", [])
        return sorted(found, key=event_time)

    def patch_node_group(self, name: str, patch: Sequence[Mapping[str, Any]]) -> None:
        """Apply a JSON patch. Raises KubectlError."""
        self.run("patch", "ipmpnodegroups.ipmp.dev", name, "--type=json", f"--patch={json.dumps(list(patch))}")

    def pods(self, selector: str = AGENTS, node: str | None = None) -> list[Object]:
        """The product's pods."""
        where = ["--field-selector", f"spec.nodeName={node}"] if node else []
        found = self.run("--namespace", self.namespace, "get", "pods", "--selector", selector, *where, "--output=json")
        items: list[Object] = json.loads(found)["items"]
        return items

    def agent_pod(self, node: str) -> str:
        """The name of the agent's pod on a node. Raises PluginError."""
        pods = [pod for pod in self.pods(node=node) if "deletionTimestamp" not in pod["metadata"]]
        running = [pod for pod in pods if pod.get("status", {}).get("phase") == "Running"]
        if running:
            return str(running[0]["metadata"]["name"])
        if pods:
            phase = pods[0].get("status", {}).get("phase", "unknown")
            raise PluginError(
                f"the agent on {node} is {phase}: kubectl --namespace {self.namespace} describe pod "
                f"{pods[0]['metadata']['name']} says why"
            )
        raise PluginError(
            f"no agent's pod on {node} in namespace {self.namespace}: is a group on this node, and is IPMP installed "
            "elsewhere (--namespace)?"
        )

    def in_agent(self, pod: str, *command: str, timeout: float = TIMEOUT) -> str:
        """What a command in an agent's container printed. Raises KubectlError with its words."""
        return self.run(
            "--namespace", self.namespace, "exec", pod, "--container=agent", "--", *command, timeout=timeout
        )


def event_time(event: Object) -> str:
    """When something happened last, RFC 3339, to be sorted by."""
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("eventTime")
        or event.get("deprecatedLastTimestamp")
        or event.get("metadata", {}).get("creationTimestamp")
        or ""
    )


def _by_name(found: Object) -> list[Object]:
    items: list[Object] = found.get("items", [])
    return sorted(items, key=lambda each: str(each["metadata"]["name"]))


def _explained(path: str, said: str) -> str:
    """What the server refused, with what to do."""
    if "(Forbidden)" in said:
        return f"{said}\nShowing groups needs the verbs get and list on ipmpgroups and ipmpnodegroups of ipmp.dev."
    if "(NotFound)" in said and path in {f"{API}/ipmpgroups", f"{API}/ipmpnodegroups"}:
        return "this cluster does not know IPMP groups: install the chart (docs/install.md), or choose --context"
    return said
