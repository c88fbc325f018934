"""Status values to the API's dictionaries and back."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ipmp_api.schema import Struct, validate
from ipmp_api.status import (
    AddressCounts,
    AddressStatus,
    Condition,
    Failover,
    GroupStatus,
    InterfaceCounts,
    InterfaceStatus,
    NodeCounts,
    NodeGroupStatus,
    TargetStatus,
    TroubledNode,
    from_dict,
    set_condition,
    to_dict,
)
from ipmp_api.status_fields import GROUP_STATUS, NODE_GROUP_STATUS

NOW = datetime(2026, 11, 22, 21, 0, 0, 123456, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
READY = Condition("Ready", "True", "AllUsable", NOW.replace(microsecond=0))
NODE_GROUP = NodeGroupStatus(
    state="degraded",
    interfaces=(
        InterfaceStatus(
            name="eth1",
            role="Active",
            active=False,
            state="failed",
            link="down",
            probe="disabled",
            mac_address="52:54:00:12:34:56",
            reason="LinkDown",
            since=NOW,
            speed_megabits=10_000,
            test_addresses=("198.18.3.1",),
            targets=(TargetStatus("198.18.0.1", "active"),),
        ),
    ),
    addresses=(AddressStatus("198.18.1.1/24", "up", "eth2"), AddressStatus("198.18.1.2/24", "down", None, "NoUsable")),
    failure_detection_time_milliseconds=1000,
    last_failovers=(Failover(NOW, "LinkDown", 2, 1500, from_="eth1", to="eth2"),),
    conditions=(READY,),
    observed_generation=3,
    agent_version="0.1.0",
)
GROUP = GroupStatus(
    nodes=NodeCounts(5, 3, 1, 0, 1),
    interfaces=InterfaceCounts(10, 1),
    data_addresses=AddressCounts(7, 0),
    troubled_nodes=(TroubledNode("n1", "degraded", "LinkDown"),),
    conditions=(READY,),
    observed_generation=2,
)


@pytest.mark.parametrize(("status", "schema"), [(NODE_GROUP, NODE_GROUP_STATUS), (GROUP, GROUP_STATUS)])
def test_a_status_fits_its_crd_and_survives_the_way_there_and_back(
    status: NodeGroupStatus | GroupStatus, schema: Struct
) -> None:
    data = to_dict(status)
    assert validate(schema, data, "status", strict=True) == []
    assert from_dict(type(status), data) == status


def test_a_time_that_is_none_is_refused_by_the_schema() -> None:
    data = to_dict(GROUP)
    data["conditions"][0]["lastTransitionTime"] = "yesterday"
    (error,) = validate(GROUP_STATUS, data, "status", strict=True)
    assert error.field == "status.conditions[0].lastTransitionTime"


def test_the_names_are_the_apis() -> None:
    data = to_dict(NODE_GROUP)
    assert data["failureDetectionTimeMilliseconds"] == 1000
    assert data["lastFailovers"][0]["from"] == "eth1"
    assert data["interfaces"][0]["since"] == "2026-11-22T21:00:00.123456Z"
    assert data["conditions"][0]["lastTransitionTime"] == "2026-11-22T21:00:00Z"
    assert "interface" not in data["addresses"][1]


def test_times_are_told_in_utc_and_one_without_a_zone_is_refused() -> None:
    abroad = datetime(2026, 11, 22, 23, tzinfo=timezone(timedelta(hours=2)))
    assert to_dict(Failover(abroad, "x", 1, 1))["time"] == "2026-11-22T21:00:00Z"
    with pytest.raises(ValueError, match="has no zone"):
        to_dict(Failover(abroad.replace(tzinfo=None), "x", 1, 1))


def test_a_status_of_another_version_is_read_as_far_as_it_is_known() -> None:
    status = from_dict(NodeGroupStatus, {"state": "ok", "later": {"a": 1}, "interfaces": None})
    assert status == NodeGroupStatus("ok")
    assert from_dict(GroupStatus, None) == GroupStatus()
    with pytest.raises(ValueError, match=r"incomplete NodeGroupStatus: .*state"):
        from_dict(NodeGroupStatus, {})


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    same = Condition("Ready", "True", "Other", LATER, "new words", 4)
    (kept,) = set_condition((READY,), same)
    assert (kept.last_transition_time, kept.reason, kept.message, kept.observed_generation) == (
        READY.last_transition_time,
        "Other",
        "new words",
        4,
    )


def test_a_condition_that_changes_gets_the_new_time_in_its_old_place() -> None:
    degraded = Condition("Degraded", "False", "AllUsable", NOW)
    unready = Condition("Ready", "False", "LinkDown", LATER)
    assert set_condition((READY, degraded), unready) == (unready, degraded)
    assert set_condition((READY,), degraded) == (READY, degraded)
