"""Programs of another Debian suite, unpacked beside the system's and run by the dynamic linker of that suite."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.cluster.cache import cache_directory, locked

if TYPE_CHECKING:
    from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TESTED = ("trixie", "sid")
"""Debian 13, and what is newest in Debian."""
OWN_LIBRARIES = ("systemd", "NetworkManager", "frr")
"""Directories of those that only their own programs use."""


def _archive() -> str:
    """The archive that this machine's own packages come from: other suites of it are there, too."""
    targets = _run("apt-get", "indextargets", "--format", "$(SITE) $(CODENAME)", "Created-By: Packages").splitlines()
    sites = [site for site, suite in map(str.split, targets) if "security" not in suite]
    if not sites:
        raise AssertionError("apt has no list of packages: apt-get update")
    return sites[0]


class Suite:
    """Packages of a suite with all that they need.

    Args:
        name: of the suite, or its release name.
        packages: that are wanted.
    """

    def __init__(self, name: str, *packages: str) -> None:
        self.name = name
        self._packages = packages
        self.root = cache_directory() / "suites" / f"{name}-{'-'.join(packages)}"

    def unpack(self) -> Suite:
        """Download and unpack the packages, unless they are there; some ten seconds from nothing."""
        with locked(self.root.with_name(f"{self.root.name}.lock")):
            if not self.root.is_dir():
                unfinished = self.root.with_name(f"{self.root.name}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                self._download(unfinished / "apt")
                for package in (unfinished / "apt/archives").glob("*.deb"):
                    _run("dpkg-deb", "--extract", str(package), str(unfinished))
                shutil.rmtree(unfinished / "apt")
                unfinished.rename(self.root)
        return self

    def _download(self, apt: Path) -> None:
        for directory in ("state/lists/partial", "archives/partial", "etc"):
            (apt / directory).mkdir(parents=True)
        (apt / "status").touch()
        (apt / "etc/sources.list").write_text(f"deb [signed-by={KEYRING}] {_archive()} {self.name} main\n")
        options = {
            "Dir::State": apt / "state",
            "Dir::State::status": apt / "status",
            "Dir::Cache::archives": apt / "archives",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Dir::Etc::sourcelist": apt / "etc/sources.list",
            "Dir::Etc::sourceparts": "-",
            "APT::Sandbox::User": "root",
        }
        apt_get = ["apt-get", "-qq", "-y", *(f"-o{name}={value}" for name, value in options.items())]
        _run(*apt_get, "update")
        _run(*apt_get, "install", "--no-install-recommends", "--download-only", *self._packages)

    def command(self, program: str) -> list[str]:
        """The words that run a program of the suite by its path below /."""
        triplet = f"{platform.machine()}-linux-gnu"
        libraries = self.root / "usr/lib" / triplet
        path = ":".join(map(str, (libraries, *(libraries / name for name in OWN_LIBRARIES))))
        (linker,) = libraries.glob("ld-linux-*")
        return [str(linker), "--library-path", path, str(self.root / program.lstrip("/"))]


def _run(*command: str) -> str:
    done = subprocess.run(command, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout
