"""The API server in plain JSON, every request and every answer bounded in time and size.

Credentials are those of the pod, read anew for every request since tokens rotate, or a kubeconfig's. A kubeconfig is
read by the `kubernetes` package, which nothing else here needs; its generated models stay out everywhere, because they
take twenty times as long to decode as the JSON they come from.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

CONNECT_TIMEOUT = 5.0
REQUEST_TIMEOUT = 15.0
"""Seconds in which a request must be answered, and in which some of the answer's body must follow."""
BODY_TIMEOUT = 60.0
"""Seconds for the whole body of an answer, however steadily it trickles."""

WATCH_SILENCE = 90.0
"""Seconds without a byte (bookmarks come about once a minute) after which a watch is dead, whatever TCP believes."""
WATCH_GRACE = 30.0
"""Seconds past the time that was asked for after which a watch that the server does not end is ended by us."""

ANSWER_TIMEOUT = 1.5
"""Seconds in which a server that can be reached answers a question by a fresh connection."""

RETRY_AFTER_LIMIT = 60.0
"""Seconds that a server may have us wait: whoever waits is deaf."""

PAGE = 250
"""Objects asked for at a time in a list."""
LEAST_PAGE = 125
"""The same where more did not come in time."""
PAGES = 1000
"""Requests of one list; a server that promises yet more goes round in a circle."""
BODY_LIMIT = 64 << 20
"""Bytes of one answer, or of one line of a watch."""
CHUNK = 65536

LATE = "Timeout"
LATE_ERRORS = (ReadTimeoutError, TimeoutError)

NO_SOCKET = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Errors of this host's own: they say nothing of a server."""

KEEPALIVE = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
"""Of connections: kube-proxy masquerades those of the host, so when the address of the node moves the kernel forgets
their flows and the server resets them unheard. Asked every 10 s, it says so."""

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, and the authority that signed the server's certificate."""

JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
APPLY_PATCH = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"

Object = dict[str, Any]
Body = Object | list[Object] | None


class ApiError(Exception):
    """The API server refused, or gave no answer that can be used (`status` 0).

    `reason` is one CamelCase word, the server's own where it gave one; `retry_after` the seconds it asked for.
    """

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
    def late(self) -> bool:
        """The answer, or the rest of it, did not come in time."""
        return self.reason == LATE

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


class CredentialsError(Exception):
    """There is no way to reach an API server; the message says why."""


class Access(Protocol):
    """The way to an API server."""

    @property
    def url(self) -> str:
        """Scheme, host and port."""

    def pool(self, connections: int) -> urllib3.PoolManager:
        """Keeps that many connections; new ones prove the server by what the files say then."""

    def credentials(self) -> Mapping[str, str]:
        """Headers that say who we are. Raises OSError and CredentialsError; asked for every request."""


@dataclass(frozen=True, slots=True)
class PlainAccess:
    """A URL, the file of the authority that proves it (None: those of this host), and fixed headers."""

    url: str
    authority: Path | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def pool(self, connections: int) -> urllib3.PoolManager:
        """Connections of our own."""
        return urllib3.PoolManager(
            maxsize=connections,
            socket_options=KEEPALIVE,
            cert_reqs="CERT_REQUIRED",
            ca_certs=None if self.authority is None else str(self.authority),
        )

    def credentials(self) -> Mapping[str, str]:
        """The headers."""
        return dict(self.headers)


class ServiceAccount:
    """A pod's own access. Raises CredentialsError outside a pod."""

    def __init__(self, directory: Path = ACCOUNT) -> None:
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{word}") for word in ("HOST", "PORT"))
        if not host or not port:
            raise CredentialsError("$KUBERNETES_SERVICE_HOST and $KUBERNETES_SERVICE_PORT are not set")
        self.url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self.authority = directory / "ca.crt"
        self._token = directory / "token"
        try:
            if not self.authority.read_bytes():
                raise CredentialsError(f"{self.authority} is empty")
            self.token()
        except (OSError, ValueError) as error:
            raise CredentialsError(str(error)) from error

    def token(self) -> str:
        """The token of this moment: it rotates. Raises OSError and CredentialsError."""
        token = self._token.read_text(encoding="ascii").strip()
        if not token:
            raise CredentialsError(f"{self._token} is empty")
        return token

    def pool(self, connections: int) -> urllib3.PoolManager:
        """Connections of our own."""
        return PlainAccess(self.url, self.authority).pool(connections)

    def credentials(self) -> Mapping[str, str]:
        """The token as a header."""
        return {"authorization": f"Bearer {self.token()}"}


