from ipaddress import ip_address

import pytest

from ipmp_agent.simulate.script import (
    Add,
    Cable,
    Fault,
    Latency,
    Loss,
    Online,
    PlayedTarget,
    Remove,
    Silent,
    Suspend,
    TakeOffline,
    TargetPower,
    parse_script,
)
from ipmp_api.errors import ValidationError

NICS = ("nic0", "nic1")
ROUTER = ip_address("198.18.0.1")


def refusals(**fields: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        parse_script({"kind": "FaultScript", "duration": "100", **fields}, NICS)
    return [str(error) for error in caught.value.errors]


def fault(**fields: str) -> Fault:
    network = {"targets": {"198.18.0.1": "1"}}
    script = parse_script({"duration": "100", "network": network, "faults": [{"at": "5", **fields}]}, NICS)
    return script.faults[0]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"cable": "nic0", "up": "false"}, Cable("nic0", up=False)),
        ({"cable": "nic1", "up": "yes"}, Cable("nic1", up=True)),
        ({"silent": "nic0", "on": "true"}, Silent("nic0", on=True)),
        ({"silent": "nic0", "on": "off"}, Silent("nic0", on=False)),
        ({"target": "198.18.0.1", "up": "false"}, TargetPower(ROUTER, up=False)),
        ({"loss": "nic0", "percent": "2.5"}, Loss("nic0", 2.5)),
        ({"latency": "198.18.0.1", "milliseconds": "300"}, Latency(ROUTER, 300)),
        ({"offline": "nic0"}, TakeOffline("nic0")),
        ({"online": "nic0"}, Online("nic0")),
        ({"remove": "nic0"}, Remove("nic0")),
        ({"add": "nic0"}, Add("nic0")),
        ({"suspend": "5"}, Suspend(5)),
    ],
)
def test_each_fault_is_read(fields: dict[str, str], what: object) -> None:
    assert fault(**fields) == Fault(5, what)  # type: ignore[arg-type]


def test_faults_happen_in_the_order_of_their_times_and_as_written_at_the_same_time() -> None:
    written = [{"at": "9", "offline": "nic0"}, {"at": "3", "remove": "nic1"}, {"at": "9", "online": "nic0"}]
    faults = parse_script({"duration": "10", "faults": written}, NICS).faults
    assert [str(one.what) for one in faults] == [
        "nic1 is removed from the node",
        "offline nic0 is asked for",
        "online nic0 is asked for",
    ]


@pytest.mark.parametrize(
    "network",
    [
        {"targets": {"198.18.0.1": "20", "fe80::1": "20"}},
        {"198.18.0.1": "20", "fe80::1": "20"},
        {"targets": {"198.18.0.1": {"latency": "20"}, "fe80::1": {"milliseconds": "20"}}},
        {"targets": [{"address": "198.18.0.1", "latency": "20"}, {"address": "fe80::1", "latencyMilliseconds": "20"}]},
        [{"address": "198.18.0.1", "latency": "20"}, {"address": "fe80::1", "latency": "20"}],
    ],
)
def test_a_network_may_be_written_in_each_of_these_ways(network: object) -> None:
    script = parse_script({"duration": "10", "network": network}, NICS)
    assert script.targets == (PlayedTarget(ROUTER, 0.02), PlayedTarget(ip_address("fe80::1"), 0.02))


def test_a_router_is_a_target_that_the_routing_table_knows() -> None:
    network = {"routers": ["198.18.0.1"], "targets": {"198.18.0.9": {"latency": "3", "discoverable": "true"}}}
    assert parse_script({"duration": "10", "network": network}, NICS).targets == (
        PlayedTarget(ip_address("198.18.0.9"), 0.003, discoverable=True),
        PlayedTarget(ROUTER, 0.001, router=True),
    )


def test_a_script_without_network_and_faults_is_an_empty_link_on_which_nothing_happens() -> None:
    script = parse_script({"duration": "10", "network": "", "faults": ""}, NICS)
    assert (script.duration, script.seed, script.targets, script.faults) == (10, 0, (), ())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"duration": "x"}, 'duration: Invalid value: "x": must be a number'),
        ({"duration": "nan"}, 'duration: Invalid value: "nan"'),
        ({"duration": "1e9"}, "must be a number from 0 to 2.592e+06"),
        ({"seed": "1.5"}, 'seed: Invalid value: "1.5": must be a whole number'),
        ({"sede": "1"}, 'unknown field "sede"; the fields here are apiVersion'),
        ({"nodeName": ["a"]}, "nodeName: Invalid value"),
        ({"network": "fast"}, 'network: Invalid value: "fast": must be an object'),
        ({"network": {"targets": "all"}}, "network.targets: Invalid value"),
        ({"network": {"targets": {"198.18.0.1": "-1"}}}, 'network.targets[198.18.0.1]: Invalid value: "-1"'),
        (
            {"network": {"targets": {"router": "1"}}},
            'network.targets[router]: Invalid value: "router": must be an IPv4',
        ),
        ({"network": {"targets": [{"latency": "1"}]}}, "network.targets[0].address: Required value"),
        ({"network": {"targets": [{"address": "198.18.0.1", "loss": "1"}]}}, 'unknown field "network.targets[0].loss"'),
        ({"network": {"targets": ["198.18.0.1", "198.18.0.1"]}}, "network.targets[1]: Duplicate value"),
        ({"network": {"targets": ["198.18.0.1"], "routers": ["198.18.0.1"]}}, 'network: Duplicate value: "198.18.0.1"'),
        ({"faults": {"at": "1"}}, "faults: Invalid value"),
        ({"faults": ["cable"]}, "faults[0]: Invalid value"),
        ({"faults": [{"at": "1"}]}, "must have exactly one of cable, silent"),
        ({"faults": [{"at": "1", "cable": "nic0", "silent": "nic0"}]}, "must have exactly one of"),
        ({"faults": [{"at": "1", "cable": "nic0"}]}, "faults[0].up: Required value"),
        ({"faults": [{"at": "1", "cable": "nic0", "up": "maybe"}]}, 'faults[0].up: Invalid value: "maybe"'),
        ({"faults": [{"cable": "nic0", "up": "true"}]}, "faults[0].at: Required value"),
        ({"faults": [{"at": "101", "remove": "nic0"}]}, 'faults[0].at: Invalid value: "101": must be a number from 0'),
        ({"faults": [{"at": "1", "remove": "nic9"}]}, 'faults[0].remove: Invalid value: "nic9": is not an interface'),
        ({"faults": [{"at": "1", "remove": ["nic0"]}]}, "faults[0].remove: Invalid value"),
        ({"faults": [{"at": "1", "loss": "nic0", "percent": "120"}]}, "faults[0].percent: Invalid value"),
        ({"faults": [{"at": "1", "target": "198.18.0.1", "up": "no"}]}, "is not in the network"),
        (
            {"faults": [{"at": "1", "remove": "nic0", "up": "no"}]},
            'unknown field "faults[0].up"; the fields here are at, remove',
        ),
    ],
)
def test_what_is_wrong_is_refused_by_its_field(fields: dict[str, object], words: str) -> None:
    found = refusals(**fields)
    assert len(found) == 1
    assert words in found[0]


def test_every_wrong_field_is_named_at_once() -> None:
    assert len(refusals(seed="x", network={"targets": {"y": "z"}}, faults=[{"at": "-1", "add": "nic7"}])) == 5


def test_a_script_must_say_how_long_it_is() -> None:
    with pytest.raises(ValidationError, match="duration: Required value"):
        parse_script({"kind": "FaultScript"}, NICS)
