"""Builds the project's image with buildah: the base from Debian's packages, no registry and no daemon.

The Dockerfile is an ordinary one and builds with any builder where its base image can be pulled. Here the base,
docker.io/library/debian:trixie-slim, is made with debootstrap into a buildah storage of our own in the cache.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import cache_directory, content_hash, locked
from tests.cluster.emulation import NATIVE, emulated

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("crds", "common", "node-agent", "operator")
SOURCES = ("Dockerfile", ".dockerignore", "pyproject.toml", "image-requirements.txt", "README.md", "LICENSE", *PACKAGES)
REPOSITORY = "ipmp.test/ipmp"
SUITE = "trixie"
BASE = f"docker.io/library/debian:{SUITE}-slim"
BUILD_BASE = f"localhost/build/debian:{SUITE}-slim"
"""The same of this machine's architecture, beside that of another: a storage has one image of a name."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# The base is ours, made below. The machine's certificates are for pip: a mirror or proxy of the site may have a CA of
# its own.
# This builder does not say by itself for which platform it builds, and on which.
BUILD = (
    *("--pull=never", "--volume", f"{CERTIFICATES}:/run/ca.crt:ro"),
    *("--build-arg", "PIP_CERT=/run/ca.crt", "--build-arg", f"BUILDPLATFORM=linux/{NATIVE}"),
)
LAYERS_MAX = 60  # cached by the builder before they are dropped: about ten builds, a gigabyte or two
# What the official slim images leave out.
SLIM = "".join(f"path-exclude /usr/share/{d}/*\n" for d in ("doc", "man", "locale", "info", "groff", "lintian"))


RELEASED = "ipmp"
"""The repository in the archive of a release: whoever pushes it puts a registry before it."""

_LIST = """
import importlib.metadata, json, subprocess
fields = "${Package}\\t${Version}\\t${Architecture}\\n"
debian = subprocess.run(["dpkg-query", "-W", "-f", fields], capture_output=True, text=True, check=True).stdout
python = [
    (d.metadata["Name"], d.version, d.metadata["License-Expression"] or "") for d in importlib.metadata.distributions()
]
print(json.dumps({"debian": [line.split("\t") for line in debian.splitlines()], "python": sorted(python)}))
"""


@dataclass(frozen=True)
class Contents:
    """The packages of an image.

    Args:
        debian: name, version and architecture of each.
        python: name, version and license (an SPDX expression, or empty where the package states none) of each.
    """

    debian: tuple[tuple[str, str, str], ...]
    python: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Image:
    """A built image: its name, whose tag is the hash of the sources, and its OCI archive."""

    name: str
    archive: Path


def build_image() -> Image:
    """Build the image of the checkout's present sources, unless the archive of exactly these is there.

    About a minute from nothing, 20 s when only the sources changed. Needs debootstrap and buildah.
    """
    storage = cache_directory() / "buildah"
    with tempfile.TemporaryDirectory() as temporary, locked(storage.with_name("buildah.lock")):
        # A copy, so that what is built is what was hashed, whoever edits meanwhile.
        context = Path(temporary)
        image = _copy_sources(context)
        if not image.archive.exists():
            _build(storage, context, image)
    return image


def build_release(
    version: str, labels: dict[str, str], archive: Path, *, fresh: bool, architecture: str = NATIVE
) -> Contents:
    """Build the image of a release into an OCI archive, and return what is in it.

    Args:
        labels: the image's, beside those of the Dockerfile.
        fresh: build anew what the builder has in its cache.
        architecture: as OCI names it; one that is not this machine's is emulated, and its build takes many times
            as long.

    Raises:
        RuntimeError: it cannot be built here, or its agent does not run.
    """
    storage = _storage(architecture)
    name = f"{RELEASED}:{version}"
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    with (
        tempfile.TemporaryDirectory() as temporary,
        emulated(architecture),
        locked(storage.with_name(f"{storage.name}.lock")),
    ):
        context = Path(temporary)
        _copy_sources(context)
        _ensure_base(storage, architecture)
        build_base = BASE if architecture == NATIVE else _ensure_base(storage, NATIVE, BUILD_BASE)
        how = ("--no-cache",) if fresh else ("--layers",)
        bases = ("--build-arg", f"BUILD_BASE={build_base}", "--build-arg", f"TARGETARCH={architecture}")
        _buildah(storage, "build", "--arch", architecture, *how, *BUILD, *bases, *words, "--tag", name, str(context))
        archive.unlink(missing_ok=True)  # an archive that is there would be added to
        _buildah(storage, "push", "--quiet", name, f"oci-archive:{archive}:{name}")
        container = _buildah(storage, "from", "--pull=never", name).strip()
        try:
            _see_it_run(storage, container, version)
            told = json.loads(_buildah(storage, "run", container, "--", "/opt/ipmp/bin/python", "-c", _LIST))
        finally:
            _buildah(storage, "rm", container)
        _buildah(storage, "rmi", "--force", name)
    return Contents(*(tuple(tuple(one) for one in told[kind]) for kind in ("debian", "python")))


