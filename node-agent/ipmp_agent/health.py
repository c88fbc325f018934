"""/metrics, /healthz and /readyz over HTTP, from threads of their own that only read what was published."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client.registry import Collector

STALE = 30.0
"""Seconds without a publication (one a second is normal) after which the agent counts as dead."""
CONNECTIONS = 16
"""Requests at a time."""
PATIENCE = 10
"""Seconds a client may take."""

log = logging.getLogger(__name__)

Health = tuple[bool, str]
"""Whether all is well, and in words."""


class HealthServer:
    """Serves from daemon threads until closed."""

    def __init__(
        self, host: str, port: int, collector: Collector, alive: Callable[[], Health], ready: Callable[[], Health]
    ) -> None:
        """Raises OSError where the address cannot be had."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        places = threading.BoundedSemaphore(CONNECTIONS)

        class Handler(BaseHTTPRequestHandler):
            timeout = PATIENCE
            server_version = "ipmp-agent"
            sys_version = ""

            def handle(self) -> None:
                if not places.acquire(blocking=False):
                    return  # full: the client sees a closed connection and comes again
                try:
                    super().handle()
                except OSError as error:
                    log.debug("lost a client: %s", error)
                finally:
                    places.release()

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    encode, kind = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, kind, encode(registry))
                elif path in ("/healthz", "/readyz"):
                    well, words = alive() if path == "/healthz" else ready()
                    self._answer(200 if well else 503, "text/plain; charset=utf-8", f"{words}\n".encode())
                else:
                    self._answer(404, "text/plain; charset=utf-8", b"try /metrics, /healthz or /readyz\n")

            def _answer(self, code: int, kind: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
                log.debug(format, *args)

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

            def server_bind(self) -> None:
                # Past HTTPServer's own, which asks DNS for a name that nobody reads: a start would wait for DNS.
                socketserver.TCPServer.server_bind(self)

        self._server = Server((host, port), Handler)
        self.address: tuple[str, int] = self._server.server_address[:2]  # type: ignore[assignment]  # str for INET
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)
