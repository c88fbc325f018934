"""API objects to the values of the core, and back."""

from __future__ import annotations

from dataclasses import field, replace
from datetime import UTC, datetime
from sys import intern
from typing import TYPE_CHECKING, Any

from ipmp_api.addresses import parse_address
from ipmp_api.errors import ValidationError
from ipmp_api.frozen import frozen
from ipmp_api.parse import NodeGroupReader, node_group_spec, parse_group
from ipmp_api.status import Condition, GroupStatus, from_dict, set_condition, to_dict
from ipmp_api.types import (
    API_GROUP,
    API_VERSION,
    GROUP_KIND,
    GROUP_LABEL,
    GROUP_PLURAL,
    NODE_GROUP_KIND,
    NODE_GROUP_PLURAL,
    NODE_LABEL,
    WITHDRAW_FINALIZER,
)
from ipmp_operator.core.model import Holder, InterfaceReport, Node, NodeGroupReport, Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ipmp_api.types import Address, Group, NodeGroup
    from ipmp_operator.core.rollup import Rollup
    from ipmp_service.api_server import Object

FIELD_MANAGER = "ipmp-operator"
"""In whose name the operator writes."""

API = f"{API_GROUP}/{API_VERSION}"
GROUPS_PATH = f"/apis/{API}/{GROUP_PLURAL}"
NODE_GROUPS_PATH = f"/apis/{API}/{NODE_GROUP_PLURAL}"
NODES_PATH = "/api/v1/nodes"

LABEL_MAX = 63
"""Characters of a label's value. Names of nodes have up to 253: a longer one goes without the label."""


@frozen
class GroupObject:
    """One IPMPGroup as last seen; `group` is None where it cannot be read, and `invalid` says why."""

    name: str
    uid: str
    generation: int
    group: Group | None
    invalid: str
    status: Object
    version: str = field(default="", compare=False)  # the resource version


def read_group(obj: Object) -> GroupObject | None:
    """Read an IPMPGroup; None for one that is being deleted."""
    metadata = obj["metadata"]
    if metadata.get("deletionTimestamp"):
        return None
    group, invalid = None, ""
    try:
        group = parse_group(obj, strict=False)
    except ValidationError as error:
        invalid = str(error)
    return GroupObject(
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation") or 0),
        group=group,
        invalid=invalid,
        status=obj.get("status") or {},
        version=str(metadata.get("resourceVersion") or ""),
    )


def read_node(obj: Object) -> tuple[str, Node]:
    """Read a Node's metadata."""
    metadata = obj["metadata"]
    name = intern(metadata["name"])
    return name, Node(name, {intern(key): intern(value) for key, value in (metadata.get("labels") or {}).items()})


def read_agent_pod(obj: Object) -> tuple[str, tuple[str, bool]]:
    """Read from an agent's pod its node and whether it is ready."""
    status = obj.get("status") or {}
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    going = bool(obj["metadata"].get("deletionTimestamp"))
    return obj["metadata"]["uid"], (intern((obj.get("spec") or {}).get("nodeName") or ""), ready and not going)


def read_node_group(
    obj: Object,
    known: Callable[[Holder], Observed | None] = lambda _: None,
    expected: Callable[[Holder], NodeGroup | None] = lambda _: None,
) -> tuple[Holder, Observed]:
    """Read an IPMPNodeGroup. What cannot be read counts as absent, except addresses: those are held all the same.

    To read a spec costs more than all the rest.

    Args:
        obj: the object.
        known: what was read before; its spec is still right in the same generation.
        expected: what it should say; where it does, that very value is its spec.
    """
    metadata = obj["metadata"]
    group, _, node = metadata["name"].partition(".")
    holder = Holder(intern(group), intern(node))
    generation = int(metadata.get("generation") or 0)
    before = known(holder)
    if before is not None and generation and (before.uid, before.generation) == (metadata["uid"], generation):
        spec, held = before.spec, before.held
    else:
        raw, wanted = _object(obj.get("spec")), expected(holder)
        spec = wanted if wanted is not None and raw == node_group_spec(wanted) else _read_spec(obj)
        held = tuple(_held(raw))
    owners = metadata.get("ownerReferences") or ()
    deleting = metadata.get("deletionTimestamp")
    return holder, Observed(
        holder=holder,
        uid=metadata["uid"],
        owner_uid=intern(next((o["uid"] for o in owners if o.get("kind") == GROUP_KIND), "")),
        generation=generation,
        spec=spec,
        held=held,
        finalizer=WITHDRAW_FINALIZER in (metadata.get("finalizers") or ()),
        deleting_since=_seconds(deleting) if deleting else None,
        status=_read_status(_object(obj.get("status"))),
    )


