"""Leader election on a coordination.k8s.io Lease.

The times are client-go's: whoever sees a lease unchanged for its whole duration, by the own clock, may take it; a
leader that could not renew it within the shorter renewal deadline writes no more, so before anybody else may start. If
it then finds the lease still its own (the API server was away for everybody), nobody led meanwhile and it goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ipmp_service.api_server import ApiError
from ipmp_service.threads import kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipmp_service.api_server import ApiServer, Object

log = logging.getLogger(__name__)

LEASE_DURATION = 15.0
"""Seconds for which others leave a lease alone that is not renewed."""

RENEW_DEADLINE = 10.0
"""Seconds since its last renewal after which the leader writes no more: less than the lease lasts."""

RETRY_PERIOD = 2.0
"""Seconds between attempts to take or renew the lease."""


@dataclass(slots=True)
class Election:
    """One candidate's view of the lease. `now` is monotonic seconds."""

    identity: str
    seen: tuple[str, Any, Any] = ("", None, None)  # holder, renewal time and transitions as last seen
    seen_at: float = float("-inf")

    def may_take(self, spec: Object, now: float) -> bool:
        """Whether the lease is ours, free, or left alone for its whole duration."""
        holder = str(spec.get("holderIdentity") or "")
        record = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self.seen:
            self.seen, self.seen_at = record, now
        if holder in {"", self.identity}:
            return True
        return now >= self.seen_at + float(spec.get("leaseDurationSeconds") or LEASE_DURATION)

    def holds(self, spec: Object, term: int) -> bool:
        """Whether the lease has been ours, and nobody else's, since we took it with that many transitions."""
        return spec.get("holderIdentity") == self.identity and spec.get("leaseTransitions") == term

    def claim(self, spec: Object, at: datetime) -> Object:
        """The lease's spec with us as its holder."""
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        transitions = int(spec.get("leaseTransitions") or 0)
        ours = spec.get("holderIdentity") == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(LEASE_DURATION),
            "acquireTime": spec.get("acquireTime") if ours else stamp,
            "renewTime": stamp,
            "leaseTransitions": transitions if ours else transitions + 1,
        }


class LeaderLease:
    """Takes and keeps a lease from a thread; `lost` is called, once, when another has it."""

    def __init__(self, api: ApiServer, namespace: str, name: str, identity: str, lost: Callable[[], None]) -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._namespace = namespace
        self._election = Election(identity)
        self._lost = lost
        self._stop = threading.Event()
        self._renewed_at = float("-inf")
        self._term: int | None = None  # which change of holder made us the leader
        self._taken = False
        self._thread = kept(self._keep, "lease")

    def acquire(self, stop: threading.Event) -> bool:
        """Wait until the lease is ours, then keep it; False if `stop` was set first."""
        log.info("waiting to lead as %s", self._election.identity)
        while not stop.is_set():
            if self._try():
                log.info("leading as %s", self._election.identity)
                self._thread.start()
                return True
            stop.wait(RETRY_PERIOD)
        return False

    @property
    def held(self) -> bool:
        """Whether nobody else can lead now."""
        return time.monotonic() < self._renewed_at + RENEW_DEADLINE

    def release(self) -> None:
        """Stop renewing and, if the lease is ours, leave it free, so that the next leader need not wait."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(RETRY_PERIOD)
        try:
            lease = self._api.get(f"{self._path}/{self._name}")
            if lease["spec"].get("holderIdentity") == self._election.identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                self._api.replace(f"{self._path}/{self._name}", lease)
        except ApiError as error:
            log.info("the lease was not given back, it runs out by itself: %s", error)

    def _keep(self) -> None:
        held = True
        while not self._stop.wait(RETRY_PERIOD):
            self._try()
            if self._taken:
                log.error("another leads: the lease could not be renewed in time")
                self._lost()
                return
            if self.held != held:
                held = self.held
                log.warning("the lease is renewed" if held else "the lease cannot be renewed: nothing is written")

    def _try(self) -> bool:
        started = time.monotonic()
        try:
            renewed = self._renew()
        except ApiError as error:
            log.warning("lease %s/%s: %s", self._namespace, self._name, error)
            return False
        if renewed:
            self._renewed_at = started  # others count from when the server wrote it, which is later
        return renewed

    def _renew(self) -> bool:
        try:
            lease = self._api.get(f"{self._path}/{self._name}")
        except ApiError as error:
            if not error.not_found:
                raise
            lease = self._api.create(self._path, self._manifest())
            self._term = lease["spec"]["leaseTransitions"]
            return True
        spec = lease.get("spec") or {}
        if self._term is not None and not self._election.holds(spec, self._term):
            self._taken = True
            self._renewed_at = float("-inf")
            return False
        if self._term is None and not self._election.may_take(spec, time.monotonic()):
            return False
        lease["spec"] = self._election.claim(spec, datetime.now(UTC))
        self._api.replace(f"{self._path}/{self._name}", lease)
        self._term = lease["spec"]["leaseTransitions"]
        return True

    def _manifest(self) -> Object:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": self._election.claim({}, datetime.now(UTC)),
        }
