"""Has krew's own validation judge what `make plugin` writes: it installs the plugin for each platform that it names.

`python -m tests.cluster.krew`; builds krew in the cache the first time, a minute.
"""

import functools
import http.server
import os
import subprocess
import tempfile
import threading
from pathlib import Path

from kubectl_ipmp import __version__, single_file
from tests.cluster.build import build
from tests.cluster.cache import cache_directory, locked
from tests.cluster.golang import go_command, go_environment

MODULE, VERSION = "sigs.k8s.io/krew/cmd", "v0.4.3"
PROGRAMS = {"validate-krew-manifest": "validate-krew-manifest", "krew": "kubectl-krew"}
"""Commands of krew's module, and the names under which they are called."""


def programs() -> Path:
    """The directory with krew's programs, built if they are not there."""
    target = cache_directory() / "krew" / VERSION
    go = go_command()
    with locked(target.with_name(f"{VERSION}.lock")):
        for command, name in PROGRAMS.items():
            if not (target / name).exists():
                print(f"building {command} {VERSION}", flush=True)
                environment = go_environment(go, cgo=False) | {"GOBIN": str(target), "GOFLAGS": "-trimpath"}
                subprocess.run([go, "install", f"{MODULE}/{command}@{VERSION}"], env=environment, check=True)
                (target / command).rename(target / name)
    return target


def main() -> int:
    """Judge it; returns the exit status of the judge."""
    path = f"{programs()}:{build()}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as name:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=name)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                url = f"http://127.0.0.1:{server.server_port}/kubectl-ipmp-v{__version__}.tar.gz"
                written = single_file.build(Path(name), url, "https://ipmp.dev")
                judge = ["validate-krew-manifest", "-manifest", str(written["ipmp.yaml"])]
                return subprocess.run(judge, env=os.environ | {"PATH": path}, check=False).returncode
            finally:
                server.shutdown()
                thread.join()


if __name__ == "__main__":
    raise SystemExit(main())
