"""The fields of both statuses, as `status.py` builds them and the CRDs state them."""

from __future__ import annotations

from ipmp_api.fields import (
    ADDRESS_MAX,
    INTERFACE_ADDRESS_MAX,
    INTERFACES_MAX,
    NODE_NAME_MAX,
)
from ipmp_api.schema import Flag, Node, Number, Sequence, Struct, Text, choice
from ipmp_api.status import (
    LAST_FAILOVERS_MAX,
    NOT_ADOPTED_MAX,
    STATUS_ADDRESSES_MAX,
    STATUS_TARGETS_MAX,
    TROUBLED_NODES_MAX,
)
from ipmp_api.types import Origin, Role

_COUNT_MAX = 2**31 - 1
_EXACT_MAX = 2**53 - 1  # bounds are JSON numbers: a larger one is rounded, and the API server then refuses every value
_INTERFACE_NAME_MAX = 17  # a kernel name, or a PCI or MAC address while the interface is absent
_REASON = Text("One word in CamelCase.", 64)

_HARDWARE_ADDRESS_MAX = 32 * 3 - 1  # of 32 bytes: an interface that cannot be a member, as of InfiniBand, is shown too


def _count(description: str) -> Number:
    return Number(description, 0, _COUNT_MAX)


def _time(description: str) -> Text:
    return Text(description, timestamp=True)


def _words(description: str, *words: str) -> Text:
    return Text(description, choices=words)


def _conditions(types: str) -> Sequence:
    return Sequence(
        f"What holds, and why: {types}.",
        Struct(
            "One condition.",
            {
                "type": Text("Which condition.", 64),
                "status": _words("Whether it holds.", "True", "False", "Unknown"),
                "reason": _REASON,
                "message": Text("For people.", 4096, min_length=0),
                "lastTransitionTime": _time("When status changed last."),
                "observedGeneration": Number("Generation of the object it was found for.", 0, _EXACT_MAX),
            },
            required=("type", "status", "reason", "message", "lastTransitionTime"),
        ),
        16,
        key="type",
    )


_GENERATION = Number("Generation of the object that this status is about; -1: nobody has looked at it.", -1, _EXACT_MAX)

GROUP_STATUS = Struct(
    "What became of the group; its size does not grow with the cluster.",
    {
        "observedGeneration": _GENERATION,
        "nodes": Struct(
            "Nodes by the state of the group there.",
            {
                "selected": _count("Nodes that the selector selects."),
                "ready": _count("Nodes where all interfaces are usable."),
                "degraded": _count("Nodes where some interfaces are usable."),
                "failed": _count("Nodes where no interface is usable."),
                "unknown": _count("Nodes without a working agent, or that it has not reported yet."),
            },
        ),
        "interfaces": Struct(
            "Members on all nodes.",
            {"total": _count("All."), "failed": _count("Those that failed.")},
        ),
        "dataAddresses": Struct(
            "Data addresses on all nodes.",
            {"total": _count("All."), "unavailable": _count("Those on no interface, or not to be had.")},
        ),
        "troubledNodes": Sequence(
            "Nodes that want a look, the first few.",
            Struct(
                "One node.",
                {
                    "nodeName": Text("Name of the node.", NODE_NAME_MAX),
                    "state": _words("State of the group there.", "degraded", "failed", "unknown"),
                    "reason": _REASON,
                },
                required=("nodeName", "state", "reason"),
            ),
            TROUBLED_NODES_MAX,
            key="nodeName",
        ),
        "conditions": _conditions("Accepted, Ready, Degraded, and Stalled while the group is refused"),
    },
)

_INTERFACE: dict[str, Node] = {
    "name": Text("Kernel name; while the interface is absent, what it is matched by.", _INTERFACE_NAME_MAX),
    "macAddress": Text("MAC address now.", _HARDWARE_ADDRESS_MAX),
    "role": choice("As configured.", Role),
    "active": Flag("Whether it carries data addresses, or may."),
    "state": _words("As ipmpstat says it.", "ok", "failed", "offline", "unknown"),
    "link": _words("What the driver says of the link.", "up", "down", "unknown"),
    "probe": _words("What probes say.", "ok", "failed", "unknown", "disabled"),
    "reason": _REASON,
    "since": _time("When it got into its state."),
    "speedMegabits": Number("Speed of the link, megabits per second.", 0, _COUNT_MAX),
    "testAddresses": Sequence("What it is probed from.", Text("An address.", ADDRESS_MAX), 8),
    "targets": Sequence(
        "What it probes, or may: of too many, those not in use are left out.",
        Struct(
            "One target.",
            {
                "address": Text("Its address.", ADDRESS_MAX),
                "state": _words("Whether it is used.", "active", "unused", "slow", "dead"),
            },
            required=("address", "state"),
        ),
        STATUS_TARGETS_MAX,
    ),
}
_FAILOVER: dict[str, Node] = {
    "time": _time("When they were announced where they are now."),
    "firstLoss": _time("First lost probe, or the loss of carrier; absent: nothing had failed."),
    "from": Text("Interface that the addresses left; absent: they were on none.", _INTERFACE_NAME_MAX),
    "to": Text("Interface that got them; absent: several did, or none.", _INTERFACE_NAME_MAX),
    "reason": _REASON,
    "addresses": _count("How many addresses moved."),
    "durationMicroseconds": Number("From the cause seen to the first announcement sent.", 0, _EXACT_MAX),
}

NODE_GROUP_STATUS = Struct(
    "What the agent of the node sees.",
    {
        "observedGeneration": _GENERATION,
        "agentVersion": Text("Version of the agent that wrote this.", 64),
        "state": _words("ok: all interfaces usable; degraded: some; failed: none.", "ok", "degraded", "failed"),
        "failureDetectionTimeMilliseconds": Number("Failure detection time in force.", 1, _COUNT_MAX),
        "interfaces": Sequence(
            "The members.",
            Struct("One member.", _INTERFACE, required=("name", "role", "active", "state", "link", "probe")),
            INTERFACES_MAX,
            key="name",
        ),
        "addresses": Sequence(
            "The data addresses.",
            Struct(
                "One data address.",
                {
                    "address": Text("Address with prefix length.", INTERFACE_ADDRESS_MAX),
                    "state": _words("Whether an interface holds it.", "up", "down"),
                    "interface": Text("The interface that holds it.", _INTERFACE_NAME_MAX),
                    "reason": _REASON,
                    "origin": choice("Where it comes from.", Origin),
                },
                required=("address", "state"),
            ),
            STATUS_ADDRESSES_MAX,
            key="address",
        ),
        "notAdopted": Sequence(
            "Addresses that the host has on the members and that the group leaves alone, the first few.",
            Struct(
                "One address.",
                {
                    "address": Text("Address with prefix length.", INTERFACE_ADDRESS_MAX),
                    "interface": Text("The interface that has it.", _INTERFACE_NAME_MAX),
                    "reason": _REASON,
                    "message": Text("For people.", 1024, min_length=0),
                },
                required=("address", "interface", "reason", "message"),
            ),
            NOT_ADOPTED_MAX,
        ),
        "lastFailovers": Sequence(
            "The last moves, newest first.",
            Struct(
                "One move of addresses.",
                _FAILOVER,
                required=("time", "reason", "addresses", "durationMicroseconds"),
            ),
            LAST_FAILOVERS_MAX,
        ),
        "conditions": _conditions(
            "Programmed, Ready, Degraded, InterfacesConsistent, ProbesEnabled, OfflineHonored, HostSuitable, and "
            "Withdrawn when nothing is left"
        ),
    },
)
