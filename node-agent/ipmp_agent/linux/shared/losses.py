"""How often an interface lost and found its carrier: fresh at once, and read without a lock.

Whoever asks a driver, and the event of a lost carrier itself, waits for the kernel's one lock of network configuration
(RTNL), and the event up to a second more after others. The counts in /sys (Linux 4.16 and later) change before either.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST = 32  # bytes of a count


class Losses:
    """The losses of the carrier of one interface since the last `note`.

    A file is closed with the last reference to this: the thread that polls may be reading.

    Args:
        name: of the interface.
        index: its index, in this network namespace.
        mac: its MAC address, as text in lower case.
        directory: where the kernel shows interfaces.

    Raises:
        OSError: the kernel has no counts, or this /sys shows another network namespace's.
    """

    def __init__(self, name: str, index: int, mac: str, directory: Path) -> None:
        self._down = self._up = -1
        place = directory / name
        shown = ((place / "ifindex").read_text("ascii").strip(), (place / "address").read_text("ascii").strip())
        if shown != (str(index), mac):
            raise FileNotFoundError(f"{place} is another interface: {shown}")
        self._down = os.open(place / "carrier_down_count", os.O_RDONLY | os.O_CLOEXEC)
        self._up = os.open(place / "carrier_up_count", os.O_RDONLY | os.O_CLOEXEC)
        self._lost = self._found = b""
        self.note()

    def __del__(self) -> None:
        for descriptor in (self._down, self._up):
            if descriptor >= 0:
                os.close(descriptor)

    def moved(self) -> bool:
        """Whether the carrier went since the last note, may it be back. May be called in another thread."""
        return _read(self._down, self._lost) != self._lost

    def lost(self) -> bool:
        """Whether the carrier went and is not back. One that is back is noted: nobody need look again."""
        lost, found = _read(self._down, self._lost), _read(self._up, self._found)
        if lost == self._lost:
            return False
        if int(found) - int(self._found) < int(lost) - int(self._lost):
            return True
        self._lost, self._found = lost, found
        return False

    def note(self) -> None:
        """Take the present for the beginning: the interface has its carrier."""
        self._lost, self._found = _read(self._down, b"0\n"), _read(self._up, b"0\n")


def _read(descriptor: int, otherwise: bytes) -> bytes:
    """A count, or what it was if its interface is gone: that is told by others."""
    try:
        return os.pread(descriptor, _LONGEST, 0)
    except OSError:
        return otherwise
