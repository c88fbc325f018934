"""Run a command under another Linux: Debian's user-mode kernel, a process that sees these files and has no network.

    python -m tests.lab.uml .venv/bin/python benchmarks/outage.py --here --short

For what the running kernel lacks, such as bonding. Files are there at their paths, read-only; /tmp and /run are empty
and writable (a working directory in them is there, too), and so is the directory named by --share, mounted as
/run/share. Output and exit code are the command's.
Programs run natively on one processor, and a system call takes tens of microseconds.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

KERNEL = "linux.uml"
PROGRAMS = (KERNEL, "modprobe", "setpriv", "timeout", "unshare")
MODULES = Path("/usr/lib/uml/modules")  # where Debian puts them
SHARE = Path("/run/share")
MEMORY = "2G"  # at most: it is taken as it is used
SAID = 3000  # characters of the kernel's last words
GRACE = 60.0  # seconds for starting and ending, besides the command's own

INIT = """#!/bin/sh
export {environment}
mount -t proc proc /proc
trap 'echo o > /proc/sysrq-trigger; sleep 60' EXIT
mount -t sysfs sysfs /sys
for place in /tmp /run /var/tmp /dev/shm; do [ -d $place ] || mkdir $place; mount -t tmpfs tmpfs $place; done
mkdir -p {share} /run/kernel/lib /run/lock
mount -t hostfs -o {outside} share {share} || exit
[ -d {directory} ] || {{ mkdir -p {directory}; mount -t hostfs -o ro,{directory} work {directory}; }}
ln -s {modules} /run/kernel/lib/modules
ln -s /proc/self/fd /dev/fd
printf '#!/bin/sh\\nexec modprobe -d /run/kernel "$@"\\n' > /run/modprobe
chmod +x /run/modprobe
echo /run/modprobe > /proc/sys/kernel/modprobe
/run/modprobe ipv6
ip link set lo up
cd {directory}
timeout --kill-after=10 {seconds:g} {command} > /dev/tty1 2>&1
echo $? > {code}
"""


def missing() -> list[str]:
    """Programs that are needed and not installed."""
    return [name for name in PROGRAMS if not shutil.which(name)]


def run(command: Sequence[str], seconds: float, *, share: Path | None = None) -> int:
    """Run a command to its end, within this time; returns its exit code (124 if it took too long, as `timeout` does).

    Raises:
        RuntimeError: the kernel ended without it.
    """
    with tempfile.TemporaryDirectory(prefix="ipmp-uml-") as name:
        own = Path(name)
        outside = share or own
        init, code = own / "init", outside / ".exit-code"
        code.unlink(missing_ok=True)
        init.write_text(
            INIT.format(
                environment=" ".join(f"{key}={shlex.quote(os.environ.get(key, '/'))}" for key in ("PATH", "HOME"))
                + " PYTHONDONTWRITEBYTECODE=1",
                share=SHARE,
                outside=outside,
                modules=MODULES,
                directory=shlex.quote(str(Path.cwd())),
                seconds=seconds,
                command=shlex.join(command),
                code=SHARE / code.name,
            ),
            encoding="utf-8",
        )
        init.chmod(0o755)
        said = own / "kernel.log"
        _boot([f"init={init}", f"uml_dir={own}/"], said, seconds + GRACE)
        if not code.exists():
            text = said.read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"the user-mode kernel ended before the command did:\n{text[-SAID:]}")
        number = int(code.read_text(encoding="ascii"))
        code.unlink()
        return number


def _boot(parameters: Sequence[str], said: Path, seconds: float) -> None:
    """Run the kernel until it powers off. Its processes are in a namespace: they end with it, and with the caller."""
    argv = [
        *("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL"),
        *(KERNEL, f"mem={MEMORY}", "rootfstype=hostfs", "rootflags=/", "ro"),
        *("con=null", "con0=null,fd:2", "con1=null,fd:1", *parameters),
    ]
    with said.open("wb") as log:
        kernel = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
    try:
        kernel.wait(seconds)
    finally:
        kernel.kill()
        kernel.wait()


def main() -> int:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab.uml", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600.0, help="time limit (default %(default)g)")
    parser.add_argument("--share", type=Path, help=f"directory to see as {SHARE}, writable")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="command and its words")
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("no command")
    if absent := missing():
        parser.error(f"not on the PATH: {', '.join(absent)} (python -m tests.prerequisites bench)")
    return run(arguments.command, arguments.seconds, share=arguments.share and arguments.share.resolve())


if __name__ == "__main__":
    sys.exit(main())
