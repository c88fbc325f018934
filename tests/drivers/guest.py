"""A guest of QEMU that sees the files of this machine read-only, and NICs whose cables can be pulled.

All NICs of one model are on one hub, with a neighbour, and with this process, which hears what is said there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.drivers import initramfs
from tests.lab.suites import Suite
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from types import TracebackType

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "af_packet", "virtio_net")
EXPRESS = {"igb", "virtio-net-pci"}
"""Models that get a port of their own: igb takes other slots of its bus as well."""

WANT_PADDING = {"ne2k_pci"}
"""Models that drop frames of fewer than 60 bytes, as virtio sends them and no wire carries: their neighbour is one."""

BOOT = 300.0
"""Seconds in which the guest has started, on a busy machine without hardware for guests."""
COMMAND = 180.0
"""Seconds in which a command of the guest has ended."""

MAIN = """export PATH={path} HOME={home} PYTHONDONTWRITEBYTECODE=1
ip link set lo up
cd {directory}
number=1
while :; do
  until [ -e /run/share/$number.ready ]; do sleep 0.1; done
  sh /run/share/$number.sh > /run/share/$number.out 2>&1 < /dev/null
  echo $? > /run/share/$number.rc.new
  mv /run/share/$number.rc.new /run/share/$number.rc
  number=$((number + 1))