def _read_spec(obj: Object) -> NodeGroup | None:
    try:
        spec = _specs.read(obj)
    except ValidationError:
        return None
    return replace(
        spec,
        group_name=intern(spec.group_name),
        node_name=intern(spec.node_name),
        peer_nodes=tuple(map(intern, spec.peer_nodes)),
        offline=(),
    )


_specs = NodeGroupReader()


# The schema lets nothing else in. An object that came in before it, or without it, must not stop the reading of others,
# nor let go of what it holds.


def _elements(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(value: Any) -> list[Object]:
    return [one for one in _elements(value) if isinstance(one, dict)]


def _object(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _held(spec: Object) -> Iterator[Address]:
    texts = [entry.get("address") for entry in _objects(spec.get("dataAddresses"))]
    texts += [entry.get("testAddressIPv4") for entry in _objects(spec.get("interfaces"))]
    return _addresses(texts)


def _addresses(texts: Iterable[Any]) -> Iterator[Address]:
    for text in texts:
        if isinstance(text, str) and text:
            try:
                yield parse_address(text.partition("%")[0].partition("/")[0])
            except ValueError:  # the schema lets no such text in; nobody can hold what is no address
                continue


def _read_status(status: Object) -> NodeGroupReport:
    conditions = {str(c.get("type")): c for c in _objects(status.get("conditions"))}
    degraded = conditions.get("Degraded") or {}
    return NodeGroupReport(
        state=intern(str(status.get("state") or "")),
        reason=str(degraded.get("reason") or "") if degraded.get("status") == "True" else "",
        observed_generation=max(0, _number(status.get("observedGeneration"))),
        withdrawn=(conditions.get("Withdrawn") or {}).get("status") == "True",
        programmed=(conditions.get("Programmed") or {}).get("status") != "False",
        interfaces=tuple(_read_interface(i) for i in _objects(status.get("interfaces"))),
        unavailable_addresses=sum(a.get("state") == "down" for a in _objects(status.get("addresses"))),
        present=tuple(_present(status)),
    )


def _present(status: Object) -> Iterator[Address]:
    texts = [entry.get("address") for entry in _objects(status.get("addresses")) if entry.get("interface")]
    texts += [text for one in _objects(status.get("interfaces")) for text in _elements(one.get("testAddresses"))]
    bare = (text for text in texts if not (isinstance(text, str) and text.startswith("fe80:")))  # most are
    return (address for address in _addresses(bare) if not address.is_link_local)


def _read_interface(interface: Object) -> InterfaceReport:
    return InterfaceReport(
        name=intern(str(interface.get("name") or "")),
        mac_address=interface.get("macAddress"),
        failed=interface.get("state") == "failed",
    )


def node_group_intent(spec: NodeGroup, owner_uid: str) -> Object:
    """All that the operator wants of an IPMPNodeGroup, for server-side apply."""
    labels = {GROUP_LABEL: spec.group_name}
    if len(spec.node_name) <= LABEL_MAX:
        labels[NODE_LABEL] = spec.node_name
    return {
        "apiVersion": API,
        "kind": NODE_GROUP_KIND,
        "metadata": {
            "name": spec.name,
            "labels": labels,
            "finalizers": [WITHDRAW_FINALIZER],
            "ownerReferences": [
                {
                    "apiVersion": API,
                    "kind": GROUP_KIND,
                    "name": spec.group_name,
                    "uid": owner_uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": node_group_spec(spec),
    }


def group_status(rollup: Rollup, generation: int, previous: Object, now: datetime) -> Object:
    """IPMPGroup.status; a condition keeps its time of transition while its status stays."""
    try:
        conditions = from_dict(GroupStatus, previous).conditions
    except ValueError:  # an unreadable status is replaced, not kept
        conditions = ()
    kept = {verdict.type for verdict in rollup.verdicts}
    conditions = tuple(condition for condition in conditions if condition.type in kept)
    for v in rollup.verdicts:
        status = "True" if v.status else "False"
        conditions = set_condition(conditions, Condition(v.type, status, v.reason, now, v.message, generation))
    return to_dict(
        GroupStatus(
            nodes=rollup.nodes,
            interfaces=rollup.interfaces,
            data_addresses=rollup.data_addresses,
            troubled_nodes=rollup.troubled,
            conditions=conditions,
            observed_generation=generation,
        )
    )


def group_status_intent(obj: GroupObject, status: Object) -> Object:
    """The status of the group as it was seen, and of no later one of its name, for server-side apply."""
    metadata = {"name": obj.name, "resourceVersion": obj.version}  # the server does not care for a uid here
    return {"apiVersion": API, "kind": GROUP_KIND, "metadata": metadata, "status": status}


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).astimezone(UTC).timestamp()
