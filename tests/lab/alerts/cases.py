"""For each alert of the chart: series on which it must fire, and series on which it must not."""

from __future__ import annotations

from dataclasses import dataclass, field

HOUR = 60  # minutes


@dataclass(frozen=True, slots=True)
class Case:
    """Series in promtool's notation, one sample a minute, and what the alert says of them at a minute.

    `labels` are those of the alert that fires, beside its severity; None: it is silent.
    """

    alert: str
    name: str
    series: dict[str, str]
    minute: int
    labels: dict[str, str] | None = None
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """One alert with a firing and a silent case that differ in what matters."""

    alert: str
    firing: dict[str, str]
    silent: dict[str, str]
    minute: int
    labels: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    also_firing: dict[str, str] | None = None
    also_silent: dict[str, str] | None = None

    def cases(self) -> tuple[Case, ...]:
        """All cases."""
        firing = [one for one in (self.firing, self.also_firing) if one]
        silent = [one for one in (self.silent, self.also_silent) if one]
        return (
            *(Case(self.alert, "fires", one, self.minute, self.labels, self.summary) for one in firing),
            *(Case(self.alert, "is silent", one, self.minute) for one in silent),
        )


NODE = 'node="n1"'
GROUP = f'{NODE},group="g"'
NIC = f'{GROUP},interface="eth1"'
OTHER = f'{GROUP},interface="eth2"'
OF_GROUP = {"node": "n1", "group": "g"}
OF_NIC = {**OF_GROUP, "interface": "eth1"}


def interface_states(nic: str, ok: str, failed: str, unknown: str = "0x200") -> dict[str, str]:
    """The state set of one interface."""
    return {
        f'ipmp_interface_state{{{nic},state="ok"}}': ok,
        f'ipmp_interface_state{{{nic},state="failed"}}': failed,
        f'ipmp_interface_state{{{nic},state="unknown"}}': unknown,
    }


BOTH_WELL = interface_states(NIC, "1x200", "0x200") | interface_states(OTHER, "1x200", "0x200")
ONE_FAILED = interface_states(NIC, "1 0x200", "0 1x200") | interface_states(OTHER, "1x200", "0x200")
GROUP_WELL = {f'ipmp_group_state{{{GROUP},state="failed"}}': "0x200"}
GROUP_FAILED = {f'ipmp_group_state{{{GROUP},state="failed"}}': "0 1x200"}
BOTH_FAILED = interface_states(NIC, "1 0x200", "0 1x200") | interface_states(OTHER, "1 0x200", "0 1x200")


def on_nodes(failed: int, nodes: int, how: str = "1x200") -> dict[str, str]:
    """One interface of a group on several nodes, failed on the first of them."""
    name = 'ipmp_interface_state{{node="n{n}",group="g",interface="eth1",state="failed"}}'
    return {name.format(n=n): how if n < failed else "0x200" for n in range(nodes)}


def standby(reserve: str) -> dict[str, str]:
    """An active interface that works, and a standby one whose state set says `reserve` for ok."""
    failed = "0x200" if reserve.startswith("1") else "1x200"
    return (
        interface_states(NIC, "1x200", "0x200")
        | interface_states(OTHER, reserve, failed)
        | {
            f'ipmp_interface_info{{{NIC},role="Active"}}': "1x200",
            f'ipmp_interface_info{{{OTHER},role="Standby"}}': "1x200",
            f"ipmp_interface_active{{{NIC}}}": "1x200",
            f"ipmp_interface_active{{{OTHER}}}": "0x200",
        }
    )


def condition(kind: str, reason: str, values: str = "1x200") -> dict[str, str]:
    """A condition of a node's group."""
    return {f'ipmp_condition{{{GROUP},type="{kind}",reason="{reason}"}}': values}


def group_condition(kind: str, reason: str) -> dict[str, str]:
    """A condition of a group, as the operator shows it."""
    return {f'ipmp_operator_group_condition{{group="g",type="{kind}",reason="{reason}"}}': "1x200"}


