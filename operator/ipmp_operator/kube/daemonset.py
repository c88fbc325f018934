"""The agents' DaemonSet: the chart's template, and where the agents run."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

import yaml

from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ipmp_service.api_server import Object

INTENT_ANNOTATION = "ipmp.dev/intent"
AGENT_CONTAINER = "agent"

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

Terms = tuple[dict[str, Any], ...] | None


class TemplateError(ValueError):
    """The DaemonSet template cannot be used; the message says why."""


@frozen
class Template:
    """A DaemonSet manifest, read from a file.

    Args:
        requirements: what its own affinity asks of every node, as matchExpressions; it holds beside what groups select.
    """

    manifest: Object
    namespace: str
    requirements: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The DaemonSet's name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def pod_labels(self) -> dict[str, str]:
        """The labels by which the agents' pods are found."""
        labels: dict[str, str] = self.manifest["spec"]["selector"]["matchLabels"]
        return labels

    def intent(self, terms: Terms, owner: Object | None) -> Object:
        """The DaemonSet for server-side apply; `terms` None means every node."""
        manifest = copy.deepcopy(self.manifest)
        metadata = manifest["metadata"]
        metadata["namespace"] = self.namespace
        if owner:
            metadata["ownerReferences"] = [owner]
        if terms is not None:
            affinity = manifest["spec"]["template"]["spec"].setdefault("affinity", {})
            required = {_REQUIRED: {"nodeSelectorTerms": [self._join(term) for term in terms]}}
            affinity["nodeAffinity"] = affinity.get("nodeAffinity", {}) | required
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        metadata["annotations"] = metadata.get("annotations", {}) | {INTENT_ANNOTATION: digest[:16]}
        return manifest

    def group_terms(self, terms: Terms) -> Terms:
        """The terms of a DaemonSet there is, less what this template asks of every node; None means every node."""
        if terms is None:
            return None
        parted = tuple(self._part(term) for term in terms)
        return parted if all(parted) else None

    def _join(self, term: dict[str, Any]) -> dict[str, Any]:
        added = [one for one in self.requirements if one not in term.get("matchExpressions", ())]
        return term | {"matchExpressions": [*term.get("matchExpressions", ()), *added]} if added else term

    def _part(self, term: dict[str, Any]) -> dict[str, Any]:
        left = [one for one in term.get("matchExpressions", ()) if one not in self.requirements]
        others = {key: value for key, value in term.items() if key != "matchExpressions"}
        return others | ({"matchExpressions": left} if left else {})


def load_template(path: Path, namespace: str, image: str | None) -> Template:
    """Read the template; `image` replaces the image of the container named `agent`. Raises TemplateError."""
    try:
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise TemplateError(f"{path}: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != "DaemonSet":
        raise TemplateError(f"{path}: not a DaemonSet manifest")
    try:
        labels = manifest["spec"]["selector"]["matchLabels"]
        pod = manifest["spec"]["template"]
        if not manifest["metadata"]["name"] or not labels.items() <= pod["metadata"]["labels"].items():
            raise TemplateError(f"{path}: the selector does not select the template's pods")
        own = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get(_REQUIRED, {}).get("nodeSelectorTerms", [])
        agents: Sequence[Object] = [c for c in pod["spec"]["containers"] if c["name"] == AGENT_CONTAINER]
    except (KeyError, TypeError, AttributeError) as error:
        raise TemplateError(f"{path}: incomplete DaemonSet: {error!r} is missing or of the wrong type") from error
    if len(agents) != 1:
        raise TemplateError(f"{path}: one container must be named {AGENT_CONTAINER!r}, found {len(agents)}")
    if len(own) > 1 or any(set(term) != {"matchExpressions"} for term in own):
        raise TemplateError(f"{path}: its affinity may have one required node selector term, of matchExpressions")
    if image:
        agents[0]["image"] = image
    return Template(manifest, namespace, tuple(one for term in own for one in term["matchExpressions"]))


@frozen
class DaemonSet:
    """What matters of the DaemonSet there is. Whatever anybody changes in its spec raises the generation."""

    uid: str
    generation: int
    deleting: bool
    terms: Terms


def read_daemonset(obj: Object) -> tuple[str, DaemonSet]:
    """Read a DaemonSet; return it with its name."""
    metadata = obj["metadata"]
    node: Any = obj.get("spec") or {}
    for key in ("template", "spec", "affinity", "nodeAffinity", _REQUIRED):
        node = node.get(key) or {}
    terms = tuple(node["nodeSelectorTerms"]) if node.get("nodeSelectorTerms") else None
    return metadata["name"], DaemonSet(
        metadata["uid"], int(metadata["generation"]), bool(metadata.get("deletionTimestamp")), terms
    )


def digest(intent: Object) -> str:
    """What tells one intent from another."""
    return str(intent["metadata"]["annotations"][INTENT_ANNOTATION])
