"""Configuration from the cluster: this node's IPMPNodeGroups, and the reports that go back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ipmp_agent.kube.api import ApiServer
from ipmp_agent.kube.report import Reporter
from ipmp_agent.kube.watch import NodeGroupWatch
from ipmp_api.errors import ValidationError
from ipmp_api.parse import parse_node_group

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipmp_agent.disk.state import State
    from ipmp_agent.kube.report import Describe
    from ipmp_api.types import NodeGroup

log = logging.getLogger(__name__)


class ClusterSource:
    """Hands over this node's groups as the API server has them, and until it answers those of the last run."""

    def __init__(self, node_name: str, kubeconfig: Path | None, describe: Describe) -> None:
        """Raises CredentialsError."""
        self._api = api = ApiServer.connect(kubeconfig)
        self._reporter = Reporter(api, node_name, describe)
        self._watch = NodeGroupWatch(api, node_name, self._changed)
        self._want: Callable[[tuple[NodeGroup, ...]], None] | None = None
        self._good: dict[str, NodeGroup] = {}  # by name of the object: the last spec that could be used

    def start(self, want: Callable[[tuple[NodeGroup, ...]], None], saved: State) -> Reporter:
        """Begin with what the last run knew: a failover must not wait for the API server."""
        self._want = want
        self._good = {configuration.name: configuration for configuration in saved.wanted()}
        if self._good:
            want(tuple(self._good.values()))
        self._reporter.start()
        self._watch.start()
        return self._reporter

    def reload(self) -> None:
        """Nothing to read: the watch brings every change."""
        log.info("SIGHUP: nothing to reload, the configuration comes from the API server")

    def api_server_answers(self) -> bool:
        """Whether the API server answers a fresh connection now."""
        return self._api.answers()

    def close(self) -> None:
        """Stop watching; write the last reports."""
        self._watch.close()
        self._reporter.close()

    def _changed(self, objects: dict[str, dict[str, Any]]) -> None:
        """Take the complete list of this node's groups, in the watch's thread."""
        wanted: dict[str, NodeGroup] = {}
        invalid: dict[str, str] = {}
        for name, obj in objects.items():
            if obj["metadata"].get("deletionTimestamp"):
                continue
            try:
                wanted[name] = parse_node_group(obj, strict=False)
            except ValidationError as error:
                invalid[name] = "; ".join(str(fault) for fault in error.errors)
                log.error("cannot use node group %s: %s", name, invalid[name])  # noqa: TRY400 - no fault of ours
                if name in self._good:
                    wanted[name] = self._good[name]
        self._good = wanted
        self._reporter.observed(objects, invalid)
        if self._want is not None:
            self._want(tuple(wanted.values()))
