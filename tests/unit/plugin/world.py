"""A cluster's objects, and a kubectl that answers from them in this process."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from kubectl_ipmp import cli
from kubectl_ipmp.kubectl import API, EVENTS, Kubectl, KubectlError

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = "2026-01-01T00:00:00Z"


def condition(kind: str, status: str = "True", reason: str = "Configured", message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": NOW,
        "observedGeneration": 1,
    }


def group(name: str = "front", *conditions: dict[str, Any]) -> dict[str, Any]:
    standing = {each["type"]: each for each in (condition("Accepted"), condition("Ready"))}
    standing["Degraded"] = condition("Degraded", "False", "AsExpected")
    standing |= {each["type"]: each for each in conditions}
    return {
        "kind": "IPMPGroup",
        "metadata": {"name": name, "generation": 1, "managedFields": [{"manager": "someone@example.org"}]},
        "spec": {"interfaces": [{"name": "eth1"}, {"name": "eth2"}]},
        "status": {"observedGeneration": 1, "conditions": list(standing.values())},
    }


def interface(name: str, state: str = "ok", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "role": "Active",
        "active": state == "ok",
        "state": state,
        "link": "up",
        "probe": "ok" if state == "ok" else "unknown",
        "since": NOW,
        "testAddresses": ["198.18.0.31/24"],
        "targets": [
            {"address": "198.18.0.1", "state": "active"},
            {"address": "198.18.0.2", "state": "unused"},
        ],
    } | more


def node_group(
    node: str, *interfaces: dict[str, Any], name: str = "front", conditions: tuple[dict[str, Any], ...] = ()
) -> dict[str, Any]:
    members = list(interfaces) or [interface("eth1"), interface("eth2")]
    failed = sum(each["state"] != "ok" for each in members)
    state = "ok" if not failed else "failed" if failed == len(members) else "degraded"
    carrier = next((each["name"] for each in members if each["state"] == "ok"), None)
    address = {"address": "198.18.0.10/24", "state": "up" if carrier else "down", "origin": "Pool"}
    return {
        "kind": "IPMPNodeGroup",
        "metadata": {"name": f"{name}.{node}", "generation": 1, "resourceVersion": "7"},
        "spec": {"groupName": name, "nodeName": node, "interfaces": [{"name": each["name"]} for each in members]},
        "status": {
            "observedGeneration": 1,
            "agentVersion": "0.1.0",
            "state": state,
            "interfaces": members,
            "addresses": [address | ({"interface": carrier} if carrier else {})],
            "notAdopted": [
                {"address": "198.18.0.99/24", "interface": "eth1", "reason": "DHCPManaged", "message": "has a lifetime"}
            ],
            "lastFailovers": [
                {
                    "time": NOW,
                    "from": "eth1",
                    "to": "eth2",
                    "reason": "LinkDown",
                    "addresses": 1,
                    "durationMicroseconds": 4200,
                }
            ],
            "conditions": [condition("Programmed"), condition("OfflineHonored"), *conditions],
        },
    }


class World:
    """What the API server holds; `heed` is what an agent makes of a node group that was written."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = list(objects)
        self.events: list[dict[str, Any]] = []
        self.heed: Callable[[dict[str, Any]], None] = lambda whole: None
        self.before_patch: Callable[[], None] = lambda: None
        self.calls: list[tuple[str, ...]] = []
        self.refusal = ""

    def run(self, *arguments: str) -> int:
        """Run the plugin's command line against this world."""
        world = self

        class Recorded(Kubectl):
            def bytes(self, *given: str, text: bytes | None = None, timeout: float = 0) -> bytes:
                world.calls.append((*self._command[1:], *given))
                return world.answer(given).encode()

        return cli.main(arguments, make=Recorded)

    def named(self, name: str) -> dict[str, Any]:
        return next(each for each in self.objects if each["metadata"]["name"] == name)

    def answer(self, given: tuple[str, ...]) -> str:
        if self.refusal:
            raise KubectlError(self.refusal)
        match given:
            case ("get", "--raw", path):
                return json.dumps(self._read(path))
            case ("patch", "ipmpnodegroups.ipmp.dev", name, "--type=json", patch):
                self._patch(name, json.loads(patch.removeprefix("--patch=")))
                return "patched"
        raise KubectlError(f"error: unknown command {given[0]!r}")

    def _read(self, path: str) -> Any:
        where = urlsplit(path)
        if where.path == EVENTS:
            (_, wanted) = parse_qs(where.query)["fieldSelector"][0].split("=")
            return {"items": [each for each in self.events if each["regarding"]["kind"] == wanted]}
        kinds = {f"{API}/ipmpgroups": "IPMPGroup", f"{API}/ipmpnodegroups": "IPMPNodeGroup"}
        if where.path in kinds:
            return {"items": [each for each in self.objects if each["kind"] == kinds[where.path]]}
        return copy.deepcopy(self.named(where.path.rpartition("/")[2]))

    def _patch(self, name: str, patch: list[dict[str, Any]]) -> None:
        self.before_patch()
        whole = self.named(name)
        for operation in patch:
            *parents, last = operation["path"].strip("/").split("/")
            place = whole
            for parent in parents:
                place = place[parent]
            if operation["op"] == "test" and place.get(last) != operation["value"]:
                raise KubectlError("The request is invalid: the server rejected our request: testing value failed")
            if operation["op"] == "add":
                place[last] = operation["value"]
        whole["metadata"]["generation"] += 1
        whole["metadata"]["resourceVersion"] += "1"
        self.heed(whole)


def healthy() -> World:
    """One group on two nodes, all well."""
    return World(group(), node_group("n1"), node_group("n2"))


def obey(whole: dict[str, Any]) -> None:
    """As an agent: take offline what spec.offline names, or refuse what would leave nothing."""
    asked = [each["interface"] for each in whole["spec"].get("offline", [])]
    members, status = whole["status"]["interfaces"], whole["status"]
    refused = []
    for each in members:
        others = [o for o in members if o is not each and o["state"] == "ok"]
        if each["name"] in asked and each["state"] == "ok" and not others:
            refused.append(f"{each['name']} stays online: no other interface of the group works")
        elif each["name"] in asked and each["state"] == "ok":
            each |= {"state": "offline", "active": False}
        elif each["name"] not in asked and each["state"] == "offline":
            each |= {"state": "ok", "active": True}
    carrier = next(each["name"] for each in members if each["state"] == "ok")
    for address in status["addresses"]:
        address["interface"] = carrier
    generation = status["observedGeneration"] = whole["metadata"]["generation"]
    honored = condition("OfflineHonored", "False" if refused else "True", message="; ".join(refused))
    others = [each for each in status["conditions"] if each["type"] != "OfflineHonored"]
    status["conditions"] = [*others, honored | {"observedGeneration": generation}]
