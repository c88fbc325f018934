"""The carrier of an interface, read and set by ioctl: microseconds, so that a fault has an exact time."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.namespaces import Namespace

SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCETHTOOL = 0x8913, 0x8914, 0x8946
ETHTOOL_GLINK = 0x0A
IFF_UP = 0x1
IFNAMSIZ, IFREQ_SIZE = 16, 40


class Carrier:
    """Access to the interfaces of one namespace through one socket. Close it when done."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def set_up(self, interface: str, *, up: bool) -> None:
        """Set the interface administratively up or down; the far end of a veth pair sees its carrier follow."""
        name = interface.encode().ljust(IFNAMSIZ, b"\0")
        answer = fcntl.ioctl(self._socket, SIOCGIFFLAGS, name.ljust(IFREQ_SIZE, b"\0"))
        (flags,) = struct.unpack_from("H", answer, IFNAMSIZ)
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(self._socket, SIOCSIFFLAGS, (name + struct.pack("H", flags)).ljust(IFREQ_SIZE, b"\0"))

    def present(self, interface: str) -> bool:
        """Say whether there is a carrier.

        Asking also makes the kernel act at once on a change that it holds back (up to a second after another one).
        """
        value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_GLINK, 0))
        name = interface.encode().ljust(IFNAMSIZ, b"\0")
        request = (name + struct.pack("P", ctypes.addressof(value))).ljust(IFREQ_SIZE, b"\0")
        fcntl.ioctl(self._socket, SIOCETHTOOL, request)
        return bool(struct.unpack_from("I", value, 4)[0])

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