class Kubeconfig:
    """What a kubeconfig says, by default the one that kubectl takes. Raises CredentialsError."""

    def __init__(self, path: Path | None = None) -> None:
        try:
            from kubernetes import client, config  # noqa: PLC0415 - 17 MB and 195 ms that a pod does not need
        except ImportError as error:
            raise CredentialsError("the Python package `kubernetes`, which reads it, is not installed") from error
        self._configuration = client.Configuration()
        self._client = client
        self._errors = (config.ConfigException, OSError)
        try:
            config.load_kube_config(None if path is None else str(path), client_configuration=self._configuration)  # type: ignore[no-untyped-call]
        except self._errors as error:
            raise CredentialsError(str(error)) from error
        self._configuration.socket_options = KEEPALIVE
        self.url = str(self._configuration.host).rstrip("/")

    def pool(self, connections: int) -> urllib3.PoolManager:
        """Connections as the package makes them: by proxy, with client certificates, for another server name."""
        self._configuration.connection_pool_maxsize = connections
        pool: urllib3.PoolManager = self._client.ApiClient(self._configuration).rest_client.pool_manager
        return pool

    def credentials(self) -> Mapping[str, str]:
        """What the user's entry says, by its plugin if it has one."""
        try:
            settings: Any = self._configuration.auth_settings()
        except self._errors as error:
            raise CredentialsError(str(error)) from error
        return {str(setting["key"]): str(setting["value"]) for setting in settings.values()}


def access_from_environment() -> Access:
    """The pod's service account, or outside a pod the current context of the kubeconfig. Raises CredentialsError."""
    try:
        return ServiceAccount()
    except CredentialsError as in_pod:
        try:
            return Kubeconfig()
        except CredentialsError as outside:
            raise CredentialsError(f"no pod ({in_pod}), and no kubeconfig ({outside})") from outside


