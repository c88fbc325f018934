"""Link-based failure detection of one interface, and the flap rule.

A link that goes down counts at once. A link that comes up counts at once only twice a minute.
"""

from __future__ import annotations

from ipmp_agent.core import timers


class LinkState:
    """Carrier of one interface; `up` is None where the driver does not report it."""

    __slots__ = ("release_at", "taken_down", "up", "ups")

    def __init__(self) -> None:
        self.up: bool | None = True  # optimistic: a link that is down at the start is then a link that goes down
        self.taken_down = False  # by somebody of this host, which the cable has nothing to do with
        self.release_at = timers.NEVER  # when one that came up too often, and is held back, may be looked at again
        self.ups: tuple[float, ...] = ()  # the last times it came up, oldest first

    @property
    def usable(self) -> bool:
        """Not known to be down."""
        return self.up is not False

    @property
    def held(self) -> bool:
        """Came up too often, and waits for the window to pass."""
        return self.release_at < timers.NEVER

    def restore(self, ups: tuple[float, ...], held_until: float | None, now: float) -> None:
        """Go on with what an earlier run saw of it; not with times of another clock."""
        self.ups = tuple(at for at in ups if at <= now)
        if held_until is not None and held_until <= now + timers.LINK_UP_WINDOW:
            self.release_at = held_until

    def came_up(self, now: float) -> bool:
        """Record that carrier came; False when that is once too often and the interface must wait."""
        self.up = True
        flapping = len(self.ups) == timers.LINK_UPS_PERMITTED and now - self.ups[0] <= timers.LINK_UP_WINDOW
        self.ups = (*self.ups, now)[-timers.LINK_UPS_PERMITTED :]
        self.release_at = self.ups[0] + timers.LINK_UP_WINDOW if flapping else timers.NEVER
        return not flapping

    def went_down(self) -> None:
        """Record that carrier went."""
        self.up = False

    def release(self) -> None:
        """The window has passed, or nothing better is left."""
        self.release_at = timers.NEVER
