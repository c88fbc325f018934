"""A delay line: two interfaces, and a thread that carries each frame from one to the other some time later."""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.namespaces import Namespace

ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
LARGEST_FRAME = 70_000  # a segmentation-offload frame is up to 64 KiB plus headers
VNET_HEADER = 10


class DelayLine:
    """Carries frames between `near` and `far` of a namespace, `seconds` late in either direction.

    `seconds` may be changed while it runs. Frames keep their order within a direction as long as it does not sink.
    """

    def __init__(self, namespace: Namespace, nic_port: str, seconds: float) -> None:
        self.nic_port = nic_port
        self.seconds = seconds
        ends = [namespace.call(self._open, name) for name in ("near", "far")]
        self._ends = {ends[0]: ends[1], ends[1]: ends[0]}
        self._stop_read, self._stop_write = socket.socketpair()
        self._thread = threading.Thread(target=self._carry, name=f"delay-{nic_port}", daemon=True)
        self._thread.start()

    @staticmethod
    def _open(interface: str) -> socket.socket:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        # Hand over checksums and segments left to the hardware as they are, else TCP through the line would break.
        end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        end.bind((interface, ETH_P_ALL))
        end.setblocking(False)
        return end

    def _carry(self) -> None:
        order = itertools.count()
        waiting: list[tuple[float, int, socket.socket, bytes]] = []
        while True:
            timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            ready, _, _ = select.select([self._stop_read, *self._ends], [], [], timeout)
            if self._stop_read in ready:
                return
            for end in ready:
                frame = end.recv(LARGEST_FRAME)
                heapq.heappush(waiting, (time.monotonic() + self.seconds, next(order), self._ends[end], frame))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, end, frame = heapq.heappop(waiting)
                self._send(end, frame)

    @staticmethod
    def _send(end: socket.socket, frame: bytes) -> None:
        try:
            end.send(frame)
        except OSError:
            # A wire whose far side is down, or whose queue is full, loses the frame as any wire would.
            return

    def close(self) -> None:
        """Stop carrying, within a second."""
        self._stop_write.send(b"x")
        self._thread.join(1)
        for end in (*self._ends, self._stop_read, self._stop_write):
            end.close()
