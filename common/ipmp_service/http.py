"""/metrics, /healthz and /readyz over HTTP, from a thread of its own that only reads.

Whoever connects has a place and a deadline for the whole exchange. Where all places are taken, the client that has been
there longest goes: slow ones lose theirs, and a health check, which is over in a moment, keeps its own. Clients of this
host, such as the kubelet of an agent, have places beside those of all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import logging
import socket
from functools import partial
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv6Address, ip_address
from threading import Lock
from typing import TYPE_CHECKING, Any

from ipmp_service.threads import aside, kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

PLACES = 32
"""Clients at a time from this host, and as many from elsewhere."""
BACKLOG = 128
"""Connections that the kernel holds until they are accepted."""
DEADLINE = 10.0
"""Seconds for a request and its answer together."""
REQUEST_LIMIT = 16 << 10
"""Bytes of a request."""
SCRAPES = 2
"""Metrics pages made at a time."""
ACCEPT_PAUSE = 0.5
"""Seconds without accepting after the host had no descriptor or memory for a connection."""

TEXT = "text/plain; charset=utf-8"

log = logging.getLogger(__name__)

Health = tuple[bool, str]
"""Whether all is well, and in words."""


class HealthServer:
    """Serves from a daemon thread until closed.

    Args:
        address: host and port; `::` is every address of both families, or of the one that the kernel has.
        registry: makes what /metrics shows, when it is asked for first. It is made and collected in threads that may
            wait: nobody's start waits for a library of metrics.
        alive: what /healthz says; it must not wait.
        ready: what /readyz says; it must not wait.

    Raises:
        OSError: where the address cannot be had.
    """

    def __init__(
        self,
        address: tuple[str, int],
        registry: Callable[[], CollectorRegistry],
        alive: Callable[[], Health],
        ready: Callable[[], Health],
    ) -> None:
        self._listener = _listen(*address)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._make_registry = registry
        self._making = Lock()
        self._registry: CollectorRegistry | None = None
        self._health = {"/healthz": alive, "/readyz": ready}
        self._places: dict[bool, dict[asyncio.Task[None], None]] = {True: {}, False: {}}  # oldest first
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._scrapes = asyncio.Semaphore(SCRAPES)
        self._scraping: set[asyncio.Task[tuple[bytes, str]]] = set()
        self._thread = kept(self._run, "http")
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(DEADLINE)
        self._listener.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        accepting = asyncio.ensure_future(self._accept())
        closing = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait((accepting, closing), return_when=asyncio.FIRST_COMPLETED)
        clients = [task for places in self._places.values() for task in places]
        tasks = (accepting, closing, *clients, *self._scraping)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]

    async def _accept(self) -> None:
        while True:
            try:
                connection, peer = await self._loop.sock_accept(self._listener)
            except OSError as error:
                log.warning("cannot accept a client: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            places = self._places[_is_local(peer[0])]
            if len(places) >= PLACES:
                oldest = next(iter(places))
                del places[oldest]
                oldest.cancel()
            task = self._loop.create_task(self._exchange(connection))
            places[task] = None
            task.add_done_callback(partial(_leave, places, connection))

    async def _exchange(self, connection: socket.socket) -> None:
        """One request and its answer."""
        try:
            async with asyncio.timeout(DEADLINE):
                head = await self._read_head(connection)
                if head:
                    await self._loop.sock_sendall(connection, await self._answer(_Request(head)))
        except (OSError, TimeoutError) as error:
            log.debug("lost a client: %s", error)

    async def _read_head(self, connection: socket.socket) -> bytes:
        """A request up to its empty line; nothing where the client went before."""
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) < REQUEST_LIMIT:
            piece = await self._loop.sock_recv(connection, 4096)
            if not piece:
                return b""
            head += piece
        return head

    async def _answer(self, request: _Request) -> bytes:
        if not request.parse():
            return request.answer
        path = request.path.partition("?")[0]
        try:
            if path in self._health:
                well, words = self._health[path]()
                request.reply(200 if well else 503, TEXT, f"{words}\n".encode())
            elif path == "/metrics":
                page, kind = await self._scrape(request.headers.get("Accept", ""))
                request.reply(200, kind, page)
            else:
                request.reply(404, TEXT, b"try /metrics, /healthz or /readyz\n")
        except Exception:
            log.exception("cannot answer %s", path)
            request.reply(500, TEXT, b"look at the log\n")
        return request.answer

    async def _scrape(self, accepted: str) -> tuple[bytes, str]:
        await self._scrapes.acquire()
        work = self._loop.create_task(aside(lambda: self._collect(accepted)))
        self._scraping.add(work)
        work.add_done_callback(self._scraped)
        return await asyncio.shield(work)  # its thread goes on when the client is gone, and has its place until the end

    def _collect(self, accepted: str) -> tuple[bytes, str]:
        """The metrics page in a form that the client accepts, and what form that is."""
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - with the registry

        with self._making:
            if self._registry is None:
                self._registry = self._make_registry()
        encode, kind = choose_encoder(accepted)
        return encode(self._registry), kind

    def _scraped(self, work: asyncio.Task[tuple[bytes, str]]) -> None:
        self._scraping.discard(work)
        self._scrapes.release()
        if not work.cancelled():
            work.exception()  # told to the client, if there is one still


def _leave(places: dict[asyncio.Task[None], None], connection: socket.socket, task: asyncio.Task[None]) -> None:
    places.pop(task, None)
    connection.close()


class _Request(BaseHTTPRequestHandler):
    """A request in memory, read by the standard library; `answer` grows with the reply."""

    server_version = "health"
    sys_version = ""

    def __init__(self, head: bytes) -> None:
        self.rfile = io.BytesIO(head)
        self.wfile = self._answer = io.BytesIO()
        self.client_address = ("", 0)

    def parse(self) -> bool:
        """Whether it is one that can be answered; else the answer says why not."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.parse_request():
            return False
        if self.command != "GET":
            self.send_error(501, f"cannot {self.command}")
            return False
        return True

    @property
    def answer(self) -> bytes:
        """All that is to be sent."""
        return self._answer.getvalue()

    def reply(self, code: int, kind: str, body: bytes) -> None:
        """Answer with this."""
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        log.debug(format, *args)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if host != "::" or error.errno != errno.EAFNOSUPPORT:
            raise
        # Some hosts are booted with ipv6.disable=1.
        host = "0.0.0.0"  # noqa: S104 - as wide as it was asked for
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_local(peer: str) -> bool:
    address = ip_address(peer.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
