"""The node groups of one node, as the API server has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_api.types import API_GROUP, API_VERSION, NODE_GROUP_PLURAL
from ipmp_service.reflector import Reflector

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipmp_service.api_server import ApiServer, Object

PATH = f"/apis/{API_GROUP}/{API_VERSION}/{NODE_GROUP_PLURAL}"


def watch_node_groups(
    api: ApiServer, node_name: str, changed: Callable[[dict[str, Object]], None]
) -> Reflector[str, Object]:
    """A watch that calls `changed` with every node group of the node, by name, after each change, in its own thread."""
    own = {"fieldSelector": f"spec.nodeName={node_name}"}
    watch = Reflector(api, PATH, "node groups", _by_name, lambda: changed(watch.snapshot()), query=own)
    return watch


def _by_name(obj: Object) -> tuple[str, Object]:
    return obj["metadata"]["name"], obj
