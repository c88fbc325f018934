"""The operator's life: wait for the lease, work, stop in good order."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from typing import TYPE_CHECKING

import ipmp_operator
from ipmp_api.frozen import frozen
from ipmp_operator.handlers import GroupWatch
from ipmp_operator.kube.daemonset import TemplateError, load_template
from ipmp_operator.kube.groups import groups_are_served
from ipmp_operator.kube.lease import LeaderLease
from ipmp_operator.kube.objects import FIELD_MANAGER
from ipmp_operator.reconciler import Marking, Reconciler, Sphere
from ipmp_service.api_server import ApiError, ApiServer, CredentialsError, access_from_environment
from ipmp_service.http import HealthServer

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from ipmp_service.api_server import Object
    from ipmp_service.http import Health

log = logging.getLogger(__name__)

STOP_TIMEOUT = 10.0
"""Seconds that a request under way may take at the end."""

RETRY = 2.0
"""Seconds between questions to an API server that does not answer, or does not know the groups yet."""


GC_THRESHOLDS = (50_000, 10, 10)
"""What is read and planned holds no cycles; at Python's own thresholds the collector takes half of the processor time
of a start on thousands of node groups."""


class OperatorStartError(Exception):
    """The operator cannot start as it was told to; the message says what to change."""


@frozen
class OperatorOptions:
    """What the command line says. `lease_name` None means that nobody else runs."""

    template: Path
    agent_image: str | None
    namespace: str
    owner_deployment: str | None
    metrics_address: tuple[str, int] | None
    lease_name: str | None
    withdraw_seconds: float
    marking: Marking
    sphere: Sphere
    identity: str


def run(options: OperatorOptions) -> int:
    """Run until a signal (0), or until a fault or another leader (1). Raises StartError."""
    return _Operator(options).run()


class _Operator:
    def __init__(self, options: OperatorOptions) -> None:
        try:
            template = load_template(options.template, options.namespace, options.agent_image)
            access = access_from_environment()
        except TemplateError as error:
            raise OperatorStartError(str(error)) from error
        except CredentialsError as error:
            raise OperatorStartError(f"no way to reach an API server: {error}; set KUBECONFIG") from error
        self._api = ApiServer(access, f"{FIELD_MANAGER}/{ipmp_operator.__version__}", FIELD_MANAGER)
        self._options = options
        self._stop = threading.Event()
        self._failed = False
        self._lease: LeaderLease | None = None
        if options.lease_name:
            self._lease = LeaderLease(self._api, options.namespace, options.lease_name, options.identity, self._lost)
        self._reconciler = Reconciler(
            self._api,
            template,
            options.identity,
            self._may_write,
            options.withdraw_seconds,
            options.marking,
            options.sphere,
        )
        self._reconciler.metrics.leader.set_function(lambda: float(self._may_write()))
        self._watch = GroupWatch(access, self._reconciler.group_event)
        self._leads = False

    def run(self) -> int:
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        server = self._serve()
        try:
            if self._lease is None or self._lease.acquire(self._stop):
                self._lead()
        finally:
            if server is not None:
                server.close()
        return 1 if self._failed else 0

    def _serve(self) -> HealthServer | None:
        if self._options.metrics_address is None:
            return None
        try:
            server = HealthServer(
                self._options.metrics_address, lambda: self._reconciler.metrics.registry, self._alive, self._ready
            )
        except OSError as error:
            host, port = self._options.metrics_address
            raise OperatorStartError(f"cannot serve metrics at {host}:{port}: {error}") from error
        log.info("metrics and health at port %d", server.address[1])
        return server

    def _lead(self) -> None:
        self._leads = True
        try:
            self._reconciler.start(self._owner())
            self._await_groups()
            self._watch.run()
        except OperatorStartError:
            raise
        except Exception:
            self._failed = True
            log.critical("watching the groups ended by a fault", exc_info=True)
        finally:
            self._leads = False
            if not self._reconciler.stop(STOP_TIMEOUT):
                log.warning("a request is still under way; it is left to end by itself")
            if self._lease is not None and not self._failed:
                self._lease.release()

    def _owner(self) -> Object | None:
        """The reference by which the DaemonSet goes when the operator's Deployment goes."""
        name = self._options.owner_deployment
        while name and not self._stop.is_set():
            path = f"/apis/apps/v1/namespaces/{self._options.namespace}/deployments/{name}"
            try:
                uid = self._api.get(path)["metadata"]["uid"]
            except ApiError as error:
                if error.not_found:
                    message = f"--owner-deployment: there is no Deployment {name} in {self._options.namespace}"
                    raise OperatorStartError(message) from error
                log.warning("reading Deployment %s: %s", name, error)
                self._stop.wait(RETRY)
            else:
                return {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid}
        return None

    def _await_groups(self) -> None:
        """Wait until the API server tells of groups: kopf asks once, and never watches what was not there then."""
        while not self._stop.is_set() and not self._groups_are_served():
            self._stop.wait(RETRY)

    def _groups_are_served(self) -> bool:
        try:
            return groups_are_served(self._api)
        except ApiError as error:
            log.warning("asking for the API of the groups: %s", error)
            return False

    def _may_write(self) -> bool:
        return self._leads and (self._lease is None or self._lease.held)

    def _lost(self) -> None:
        """End: another leads, and our memory of what was planned is of no use any more."""
        self._failed = True
        self._stop.set()
        self._watch.stop()

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        self._stop.set()
        self._watch.stop()

    def _alive(self) -> Health:
        if self._leads and self._reconciler.stalled:
            return False, "no reconcile step has ended for minutes"
        return True, "alive"

    def _ready(self) -> Health:
        if not self._leads:
            return True, "ready to lead"  # a standby that were not ready would hold up every rollout
        if not self._may_write():
            return False, "the lease cannot be renewed"
        return (True, "leading") if self._reconciler.synced else (False, "filling the caches")
