"""The kopf wiring: every IPMPGroup event goes to the reconciler, and nothing is written to the objects.

kopf adds annotations and finalizers for every kind of handler but `on.event`; retries, order and coalescing are the
work queue's.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import kopf

from ipmp_api.types import API_GROUP, API_VERSION, GROUP_PLURAL

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from ipmp_operator.kube.client import Object


class _Backoffs:
    """Seconds between attempts to reach the API server, without end: by itself kopf gives up after 54 s."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1, 2, 3, 5), itertools.repeat(5))


def watch_groups(observe: Callable[[str | None, Object], None], stop: threading.Event) -> None:
    """Pass every IPMPGroup event to `observe(type, object)` until `stop` is set or a signal comes. Blocks."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_via_client(**arguments)

    @kopf.on.event(API_GROUP, API_VERSION, GROUP_PLURAL, registry=registry)
    async def group_event(event: Any, **_: Any) -> None:
        observe(event["type"], dict(event["object"]))

    kopf.run(registry=registry, settings=settings(), clusterwide=True, standalone=True, stop_flag=stop)


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings: nothing posted, nothing scanned, and patience with the API server."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True  # no rights on CRDs and namespaces are needed
    chosen.networking.error_backoffs = _Backoffs()
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    chosen.watching.server_timeout = 300  # a second net below the inactivity timeout
    return chosen