def join(archives: Sequence[Path], name: str, target: Path) -> None:
    """Write one OCI archive of several: an index, of which each machine takes the image of its architecture."""
    storage = _storage(NATIVE)
    target.unlink(missing_ok=True)
    with locked(storage.with_name(f"{storage.name}.lock")):
        listed = f"index-{os.getpid()}"
        _buildah(storage, "manifest", "create", listed)
        try:
            for archive in archives:
                _buildah(storage, "manifest", "add", listed, f"oci-archive:{archive}")
            _buildah(storage, "manifest", "push", "--quiet", "--all", listed, f"oci-archive:{target}:{name}")
        finally:
            _buildah(storage, "manifest", "rm", listed)


def _storage(architecture: str) -> Path:
    """Where the builder keeps images of this architecture: those of another have the same names."""
    return cache_directory() / ("buildah" if architecture == NATIVE else f"buildah-{architecture}")


def _see_it_run(storage: Path, container: str, version: str) -> None:
    """Demand that the programs in a container start, and that the agent reads a manifest."""
    for command in (("ipmp-agent", "--version"), ("ipmp-operator", "--version"), ("ipmpstat", "--version")):
        told = _buildah(storage, "run", container, "--", *command)
        if version not in told:
            raise RuntimeError(f"{' '.join(command)} in the image says {told!r}, not {version}")
    examples = f"{CHECKOUT / 'examples'}:/examples:ro"
    check = ("ipmp-agent", "check", "--file", "/examples/two-nics.yaml")
    told = _buildah(storage, "run", "--volume", examples, container, "--", *check)
    if "ok" not in told:
        raise RuntimeError(f"{' '.join(check)} in the image says {told!r}")


def _copy_sources(context: Path) -> Image:
    for source in SOURCES:
        if (CHECKOUT / source).is_dir():
            shutil.copytree(CHECKOUT / source, context / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(CHECKOUT / source, context / source)
    files = {str(path.relative_to(context)): path for path in context.rglob("*") if path.is_file()}
    tag = f"sources-{content_hash(files, BASE)}"  # a bare hash might read as a number, to helm say
    return Image(f"{REPOSITORY}:{tag}", cache_directory() / "image" / f"{tag}.tar")


def _build(storage: Path, context: Path, image: Image) -> None:
    begun = time.monotonic()
    _ensure_base(storage, NATIVE)
    print(f"building image {image.name}", flush=True)
    _buildah(storage, "build", "--layers", *BUILD, "--tag", image.name, str(context))
    image.archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = image.archive.with_name(image.archive.name + ".unfinished")
    unfinished.unlink(missing_ok=True)  # an archive that is there would be added to
    _buildah(storage, "push", "--quiet", image.name, f"oci-archive:{unfinished}:{image.name}")
    unfinished.rename(image.archive)
    _forget_older(storage, image.name)
    megabytes = image.archive.stat().st_size >> 20
    print(f"built in {time.monotonic() - begun:.0f} s, {megabytes} MB: {image.archive}", flush=True)


def _ensure_base(storage: Path, architecture: str, name: str = BASE) -> str:
    """Make the base, unless the builder has it; returns its name."""
    if _buildah(storage, "images", "--quiet", "--filter", f"reference={name}"):
        return name
    print(f"making {name} for {architecture} from Debian's packages", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "root"
        _run(["debootstrap", f"--arch={architecture}", "--variant=minbase", SUITE, str(root)])
        for directory in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(root / directory)
            (root / directory).mkdir()
        for language in (root / "usr/share/locale").iterdir():
            shutil.rmtree(language) if language.is_dir() else language.unlink()
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(SLIM)
        (root / "etc/apt/apt.conf.d/slim").write_text('APT::Keep-Downloaded-Packages "false";\n')
        (root / "etc/resolv.conf").unlink(missing_ok=True)  # the builder's, not the image's
        container = _buildah(storage, "from", "--arch", architecture, "scratch").strip()
        try:
            _buildah(storage, "add", "--quiet", container, str(root), "/")
            _buildah(storage, "config", "--cmd", "bash", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", container)
            _buildah(storage, "commit", "--quiet", container, name)
        finally:
            _buildah(storage, "rm", container)
    return name


def _forget_older(storage: Path, name: str) -> None:
    """Keep the layers that the next build starts from, and no image or archive but the newest few."""
    listed = _buildah(storage, "images", "--format", "{{.Name}}:{{.Tag}}", "--filter", f"reference={REPOSITORY}")
    for other in sorted(set(listed.split()) - {name}):
        _buildah(storage, "rmi", "--force", other)
    # Layers of builds gone by are many and never used again; dropping them costs the next build half a minute.
    if len(_buildah(storage, "images", "--all", "--quiet").split()) > LAYERS_MAX:
        _buildah(storage, "rmi", "--prune", "--force")
    archives = sorted((cache_directory() / "image").glob("*.tar"), key=lambda p: p.stat().st_mtime)
    for old in archives[:-3]:
        old.unlink()


def _buildah(storage: Path, *arguments: str) -> str:
    place = ["--root", str(storage / "storage"), "--runroot", str(storage / "run"), "--storage-driver", "overlay"]
    # chroot isolation needs neither a container runtime nor a network of its own.
    return _run(["buildah", *place, *arguments], BUILDAH_ISOLATION="chroot")


def _run(command: list[str], **environment: str) -> str:
    if not shutil.which(command[0]):
        raise RuntimeError(f"{command[0]} is missing: run `python -m tests.prerequisites cluster`")
    done = subprocess.run(["nice", *command], env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{last}")
    return done.stdout
