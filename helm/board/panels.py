"""What the board shows, row by row.

Every query goes by the labels that the scrape of docs/monitoring.md sets: `node`, and the jobs `ipmp-agent` and
`ipmp-operator`. A Prometheus of one cluster has no label `cluster`; "All" of that variable matches its absence.
"""

from __future__ import annotations

from helm.board.views import GREEN, GREY, RED, YELLOW, Columns, Gauges, Lines, Number, Panel, Query, Steps, Timeline

CLUSTER = 'cluster=~"$cluster"'
NODE = f'{CLUSTER},node=~"$node"'
GROUP = f'{NODE},group=~"$group"'
NIC = f'{GROUP},interface=~"$interface"'
WANTED = f'{CLUSTER},group=~"$group"'  # as the operator tells it: of no node
PER_NODE, PER_GROUP, PER_NIC = "cluster, node", "cluster, node, group", "cluster, node, group, interface"


def state(word: str, of: str = NIC, by: str = PER_NIC) -> str:
    """Interfaces in a state: 1 or 0 each."""
    return f'max by ({by}) (ipmp_interface_state{{{of},state="{word}"}})'


def quantile(share: float, metric: str, selector: str, by: str, over: str, *, exemplars: bool = False) -> Query:
    """A quantile of a histogram, by labels that also name its series."""
    labels = f"{by}, le" if by else "le"
    legend = " ".join(["{{" + label + "}}" for label in by.split(", ") if label] + [f"p{share * 100:g}"])
    rate = f"sum by ({labels}) (rate({metric}_bucket{{{selector}}}[{over}]))"
    return Query(f"histogram_quantile({share:g}, {rate})", legend, exemplars)


def rate(metric: str, selector: str, by: str) -> str:
    """How often, a second."""
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def increase(metric: str, selector: str, by: str) -> str:
    """How many, in each step of the picture."""
    return f"sum by ({by}) (increase({metric}{{{selector}}}[$__rate_interval]))"


ZERO_IS_GOOD: Steps = {0: GREEN, 1: RED}
ZERO_IS_NORMAL: Steps = {0: GREEN, 1: YELLOW}
NO_REDUNDANCY = (
    f'count(count by ({PER_GROUP}) (ipmp_interface_state{{{GROUP},state=~"ok|unknown"}} == 1) == 1'
    f' and count by ({PER_GROUP}) (ipmp_interface_state{{{GROUP},state="ok"}}) > 1) or vector(0)'
)

NOW = [
    Panel(
        "Groups on their nodes",
        "A group counts once for each node that has it. Degraded: an interface is unusable, and the node is reached. "
        "Failed: no interface is usable, and the node is not reached by this group.",
        "none",
        [Query(f"sum by (state) (max by ({PER_GROUP}, state) (ipmp_group_state{{{GROUP}}}))", "{{state}}")],
        6,
        Number({0: GREEN}, colours={"failed": RED, "degraded": YELLOW}),
    ),
    Panel(
        "Interfaces failed",
        "By their link or by their probes. The table below says which, and why.",
        "none",
        [Query(f"sum({state('failed')})", "failed")],
        3,
        Number(ZERO_IS_GOOD),
    ),
    Panel(
        "Without redundancy",
        "Groups on nodes where one interface is left: the next failure cuts the node off.",
        "none",
        [Query(NO_REDUNDANCY, "groups")],
        3,
        Number(ZERO_IS_NORMAL),
    ),
    Panel(
        "Addresses on no interface",
        "Data addresses that nobody reaches: refused, taken by another host, or no interface is usable.",
        "none",
        [Query(f"sum(max by ({PER_GROUP}) (ipmp_data_addresses_unavailable{{{GROUP}}}))", "addresses")],
        3,
        Number(ZERO_IS_GOOD),
    ),
    Panel(
        "Agents",
        "Agents that answer, of those that Prometheus knows. A node whose agent is down keeps its addresses, "
        "and nobody watches its NICs.",
        "none",
        [
            Query(f'sum(up{{{NODE},job="ipmp-agent"}})', "up"),
            Query(f'count(up{{{NODE},job="ipmp-agent"}})', "known"),
        ],
        3,
        Number({0: GREEN}),
    ),
    Panel(
        "Operators that lead",
        "One in each cluster. None: changes wait, failovers go on.",
        "none",
        [Query(f"sum(ipmp_operator_leader{{{CLUSTER}}}) or vector(0)", "leaders")],
        3,
        Number({0: RED, 1: GREEN}),
    ),
    Panel(
        "Groups refused",
        "IPMPGroups whose last change was not accepted: what was in force before stays in force.",
        "none",
        [
            Query(
                f"count(max by (cluster, group) "
                f'(ipmp_operator_group_condition{{{WANTED},type="Accepted"}}) == 1) or vector(0)',
                "groups",
            )
        ],
        3,
        Number(ZERO_IS_GOOD),
    ),
    Panel(
        "Alerts that fire",
        "The alerts of the chart, firing now. Each has a page in docs/runbooks: what it means, and what to do.",
        "none",
        [
            Query(
                'sum by (alertname, severity, node, group, interface) (ALERTS{alertname=~"IPMP.+",alertstate="firing"})'
            )
        ],
        12,
        Columns(
            {"alertname": "alert", "severity": "severity", "node": "node", "group": "group", "interface": "interface"}
        ),
    ),
    Panel(
        "Conditions that want somebody",
        "Conditions of the groups on their nodes that are in their bad state, with the reason. "
        "docs/api.md explains the words.",
        "none",
        [Query(f"max by (node, group, type, reason) (ipmp_condition{{{GROUP}}}) == 1")],
        12,
        Columns({"node": "node", "group": "group", "type": "condition", "reason": "reason"}),
    ),
]

