"""The kopf wiring: every IPMPGroup event goes to the reconciler, and nothing is written to the objects.

kopf adds annotations and finalizers for every kind of handler but `on.event`; retries, order and coalescing are the
work queue's.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from typing import TYPE_CHECKING, Any

import kopf

from ipmp_api.types import API_GROUP, API_VERSION, GROUP_PLURAL
from ipmp_service.api_server import ServiceAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipmp_service.api_server import Access, Object


class _Backoffs:
    """Seconds between attempts to reach the API server, without end: by itself kopf gives up after 54 s."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1, 2, 3, 5), itertools.repeat(5))


class GroupWatch:
    """Passes every IPMPGroup event to `observe(type, object)` while it runs."""

    def __init__(self, access: Access, observe: Callable[[str | None, Object], None]) -> None:
        self._registry = kopf.OperatorRegistry()
        self._stopped = threading.Event()
        self._lock = threading.RLock()  # a signal handler may interrupt its holder
        self._wake: Callable[[], object] | None = None

        @kopf.on.login(registry=self._registry)
        def login(**arguments: Any) -> kopf.ConnectionInfo | None:
            if isinstance(access, ServiceAccount):  # kopf asks again after each refusal: tokens rotate
                authority = str(access.authority)
                return kopf.ConnectionInfo(server=access.url, ca_path=authority, scheme="Bearer", token=access.token())
            return kopf.login_via_client(**arguments)

        @kopf.on.event(API_GROUP, API_VERSION, GROUP_PLURAL, registry=self._registry)
        async def group_event(event: Any, **_: Any) -> None:
            observe(event["type"], dict(event["object"]))

    def run(self) -> None:
        """Watch until stopped or until a signal comes; raises what kopf cannot recover from."""
        asyncio.run(self._watch())

    def stop(self) -> None:
        """End `run`, from any thread; before its time, too."""
        with self._lock:
            self._stopped.set()
            if self._wake is not None:
                self._wake()

    async def _watch(self) -> None:
        # kopf would take a threading.Event as well, but parks a thread in it that only the event's setting ends: after
        # a signal, the process would hang.
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._stopped.is_set():
                return
            self._wake = functools.partial(loop.call_soon_threadsafe, stop.set)
        try:
            # Left to itself kopf makes its identity from the user's name, which a pod with any UID need not have.
            await kopf.operator(
                registry=self._registry,
                settings=settings(),
                identity="ipmp-operator",  # type: ignore[arg-type]  # a NewType of str that kopf does not export
                clusterwide=True,
                standalone=True,
                stop_flag=stop,
            )
        finally:
            with self._lock:
                self._wake = None


def settings() -> kopf.OperatorSettings:
    """The settings of kopf: nothing posted, nothing scanned, and patience with the API server."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True  # no rights on CRDs and namespaces are needed
    chosen.networking.error_backoffs = _Backoffs()
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    chosen.watching.server_timeout = 300  # a second net below the inactivity timeout
    return chosen