class ApiServer:
    """One API server, safe to use from several threads. Every method raises ApiError.

    Args:
        access: how to reach it.
        program: our name, as the server's log has it, such as `name/version`.
        manager: the field manager of what we write.
        connections: how many are kept for the next request.
    """

    def __init__(self, access: Access, program: str, manager: str | None = None, connections: int = 16) -> None:
        self._access = access
        self._program = program
        self._writing = {"fieldManager": manager or program}
        self._pool = access.pool(connections)
        self.connected = False
        """Whether the server answered the last request, and no watch has broken since."""

    def get(self, path: str) -> Object:
        """Read one object, or what the server says of itself."""
        answer = _object(self._request("GET", path))
        if not isinstance(answer.get("kind"), str) or answer["kind"] == "Status":
            raise ApiError(0, "AnswerBroken", f"no object came for {path}")
        return answer

    def list_all(self, path: str, query: Mapping[str, str]) -> tuple[list[Object], str]:
        """Read a whole collection; return its objects and its resource version."""
        items: list[Object] = []
        version = ""
        for found, version in self.pages(path, query):  # noqa: B007 - that of the last page counts
            items += found
        return items, version

    def pages(
        self, path: str, query: Mapping[str, str], *, metadata_only: bool = False
    ) -> Iterator[tuple[list[Object], str]]:
        """Read a whole collection; yield the objects of each page and the collection's resource version.

        A page that does not come in time is asked for again, with fewer objects: a server that is slow would never get
        to the end of a list that begins anew each time. What is no list is an error: taken for an empty one, it would
        say that everything was deleted.
        """
        query, size = dict(query), PAGE
        for _ in range(PAGES):
            query["limit"] = str(size)
            try:
                page = _object(self._request("GET", path, query, accept=METADATA_LIST if metadata_only else JSON))
            except ApiError as error:
                if not error.late or size == LEAST_PAGE:
                    raise
                size = max(LEAST_PAGE, size // 2)
                continue
            found, version, more = _read_page(page, path)
            yield found, version
            if not more:
                return
            query["continue"] = more
        raise ApiError(0, "AnswerBroken", f"the list of {path} has no end")

    def watch(
        self, path: str, query: Mapping[str, str], version: str, seconds: int, *, metadata_only: bool = False
    ) -> Generator[tuple[str, Object]]:
        """Yield (type, object) until the server ends the stream, which it must after `seconds`.

        Each object, also that of a bookmark, has metadata with a resource version.
        """
        query = dict(query, watch="1", allowWatchBookmarks="true", resourceVersion=version, timeoutSeconds=str(seconds))
        deadline = time.monotonic() + seconds + WATCH_GRACE
        accept = METADATA if metadata_only else JSON
        response = self._request("GET", path, query, accept=accept, read_timeout=WATCH_SILENCE)
        try:
            for line in _lines(_pieces(response, deadline)):
                yield _read_event(line)
        except (HTTPError, OSError, ValueError, RecursionError) as error:
            self.connected = False
            raise ApiError(0, "WatchBroken", f"the watch broke: {error}") from error
        finally:
            response.close()  # never back into the pool: an unfinished stream cannot be used again

    def create(self, path: str, body: Object) -> Object:
        """Create an object in the collection."""
        return _object(self._request("POST", path, self._writing, body=body))

    def replace(self, path: str, body: Object) -> Object:
        """Replace an object; its resource version must be the current one."""
        return _object(self._request("PUT", path, self._writing, body=body))

    def apply(self, path: str, body: Object) -> Object:
        """Server-side apply the complete intent, taking over the fields from whoever has them."""
        return _object(
            self._request("PATCH", path, {**self._writing, "force": "true"}, body=body, content_type=APPLY_PATCH)
        )

    def merge(self, path: str, body: Object) -> Object:
        """Merge-patch an object."""
        return _object(self._request("PATCH", path, self._writing, body=body, content_type=MERGE_PATCH))

    def replace_status(self, path: str, uid: str, status: Object) -> Object:
        """Replace the status of exactly this object, and of no later one of its name."""
        # Server-side apply does not care for the uid in a status.
        test = {"op": "test", "path": "/metadata/uid", "value": uid}
        patch: list[Object] = [test, {"op": "add", "path": "/status", "value": status}]
        return _object(self._request("PATCH", f"{path}/status", self._writing, body=patch, content_type=JSON_PATCH))

    def delete(self, path: str, uid: str) -> None:
        """Ask for the deletion of exactly this object, not of a later one of the same name."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        _object(self._request("DELETE", path, body=options | {"propagationPolicy": "Background"}))

    def answers(self) -> bool:
        """Whether the server can be reached by a connection of now; what it answers is its own matter.

        Raises OSError where no socket is to be had.
        """
        # Connections that are open already may live on where a new one finds no way.
        fresh = self._access.pool(1)
        timeout = urllib3.Timeout(connect=ANSWER_TIMEOUT, read=ANSWER_TIMEOUT)
        try:
            answer = fresh.request(
                "GET", f"{self._access.url}/readyz", timeout=timeout, retries=False, preload_content=False
            )
            answer.close()
        except (HTTPError, OSError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, OSError) and cause.errno in NO_SOCKET:
                raise cause from error
            # Refused by a host that was found: the server is down, and the way to it is not.
            return isinstance(cause, ConnectionRefusedError)
        finally:
            fresh.clear()
        return True

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Body = None,
        accept: str = JSON,
        content_type: str = JSON,
        read_timeout: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": accept, "User-Agent": self._program}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            headers |= self._access.credentials()
            response = self._pool.request(
                method,
                self._access.url + path + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=read_timeout or REQUEST_TIMEOUT),
                preload_content=False,
                retries=False,
            )
            self.connected = True
            if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
                return response
            text = _whole(response).decode(errors="replace").strip()
        except (HTTPError, OSError, ValueError, CredentialsError) as error:
            self.connected = False
            raise ApiError(0, LATE if isinstance(error, LATE_ERRORS) else "Unreachable", str(error)) from error
        raise _refusal(response.status, text, response.headers.get("Retry-After"))


def _object(response: urllib3.BaseHTTPResponse) -> Object:
    """The object that an answer holds. Raises ApiError: it holds none, or breaks off."""
    try:
        answer = json.loads(_whole(response))
    except (HTTPError, OSError, ValueError, RecursionError) as error:
        reason = LATE if isinstance(error, LATE_ERRORS) else "AnswerBroken"
        raise ApiError(0, reason, f"broken answer: {error}") from error
    if not isinstance(answer, dict):
        raise ApiError(0, "AnswerBroken", "broken answer: no object")
    return answer


def _whole(response: urllib3.BaseHTTPResponse) -> bytes:
    """The body. Raises HTTPError, and OSError where it takes too long or is too long."""
    body = bytearray()
    try:
        for piece in _pieces(response, time.monotonic() + BODY_TIMEOUT):
            body += piece
            _bound(body)
    except BaseException:
        response.close()  # never back into the pool: the rest may yet come
        raise
    response.release_conn()
    return bytes(body)


def _pieces(response: urllib3.BaseHTTPResponse, deadline: float) -> Iterator[bytes]:
    """What comes, as it comes; a read timeout bounds each silence, and `deadline` (monotonic) the whole."""
    while piece := response.read1(CHUNK):
        yield piece
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "it has no end in time")


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        _bound(rest)
        yield from (line for line in lines if line.strip())


def _bound(read: bytes | bytearray) -> None:
    if len(read) > BODY_LIMIT:
        raise OSError(errno.EMSGSIZE, f"more than {BODY_LIMIT} bytes at once")


def _read_page(page: Object, path: str) -> tuple[list[Object], str, str]:
    """Objects, resource version and the token for the next page. Raises ApiError for what is no list."""
    kind, items, metadata = page.get("kind"), page.get("items"), page.get("metadata")
    if not isinstance(kind, str) or not kind.endswith("List") or not isinstance(items, list):
        raise ApiError(0, "AnswerBroken", f"no list came for {path}")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(version, str) or not version:
        raise ApiError(0, "AnswerBroken", f"the list of {path} has no resource version")
    if not all(_named(item) for item in items):
        raise ApiError(0, "AnswerBroken", f"the list of {path} has something without a name in it")
    return items, version, str(metadata.get("continue") or "")


def _named(item: Any) -> bool:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    return isinstance(metadata, dict) and isinstance(metadata.get("name"), str)


def _read_event(line: bytes) -> tuple[str, Object]:
    """One line of a watch. Raises ApiError for what the server reports and what is no event, and ValueError."""
    event = json.loads(line)
    kind, obj = (event.get("type"), event.get("object")) if isinstance(event, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(obj, dict):
        raise ApiError(0, "WatchBroken", "something came that is no event")
    if kind == "ERROR":
        code = obj.get("code")
        status = code if isinstance(code, int) else 0
        raise ApiError(status, str(obj.get("reason") or "Error"), str(obj.get("message") or ""))
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("resourceVersion"), str):
        raise ApiError(0, "WatchBroken", "an object came without a resource version")
    if kind != "BOOKMARK" and not _named(obj):
        raise ApiError(0, "WatchBroken", "an object came without a name")
    return kind, obj


def _refusal(status: int, text: str, retry_after: str | None) -> ApiError:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    reason, message = answer.get("reason"), answer.get("message")
    return ApiError(
        status,
        reason if isinstance(reason, str) and reason else f"HTTP{status}",
        message if isinstance(message, str) and message else text[:500],
        _seconds(retry_after),
    )


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date), bounded; None for what is neither."""
    if not retry_after:
        return None
    if retry_after.isascii() and retry_after.isdecimal():
        return min(float(retry_after), RETRY_AFTER_LIMIT)
    try:
        date = parsedate_to_datetime(retry_after)
        wait = (date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)
    except (ValueError, OverflowError):
        return None
    return min(max(wait.total_seconds(), 0.0), RETRY_AFTER_LIMIT)