WHERE = [
    Panel(
        "Interfaces",
        "Each interface with its state, and the reason where it is unusable; whether it may carry data addresses, how "
        "many it carries, and how many targets it probes.",
        "none",
        [
            Query(f"max by (node, group, interface, state) (ipmp_interface_state{{{NIC}}} == 1)"),
            Query(f"max by (node, group, interface) (ipmp_interface_active{{{NIC}}})"),
            Query(f"max by (node, group, interface) (ipmp_data_addresses{{{NIC}}})"),
            Query(f"max by (node, group, interface) (ipmp_probe_targets{{{NIC}}})"),
            Query(f"max by (node, group, interface, reason) (ipmp_interface_unusable{{{NIC}}} == 1)"),
        ],
        16,
        Columns(
            {
                "node": "node",
                "group": "group",
                "interface": "interface",
                "state": "state",
                "reason": "reason",
                "Value #B": "active",
                "Value #C": "data addresses",
                "Value #D": "targets",
            },
            {"active": {0: ("no", GREY), 1: ("yes", GREEN)}},
        ),
    ),
    Panel(
        "Nodes on which an interface has failed",
        "By the name of the interface, which on most clusters is a switch: many nodes at once are one switch, not many "
        "cables.",
        "none",
        [Query(f"sum by (interface) ({state('failed')})", "{{interface}}")],
        8,
        Gauges(ZERO_IS_GOOD),
    ),
    Panel(
        "States of interfaces",
        "One band for each interface. Offline is somebody's wish; unknown: there is nobody to probe.",
        "none",
        [
            Query(
                f"3 * {state('failed')} + 2 * {state('offline')} + {state('unknown')}",
                "{{node}} {{group}} {{interface}}",
            )
        ],
        24,
        Timeline(),
    ),
]

