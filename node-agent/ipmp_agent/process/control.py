"""The control socket: how ipmpstat and ipmpadm speak with a running agent.

One JSON object a line in each direction, over a Unix socket (0660). It is served by a thread with a loop of its own;
the data plane is asked for a value or a change, and never waits for a client. Requests:
    {"op": "ping"}                                                   {"ok": true, "pid": N, "version": "..."}
    {"op": "snapshot", "live": true|false}                           {"ok": true, "publication": {...}}
    {"op": "probes"}            {"ok": true}, then {"group": ..., "interface": NAME, "probe": {...}} for every probe
    {"op": "offline", "interface": I, "group": G|null, "force": B}   {"ok": true, "message": "..."}; root only
    {"op": "online", "interface": I, "group": G|null}                the same
    {"op": "hand over"}           {"ok": true}, then this agent ends for another; root only, and of one that stands in
    {"op": "drill", "interface": I, "group": G|null, "kind": "link"|"silent", "seconds": S}
                                                                     {"ok": true, "group": G, "interface": KEY}; root
                                only: the agent ends it, whoever asked is gone or not; the snapshot has its result
A refusal is {"ok": false, "error": "..."}.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

import ipmp_agent
from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import DrillKind
from ipmp_agent.disk.codec import encode
from ipmp_agent.disk.directories import SOCKET_NAME
from ipmp_service.threads import kept

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipmp_agent.core.actions import ProbeClosed
    from ipmp_agent.dataplane.configurator import Configurator
    from ipmp_agent.dataplane.loop import DataPlane

LINE_LIMIT = 64 * 1024
"""Bytes of one request."""
BACKLOG_LIMIT = 256 * 1024
"""Bytes that may wait for a reader of probes; one that falls further behind is dropped."""
HANDOVER_LIMIT = 1024
"""Probes that may wait for this thread; later ones are left out."""
CLIENTS = 32
"""Connections at a time."""
CLIENT_TIMEOUT = 10.0
"""Seconds a client may take to send a request, or to take its answer."""
SILENCE = 60.0
"""Seconds before it is said again that clients cannot be answered."""
WATCH = 5.0
"""Seconds between looks whether the socket is still where clients look for it: cleaners of /run take it away."""
DRILL_SHORTEST, DRILL_LONGEST = 1.0, 300.0
"""Seconds that a drill may take."""
FRESHNESS = 2.0
"""Seconds the data plane may take to answer before the last publication has to do."""

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """A request that is not done; the message goes to the client."""


class ControlSocket:
    """Serves the control socket from its own thread.

    Args:
        directory: that the socket is in.
        plane: which is asked.
        configurator: that takes requests.
        hand_over: has the agent end soon, for another one; None: it stands in for nobody. Called in this thread.
    """

    def __init__(
        self,
        directory: Path,
        plane: DataPlane,
        configurator: Configurator,
        hand_over: Callable[[], object] | None = None,
    ) -> None:
        self.path = directory / SOCKET_NAME
        self._plane = plane
        self._configurator = configurator
        self._hand_over = hand_over
        self._clients: set[asyncio.Task[None]] = set()
        self._silent_until = 0.0
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._listener: socket.socket | None = None
        self._identity: tuple[int, int] | None = None  # of the socket's file
        self._trouble: Finding | None = None
        self._listen()
        self._thread = kept(self._run, "control")
        self._thread.start()

    def findings(self) -> tuple[Finding, ...]:
        """What keeps people from asking this agent. From any thread."""
        trouble = self._trouble
        return () if trouble is None else (trouble,)

    def _listen(self) -> None:
        """Put a fresh socket in place of one that an earlier agent left; where that cannot be, say so once."""
        self._close_listener()
        try:
            self._listener = self._bound()
            found = self.path.stat()
        except OSError as error:
            self._close_listener()
            message = (
                f"ipmpstat and ipmpadm do not reach this agent: no control socket at {self.path}: {error}. It works on,"
                " and tries again"
            )
            if self._trouble is None:
                log.error("%s", message)  # noqa: TRY400 - the errno says it all
            self._trouble = Finding(Reason.CONTROL_SOCKET_LOST, message)
            return
        self._identity = found.st_dev, found.st_ino
        self._trouble = None

    def _bound(self) -> socket.socket:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Between bind and chmod nobody else may connect.
            previous = os.umask(0o177)
            try:
                listener.bind(str(self.path))
            finally:
                os.umask(previous)
            self.path.chmod(0o660)
            listener.listen(CLIENTS)  # a client that connects from now on waits for the thread, and is not refused
        except BaseException:
            listener.close()
            raise
        return listener

    def _is_there(self) -> bool:
        try:
            found = self.path.stat()
        except OSError:
            return False
        return self._listener is not None and (found.st_dev, found.st_ino) == self._identity

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._listener = self._identity = None

    def close(self) -> None:
        """Stop serving and remove the socket."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(CLIENT_TIMEOUT)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._listen_until_closed())
        except BaseException:
            self._close_listener()  # whoever begins anew makes a fresh one
            raise
        self._loop.close()

    async def _listen_until_closed(self) -> None:
        self._loop.set_exception_handler(self._in_trouble)
        if self._listener is None:
            self._listen()
        server = await self._serve_listener()
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), WATCH)
            if not self._closing.is_set() and not self._is_there():
                if server is not None:
                    server.close()  # those who are being answered still are
                    log.warning("the control socket %s is gone: it is made again", self.path)
                self._listen()
                server = await self._serve_listener()
        if server is not None:
            server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _serve_listener(self) -> asyncio.Server | None:
        if self._listener is None:
            return None
        # Without descriptors asyncio tries again, and schedules and logs it, as often as the backlog is long.
        server = await asyncio.start_unix_server(self._accept, sock=self._listener, limit=LINE_LIMIT, backlog=1)
        self._listener.listen(CLIENTS)
        return server

    def _in_trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what asyncio could not do; that it finds no descriptor for a client, once in a while."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in {errno.EMFILE, errno.ENFILE}:
            loop.default_exception_handler(context)
        elif loop.time() >= self._silent_until:
            self._silent_until = loop.time() + SILENCE
            log.error("cannot answer on the control socket: %s", error)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= CLIENTS:
            writer.transport.abort()
            return
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.LimitOverrunError, ValueError) as error:
            log.debug("dropped a client of the control socket: %s", error)
        finally:
            self._clients.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line = await asyncio.wait_for(reader.readline(), CLIENT_TIMEOUT)
            if not line:
                return
            try:
                request = _request(line)
                if request["op"] == "probes":
                    await self._stream_probes(reader, writer)
                    return
                answer = {"ok": True, **await self._answer(request, _user(writer))}
            except RefusedError as refusal:
                answer = {"ok": False, "error": str(refusal)}
            await _send(writer, answer)

    async def _answer(self, request: dict[str, Any], user: int) -> dict[str, Any]:
        match request:
            case {"op": "ping"}:
                return {"pid": os.getpid(), "version": ipmp_agent.__version__}
            case {"op": "snapshot"}:
                return {"publication": await self._publication(live=bool(request.get("live", True)))}
            case {"op": "offline" | "online" as operation, "interface": str(interface)}:
                if user != 0:
                    raise RefusedError(f"only root may take an interface {operation}")
                force, group = bool(request.get("force")), request.get("group")
                if group is not None and not isinstance(group, str):
                    raise RefusedError("a group is given by its name")
                return await self._maintain(operation, interface, group, force=force)
            case {"op": "drill", "interface": str(interface), "kind": str(kind), "seconds": int() | float() as seconds}:
                if user != 0:
                    raise RefusedError("only root may begin a drill")
                return await self._drill(interface, request.get("group"), kind, float(seconds))
            case {"op": "hand over"}:
                if user != 0 or self._hand_over is None:
                    raise RefusedError("this agent hands over to nobody: stop it on its host")
                self._hand_over()
                return {}
        raise RefusedError(f"unknown request {request.get('op')!r}; this agent is version {ipmp_agent.__version__}")

    async def _publication(self, *, live: bool) -> Any:
        if live:
            with contextlib.suppress(TimeoutError):
                return encode(await self._ask(self._plane.publish))
        return encode(self._plane.publication)

    async def _maintain(self, operation: str, interface: str, group: str | None, *, force: bool) -> dict[str, Any]:
        def act() -> str:
            if operation == "offline":
                done = self._configurator.take_offline(interface, group, force=force)
            else:
                done = self._configurator.bring_online(interface, group)
            self._plane.save_now()
            return done

        try:
            done: str = await self._ask(act)
            # A client that is told of success may restart the agent at once.
            if not await asyncio.to_thread(self._plane.written, FRESHNESS):
                done += "; it is not on disk yet, so a restart would forget it: look at the log"
            return {"message": done}
        except ValueError as refusal:
            raise RefusedError(str(refusal)) from None
        except TimeoutError:
            raise RefusedError("the data plane does not answer; look at the log and at ipmpstat -i") from None

    async def _drill(self, interface: str, group: Any, kind: str, seconds: float) -> dict[str, Any]:
        if group is not None and not isinstance(group, str):
            raise RefusedError("a group is given by its name")
        if not DRILL_SHORTEST <= seconds <= DRILL_LONGEST:
            raise RefusedError(f"a drill takes {DRILL_SHORTEST:g} to {DRILL_LONGEST:g} s, not {seconds:g}")
        try:
            what = DrillKind(kind)
            name, key = await self._ask(lambda: self._configurator.drill(interface, group, what, seconds))
        except ValueError as refusal:
            raise RefusedError(str(refusal)) from None
        except TimeoutError:
            raise RefusedError("the data plane does not answer; look at the log and at ipmpstat -i") from None
        return {"group": name, "interface": key}

    async def _ask(self, function: Callable[[], Any]) -> Any:
        """Run something in the data plane's loop. Raises TimeoutError, and what the function raises."""
        return await asyncio.wait_for(asyncio.wrap_future(self._plane.call(function)), FRESHNESS)

    # --- probes

    async def _stream_probes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send every probe that is answered or lost from now on, until the client goes or falls behind."""
        stream = _ProbeStream(self._plane, asyncio.get_running_loop(), writer)
        await _send(writer, {"ok": True})
        self._plane.watchers.add(stream.watch)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((gone, stream.overrun), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            self._plane.watchers.discard(stream.watch)


class _ProbeStream:
    """Probes on their way from the data plane, through the control thread, to one reader."""

    def __init__(self, plane: DataPlane, loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter) -> None:
        self.overrun: asyncio.Future[None] = loop.create_future()
        self._plane = plane
        self._loop = loop
        self._writer = writer
        # Two counters with one writer each need no lock, which the data plane would have to wait for.
        self._handed = 0
        self._taken = 0

    def watch(self, group: str, probe: ProbeClosed) -> None:
        """Take a probe in the data plane's loop; never waits."""
        if self._handed - self._taken < HANDOVER_LIMIT:
            self._handed += 1
            with contextlib.suppress(RuntimeError):  # the control thread has ended
                self._loop.call_soon_threadsafe(self._write, group, probe)

    def _write(self, group: str, probe: ProbeClosed) -> None:
        self._taken += 1
        if self._writer.transport.get_write_buffer_size() > BACKLOG_LIMIT:
            if not self.overrun.done():
                self.overrun.set_result(None)
            return
        row = {"group": group, "interface": self._name(group, probe.interface), "probe": encode(probe)}
        self._writer.write(json.dumps(row).encode() + b"\n")

    def _name(self, group: str, key: str) -> str:
        view = self._plane.publication.group(group)
        members = view.snapshot.interfaces if view else ()
        return next((member.name for member in members if member.interface == key), key)


def _request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise RefusedError("a request is one JSON object on a line") from None
    if not isinstance(request, dict) or not isinstance(request.get("op"), str):
        raise RefusedError('a request is one JSON object with an "op"')
    return request


async def _send(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await asyncio.wait_for(writer.drain(), CLIENT_TIMEOUT)


def _user(writer: asyncio.StreamWriter) -> int:
    """The user id of the process at the other end, as the kernel says."""
    connection = writer.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return int(user)
