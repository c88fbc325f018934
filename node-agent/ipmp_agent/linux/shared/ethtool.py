"""Carrier, speed and bus address by ioctl: a few microseconds each, and always fresh.

Asking for the carrier makes the kernel act on a change that it holds back: link events may be a second late on a host
whose links change often. The /sys of a container shows another network namespace, an ioctl never does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
from array import array
from pathlib import Path

from ipmp_agent.linux.shared.losses import Losses

SYSFS = Path("/sys/class/net")
SIOCGIFFLAGS, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCETHTOOL = 0x8913, 0x8927, 0x8933, 0x8946
IFF_UP = 0x1
ETHTOOL_GDRVINFO, ETHTOOL_GLINK, ETHTOOL_GLINKSETTINGS = 0x3, 0xA, 0x4C
IFNAMSIZ, IFREQ_SIZE = 16, 40
SPEED_UNKNOWN = 0xFFFFFFFF
_BUS_OFFSET, _BUS_SIZE = 4 + 32 * 3, 32  # struct ethtool_drvinfo: cmd, driver, version, fw_version, bus_info
_DRVINFO_SIZE = 196
_SPEED_OFFSET, _WORDS_OFFSET = 4, 15  # struct ethtool_link_settings
_LINK_SETTINGS_SIZE = 48 + 3 * 4 * 127
_MAC_OFFSET = IFNAMSIZ + 2  # struct sockaddr: the family first


class Ethtool:
    """A socket for ethtool requests in the network namespace of its maker."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def carrier(self, *names: str) -> Carrier:
        """A question about the carrier of an interface, to be asked again and again.

        Args:
            names: of the interface, of the one it is stacked on, and so on down to the NIC.
        """
        below = self.carrier(*names[1:]) if names[1:] else None
        return Carrier(self._socket, names[0], self._losses(names[0]), below)

    def _losses(self, name: str) -> Losses | None:
        """The counts of an interface, if this /sys has them."""
        with contextlib.suppress(OSError):
            (index,) = struct.unpack_from("=i", self._interface(SIOCGIFINDEX, name), IFNAMSIZ)
            mac = self._interface(SIOCGIFHWADDR, name)[_MAC_OFFSET : _MAC_OFFSET + 6]
            return Losses(name, index, mac.hex(":"), SYSFS)
        return None

    def _interface(self, question: int, name: str) -> bytes:
        return fcntl.ioctl(self._socket, question, name.encode().ljust(IFREQ_SIZE, b"\0"))

    def speed(self, name: str) -> int | None:
        """Speed in megabits a second, or None if the driver does not say."""
        value = array("B", bytes(_LINK_SETTINGS_SIZE))
        try:
            struct.pack_into("=I", value, 0, ETHTOOL_GLINKSETTINGS)
            self._ask(name, value)
            # The kernel answers the first question with the size of its bit maps, negated.
            (words,) = struct.unpack_from("=b", value, _WORDS_OFFSET)
            struct.pack_into("=I", value, 0, ETHTOOL_GLINKSETTINGS)
            struct.pack_into("=b", value, _WORDS_OFFSET, -words)
            self._ask(name, value)
        except OSError:
            return None
        (speed,) = struct.unpack_from("=I", value, _SPEED_OFFSET)
        return speed if 0 < speed < SPEED_UNKNOWN else None

    def bus_address(self, name: str) -> str:
        """Address of the device on its bus, or nothing. For a virtio NIC this is the PCI address below it."""
        value = array("B", bytes(_DRVINFO_SIZE))
        struct.pack_into("=I", value, 0, ETHTOOL_GDRVINFO)
        try:
            self._ask(name, value)
        except OSError:
            return ""
        return (
            value.tobytes()[_BUS_OFFSET : _BUS_OFFSET + _BUS_SIZE].partition(b"\0")[0].decode(errors="replace").lower()
        )

    def _ask(self, name: str, value: array[int]) -> None:
        fcntl.ioctl(self._socket, SIOCETHTOOL, _request(name, value))


class Carrier:
    """The carrier of one interface.

    The kernel holds back what becomes of a stacked device for up to a second: it is asked from the bottom up.
    """

    def __init__(self, asking: socket.socket, name: str, losses: Losses | None, below: Carrier | None) -> None:
        self._descriptor = asking.fileno()
        self._value = array("I", (ETHTOOL_GLINK, 0))  # of 32 bits; the kernel puts its answer into the second
        self._request = bytearray(_request(name, self._value))  # which the kernel may write to: no copies
        self.names: tuple[str, ...] = (name, *(below.names if below is not None else ()))
        """Of the interface and of those below it."""
        self._losses = losses
        self._below = below
        self.reported = True
        """Whether the driver has an answer at all."""

    def ask(self) -> bool | None:
        """Say whether the interface is up and has a carrier; None if nobody can say (or it has gone)."""
        if self._below is not None and self._below.ask() is False:
            return False
        if not self.reported:
            return None
        try:
            fcntl.ioctl(self._descriptor, SIOCETHTOOL, self._request)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self.reported = False
            return None
        return self._value[1] != 0

    def moved(self) -> bool:
        """Whether a carrier went since the last `note`, by the kernel's counts. May be called in another thread."""
        return (self._losses is not None and self._losses.moved()) or (self._below is not None and self._below.moved())

    def went(self) -> bool | None:
        """Whether a carrier went since the last `note` and is not back; None: the kernel's counts cannot be had."""
        went = self._losses.lost() if self._losses is not None else None
        if self._below is None or went:
            return went
        below = self._below.went()
        return below if below or went is not None else None

    def note(self) -> None:
        """Take the present for the beginning: the interface is up."""
        if self._losses is not None:
            self._losses.note()
        if self._below is not None:
            self._below.note()

    def is_lost(self) -> bool:
        """Whether the interface is down, has no carrier, or is not there, as far as its driver says."""
        up = self.ask()
        return up is False or (up is None and self.reported)

    def is_taken_down(self) -> bool:
        """Whether somebody set the interface down. Does not wait for the kernel's lock of network configuration."""
        request = self.names[0].encode().ljust(IFREQ_SIZE, b"\0")
        try:
            answer = fcntl.ioctl(self._descriptor, SIOCGIFFLAGS, request)
        except OSError:
            return False  # it has gone
        (flags,) = struct.unpack_from("=H", answer, IFNAMSIZ)
        return not flags & IFF_UP


def _request(name: str, value: array[int]) -> bytes:
    pointer = struct.pack("P", value.buffer_info()[0])
    return (name.encode().ljust(IFNAMSIZ, b"\0") + pointer).ljust(IFREQ_SIZE, b"\0")
