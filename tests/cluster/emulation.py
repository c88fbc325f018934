"""Programs of another architecture, run here: QEMU's user emulation, which the kernel calls by binfmt_misc."""

import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.oci import ARCHITECTURES

NATIVE = ARCHITECTURES[platform.machine()]
MACHINES = {"amd64": ("x86_64", 0x3E), "arm64": ("aarch64", 0xB7)}
"""QEMU's name of each architecture, and its number in the header of a program (e_machine of ELF)."""
REGISTRY = Path("/proc/sys/fs/binfmt_misc")


@contextmanager
def emulated(architecture: str) -> Iterator[None]:
    """Let the kernel run this architecture's programs, in any root directory, while the context is open.

    It holds for the whole machine, as every registration does; one that is there already is used and left.

    Raises:
        RuntimeError: the kernel has no binfmt_misc, or does not let us use it; says what to do.
    """
    name, number = MACHINES[architecture]
    if architecture == NATIVE or (REGISTRY / f"qemu-{name}").exists():
        yield
        return
    # A 64-bit little-endian program or shared object (e_type 2 or 3). F: the interpreter is opened now and for good.
    magic = b"\x7fELF\x02\x01\x01" + bytes(9) + bytes((2, 0, number, 0))
    mask = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + b"\xfe\xff\xff\xff"
    words = ":".join("".join(f"\\x{octet:02x}" for octet in octets) for octets in (magic, mask))
    own = f"ipmp-{name}-{os.getpid()}"
    with tempfile.TemporaryDirectory() as temporary:
        registry = Path(temporary)
        try:
            subprocess.run(["mount", "-t", "binfmt_misc", own, temporary], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(
                f"the kernel runs no programs of {architecture} ({error.stderr.strip()}): build for {NATIVE} alone"
            ) from error
        try:
            (registry / "register").write_text(f":{own}:M::{words}:/usr/bin/qemu-{name}-static:F", encoding="ascii")
            try:
                yield
            finally:
                (registry / own).write_text("-1", encoding="ascii")
        finally:
            subprocess.run(["umount", temporary], check=True)
