"""The API server, spoken to in plain JSON from worker threads.

The `kubernetes` package brings credentials and connections; its generated models are left out, because they take twenty
times as long to decode as the JSON they come from.
"""

from __future__ import annotations

import json
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Object = dict[str, Any]

FIELD_MANAGER = "ipmp-operator"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 15.0
# Bookmarks come about once a minute: a stream that is silent for longer is dead, whatever TCP believes.
_WATCH_SILENCE_SECONDS = 90.0
# A connection may end unheard, as a masqueraded one does when the address that it goes by moves: ask every 10 s.
_KEEPALIVE = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
_PAGE = 1000


class ApiError(Exception):
    """The API server refused or could not be reached. `status` is 0 without an answer."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{reason}: {message}" if message else reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after

    @property
    def away(self) -> bool:
        """There was no answer, or one that says that there will be one later."""
        later = (0, HTTPStatus.TOO_MANY_REQUESTS)  # the second also while it starts
        return self.status in later or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def gone(self) -> bool:
        """The resource version asked for is too old: only a new list helps."""
        return self.status == HTTPStatus.GONE

    @property
    def not_found(self) -> bool:
        """There is no such object."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def conflict(self) -> bool:
        """The object exists already, or is not as it was when it was read."""
        return self.status == HTTPStatus.CONFLICT


class ApiServer:
    """One API server, safe to use from several threads. Every method raises ApiError."""

    def __init__(self, configuration: client.Configuration, connections: int = 16) -> None:
        configuration.connection_pool_maxsize = connections
        configuration.socket_options = _KEEPALIVE
        self._configuration = configuration
        self._client = client.ApiClient(configuration)

    @classmethod
    def from_environment(cls, connections: int = 16) -> ApiServer:
        """Use the service account of the pod, or else the current context of the kubeconfig."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(configuration, connections)

    def get(self, path: str) -> Object:
        """Read one object."""
        return self._json("GET", path)

    def list_all(self, path: str, query: Mapping[str, str], *, metadata_only: bool = False) -> tuple[list[Object], str]:
        """Read a whole collection; return its items and its resource version."""
        items: list[Object] = []
        query = dict(query, limit=str(_PAGE))
        accept = METADATA_LIST if metadata_only else "application/json"
        while True:
            page = self._json("GET", path, query, accept=accept)
            items.extend(page.get("items") or ())
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            query["continue"] = metadata["continue"]

    def watch(
        self, path: str, query: Mapping[str, str], resource_version: str, seconds: int, *, metadata_only: bool = False
    ) -> Iterator[tuple[str, Object]]:
        """Yield (type, object) until the server ends the stream, at the latest after `seconds`."""
        query = dict(
            query,
            watch="1",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            timeoutSeconds=str(seconds),
        )
        accept = METADATA if metadata_only else "application/json"
        response = self._request("GET", path, query, accept=accept, read_seconds=_WATCH_SILENCE_SECONDS)
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _refusal(event["object"])
                yield event["type"], event["object"]
        except (HTTPError, OSError, ValueError) as error:
            raise ApiError(0, "WatchBroken", str(error)) from error
        finally:
            response.close()  # not back to the pool: an unfinished stream cannot be used again

    def create(self, path: str, obj: Object) -> Object:
        """Create an object in the collection."""
        return self._json("POST", path, {"fieldManager": FIELD_MANAGER}, body=obj)

    def replace(self, path: str, obj: Object) -> Object:
        """Replace an object; its resource version must be the current one."""
        return self._json("PUT", path, {"fieldManager": FIELD_MANAGER}, body=obj)

    def apply(self, path: str, obj: Object) -> Object:
        """Server-side apply the complete intent, taking over the fields from whoever has them."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return self._json("PATCH", path, query, body=obj, content_type="application/apply-patch+yaml")

    def merge(self, path: str, patch: Object) -> Object:
        """Merge-patch an object."""
        query = {"fieldManager": FIELD_MANAGER}
        return self._json("PATCH", path, query, body=patch, content_type="application/merge-patch+json")

    def delete(self, path: str, uid: str) -> None:
        """Ask for the deletion of exactly this object, not of a later one of the same name."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        self._json("DELETE", path, body=options | {"propagationPolicy": "Background"})

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Object | None = None,
        accept: str = "application/json",
        content_type: str = "application/json",
    ) -> Object:
        response = self._request(method, path, query, body=body, accept=accept, content_type=content_type)
        try:
            answer: Object = json.loads(response.data)
        except (HTTPError, OSError, ValueError) as error:
            raise ApiError(0, "AnswerBroken", str(error)) from error
        return answer

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Object | None = None,
        accept: str = "application/json",
        content_type: str = "application/json",
        read_seconds: float = _REQUEST_SECONDS,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": accept, "User-Agent": FIELD_MANAGER}
        if body is not None:
            headers["Content-Type"] = content_type
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            headers.update(_credentials(self._configuration))  # asked each time: projected tokens rotate
            response: urllib3.BaseHTTPResponse = self._client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
                preload_content=False,
                retries=False,
            )
            if response.status < HTTPStatus.BAD_REQUEST:
                return response
            text = response.data.decode(errors="replace").strip()
        except (HTTPError, OSError, config.ConfigException) as error:
            raise ApiError(0, "Unreachable", str(error)) from error
        raise _error(response.status, text, response.headers.get("Retry-After"))


def _credentials(configuration: client.Configuration) -> Iterator[tuple[str, str]]:
    settings: Any = configuration.auth_settings()
    for setting in settings.values():
        yield setting["key"], setting["value"]


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(65536, decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)


def _error(status: int, text: str, retry_after: str | None) -> ApiError:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {}
    answer = answer if isinstance(answer, dict) else {}
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    return ApiError(status, answer.get("reason") or f"HTTP{status}", answer.get("message") or text[:500], seconds)


def _refusal(status: Object) -> ApiError:
    """Read the Status object that ends a watch."""
    return ApiError(
        int(status.get("code") or 0), str(status.get("reason") or "Error"), str(status.get("message") or "")
    )
