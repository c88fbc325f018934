"""Filters of traffic control, as far as it matters that a device has them: which ones hang on one device."""

from __future__ import annotations

import struct

from ipmp_agent.linux.messages import netlink

RTM_GETTFILTER = 46
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_BPF_NAME = 7
PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
"""Of the filters of the queueing disciplines clsact and ingress, by direction."""

_MESSAGE = struct.Struct("=BxxxiIII")  # family, interface index, handle, parent, information


def get_request(index: int, parent: int) -> bytes:
    """Body of RTM_GETTFILTER: the filters of one device and direction; none where it has no such discipline."""
    return _MESSAGE.pack(0, index, 0, parent, 0)


def describe(body: bytes) -> str | None:
    """What an RTM_NEWTFILTER message tells of, in a word or two; None: of no filter."""
    found = netlink.attributes(body, _MESSAGE.size)
    if TCA_OPTIONS not in found:
        return None
    kind = _text(found.get(TCA_KIND, b""))
    name = _text(netlink.attributes(found[TCA_OPTIONS], 0).get(TCA_BPF_NAME, b"")) if kind == "bpf" else ""
    return f"{kind} {name}".strip()


def _text(payload: bytes) -> str:
    return payload.partition(b"\0")[0].decode(errors="replace")