done
"""


class Guest:
    """A running guest.

    Args:
        models: of NICs as QEMU names them, with the module that drives each. Of each model there are two, `nic0` and
            `nic1` of their hub; their MAC addresses tell which is which.
    """

    def __init__(self, models: dict[str, str]) -> None:
        self._models = models
        self._stack = contextlib.ExitStack()
        self._commands = 0

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ipmp-guest-")))
            self.share = self.directory / "share"
            self.share.mkdir()
            self._hubs = {model: stack.enter_context(_heard()) for model in self._models}
            self._start(stack)
            try:
                self._monitor = stack.enter_context(_Monitor(self.directory / "monitor", self._process))
            except OSError as error:
                raise AssertionError(f"{error}\n{self.console()}") from error
            self.run("true", BOOT)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        suite = Suite("trixie", "qemu-system-x86", "linux-image-amd64", "busybox-static").unpack()
        (kernel,) = suite.root.glob("boot/vmlinuz-*")
        modules = suite.root / "usr/lib/modules" / kernel.name.partition("-")[2]
        order = initramfs.load_order(modules, [*MODULES, *self._models.values()])
        first = self.directory / "initramfs"
        first.write_bytes(initramfs.build(suite.root / "usr/bin/busybox", order))
        environment = {key: shlex.quote(os.environ.get(key, "/")) for key in ("PATH", "HOME")}
        text = MAIN.format(path=environment["PATH"], home=environment["HOME"], directory=shlex.quote(str(Path.cwd())))
        (self.share / "main").write_text(text, encoding="utf-8")
        argv = [*suite.command("usr/bin/qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-display", "none"]
        for place in ("qemu", "seabios"):
            argv += ["-L", str(suite.root / "usr/share" / place)]
        argv += ["-machine", "q35", "-accel", "tcg", "-cpu", "Nehalem", "-m", "1024", "-no-reboot"]
        argv += ["-kernel", str(kernel), "-initrd", str(first), "-append", "console=ttyS0 panic=-1 quiet"]
        argv += ["-serial", f"file:{self.directory / 'console'}"]
        argv += ["-qmp", f"unix:{self.directory / 'monitor'},server=on,wait=off"]
        argv += ["-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"]
        argv += ["-virtfs", f"local,path={self.share},mount_tag=share,security_model=none"]
        for hub, (model, ears) in enumerate(self._hubs.items()):
            argv += self._hub(hub, model, ears)
        log = stack.enter_context((self.directory / "qemu.log").open("wb"))
        die_with_us = ["setpriv", "--pdeathsig", "KILL"]
        self._process = subprocess.Popen([*die_with_us, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(self._process.wait, 30)
        stack.callback(self._process.kill)

    def _hub(self, hub: int, model: str, ears: socket.socket) -> list[str]:
        words = []
        for number, nic in enumerate((model, model, model if model in WANT_PADDING else "virtio-net-pci")):
            words += ["-netdev", f"hubport,id=h{hub}n{number},hubid={hub}"]
            bus = ""
            if nic in EXPRESS:
                port = f"port{hub}x{number}"
                words += ["-device", f"pcie-root-port,id={port},chassis={3 * hub + number + 1}"]
                bus = f",bus={port}"
            name = f"{nic},id={model}-{number}{bus}"
            words += ["-device", f"{name},netdev=h{hub}n{number},mac={mac(hub, number)},romfile="]
        port = ears.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            own = free.getsockname()[1]
        inet = f"local.type=inet,local.host=127.0.0.1,local.port={own},remote.type=inet,remote.host=127.0.0.1"
        words += ["-netdev", f"dgram,id=ears{hub},{inet},remote.port={port}"]
        return [*words, "-netdev", f"hubport,id=h{hub}ears,hubid={hub},netdev=ears{hub}"]

    # -- what tests do -----------------------------------------------------------------------------------------------

    def mac(self, model: str, number: int) -> str:
        """The MAC address of a NIC of this model; 2: of the neighbour."""
        return mac(list(self._models).index(model), number)

    def run(self, script: str, deadline: float = COMMAND) -> str:
        """Run a script of the shell in the guest, as root in the working directory; returns what it says.

        Raises:
            AssertionError: it failed, or did not end in time; with what it said, and the guest's console.
        """
        self._commands += 1
        path = self.share / f"{self._commands}.sh"
        path.write_text(script, encoding="utf-8")
        path.with_suffix(".ready").touch()
        code = path.with_suffix(".rc")
        try:
            wait_for(code.exists, deadline=deadline, what=script, interval=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.console()}") from error
        said = path.with_suffix(".out").read_text(encoding="utf-8", errors="replace")
        if code.read_text().strip() != "0":
            raise AssertionError(f"{script} ended with {code.read_text().strip()}:\n{said}")
        return said

    def console(self) -> str:
        """What the kernel and QEMU said last."""
        texts = [self.directory / name for name in ("console", "qemu.log")]
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in texts if path.exists())

    def link(self, model: str, number: int, *, up: bool) -> float:
        """Pull the cable of a NIC, or plug it in; returns when, on the clock of time.monotonic."""
        moment = time.monotonic()
        self._monitor.execute("set_link", name=f"{model}-{number}", up=up)
        return moment

    def heard(self, model: str, source: str, address: str, deadline: float = 60.0) -> float:
        """Wait for a gratuitous ARP for an address by a MAC address; returns when it came."""
        ears = self._hubs[model]
        end = time.monotonic() + deadline
        wanted = bytes.fromhex(source.replace(":", ""))
        owner = socket.inet_aton(address)
        while (left := end - time.monotonic()) > 0:
            ears.settimeout(left)
            with contextlib.suppress(TimeoutError):
                frame = ears.recv(4096)
                if frame[12:14] == b"\x08\x06" and frame[22:28] == wanted and frame[28:32] == frame[38:42] == owner:
                    return time.monotonic()
        raise AssertionError(f"{address} was not announced by {source} within {deadline} s\n{self.console()}")

    def forget(self, model: str) -> None:
        """Forget what has been heard until now."""
        ears = self._hubs[model]
        ears.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                ears.recv(4096)


def mac(hub: int, number: int) -> str:
    """MAC address of one NIC of a hub."""
    return f"52:54:00:00:{hub:02x}:{number:02x}"


@contextlib.contextmanager
def _heard() -> Any:
    """A socket that QEMU sends the frames of a hub to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ears:
        ears.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        ears.bind(("127.0.0.1", 0))
        yield ears


class _Monitor:
    """QEMU's machine protocol."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self._path = path
        self._process = process
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        line = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        wait_for(lambda: self._path.exists() or self._process.poll(), deadline=60, what="QEMU's monitor")
        line.connect(str(self._path))
        line.settimeout(60)
        self._file = self._stack.enter_context(line.makefile("rwb"))
        json.loads(self._file.readline())  # who it is
        self.execute("qmp_capabilities")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Have one command carried out; returns its result."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "error" in answer:
                raise AssertionError(answer["error"])
            if "return" in answer:
                return answer["return"]
