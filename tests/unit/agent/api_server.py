"""A small API server over real HTTP: node groups with list and watch, statuses by patch, events; and its faults."""

from __future__ import annotations

import copy
import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.node_groups import node_group_manifest
from tests.unit.agent.building import unprobed_group

if TYPE_CHECKING:
    import ssl

Object = dict[str, Any]
GROUPS = "/apis/ipmp.dev/v1alpha1/ipmpnodegroups"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"

NO_LISTS: list[Any] = [
    {},
    {"kind": "Status", "status": "Success"},
    {"kind": "IPMPNodeGroupList", "metadata": {"resourceVersion": "7"}},
    {"kind": "IPMPNodeGroupList", "metadata": {"resourceVersion": "7"}, "items": None},
    {"kind": "IPMPNodeGroupList", "metadata": {"resourceVersion": "7"}, "items": {}},
    {"kind": "IPMPNodeGroupList", "metadata": {"resourceVersion": ""}, "items": []},
    {"kind": "IPMPNodeGroupList", "metadata": {}, "items": []},
    {"kind": "IPMPNodeGroupList", "metadata": None, "items": []},
    {"kind": "IPMPNodeGroupList", "items": []},
    {"metadata": {"resourceVersion": "7"}, "items": []},
    {"kind": "IPMPNodeGroupList", "metadata": {"resourceVersion": "7"}, "items": [None]},
    {"kind": "IPMPNodeGroupList", "metadata": {"resourceVersion": "7"}, "items": [{"metadata": {}}]},
    [],
    None,
    "text",
    7,
]
"""Answers to a list that are none, though they come with status 200."""


def manifest(name: str = "lab", **changes: Any) -> Object:
    """An IPMPNodeGroup as the operator writes it."""
    obj = node_group_manifest(unprobed_group(name))
    obj["metadata"] |= {"uid": f"uid-{name}", "generation": 1, **changes.pop("metadata", {})}
    return obj | changes


class FakeApiServer:
    """Runs until closed. `faults` are statuses to answer with before anything else, in order, by method.

    Args:
        tls: how it proves itself; without, it speaks plain HTTP.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.objects: dict[str, Object] = {}
        self.requests: list[tuple[str, str, dict[str, str], dict[str, str], Any]] = []
        self.connections: set[Any] = set()  # their far ends
        self.events: list[Object] = []
        self.faults: dict[str, list[int]] = {}
        self.retry_after = ""  # said beside every fault
        self.lists: list[Any] = []  # answered to lists in place of the truth, in order
        self.hanging = threading.Event()  # set: requests get no answer
        self.unanswered: list[bool] = []  # of the next requests, whether they get none
        self.released = threading.Event()
        self._closed = False
        self._version = 100
        self._watchers: list[queue.Queue[Object | None]] = []
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def _serve(self) -> None:
                fake._serve(self)

            do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - the base class calls them so

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.released.set()
        self._closed = True
        self.end_watches()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def kubeconfig(self, token: str = "secret") -> str:
        """A kubeconfig that leads here."""
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )

    # --- what the test does

    def put(self, obj: Object, kind: str = "MODIFIED") -> None:
        with self._lock:
            self._version += 1
            obj["metadata"]["resourceVersion"] = str(self._version)
            self.objects[obj["metadata"]["name"]] = obj
            self._send({"type": kind, "object": copy.deepcopy(obj)})

    def delete(self, name: str, *, silently: bool = False) -> None:
        with self._lock:
            self._version += 1
            obj = self.objects.pop(name)
            obj["metadata"]["resourceVersion"] = str(self._version)
            if not silently:
                self._send({"type": "DELETED", "object": obj})

    def send(self, event: Object) -> None:
        """Send any watch event."""
        with self._lock:
            self._send(event)

    def _send(self, event: Object) -> None:
        for watcher in self._watchers:
            watcher.put(event)

    def end_watches(self) -> None:
        with self._lock:
            for watcher in self._watchers:
                watcher.put(None)

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watchers)

    def seen(self, method: str, path: str = "") -> list[tuple[str, str, dict[str, str], dict[str, str], Any]]:
        return [request for request in list(self.requests) if request[0] == method and request[1].startswith(path)]

    # --- what it answers

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        length = int(handler.headers.get("Content-Length") or 0)
        body: Any = json.loads(handler.rfile.read(length)) if length else None
        headers = {key.lower(): value for key, value in handler.headers.items()}
        self.connections.add(handler.client_address)
        self.requests.append((handler.command, url.path, query, headers, body))
        if self.hanging.is_set() or (self.unanswered and self.unanswered.pop(0)):
            self.released.wait()
            handler.close_connection = True
            return
        faults = self.faults.get("WATCH" if "watch" in query else handler.command)
        if faults:
            self._answer(handler, faults.pop(0), {"message": "told to fail"}, self.retry_after)
        elif "watch" in query:
            self._watch(handler)
        elif handler.command == "GET":
            with self._lock:
                listing = self.lists.pop(0) if self.lists else copy.deepcopy(self._list(query.get("fieldSelector", "")))
            self._answer(handler, 200, listing)
        elif handler.command == "POST":
            self.events.append(body)
            self._answer(handler, 201, body)
        else:
            self._patch(handler, url.path, body)

    def _list(self, selector: str) -> Object:
        found = list(self.objects.values())
        what, _, value = selector.partition("=")
        if what == "metadata.name":
            found = [obj for obj in found if obj["metadata"]["name"] == value]
        elif what == "spec.nodeName":  # other objects that are tried here have none
            found = [obj for obj in found if (obj.get("spec") or {}).get("nodeName", value) == value]
        return {
            "kind": "IPMPNodeGroupList",
            "metadata": {"resourceVersion": str(self._version)},
            "items": found,
        }

    def _patch(self, handler: BaseHTTPRequestHandler, path: str, body: Any) -> None:
        if path.startswith(EVENTS):
            known = [event for event in self.events if path.endswith(event["metadata"]["name"])]
            for event in known:
                event.update(body)
            self._answer(handler, 200 if known else 404, body)
            return
        name = path.removeprefix(GROUPS + "/").removesuffix("/status")
        with self._lock:
            obj = self.objects.get(name)
            test, add = body
            same = obj is not None and test == {"op": "test", "path": "/metadata/uid", "value": obj["metadata"]["uid"]}
            if obj is not None and same:
                obj["status"] = add["value"]
        self._answer(handler, 404 if obj is None else 200 if same else 422, obj if same else {"message": "no"})

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, code: int, body: Any, retry_after: str = "") -> None:
        text = json.dumps(body).encode()
        handler.send_response(code)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        if retry_after:
            handler.send_header("Retry-After", retry_after)
        handler.end_headers()
        handler.wfile.write(text)

    def _watch(self, handler: BaseHTTPRequestHandler) -> None:
        events: queue.Queue[Object | None] = queue.Queue()
        with self._lock:
            self._watchers.append(events)
            if self._closed:
                events.put(None)
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.flush()
        try:
            while (event := events.get()) is not None:
                text = json.dumps(event).encode() + b"\n"
                handler.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
                handler.wfile.flush()
                if event["type"] == "ERROR":
                    break
            handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            handler.close_connection = True  # the client went
        finally:
            with self._lock:
                self._watchers.remove(events)
