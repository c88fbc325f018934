"""What people should know and may have to act on, as long as it is so: one value for core and kernel's side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from ipmp_agent.core.reasons import Reason
    from ipmp_api.types import InterfaceAddress


@frozen
class Finding:
    """Something that stands against a group, or that the group has to work against."""

    reason: Reason
    message: str  # what is wrong and what to do, with the name of the interface
    interface: str | None = None  # key of the member; None: the group, or the host as a whole


@frozen
class NotAdopted:
    """An address that the host has on a member and that the group leaves alone."""

    address: InterfaceAddress
    interface: str  # the member
    reason: Reason
    message: str
