"""Configuration from the cluster: this node's IPMPNodeGroups, and the reports that go back."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import ipmp_agent
from ipmp_agent.kube.peers import Peers
from ipmp_agent.kube.report import Reporter
from ipmp_agent.kube.watch import watch_node_groups
from ipmp_agent.publication import Reporting
from ipmp_api.errors import ValidationError
from ipmp_api.parse import parse_node_group
from ipmp_service.api_server import ApiServer, CredentialsError, Kubeconfig, ServiceAccount

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipmp_agent.disk.state import SavedState
    from ipmp_agent.kube.report import Describe
    from ipmp_api.types import NodeGroup

log = logging.getLogger(__name__)


def connect(node_name: str, kubeconfig: Path | None) -> ApiServer:
    """Take the pod's service account, or a kubeconfig. Raises CredentialsError; nothing is sent yet."""
    try:
        access = Kubeconfig(kubeconfig) if kubeconfig is not None else ServiceAccount()
    except CredentialsError as error:
        where = f"--kubeconfig {kubeconfig}" if kubeconfig else "this pod's service account"
        raise CredentialsError(f"cannot use {where}: {error}; outside a cluster give --kubeconfig or --file") from error
    return ApiServer(access, f"ipmp-agent/{ipmp_agent.__version__}", f"ipmp-agent/{node_name}"[:128], connections=4)


class ClusterSource:
    """Hands over this node's groups as the API server has them, and until it answers those of the last run."""

    def __init__(self, node_name: str, kubeconfig: Path | None, describe: Describe) -> None:
        """Raises CredentialsError."""
        self._api = api = connect(node_name, kubeconfig)
        self._reporter = Reporter(api, node_name, describe)
        self._watch = watch_node_groups(api, node_name, self._changed)
        self._peers = Peers(api, self._hand_over)
        self._handing_over = threading.Lock()  # the watch and the peers do it, each in a thread of its own
        self._want: Callable[[tuple[NodeGroup, ...]], None] | None = None
        self._good: dict[str, NodeGroup] = {}  # by name of the object: the last spec that could be used

    def start(self, want: Callable[[tuple[NodeGroup, ...]], None], saved: SavedState) -> Reporter:
        """Begin with what the last run knew: a failover must not wait for the API server."""
        self._want = want
        self._good = {configuration.name: configuration for configuration in saved.wanted()}
        if self._good:
            want(tuple(self._good.values()))
        self._reporter.start()
        self._peers.start(self._good.values())
        self._watch.start()
        return self._reporter

    def reload(self) -> None:
        """Nothing to read: the watch brings every change."""
        log.info("SIGHUP: nothing to reload, the configuration comes from the API server")

    def api_server_answers(self) -> bool:
        """Whether the API server answers a fresh connection now."""
        return self._api.answers()

    def reporting(self) -> Reporting:
        """How far the API server is told."""
        return Reporting(self._reporter.lag(), self._api.connected)

    def close(self) -> None:
        """Stop watching; write the last reports."""
        self._watch.stop()
        self._peers.stop()
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
            except Exception as error:
                invalid[name] = f"it cannot be read: {error!r}"
                log.exception("cannot read node group %s", name)
            if name in invalid and name in self._good:
                wanted[name] = self._good[name]
        self._good = wanted
        self._reporter.observed(objects, invalid)
        self._peers.want(wanted.values())
        self._hand_over()

    def _hand_over(self) -> None:
        """Want what the API server says, with its peers where they answer now."""
        with self._handing_over:
            if self._want is not None:
                self._want(tuple(self._peers.resolve(group) for group in self._good.values()))