def histogram(name: str, labels: str, bound: str, within: str, total: str) -> dict[str, str]:
    """One bucket of a histogram, and its count."""
    return {
        f'{name}_bucket{{{labels},le="{bound}"}}': within,
        f'{name}_bucket{{{labels},le="+Inf"}}': total,
        f"{name}_count{{{labels}}}": total,
    }


def group_nodes(state: str, values: str) -> dict[str, str]:
    """A count of nodes, as the operator shows it."""
    return {f'ipmp_operator_group_nodes{{group="g",state="{state}"}}': values}


def pool(given: int) -> dict[str, str]:
    """A pool of 100 addresses."""
    where = '{group="g",pool="v4"}'
    return {
        f"ipmp_operator_pool_addresses{where}": "100x200",
        f"ipmp_operator_pool_addresses_allocated{where}": f"{given}x200",
    }


LAG = "ipmp_probe_scheduling_lag_seconds"

PAIRS = (
    Pair("IPMPGroupFailed", GROUP_FAILED, GROUP_WELL, 3, OF_GROUP, "Group g on n1 has no usable interface"),
    Pair(
        "IPMPDataAddressUnavailable",
        {f"ipmp_data_addresses_unavailable{{{GROUP}}}": "0 2x200"},
        {f"ipmp_data_addresses_unavailable{{{GROUP}}}": "0 2 0x200"},
        4,
        OF_GROUP,
        "2 data addresses of g are on no interface of n1",
    ),
    Pair(
        "IPMPNotProgrammed",
        condition("Programmed", "KernelRefused"),
        condition("Programmed", "ChangeUndone"),
        10,
        OF_GROUP,
        "The kernel of n1 is not as group g wants it",
    ),
    Pair(
        "IPMPInterfaceFailed",
        ONE_FAILED | GROUP_WELL,
        BOTH_FAILED | GROUP_FAILED,
        10,
        OF_NIC,
        "eth1 of group g on n1 has failed",
    ),
    Pair(
        "IPMPGroupNotRedundant",
        ONE_FAILED,
        BOTH_WELL,
        20,
        OF_GROUP,
        "The next failure cuts n1 off: one interface of g is left",
    ),
    Pair(
        "IPMPStandbyExhausted",
        standby("0x200"),
        standby("1x200"),
        20,
        OF_GROUP,
        "Group g on n1 has no standby interface in reserve",
    ),
    Pair(
        "IPMPInterfaceFlapping",
        {f'ipmp_interface_failures_total{{{NIC},reason="LinkDown"}}': "0x5 1x5 2x5 3x5 4x30 5x30"},
        {f'ipmp_interface_failures_total{{{NIC},reason="LinkDown"}}': "0x5 1x5 2x5 3x60"},
        40,
        OF_NIC,
        "eth1 on n1 failed 4 times within an hour",
    ),
    Pair(
        "IPMPLinkFailureCorrelated",
        on_nodes(3, 4),
        on_nodes(3, 9),
        4,
        {"group": "g", "interface": "eth1"},
        "eth1 has failed on 3 nodes at once: look at the switch",
        also_firing=on_nodes(3, 4, "1x2 0x200"),
    ),
    Pair(
        "IPMPInterfaceNotProbed",
        interface_states(NIC, "0x200", "0x200", "1x200"),
        interface_states(NIC, "0x10 1x200", "0x200", "1x10 0x200"),
        20,
        OF_NIC,
        "eth1 on n1 has nobody to probe: silent failures stay unseen",
    ),
    Pair(
        "IPMPProbeLossHigh",
        {f"ipmp_probes_sent_total{{{NIC}}}": "0+420x60", f"ipmp_probes_lost_total{{{NIC}}}": "0+42x60"} | BOTH_WELL,
        {f"ipmp_probes_sent_total{{{NIC}}}": "0+420x60", f"ipmp_probes_lost_total{{{NIC}}}": "0+420x60"} | ONE_FAILED,
        40,
        OF_NIC,
        "eth1 on n1 loses 10% of its probes",
    ),
    Pair(
        "IPMPDetectionTimeRaised",
        {
            f"ipmp_failure_detection_time_seconds{{{GROUP}}}": "30x200",
            f"ipmp_failure_detection_time_configured_seconds{{{GROUP}}}": "10x200",
        },
        {
            f"ipmp_failure_detection_time_seconds{{{GROUP}}}": "30x200",
            f"ipmp_failure_detection_time_configured_seconds{{{GROUP}}}": "30x200",
        },
        20,
        OF_GROUP,
        "Failures of g on n1 take 30s to find: targets are slow",
    ),
    Pair(
        "IPMPFailoverSlow",
        histogram("ipmp_failover_duration_seconds", GROUP, "0.1", "0x200", "0x5 1x200"),
        histogram("ipmp_failover_duration_seconds", GROUP, "0.1", "0x5 1x200", "0x5 1x200"),
        10,
        OF_GROUP,
        "Moving addresses of g on n1 took more than 100 ms",
    ),
    Pair(
        "IPMPOutageLong",
        histogram("ipmp_outage_seconds", f'{GROUP},reason="ProbesLost"', "15.0", "0x200", "0x5 1x200"),
        histogram("ipmp_outage_seconds", f'{GROUP},reason="ProbesLost"', "15.0", "0x5 1x200", "0x5 1x200"),
        10,
        OF_GROUP,
        "Addresses of g on n1 were out of reach for more than 15 s",
    ),
    # A new group is undone before the first scrape: the counter of such changes begins at 1, and never increases.
    Pair(
        "IPMPChangeUndone",
        condition("Programmed", "ChangeUndone", "_ 1x200"),
        condition("Programmed", "KernelRefused"),
        2,
        OF_GROUP,
        "A change of g cut n1 off and was undone",
    ),
    Pair(
        "IPMPForeignChanges",
        {f"ipmp_foreign_changes_total{{{NODE}}}": "0+2x60"},
        {f"ipmp_foreign_changes_total{{{NODE}}}": "0x10 3x60"},
        30,
        {"node": "n1"},
        "Another program on n1 keeps taking away what IPMP lays",
    ),
    Pair(
        "IPMPHostUnsuitable",
        condition("HostSuitable", "TunnelPinned"),
        condition("HostSuitable", "TunnelPinned", "1x30 _x170"),
        70,
        {**OF_GROUP, "reason": "TunnelPinned"},
        "n1 has something that group g cannot protect: TunnelPinned",
    ),
    Pair(
        "IPMPAgentStarved",
        histogram(LAG, NODE, "0.1", "0+50x60", "0+100x60") | {f'{LAG}_bucket{{{NODE},le="1.0"}}': "0+100x60"},
        histogram(LAG, NODE, "0.1", "0+100x60", "0+100x60"),
        40,
        {"node": "n1"},
        "The agent on n1 gets the processor too late to detect failures in time",
    ),
    Pair(
        "IPMPAgentErrors",
        {f'ipmp_agent_errors_total{{{NODE},part="state"}}': "0x5 1x60"},
        {f'ipmp_agent_errors_total{{{NODE},part="state"}}': "1x60"},
        10,
        {"node": "n1", "part": "state"},
        "The agent on n1 caught errors in state",
    ),
    Pair(
        "IPMPAgentDown",
        {f'up{{{NODE},job="ipmp-agent"}}': "1 0x60"},
        {f'up{{{NODE},job="other"}}': "1 0x60"},
        10,
        {"node": "n1"},
        "Nobody watches the NICs of n1",
    ),
    Pair(
        "IPMPStatusStale",
        {f"ipmp_report_lag_seconds{{{NODE}}}": "0x5 0+60x60", f"ipmp_api_connected{{{NODE}}}": "1x60"},
        {f"ipmp_report_lag_seconds{{{NODE}}}": "0x5 30 60 90 0x60", f"ipmp_api_connected{{{NODE}}}": "1x5 0x3 1x60"},
        20,
        {"node": "n1"},
        "The status of n1 in the API is older than it looks",
    ),
    # Deleted or crash-looping: there is no series to compare with anything.
    Pair(
        "IPMPOperatorDown",
        {'up{job="x"}': "1x60"},
        {"ipmp_operator_leader{pod='a'}": "0x60", "ipmp_operator_leader{pod='b'}": "1x60"},
        10,
        {},
        "No operator leads: changes wait, failovers go on",
        also_firing={f'up{{{NODE},job="ipmp-agent"}}': "1x60", f"ipmp_api_connected{{{NODE}}}": "1x60"},
        also_silent={f'up{{{NODE},job="ipmp-agent"}}': "1x60"},  # a host without Kubernetes
    ),
    Pair(
        "IPMPOperatorReconcileErrors",
        {'ipmp_operator_reconcile_errors_total{reason="Forbidden"}': "0+60x60"},
        {'ipmp_operator_reconcile_errors_total{reason="Conflict"}': "0+60x60"},
        40,
        {"reason": "Forbidden"},
        "Writes of the operator fail: Forbidden",
    ),
    Pair(
        "IPMPGroupNotAccepted",
        group_condition("Accepted", "Invalid"),
        group_condition("Ready", "Progressing"),
        10,
        {"group": "g", "reason": "Invalid"},
        "IPMPGroup g is refused: Invalid",
    ),
    Pair(
        "IPMPGroupNotReady",
        group_condition("Ready", "Progressing"),
        group_condition("Ready", "Invalid") | group_condition("Accepted", "Invalid"),
        40,
        {"group": "g"},
        "IPMPGroup g is not ready",
    ),
    Pair(
        "IPMPNodesUnknown",
        group_nodes("unknown", "3x60"),
        group_nodes("unknown", "3x10 0x60"),
        20,
        {"group": "g"},
        "Nothing is heard of group g from 3 nodes",
        also_silent=group_nodes("unknown", "3x60") | group_condition("Accepted", "InterfaceConflict"),
    ),
    Pair(
        "IPMPConfigStale",
        group_nodes("behind", "2x60"),
        group_nodes("behind", "2x5 0x60"),
        15,
        {"group": "g"},
        "2 nodes have not applied the last change of g",
        also_silent=group_nodes("behind", "2x60") | group_condition("Accepted", "InterfaceConflict"),
    ),
    Pair(
        "IPMPPoolAlmostExhausted",
        pool(90),
        pool(100) | group_condition("Degraded", "PoolExhausted"),
        20,
        {"group": "g", "pool": "v4"},
        "90% of pool v4 of g is given away",
    ),
    Pair(
        "IPMPPoolExhausted",
        group_condition("Degraded", "PoolExhausted"),
        pool(100),
        5,
        {"group": "g"},
        "A pool of g has no address left for nodes that want one",
    ),
    Pair(
        "IPMPWithdrawTimeout",
        {"ipmp_operator_withdraw_timeouts_total": "0x5 1x60"},
        {"ipmp_operator_withdraw_timeouts_total": "1x60"},
        10,
        {},
        "An agent did not withdraw in time, and something of a group may be left on its node",
    ),
    Pair(
        "IPMPVersionSkew",
        {f'ipmp_build_info{{{NODE},version="0.1.0"}}': "1x200", 'ipmp_build_info{version="0.2.0"}': "1x200"},
        {f'ipmp_build_info{{{NODE},version="0.1.0"}}': "1x200", 'ipmp_build_info{version="0.1.0"}': "1x200"},
        2 * HOUR + 10,
        {},
        "Agents and operator run 2 versions",
    ),
)
