"""The Debian package of the agent, with ipmpstat and ipmpadm, for hosts without a pod: `make deb`.

Built by dpkg-deb alone from the checkout; the man pages and the completion are made of the parsers of the commands.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import shtab
from argparse_manpage.manpage import Manpage

from ipmp_agent.commands import ipmp_agent, ipmpadm, ipmpstat

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = CHECKOUT / "node-agent/debian"
NAME = "ipmp-agent"
MODULES = ("crds/ipmp_api", "common/ipmp_service", "node-agent/ipmp_agent")
SCRIPTS = ("postinst", "prerm", "postrm")
LAUNCHER = """\
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/usr/lib/ipmp")
sys.argv[0] = "{name}"

from {module} import main

sys.exit(main())
"""
CHANGELOG = """\
ipmp-agent ({version}) unstable; urgency=medium

  * Release {version}: CHANGELOG.md has what is new.

 -- IPMP for Kubernetes <ipmp@ipmp.dev>  {date}
"""
COMMANDS = {
    "ipmp-agent": (
        "sbin",
        8,
        "ipmp_agent.commands.entry",
        ipmp_agent.make_parser,
        "IP network multipathing for one host",
    ),
    "ipmpadm": (
        "sbin",
        8,
        "ipmp_agent.commands.ipmpadm",
        ipmpadm.make_parser,
        "take interfaces of IPMP groups offline",
    ),
    "ipmpstat": ("bin", 1, "ipmp_agent.commands.ipmpstat", ipmpstat.make_parser, "show IPMP groups"),
}
"""Of each command: its folder, the section of its man page, its module, its parser, and what it is for."""
EXAMPLES = ("two-nics.yaml", "standby.yaml", "ipv6.yaml", "every-field.yaml")
DOCUMENTS = ("docs/file-mode.md", "docs/host.md", "docs/host-network.md", "docs/troubleshooting.md")


def version() -> str:
    """The version of everything: pyproject.toml has it."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: str = project["version"]
    return found


def commit_time() -> int:
    """Seconds since the epoch of $SOURCE_DATE_EPOCH, of the checkout's last commit, or of its changelog."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "log", "-1", "--format=%ct"]
    told = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False).stdout.strip()
    return int(told or (CHECKOUT / "CHANGELOG.md").stat().st_mtime)


def dependencies() -> list[str]:
    """The packages that it depends on."""
    (line,) = re.findall(r"^Depends: (.*)$", (SOURCES / "control").read_text(encoding="utf-8"), re.MULTILINE)
    return [one.split()[0] for one in line.split(", ")]


def build_package(directory: Path, release: str | None = None) -> Path:
    """Build the package into a directory, and return its path. The same sources make the same bytes.

    Args:
        directory: where to leave it.
        release: the version it calls itself, in place of the checkout's.
    """
    release, epoch = release or version(), commit_time()
    package = directory / f"{NAME}_{release}_all.deb"
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "root"
        _fill(root, release, epoch)
        (root / "DEBIAN").mkdir()
        kibibytes = sum(-(-path.stat().st_size // 1024) for path in root.rglob("*") if path.is_file())
        control = (SOURCES / "control").read_text(encoding="utf-8")
        (root / "DEBIAN/control").write_text(control.format(version=release, kibibytes=kibibytes), encoding="utf-8")
        for script in SCRIPTS:
            shutil.copy(SOURCES / script, root / "DEBIAN" / script)
        for path in (root, *root.rglob("*")):
            runs = path.is_dir() or path.parent.name in {"bin", "sbin"} or path.name in SCRIPTS
            if not path.is_symlink():
                path.chmod(0o755 if runs else 0o644)
            os.utime(path, (epoch, epoch), follow_symlinks=False)
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(package)],
            env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return package


def _fill(root: Path, release: str, epoch: int) -> None:
    for module in MODULES:
        shutil.copytree(
            CHECKOUT / module,
            root / "usr/lib/ipmp" / Path(module).name,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
        )
    for name, (folder, section, module, _, _) in COMMANDS.items():
        _write(root / "usr" / folder / name, LAUNCHER.format(name=name, module=module))
        _write_compressed(root / f"usr/share/man/man{section}/{name}.{section}.gz", man_page(name, release, epoch))
        _write(root / "usr/share/bash-completion/completions" / name, completion(name))
    shutil.copytree(SOURCES / "units", root / "usr/lib/systemd/system")
    (root / "etc/ipmp").mkdir(parents=True)
    documentation = root / "usr/share/doc" / NAME
    (documentation / "examples").mkdir(parents=True)
    shutil.copy(SOURCES / "copyright", documentation)
    for page in DOCUMENTS:
        if (CHECKOUT / page).exists():
            shutil.copy(CHECKOUT / page, documentation)
    for example in EXAMPLES:
        shutil.copy(CHECKOUT / "examples" / example, documentation / "examples")
    shutil.copy(SOURCES / "stand-in.conf", documentation / "examples")
    shutil.copytree(CHECKOUT / "examples/host-network", documentation / "examples/host-network")
    shutil.copy(CHECKOUT / "CHANGELOG.md", documentation)
    date = format_datetime(datetime.fromtimestamp(epoch, UTC))
    _write_compressed(documentation / "changelog.gz", CHANGELOG.format(version=release, date=date))


def man_page(name: str, release: str, epoch: int) -> str:
    """The man page of a command, made of its parser."""
    _, section, _, parser, purpose = COMMANDS[name]
    before = {key: os.environ.get(key) for key in ("COLUMNS", "SOURCE_DATE_EPOCH")}
    os.environ |= {"COLUMNS": "100", "SOURCE_DATE_EPOCH": str(epoch)}  # argparse and the page's date go by them
    try:
        found = parser()
        page = Manpage(found, {"project_name": "ipmp", "version": release, "manual_section": section})
        page.manual, page.description = "IP network multipathing", purpose
        return str(page).replace("\n.SH COMMENTS\n", "\n.SH NOTES\n")
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def completion(name: str) -> str:
    """What bash needs to complete a command, made of its parser."""
    parser = COMMANDS[name][3]()
    for action in _actions(parser):
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    text: str = shtab.complete(parser, "bash")
    return text


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_compressed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def main() -> None:
    """Build the package."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.debian", description=__doc__)
    parser.add_argument("directory", type=Path, help="where to leave it")
    package = build_package(parser.parse_args().directory.resolve())
    print(f"{package.stat().st_size:>10}  {package}")


if __name__ == "__main__":
    main()
