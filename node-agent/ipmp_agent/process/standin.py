"""The configuration of an agent that stands in for a pod's: the last one there was, or that of files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ipmp_agent.process import handover

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipmp_agent.disk.state import SavedState
    from ipmp_agent.process.files import FileSource
    from ipmp_api.types import NodeGroup

log = logging.getLogger(__name__)


class StandInSource:
    """Hands over the last configuration from the API server; before there was any, that of files, if there are.

    What the API server took from this host stays away: a configuration without a group is one, too.

    Args:
        state_directory: in which the last configuration is, and whether the API server has had its say.
        files: the configuration of a host that has never seen the API server; None: it has none.
    """

    def __init__(self, state_directory: Path, files: FileSource | None) -> None:
        self._state_directory = state_directory
        self._files = files

    def start(self, want: Callable[[tuple[NodeGroup, ...]], None], saved: SavedState) -> None:
        """Hand over what is to be until the pod's agent comes."""
        if self._files is not None and not handover.is_marked(self._state_directory):
            log.info("standing in: the API server has not been heard yet, so the files count")
            self._files.start(want, saved)
            return
        groups = saved.wanted()
        names = ", ".join(group.group_name for group in groups) or "no group"
        log.info("standing in with the last configuration from the API server: %s", names)
        want(groups)

    def reload(self) -> None:
        """Read the files again, while they count."""
        if self._files is not None and not handover.is_marked(self._state_directory):
            self._files.reload()
        else:
            log.info("SIGHUP: nothing to reload, the last configuration from the API server counts")

    def api_server_answers(self) -> None:
        """It is not asked: the pod's agent has the rights to."""

    def reporting(self) -> None:
        """There is nobody to report to."""

    def close(self) -> None:
        """Nothing is open."""