MOVES = [
    Panel(
        "Moves of addresses",
        "Data addresses moved, added or removed, by reason.",
        "none",
        [Query(increase("ipmp_address_moves_total", GROUP, "reason"), "{{reason}}")],
        8,
        Lines(bars=True),
    ),
    Panel(
        "Failures and repairs",
        "Interfaces found to have failed, and found to work again, by reason.",
        "none",
        [
            Query(increase("ipmp_interface_failures_total", NIC, "reason"), "failed: {{reason}}"),
            Query(increase("ipmp_interface_repairs_total", NIC, "reason"), "repaired: {{reason}}"),
        ],
        8,
        Lines(bars=True),
    ),
    Panel(
        "Undone and foreign changes",
        "Configurations that were undone, for the node lost what it had reached before; times that another program "
        "took away what the agent had put into the kernel, and changed its settings.",
        "none",
        [
            Query(increase("ipmp_changes_undone_total", GROUP, "node, group"), "undone: {{node}} {{group}}"),
            Query(increase("ipmp_foreign_changes_total", NODE, "node"), "foreign: {{node}}"),
            Query(increase("ipmp_settings_drift_total", NODE, "node"), "settings: {{node}}"),
        ],
        8,
        Lines(bars=True),
    ),
    Panel(
        "Outages: from the first loss to the announcement",
        "What users notice: from the first lost probe, or the loss of carrier, until the addresses were moved and "
        "announced. Of the hour before each moment; p100 is the upper bound of the slowest. A dot is one outage, and "
        "says of which interface, where Prometheus keeps exemplars.",
        "s",
        [
            quantile(0.5, "ipmp_outage_seconds", GROUP, "reason", "1h"),
            quantile(1, "ipmp_outage_seconds", GROUP, "reason", "1h", exemplars=True),
        ],
        12,
        Lines(),
    ),
    Panel(
        "Failovers: from the verdict to the announcement",
        "The agent's own share of an outage. Of the hour before each moment; p100 is the upper bound of the slowest. "
        "A dot is one failover, as above.",
        "s",
        [
            quantile(share, "ipmp_failover_duration_seconds", GROUP, "", "1h", exemplars=share == 1)
            for share in (0.5, 0.99, 1)
        ],
        12,
        Lines(),
    ),
]

PROBING = [
    Panel(
        "Round trips",
        "Of answered probes, by interface. One that is slower than its neighbours has a bad path.",
        "s",
        [
            quantile(0.5, "ipmp_probe_rtt_seconds", NIC, "interface", "$__rate_interval"),
            quantile(0.99, "ipmp_probe_rtt_seconds", NIC, "interface", "$__rate_interval"),
        ],
        8,
        Lines(),
    ),
    Panel(
        "Probes lost",
        "Share of the probes that were given up or answered too late. 100 % is a silent failure or a dead cable; a few "
        "per cent that stay are a bad optic, or targets that limit their answers.",
        "percentunit",
        [
            Query(
                f"{rate('ipmp_probes_lost_total', NIC, 'node, interface')}"
                f" / ({rate('ipmp_probes_sent_total', NIC, 'node, interface')} > 0)",
                "{{node}} {{interface}}",
            )
        ],
        8,
        Lines(),
    ),
    Panel(
        "Probes sent",
        "Probes a second, by interface, of all nodes chosen.",
        "pps",
        [Query(rate("ipmp_probes_sent_total", NIC, "interface"), "{{interface}}")],
        8,
        Lines(),
    ),
    Panel(
        "Targets in use",
        "Fewest on any node chosen. With none an interface is unknown: silent failures stay unseen.",
        "none",
        [Query(f"min by (group, interface) (ipmp_probe_targets{{{NIC}}})", "{{group}} {{interface}}")],
        8,
        Lines(),
    ),
    Panel(
        "Failure detection time",
        "Longest in force on any node chosen, beside the one configured. Slow targets raise it.",
        "s",
        [
            Query(f"max by (group) (ipmp_failure_detection_time_seconds{{{GROUP}}})", "{{group}} in force"),
            Query(
                f"max by (group) (ipmp_failure_detection_time_configured_seconds{{{GROUP}}})", "{{group}} configured"
            ),
        ],
        8,
        Lines(),
    ),
    Panel(
        "Probes missed and refused",
        "Missed: the agent was late, and neither sent nor judged. Refused: the kernel did not send.",
        "none",
        [
            Query(increase("ipmp_probes_missed_total", NIC, "node"), "missed: {{node}}"),
            Query(increase("ipmp_probes_refused_total", NIC, "node"), "refused: {{node}}"),
        ],
        8,
        Lines(bars=True),
    ),
]

