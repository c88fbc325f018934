"""Writes the page of an incident, from a recording or from a simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.simulate.picture import Picture
from ipmp_agent.simulate.replay import Replay
from ipmp_service.command import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NO_PLOTLY = (
    "a report is drawn with plotly, which is not installed here, nor in the agent's image: copy the recording to where "
    "`pip install 'ipmp[report]'` can be run"
)


def require_plotly() -> None:
    """Raises BadInputError with what to do where there is none."""
    try:
        import plotly  # noqa: F401, PLC0415 - an extra that only reports need
    except ImportError as error:
        raise BadInputError([NO_PLOTLY]) from error


def report(recording: Path, target: Path, progress: Callable[[float], None] | None = None) -> None:
    """Draw a recording. Raises BadInputError where it is none, holds nothing, or the page cannot be written."""
    require_plotly()
    played = Replay(recording, progress, Picture)
    for _ in played.run():
        pass
    pictures = played.pictures()
    if not pictures:
        raise BadInputError([f"{recording}: the recording holds no group: the agent had none yet, or it was cut short"])
    write(target, f"Incident: {recording.name}", pictures, played.began)


def write(target: Path, title: str, pictures: Sequence[Picture], began: float | None = None) -> None:
    """Write the page of these pictures. Raises BadInputError where that cannot be done."""
    require_plotly()
    from ipmp_agent.simulate.page import page  # noqa: PLC0415 - plotly, and a second, that nobody else needs

    try:
        target.write_text(page(title, pictures, began), encoding="utf-8")
    except OSError as error:
        raise BadInputError([f"{target}: {error.strerror}"]) from error
