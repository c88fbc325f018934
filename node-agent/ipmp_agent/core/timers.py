"""Every time and count of the core, with its unit and where it comes from.

Seconds unless the name says otherwise. Names in capitals after "in.mpathd" are the original daemon's constants.
"""

NEVER = float("inf")
"""A moment that does not come."""

PROBE_FAILURES = 5
"""Consecutive lost probes that fail a prober. in.mpathd NUM_PROBE_FAILS."""

PROBES_LOST_BY_CHANCE = 2
"""So many newest probes lost in every family make a member no witness that targets answer."""

PROBES_UNHEEDED = 3
"""Lost probes after which a target that never answered ICMP, and answers at the link layer, is asked there: before
PROBE_FAILURES can condemn anybody."""

PROBE_REPAIRS = 10
"""Consecutive answered probes that repair an interface. in.mpathd NUM_PROBE_REPAIRS."""

PROBES_PER_DETECTION_TIME = PROBE_FAILURES + 2
"""Probe interval = FDT / 7: one probe may be outstanding and sends are jittered. in.mpathd NUM_PROBE_FAILS + 2."""

OPEN_LOSSES = 2 * PROBES_PER_DETECTION_TIME
"""Lost probes that condemn a member though no target that it asked answers anybody, when another member is answered by
what it has no way to ask."""

PROBE_HISTORY = PROBE_REPAIRS * PROBE_FAILURES + 2
"""Probes remembered by a prober, enough for ten successes of one target among five. in.mpathd PROBE_STATS_COUNT."""

JITTER_MINIMUM = 0.5
JITTER_MAXIMUM = 1.0
"""A probe leaves at its base time + uniform[0.5, 1.0] x interval. in.mpathd MIN_RANDOM_FACTOR, MAX_RANDOM_FACTOR."""

PROBES_OUTSTANDING = 2
"""At most two probes are in flight; at a tick an older one still unanswered is lost. in.mpathd."""

EARLIEST_LOSS = 0.5
"""No probe is given up before half an interval, however fast its target: with the jitter this bounds detection by
6.5 of the 7 intervals of an FDT. The original waits a whole interval for targets below 1 ms and exceeds its FDT."""

LATEST_TICK = 0.5
"""A tick that comes this part of an interval late judges nothing: we did not run when replies came."""

LATE_AGENT = 0.25
"""A tick, or the reading of a reply, that comes this part of an interval late: slow answers may be our own fault."""

TARGETS_MINIMUM = 3
TARGETS_MAXIMUM = 5
"""Targets probed by a prober. in.mpathd MIN_PROBE_TARGETS, MAX_PROBE_TARGETS."""

TARGET_RECOVERY = 60.0
"""A slow or dead target rests this long before it may be used again. in.mpathd MIN_RECOVERY_TIME."""

QUIET_PERIOD = 40.0
"""Losses are ignored this long after a member first appears (spanning tree), ended by its first reply.
in.mpathd FAILURE_DETECTION_QP."""

TEST_ADDRESS_GRACE = 20.0
"""A missing test address is only mentioned after this time. in.mpathd TESTADDR_CONF_TIME."""

LINK_UPS_PERMITTED = 2
LINK_UP_WINDOW = 60.0
"""A third link-up within the window does not repair until the window has passed. in.mpathd LINK_UP_PERMIN."""

PROVING = 2
"""Failure detection times that a member has to be repaired, beginning with nothing: ten answers take one and a half.

A link that came up while no member works is used after them without an answer; members that had failed with their group
when the agent started keep their addresses for them.
"""

DETECTION_TIME_RAISE = 2
"""New interval = 2 x CRTT of the target that is too slow. in.mpathd NEXT_FDT_MULTIPLE."""

DETECTION_TIME_LOWER = 4
"""The FDT is lowered when every CRTT is below a quarter of the interval. in.mpathd LOWER_FDT_TRIGGER."""

RATE_LIMIT_WINDOW = 2 * PROBES_PER_DETECTION_TIME
RATE_LIMIT_SHARE = 0.2
RATE_LIMIT_LOST = 2
"""Targets limit their rate if, when a member is to be condemned, each other one has lost some of its newest probes and
one was answered after that; and the condemned one was, too, or the others lost this share, and at least so many."""

RATE_LIMIT_LOSSES = 9
"""So many losses in a row condemn a member while another one loses probes by turns: they may show a limit."""

RATE_HALVINGS = 3
"""The rate of probes is halved at most so often: where that does not help, it is loss and no limit."""

RATE_LIMIT_MEMORY = 3600.0
"""A rate that proved too high is not tried again sooner."""

DETECTION_TIME_SETTLING = 60.0
"""The FDT is not lowered sooner than this after a raise. in.mpathd MIN_SETTLING_TIME."""

EXCEPTIONAL_TARGET_FACTOR = 2
EXCEPTIONAL_TARGET_OTHERS = 3
"""One slow target among at least four, the others at most half the interval, is the exception: it is replaced instead
of slowing the whole group. in.mpathd EXCEPTION_FACTOR, MIN_PROBE_TARGETS."""

REPLIES_TOGETHER = 0.25
"""Of replies of one target that arrive within this part of an interval only the first is measured: no slow path held
them up, they waited together for the target's link-layer address. Probes leave at least half an interval apart."""

DEFERRED_SAMPLES = 1
"""A round trip that would exceed the interval is held until a second one confirms it. in.mpathd MAXDEFERREDRTT."""

MOVE_BUDGET = 4
MOVE_WINDOW = 180.0
"""Moves of one address that failback may use up within the window: an EVPN fabric freezes an address at the fifth
(RFC 7432, section 15.1). Failover is never held back."""

ANNOUNCE_AT = (0.0, 0.1, 0.5, 1.1, 2.2, 5.0)
"""Announcements of a moved address, after the move. The 1.1 s repeat is for neighbours that heed no update within 1 s
of the last: Linux is one, but makes an exception for well-formed announcements, as ours are."""

ANNOUNCE_RATE = 1000.0
"""Announcements a second over all addresses: switches throttle bursts."""

CARRIER_POLL = 0.02
"""Carrier is polled this often: the kernel holds link events back for up to 1 s under link churn."""

LOSS_POLL = 0.005
"""The counts of lost carriers are read this often: a microsecond each, and no waiting for the kernel's locks."""

RECONCILE = 20.0
"""The kernel is compared with the desired state this often. in.mpathd IF_SCAN_INTERVAL."""

REPAIR_FOREIGN = 0.1
"""What somebody else removed is put back within this time."""

TRIAL = 10.0
"""A change of configuration is kept if what answered before it still answers this long after it."""

TRIAL_LOOK = 2.0
"""Between two looks at what answers: every node of a cluster may ask the API server at the same time."""

TRIAL_LOOKS = 3
"""Looks in a row without an answer, after which something is lost."""

TRIAL_LOOKS_AT_MOST = 6
"""The same, whatever changes joined the trial meanwhile: as many looks as a trial has."""

TRIALS = 3
"""Times that one change is tried, if others were to blame for what it was undone for, or its trial was cut short."""


DRILL_RETURN = 60.0
"""A drilled member that is not used again so long after its drill was not taken back: ten answers, and moves."""

DRILL_LIMIT = 2
"""A drilled member is to be found to have failed within so many failure detection times: a busy node takes longer."""


def probe_interval(detection_time: float) -> float:
    """Seconds between probes of one prober for a failure detection time in seconds: whole milliseconds of FDT / 7."""
    return int(detection_time * 1000 / PROBES_PER_DETECTION_TIME + 1e-9) / 1000
