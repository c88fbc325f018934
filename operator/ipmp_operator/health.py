"""/metrics, /healthz and /readyz over HTTP."""

from __future__ import annotations

import errno
import logging
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

_CLIENT_SECONDS = 10

Check = tuple[bool, str]
"""Whether all is well, and in words."""


def _has_ipv6() -> bool:
    """Whether the kernel has IPv6: some hosts are booted with ipv6.disable=1."""
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return False
    return True


class HealthServer:
    """Serves from daemon threads until closed. Raises OSError where the address cannot be had."""

    def __init__(
        self,
        address: tuple[str, int],
        registry: CollectorRegistry,
        alive: Callable[[], Check],
        ready: Callable[[], Check],
    ) -> None:
        if address[0] == "::" and not _has_ipv6():
            address = ("0.0.0.0", address[1])  # noqa: S104 - as wide as it was asked for

        class Handler(BaseHTTPRequestHandler):
            timeout = _CLIENT_SECONDS

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    encode, kind = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, kind, encode(registry))
                elif path in {"/healthz", "/readyz"}:
                    well, words = alive() if path == "/healthz" else ready()
                    self._answer(200 if well else 503, "text/plain; charset=utf-8", f"{words}\n".encode())
                else:
                    self._answer(404, "text/plain; charset=utf-8", b"try /metrics, /healthz or /readyz\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
                log.debug(format, *args)

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            daemon_threads = True

            def server_bind(self) -> None:
                # Past HTTPServer's own, which asks DNS for a name that nobody reads: a start would wait for DNS.
                socketserver.TCPServer.server_bind(self)

        self._server = Server(address, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port in use, also where port 0 was asked for."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_CLIENT_SECONDS)