AGENT = [
    Panel(
        "Lateness of agents",
        "How late the data plane woke up, p99. Its own lateness is never a verdict; above 0.1 s detection gets slower.",
        "s",
        [quantile(0.99, "ipmp_probe_scheduling_lag_seconds", NODE, "node", "$__rate_interval")],
        8,
        Lines(),
    ),
    Panel(
        "Errors that were survived",
        "By the part of the agent that caught them, and requests that the kernel refused.",
        "none",
        [
            Query(increase("ipmp_agent_errors_total", NODE, "part"), "{{part}}"),
            Query(increase("ipmp_kernel_refusals_total", NODE, "job"), "refused by the kernel"),
        ],
        8,
        Lines(bars=True),
    ),
    Panel(
        "Changes of carrier and overruns",
        "Which way a change of carrier was found first, and event queues of the kernel that ran over.",
        "none",
        [
            Query(increase("ipmp_carrier_by_event_total", NODE, "job"), "told by an event"),
            Query(increase("ipmp_carrier_by_poll_total", NODE, "job"), "found by asking"),
            Query(increase("ipmp_netlink_overruns_total", NODE, "job"), "queues that ran over"),
        ],
        8,
        Lines(bars=True),
    ),
    Panel(
        "Memory of agents",
        "Resident.",
        "bytes",
        [Query(f'max by ({PER_NODE}) (process_resident_memory_bytes{{{NODE},job="ipmp-agent"}})', "{{node}}")],
        8,
        Lines(),
    ),
    Panel(
        "Processor of agents",
        "Share of one processor.",
        "percentunit",
        [
            Query(
                f'sum by ({PER_NODE}) (rate(process_cpu_seconds_total{{{NODE},job="ipmp-agent"}}[$__rate_interval]))',
                "{{node}}",
            )
        ],
        8,
        Lines(),
    ),
    Panel(
        "Versions",
        "How many agents and operators run which version.",
        "none",
        [Query(f"count by (component, version) (ipmp_build_info{{{CLUSTER}}})")],
        8,
        Columns({"component": "component", "version": "version", "Value": "processes"}),
    ),
]

OPERATOR = [
    Panel(
        "Reconcile steps",
        "A second, by result.",
        "ops",
        [Query(rate("ipmp_operator_reconcile_duration_seconds_count", CLUSTER, "result"), "{{result}}")],
        6,
        Lines(),
    ),
    Panel(
        "Reconcile errors",
        "By reason. Conflict is usual: somebody else wrote first, and the step is tried again.",
        "ops",
        [Query(rate("ipmp_operator_reconcile_errors_total", CLUSTER, "reason"), "{{reason}}")],
        6,
        Lines(),
    ),
    Panel(
        "Durations",
        "p99 of reconcile steps, and of planning everything once.",
        "s",
        [
            quantile(0.99, "ipmp_operator_reconcile_duration_seconds", CLUSTER, "result", "$__rate_interval"),
            quantile(0.99, "ipmp_operator_plan_duration_seconds", CLUSTER, "", "$__rate_interval"),
        ],
        6,
        Lines(),
    ),
    Panel(
        "Steps that wait",
        "Depth of the operator's queue. It falls to 0 between changes.",
        "none",
        [Query(f"max by (cluster) (ipmp_operator_queue_depth{{{CLUSTER}}})", "{{cluster}} waiting")],
        6,
        Lines(),
    ),
    Panel(
        "Groups",
        "IPMPGroups by state.",
        "none",
        [Query(f"max by (cluster, state) (ipmp_operator_groups{{{CLUSTER}}})", "{{cluster}} {{state}}")],
        8,
        Lines(),
    ),
    Panel(
        "Nodes of the groups",
        "By the state of the group there. Behind counts those that have yet to apply the last change, whatever their "
        "state.",
        "none",
        [Query(f"max by (cluster, group, state) (ipmp_operator_group_nodes{{{WANTED}}})", "{{group}} {{state}}")],
        8,
        Lines(),
    ),
    Panel(
        "Use of pools",
        "Share of a pool's addresses that nodes have. Full: nodes that come get none.",
        "percentunit",
        [
            Query(
                f"max by (cluster, group, pool) (ipmp_operator_pool_addresses_allocated{{{WANTED}}})"
                f" / max by (cluster, group, pool) (ipmp_operator_pool_addresses{{{WANTED}}})",
                "{{group}} {{pool}}",
            )
        ],
        8,
        Gauges({0: GREEN, 0.85: YELLOW, 1: RED}),
    ),
]

ROWS: dict[str, tuple[int, list[Panel]]] = {
    "Now": (5, NOW),
    "Where": (9, WHERE),
    "Moves": (8, MOVES),
    "Probing": (8, PROBING),
    "Agents": (8, AGENT),
    "Operator": (8, OPERATOR),
}
"""Height of the panels of a row, and the panels from left to right; what does not fit goes below."""

FAILURES = f"sum by (node, interface, reason) (increase(ipmp_interface_failures_total{{{NIC}}}[$__rate_interval])) > 0"
