"""`make plugin`: the plugin as one file that any Python 3.11 runs, its krew manifest, and completion.

`python -m kubectl_ipmp.single_file DIRECTORY [--url URL]` writes
    kubectl-ipmp                    a zip application: the plugin, ipmp_api and PyYAML (in Python)
    kubectl_complete-ipmp           what kubectl asks for completion
    kubectl-ipmp-vVERSION.tar.gz    both, with the licenses: what krew unpacks
    ipmp.yaml                       the krew manifest
Two runs from the same sources write the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import sys
import tarfile
import zipfile
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import kubectl_ipmp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PACKAGES = ("kubectl_ipmp", "ipmp_api", "yaml")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every entry: the first that a zip file can hold."""

MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("kubectl-ipmp needs Python 3.11 or later, and this is %d.%d" % sys.version_info[:2])
from kubectl_ipmp.cli import main

sys.exit(main())
"""

COMPLETE = """\
#!/bin/sh
# kubectl asks for completion of `kubectl ipmp` here.
exec kubectl-ipmp __complete "$@"
"""

MANIFEST = """\
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: ipmp
spec:
  version: v{version}
{homepage}  shortDescription: IP network multipathing of nodes - status, why, offline, bundle
  description: |
    Shows the IPMP groups of a cluster: which network interfaces of which
    nodes work, which addresses they carry, why a group is as it is and what
    to do. Takes interfaces offline for maintenance and brings them back,
    checks manifests, and makes a support bundle.
  caveats: |
    Needs Python 3.11 or later in the PATH as python3.
  platforms:
    - selector:
        matchExpressions:
          - key: os
            operator: In
            values: [linux, darwin]
      uri: {url}
      sha256: {digest}
      bin: kubectl-ipmp
      files:
        - from: "*"
          to: "."
"""


def build(directory: Path, url: str | None = None, homepage: str | None = None) -> dict[str, Path]:
    """Write everything into a directory; returns the files by name."""
    directory.mkdir(parents=True, exist_ok=True)
    version = kubectl_ipmp.__version__
    archive = f"kubectl-ipmp-v{version}.tar.gz"
    application = b"#!/usr/bin/env python3\n" + _zipped()
    packed = _packed({"kubectl-ipmp": application, "kubectl_complete-ipmp": COMPLETE.encode(), **_licenses()})
    manifest = MANIFEST.format(
        version=version,
        homepage=f"  homepage: {homepage}\n" if homepage else "",
        url=url or archive,  # enough for `kubectl krew install --archive`
        digest=hashlib.sha256(packed).hexdigest(),
    )
    contents = {
        "kubectl-ipmp": application,
        "kubectl_complete-ipmp": COMPLETE.encode(),
        archive: packed,
        "ipmp.yaml": manifest.encode(),
    }
    for name, data in contents.items():
        path = directory / name
        path.write_bytes(data)
        path.chmod(0o755 if name in {"kubectl-ipmp", "kubectl_complete-ipmp"} else 0o644)
    return {name: directory / name for name in contents}


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as application:
        for name, data in [("__main__.py", MAIN.encode()), *_sources()]:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            application.writestr(entry, data)
    return buffer.getvalue()


def _sources() -> Iterator[tuple[str, bytes]]:
    """The modules of all packages, without the one that is for building."""
    for package in PACKAGES:
        folder = _folder(package)
        for path in sorted(folder.rglob("*.py")):
            if path.name != Path(__file__).name:
                yield f"{package}/{path.relative_to(folder)}", path.read_bytes()


def _folder(package: str) -> Path:
    found = util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed: run make venv first")
    return Path(found.origin).parent


def _licenses() -> dict[str, bytes]:
    """Ours, and that of PyYAML, which asks to go with it."""
    found = {"LICENSE": (Path(__file__).parents[2] / "LICENSE").read_bytes()}
    theirs = [path for path in metadata.files("PyYAML") or [] if path.name == "LICENSE"]
    if theirs:
        found["LICENSE.PyYAML"] = Path(str(theirs[0].locate())).read_bytes()
    return found


def _packed(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name, data in sorted(contents.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755 if name.startswith("kubectl") else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Build; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kubectl_ipmp.single_file", description="Build the plugin.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--url", help="where the archive will be found, for krew")
    parser.add_argument("--homepage", help="for krew")
    options = parser.parse_args(arguments)
    for path in build(options.directory, options.url, options.homepage).values():
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
