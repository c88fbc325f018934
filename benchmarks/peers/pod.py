"""The agent as in a pod: a service account, an API server over TLS that has its node group, and no manifest.

It is of these sources or, for a comparison, of any commit of this repository.
"""

from __future__ import annotations

import json
import re
import shutil
import ssl
import tempfile
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.build import command
from ipmp_agent.process import files
from tests.cluster.pki import CertificateAuthority
from tests.lab import Agent
from tests.lab.agent import NODE_NAME
from tests.lab.waiting import wait_for
from tests.node_groups import node_group_manifest
from tests.service_account import in_pod
from tests.unit.agent.api_server import FakeApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.lab import Lab

BEGIN = """
date +%s.%N >"$1" && shift && exec "$@"
"""
"""Notes the moment at which the agent begins."""


@contextmanager
def api_server(lab: Lab, manifest: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """An API server on the lab's host with the node group of this group; its URL, and a pod's account for it."""
    account = Path(tempfile.mkdtemp(prefix=f"{lab.tag}-account-"))
    try:
        authority = CertificateAuthority(account)
        authority.issue("server", "server", alternative_names=("127.0.0.1",))
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(account / "server.crt", account / "server.key")
        (account / "token").write_text("secret", encoding="ascii")
        (account / "group.json").write_text(json.dumps(manifest), encoding="utf-8")
        server = lab.host.namespace.call(FakeApiServer, tls)
        for group in files.read([account / "group.json"], NODE_NAME):
            obj = node_group_manifest(group)
            obj["metadata"] |= {"uid": "uid", "generation": 1}
            server.put(obj)
        try:
            yield server.url, account
        finally:
            server.close()
    finally:
        shutil.rmtree(account)


class PodAgent(Agent):
    """`ipmp-agent run` as the chart has it, of the sources in `root`."""

    def __init__(self, lab: Lab, root: Path, url: str, account: Path) -> None:
        super().__init__(lab, {})
        self._root = root
        self._url = url
        self._account = account
        self._bytecode = account / "bytecode"
        self._began = self.directory / "began"

    @property
    def argv(self) -> list[str]:
        """The command line, in a pod's surroundings."""
        options = super().argv[2:]
        at = options.index("--file")
        del options[at : at + 2]
        return [
            *in_pod(self._account, self._url),
            *("sh", "-ec", BEGIN, "sh", str(self._began)),
            # An image has its bytecode; these have it from their second start.
            *("env", "--unset", "PYTHONDONTWRITEBYTECODE"),
            f"PYTHONPYCACHEPREFIX={self._bytecode}",
            *self._environment(),
            *command(self._root),
            "run",
            *options,
        ]

    def _environment(self) -> list[str]:
        """What the sources' image sets for Python and malloc."""
        words = re.findall(r"\b(?:PYTHON|MALLOC_)\w+=\S+", (self._root / "Dockerfile").read_text(encoding="utf-8"))
        return [word for word in words if not word.startswith("PYTHONDONTWRITEBYTECODE")]

    def start_up(self) -> float:
        """Seconds that it took from its beginning until its group was in the kernel."""
        times = wait_for(self._running_since, deadline=60, what="the agent's group", interval=0.02)
        return times[0] - float(self._began.read_text(encoding="ascii"))

    def _running_since(self) -> list[float]:
        """When the log says that the group runs, in seconds since the epoch."""
        told = [entry["time"] for entry in self.log() if entry.get("message", "").startswith("running with")]
        return [datetime.fromisoformat(text).timestamp() for text in told]
