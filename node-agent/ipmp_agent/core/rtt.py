"""Round-trip estimation (Jacobson and Karels, SIGCOMM 1988) and the adaptive failure detection time built on it."""

from __future__ import annotations

from ipmp_agent.core import timers


class RoundTrip:
    """Smoothed round trip of one prober to one target, in seconds; `crtt` is 0.0 until the first sample."""

    __slots__ = ("_held", "average", "deviation")

    def __init__(self) -> None:
        self.average = 0.0
        self.deviation = 0.0
        self._held: float | None = None

    @property
    def crtt(self) -> float:
        """The conservative round-trip time, average + 4 deviations: hardly any reply takes longer."""
        return self.average + 4 * self.deviation

    def sample(self, rtt: float, ceiling: float) -> None:
        """Take a detection sample; one that lifts the CRTT above `ceiling` is held until a second one confirms it."""
        average, deviation = self._with(rtt)
        if average + 4 * deviation <= ceiling:
            self._held = None
        elif self._held is None:
            self._held = rtt
            return
        else:
            self.average, self.deviation = self._with(self._held)
            self._held = None
            average, deviation = self._with(rtt)
        self.average, self.deviation = average, deviation

    def sample_if_lower(self, rtt: float) -> None:
        """Take a sample of an RTT-only probe, which may prove a target fast again and never slow."""
        average, deviation = self._with(rtt)
        if average + 4 * deviation < self.crtt:
            self.average, self.deviation = average, deviation

    def reset(self) -> None:
        """Forget all: the interface failed, and its first replies after repair tell of ARP more than of the path."""
        self.average = self.deviation = 0.0
        self._held = None

    def _with(self, rtt: float) -> tuple[float, float]:
        if not self.crtt:
            return rtt, rtt / 2
        error = rtt - self.average
        return max(0.0, self.average + error / 8), self.deviation + (abs(error) - self.deviation) / 4


class DetectionTime:
    """The failure detection time of a group: what was asked for, and what is in force. Seconds."""

    __slots__ = (
        "_halvings",
        "_limited_until",
        "_raised_at",
        "_within_limit",
        "adaptive",
        "configured",
        "configured_interval",
        "interval",
        "value",
    )

    def __init__(self, configured: float, *, adaptive: bool) -> None:
        self.configured = configured
        self.configured_interval = timers.probe_interval(configured)
        self.adaptive = adaptive
        self.value = configured
        self.interval = self.configured_interval
        self._raised_at = 0.0
        self._halvings = 0  # of the rate of probes, for targets that limit it
        self._within_limit = configured  # the shortest time that their limit leaves
        self._limited_until = 0.0

    @property
    def raised(self) -> bool:
        """Whether targets are too slow for the configured time."""
        return self.interval != self.configured_interval

    def too_slow(self, crtt: float) -> bool:
        """Whether replies of this target come too late for the probe interval."""
        return self.adaptive and crtt > self.interval

    def raise_for(self, crtt: float, now: float) -> None:
        """Make room for a slow target: interval 2 x CRTT in whole milliseconds, detection time seven intervals."""
        self.interval = timers.DETECTION_TIME_RAISE * int(crtt * 1000) / 1000
        self.value = timers.PROBES_PER_DETECTION_TIME * self.interval
        self._raised_at = now

    def may_halve_the_rate(self) -> bool:
        """Whether fewer probes may help against a limit."""
        return self.adaptive and self._halvings < timers.RATE_HALVINGS

    def halve_the_rate(self, now: float) -> None:
        """Make do with half as many probes, for a long while."""
        self._halvings += 1
        self.value *= 2
        self.interval = timers.probe_interval(self.value)
        self._raised_at = now
        self._within_limit = self.value
        self._limited_until = now + timers.RATE_LIMIT_MEMORY

    def limited(self, now: float) -> bool:
        """Whether every further probe may be one too many."""
        return now < self._limited_until

    def restore(self, value: float | None, now: float) -> None:
        """Go on with the time that an earlier run had raised; None: it had not."""
        if self.adaptive and value is not None and value > self.configured:
            self.value = value
            self.interval = timers.probe_interval(value)
            self._raised_at = now

    def fast(self, crtt: float) -> bool:
        """Whether this target would not mind half the detection time."""
        return crtt <= self.interval / timers.DETECTION_TIME_LOWER

    def may_be_lowered(self, now: float) -> bool:
        """Whether it is above what was configured and what a limit leaves, and has been for the settling time."""
        if not self.limited(now):
            self._halvings, self._within_limit = 0, self.configured
        return self.value > self._within_limit and now - self._raised_at > timers.DETECTION_TIME_SETTLING

    def lower(self) -> None:
        """Halve it, not below what was configured and what a limit leaves."""
        self.value = max(self.value / 2, self._within_limit)
        self.interval = self.configured_interval if self.value == self.configured else timers.probe_interval(self.value)
