"""A first root for a Linux kernel: busybox, the modules that are needed, and a script that mounts the real root."""

from __future__ import annotations

import lzma
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

INIT = """#!/bin/busybox sh
export PATH=/bin
for each in proc sys dev root; do busybox mkdir -p /$each; done
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
while read module; do busybox insmod /modules/$module || echo "cannot load $module"; done < /modules/order
busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro root /root || exec busybox poweroff -f
for each in proc sys dev; do busybox mount --move /$each /root/$each; done
for each in tmp run var/tmp; do busybox mount -t tmpfs tmpfs /root/$each; done
busybox mkdir -p /root/run/share
busybox mount -t 9p -o trans=virtio,version=9p2000.L,cache=none share /root/run/share || exec busybox poweroff -f
exec busybox switch_root /root /bin/sh /run/share/main
"""


def load_order(modules: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of modules and of what they need, in an order in which they can be loaded.

    Args:
        modules: the folder of one kernel's modules.
        wanted: names as `modprobe` takes them; what the kernel has built in is left out.
    """
    subprocess.run(["depmod", "--basedir", modules.parents[2], modules.name], check=True)
    needs = {}
    for line in (modules / "modules.dep").read_text(encoding="ascii").splitlines():
        file, _, needed = line.partition(":")
        needs[_name(file)] = [file, *needed.split()]
    order: list[str] = []
    for name in wanted:
        # modules.dep names what is loaded first at the end.
        order += [file for file in reversed(needs.get(_name(name), [])) if file not in order]
    return [modules / file for file in order]


def _name(file: str) -> str:
    return file.rpartition("/")[2].partition(".")[0].replace("-", "_")


def build(busybox: Path, modules: Iterable[Path]) -> bytes:
    """Pack it, as an archive of cpio's newc format."""
    files = {"init": (0o100755, INIT.encode()), "bin/busybox": (0o100755, busybox.read_bytes())}
    order = []
    for path in modules:
        name = path.name.removesuffix(".xz")
        order.append(name)
        body = path.read_bytes()
        files[f"modules/{name}"] = (0o100644, lzma.decompress(body) if path.suffix == ".xz" else body)
    files["modules/order"] = (0o100644, "".join(f"{name}\n" for name in order).encode())
    folders = dict.fromkeys(("bin", "modules"), (16877, b""))
    return b"".join(_entries({**folders, **files}))


def _entries(files: dict[str, tuple[int, bytes]]) -> Iterator[bytes]:
    for number, (name, (mode, body)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))]):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(path), 0)
        head = b"070701" + b"".join(b"%08X" % each for each in fields) + path
        yield head + b"\0" * (-len(head) % 4) + body + b"\0" * (-len(body) % 4)
