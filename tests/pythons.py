"""The unit tests under newer Pythons than the system's: `python -m tests.pythons [VERSION...]`.

Each is unpacked from the suite of Debian that has it (`tests/lab/suites.py`) and has a virtual environment of its own
in `.pythons/`. A system's C library is older than those Pythons want, so their suite's dynamic linker runs them: the
environment's `python` is a script that calls it, which processes that tests start go by as well.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.suites import Suite

VERSIONS = {"3.13": "trixie", "3.14": "sid"}
"""Pythons, and the suites of Debian that have them."""

ROOT = Path(__file__).parents[1]
SCRIPT = """#!/bin/sh
exec {linker} --argv0 "$0" --library-path {libraries} {program} "$@"
"""


def environment(version: str) -> Path:
    """Make the virtual environment of a Python with the project and its tools, unless it is there; returns its Python.

    Raises:
        AssertionError: the suite has another Python by now.
    """
    suite = Suite(VERSIONS[version], "python3", "python3-venv").unpack()
    program = suite.root / f"usr/bin/python{version}"
    assert program.exists(), f"{VERSIONS[version]} has {[path.name for path in program.parent.glob('python3.*')]}"
    place = ROOT / ".pythons" / version
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    made, python = place / "made", place / "bin/python"
    if made.exists() and made.read_text() == wanted:
        return python
    shutil.rmtree(place, ignore_errors=True)
    python.parent.mkdir(parents=True)
    linker, _, libraries, _ = suite.command(str(program.relative_to(suite.root)))
    python.write_text(SCRIPT.format(linker=linker, libraries=libraries, program=program))
    python.chmod(0o755)
    (place / "pyvenv.cfg").write_text(f"home = {program.parent}\nversion = {version}\n")
    (wheel,) = (suite.root / "usr/share/python-wheels").glob("pip-*.whl")
    print(f"installing the project and its tools for Python {version}", flush=True)
    words = ["install", "--quiet", "--disable-pip-version-check", "--editable", ".[dev]"]
    subprocess.run([python, wheel / "pip", *words], cwd=ROOT, check=True)
    made.write_text(wanted)
    return python


def main() -> int:
    """Run the unit tests under each Python; returns the worst of their exit codes."""
    parser = argparse.ArgumentParser(prog="python -m tests.pythons", description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"of {', '.join(VERSIONS)} (default: all)")
    versions = parser.parse_args().versions or list(VERSIONS)
    if unknown := set(versions) - VERSIONS.keys():
        parser.error(f"no suite is known to have Python {', '.join(sorted(unknown))}")
    worst = 0
    for version in versions:
        python = environment(version)
        print(f"== Python {version}", flush=True)
        argv = [str(python), "-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider", "tests/unit"]
        worst = max(worst, subprocess.run(argv, cwd=ROOT, env=os.environ | {"PYTHONPATH": ""}, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
