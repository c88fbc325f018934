"""Conditions of the host that people should know of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipmp_agent.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Finding:
    """Something on this host that stands against the group, or that the group had to work against."""

    reason: Reason
    message: str
    interface: str | None = None  # None: the group, or the host as a whole
