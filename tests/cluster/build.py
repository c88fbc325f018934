"""Builds Kubernetes, etcd, containerd, runc, helm and kwok from the Go modules in tools/, once per content."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.cache import cache_directory, content_hash, locked
from tests.cluster.golang import go_command, go_environment
from tests.cluster.oci import pack

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGN_OF_LIFE = 15.0
"""Seconds between two lines about one tool: the largest takes minutes, and half an hour beside busy neighbours."""
SOURCES = Path(__file__).resolve().parent / "tools"
JUDGE = Path(__file__).resolve().parent / "kstatus"
PAUSE_IMAGE = "ipmp.test/pause:1"  # containerd.toml names it as the sandbox of every pod
# client-go and component-base print the version that these variables hold; without a stamp the API server says
# v0.0.0-master, which helm refuses.
STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
# kwok has no built-in stages and ends without any: these, of its own module, play the life of nodes and pods.
KWOK_STAGES = (
    "node/fast/node-initialize",
    "node/heartbeat-with-lease/node-heartbeat-with-lease",
    "pod/fast/pod-ready",
    "pod/fast/pod-complete",
    "pod/fast/pod-delete",
)


@dataclass(frozen=True)
class Tool:
    """One program: the module directory in tools/ that pins it, its package, and how it is linked."""

    output: str
    module: str
    package: str
    cgo: bool = False
    tags: str = ""
    stamped: bool = False


def _kubernetes(name: str) -> Tool:
    return Tool(name, "kube", f"k8s.io/kubernetes/cmd/{name}", stamped=True)


def _plugin(path: str) -> Tool:
    return Tool(f"cni/{path.partition('/')[2]}", "node", f"github.com/containernetworking/plugins/plugins/{path}")


CONTAINERD = "github.com/containerd/containerd/v2/cmd/"
TOOLS = (
    Tool("etcd", "kube", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    _kubernetes("kubectl"),
    Tool("kwok", "kube", "sigs.k8s.io/kwok/cmd/kwok"),
    *(Tool(name, "node", CONTAINERD + name) for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
    # runc enters namespaces in C, and without libseccomp could not honour the RuntimeDefault profile.
    Tool("runc", "node", "github.com/opencontainers/runc", cgo=True, tags="seccomp"),
    _plugin("main/bridge"),
    _plugin("ipam/host-local"),
    _plugin("meta/portmap"),
    Tool("pause", "node", "./pause"),
    Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
)


def tools_directory() -> Path:
    """Where the tools of this checkout's go.mod, go.sum and recipe are, or will be once built."""
    files = {str(p.relative_to(SOURCES)): p for p in SOURCES.rglob("*") if p.is_file()}
    return cache_directory() / "cluster" / content_hash(files, repr((TOOLS, KWOK_STAGES, STAMPED)))


def is_built() -> bool:
    """Whether every tool is there."""
    return (tools_directory() / "complete").exists()


def build() -> Path:
    """Build what is missing, one line of progress for each tool, and return the directory that holds them.

    About 8 minutes on two cores from nothing, nothing to do when complete. Needs gcc and libseccomp-dev.
    """
    directory = tools_directory()
    if is_built():
        return directory
    with locked(directory.with_name(directory.name + ".lock")):
        if is_built():
            return directory
        _build_all(directory)
        (directory / "complete").touch()
    return directory


def build_judge() -> Path:
    """Build the program by which tests ask kstatus, and return its path. Beside the tools it is a second's work."""
    files = {path.name: path for path in JUDGE.iterdir()}
    target = cache_directory() / "cluster" / f"kstatus-{content_hash(files, '')}"
    with locked(target.with_name(target.name + ".lock")):
        if not target.exists():
            _compile(go_command(), JUDGE, Tool(target.name, "", "."), target, "  kstatus")
    return target


def _build_all(directory: Path) -> None:
    go = go_command()
    (directory / "cni").mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    print(f"building the Kubernetes tools into {directory} (about 8 minutes on two cores, once)", flush=True)
    for number, tool in enumerate(TOOLS, 1):
        target = directory / tool.output
        label = f"  [{number:2}/{len(TOOLS)}] {tool.output:24}"
        if target.exists():
            print(f"{label} is there", flush=True)
            continue
        started = time.monotonic()
        _compile(go, SOURCES / tool.module, tool, target, label)
        megabytes = target.stat().st_size >> 20
        print(f"{label} {time.monotonic() - started:5.0f} s {megabytes:4} MB", flush=True)
    stages = _module_directory(go, "sigs.k8s.io/kwok") / "kustomize/stage"
    (directory / "kwok.yaml").write_text("".join(f"---\n{(stages / f'{s}.yaml').read_text()}" for s in KWOK_STAGES))
    with tempfile.TemporaryDirectory() as root:
        shutil.copy2(directory / "pause", root)
        pack(PAUSE_IMAGE, Path(root), directory / "pause.tar", ["/pause"])
    print(f"built in {time.monotonic() - begun:.0f} s", flush=True)


def _compile(go: str, module: Path, tool: Tool, target: Path, label: str) -> None:
    unfinished = target.with_name(target.name + ".unfinished")
    flags = f"-s -w {_stamp(go)}" if tool.stamped else "-s -w"
    command = ["nice", go, "build", "-v", "-tags", tool.tags, "-ldflags", flags, "-o", str(unfinished), tool.package]
    env = go_environment(go, cgo=tool.cgo)
    status, said = alive(command, label, cwd=module, env=env)
    if status:
        raise RuntimeError(f"go build of {tool.package} failed:\n{said}")
    unfinished.rename(target)  # what has its final name is whole, also after a kill


def alive(
    command: list[str], label: str, *, cwd: Path, env: Mapping[str, str], every: float = SIGN_OF_LIFE
) -> tuple[int, str]:
    """Run a build that names each package on standard error; say how far it is now and then.

    Returns its exit status, and the end of what it said.
    """
    began = time.monotonic()
    said: deque[str] = deque(maxlen=60)
    packages = 0
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every):
            now = f", now {said[-1].strip()}" if said else ""
            print(f"{label} {time.monotonic() - began:5.0f} s so far: {packages} packages{now}", flush=True)

    watcher = threading.Thread(target=watch, name="sign of life", daemon=True)
    watcher.start()
    try:
        with process:
            for line in process.stderr or ():
                said.append(line)
                packages += 1
    finally:
        over.set()
        watcher.join()
    return process.returncode, "".join(said)


def _stamp(go: str) -> str:
    version = _list_module(go, "k8s.io/kubernetes", "{{.Version}}")
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(f"-X {package}.{name}={value}" for package in STAMPED for name, value in values.items())


def _module_directory(go: str, module: str) -> Path:
    return Path(_list_module(go, module, "{{.Dir}}"))


def _list_module(go: str, module: str, template: str) -> str:
    command = [go, "list", "-m", "-f", template, module]
    env = go_environment(go, cgo=False)
    done = subprocess.run(command, cwd=SOURCES / "kube", env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()
