"""The API server as the agent speaks with it: plain JSON, every request bounded in time.

The `kubernetes` package brings credentials (it reads a rotated token anew) and connections; its generated models stay
out.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

import ipmp_agent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONNECT_TIMEOUT = 5.0
REQUEST_TIMEOUT = 15.0
"""Seconds for one request."""

WATCH_SILENCE = 90.0
"""Seconds without a line (bookmarks come about once a minute) after which a watch is dead, whatever TCP believes."""

ANSWER_TIMEOUT = 1.5
"""Seconds in which a server that can be reached answers a question by a fresh connection."""

NO_SOCKET = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Errors of this host's own: they say nothing of a server."""

PAGE = 500

KEEPALIVE = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
"""Of connections: kube-proxy masquerades those of the host, so when the address of the node moves the kernel forgets
their flows and the server resets them unheard. Asked every 10 s, it says so."""

Object = dict[str, Any]
Body = Object | list[Object] | None

log = logging.getLogger(__name__)


class ApiError(Exception):
    """The API server refused, or did not answer (`status` 0)."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after  # seconds, as the server asked


class CredentialsError(Exception):
    """There is no way to reach an API server; the message says what to do."""


class ApiServer:
    """One API server. Every method raises ApiError; each instance is used by several threads."""

    def __init__(self, configuration: client.Configuration) -> None:
        configuration.socket_options = KEEPALIVE
        self._configuration = configuration
        self._pool = client.ApiClient(configuration).rest_client.pool_manager

    @classmethod
    def connect(cls, kubeconfig: Path | None) -> ApiServer:
        """Take the pod's service account, or a kubeconfig. Raises CredentialsError; nothing is sent yet."""
        configuration = client.Configuration()
        try:
            if kubeconfig is not None:
                config.load_kube_config(str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError) as error:
            where = f"--kubeconfig {kubeconfig}" if kubeconfig else "this pod's service account"
            raise CredentialsError(
                f"cannot use {where}: {error}; outside a cluster give --kubeconfig or --file"
            ) from error
        return cls(configuration)

    def list(self, path: str, query: Mapping[str, str]) -> tuple[list[Object], str]:
        """Every object, and the resource version to watch from."""
        items: list[Object] = []
        query = {**query, "limit": str(PAGE)}
        while True:
            page = self._json("GET", path, query)
            items += page.get("items") or ()
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            query["continue"] = metadata["continue"]

    def watch(self, path: str, query: Mapping[str, str], version: str, seconds: int) -> Iterator[tuple[str, Object]]:
        """Yield (type, object) until the server ends the stream, at the latest after `seconds`."""
        query = {
            **query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        response = self._request("GET", path, query, read_timeout=WATCH_SILENCE)
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(int(status.get("code") or 0), str(status.get("message") or status))
                yield event["type"], event["object"]
        except (HTTPError, OSError, ValueError, KeyError) as error:
            raise ApiError(0, f"the watch broke: {error}") from error
        finally:
            response.close()  # never back into the pool: an unfinished stream cannot be used again

    def replace_status(self, path: str, uid: str, status: Object, manager: str) -> Object:
        """Replace the status of exactly this object, and of no later one of its name."""
        # Server-side apply does not care for the uid in a status.
        test = {"op": "test", "path": "/metadata/uid", "value": uid}
        patch: list[Object] = [test, {"op": "add", "path": "/status", "value": status}]
        query = {"fieldManager": manager}
        return self._json("PATCH", f"{path}/status", query, body=patch, kind="application/json-patch+json")

    def create(self, path: str, body: Object) -> Object:
        """Create an object in a collection."""
        return self._json("POST", path, {}, body=body)

    def merge(self, path: str, body: Object) -> Object:
        """Merge-patch an object."""
        return self._json("PATCH", path, {}, body=body, kind="application/merge-patch+json")

    def answers(self) -> bool:
        """Whether the server can be reached by a connection of now; what it answers is its own matter.

        Raises OSError where no socket is to be had.
        """
        # Connections that are open already may live on where a new one finds no way.
        fresh = client.ApiClient(self._configuration).rest_client.pool_manager
        timeout = urllib3.Timeout(connect=ANSWER_TIMEOUT, read=ANSWER_TIMEOUT)
        try:
            fresh.request("GET", f"{self._configuration.host}/readyz", timeout=timeout, retries=False)
        except (HTTPError, OSError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, OSError) and cause.errno in NO_SOCKET:
                raise cause from error
            # Refused by a host that was found: the server is down, and the way to it is not.
            return isinstance(cause, ConnectionRefusedError)
        finally:
            fresh.clear()
        return True

    def _json(
        self, method: str, path: str, query: Mapping[str, str], *, body: Body = None, kind: str | None = None
    ) -> Object:
        response = self._request(method, path, query, body=body, kind=kind)
        try:
            answer: Object = json.loads(response.data)
        except (HTTPError, OSError, ValueError) as error:
            raise ApiError(0, f"broken answer: {error}") from error
        return answer

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: Body = None,
        kind: str | None = None,
        read_timeout: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        url = f"{self._configuration.host}{path}?{urlencode(query)}"
        headers = {"Accept": "application/json", "User-Agent": f"ipmp-agent/{ipmp_agent.__version__}"}
        if body is not None:
            headers["Content-Type"] = kind or "application/json"
        try:
            settings: Any = self._configuration.auth_settings()  # asked each time: tokens rotate
            for setting in settings.values():
                headers[str(setting["key"])] = str(setting["value"])
            response: urllib3.BaseHTTPResponse = self._pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=read_timeout or REQUEST_TIMEOUT),
                preload_content=False,
                retries=False,
            )
            if response.status < 400:
                return response
            text = response.data.decode(errors="replace")
        except (HTTPError, OSError, config.ConfigException) as error:
            raise ApiError(0, str(error)) from error
        raise _refusal(response.status, text, response.headers.get("Retry-After"))


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(65536, decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)


def _refusal(status: int, text: str, retry_after: str | None) -> ApiError:
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text[:500] or f"HTTP status {status}"
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    return ApiError(status, message, seconds)
