"""A group and a node make a node group."""

from ipaddress import IPv4Interface, ip_address, ip_interface
from typing import Any

import pytest

from ipmp_api.compile import compile_for_file, compile_for_node, free_addresses, matches
from ipmp_api.errors import ValidationError
from ipmp_api.parse import parse_group
from ipmp_api.types import Group, LabelRequirement, LabelSelector, NodeGroup, Origin
from tests.unit.api.manifests import ASSIGNED, GROUP, POOLS, TEST_POOL, changed

LABELS = {"rack": "r1", "disk": "ssd", "empty": ""}


@pytest.mark.parametrize(
    ("labels", "expressions", "selected"),
    [
        ((), (), True),
        ((("rack", "r1"),), (), True),
        ((("rack", "r1"), ("disk", "hdd")), (), False),
        ((("empty", ""),), (), True),
        ((("absent", ""),), (), False),
        ((), (("rack", "In", ("r0", "r1")),), True),
        ((), (("rack", "In", ("r0",)),), False),
        ((), (("absent", "In", ("r0",)),), False),
        ((), (("rack", "NotIn", ("r1",)),), False),
        ((), (("rack", "NotIn", ("r0",)),), True),
        ((), (("absent", "NotIn", ("r0",)),), True),  # as Kubernetes has it
        ((), (("empty", "Exists", ()),), True),
        ((), (("absent", "Exists", ()),), False),
        ((), (("absent", "DoesNotExist", ()),), True),
        ((), (("rack", "DoesNotExist", ()),), False),
        ((("rack", "r1"),), (("disk", "Exists", ()), ("gpu", "Exists", ())), False),
    ],
)
def test_selectors_have_the_meaning_they_have_in_kubernetes(
    labels: tuple[tuple[str, str], ...], expressions: tuple[tuple[str, str, tuple[str, ...]], ...], selected: bool
) -> None:
    selector = LabelSelector(labels, tuple(LabelRequirement(*e) for e in expressions))
    assert matches(selector, LABELS) is selected


def group_of(values: dict[str, Any]) -> Group:
    return parse_group(changed(GROUP, values))


def addresses(node_group: NodeGroup) -> list[tuple[str, Origin]]:
    return [(str(data.address), data.origin) for data in node_group.data_addresses]


GROUP_IN_FULL: dict[str, Any] = {
    POOLS: [
        {"name": "a", "ranges": ["198.18.1.0/29"], "perNode": 2, "prefixLength": 24, "exclude": ["198.18.1.2"]},
        {"name": "b", "ranges": ["2001:db8::/120"]},
    ],
    ASSIGNED: [
        {"nodeName": "n2", "addresses": ["198.18.1.1/24"]},
        {"nodeName": "n1", "addresses": ["198.18.9.2", "2001:db8::1/64"]},
    ],
    TEST_POOL: {"ranges": ["198.18.1.4-198.18.1.9"], "prefixLength": 24},
}


def test_the_operator_gives_what_it_allotted() -> None:
    group = group_of(GROUP_IN_FULL)
    peers = (ip_address("198.18.0.9"),)
    node_group = compile_for_node(
        group,
        "n1",
        pool_addresses={"a": (ip_address("198.18.1.5"),), "b": (ip_address("2001:db8::7"),)},
        test_ipv4={"eth2": IPv4Interface("198.18.3.2/24")},
        peers=peers,
        peer_nodes=("n2",),
    )
    assert addresses(node_group) == [
        ("198.18.9.2/32", Origin.ASSIGNED),
        ("2001:db8::1/64", Origin.ASSIGNED),
        ("198.18.1.5/24", Origin.POOL),
        ("2001:db8::7/128", Origin.POOL),
    ]
    assert [(m.key, m.test_ipv4) for m in node_group.members] == [
        ("eth1", None),
        ("eth2", ip_interface("198.18.3.2/24")),
    ]
    assert node_group.peers == peers
    assert node_group.peer_nodes == ("n2",)
    assert node_group.name == "front.n1"
    assert node_group.policies == group.policies


def test_an_exhausted_pool_gives_nothing_and_the_rest_works() -> None:
    node_group = compile_for_node(group_of(GROUP_IN_FULL), "n3", pool_addresses={}, test_ipv4={}, peers=())
    assert node_group.data_addresses == ()
    assert len(node_group.members) == 2


def test_an_address_assigned_and_allotted_is_there_once_as_assigned() -> None:
    taken = {"a": (ip_address("198.18.9.2"),)}
    node_group = compile_for_node(group_of(GROUP_IN_FULL), "n1", pool_addresses=taken, test_ipv4={}, peers=())
    assert addresses(node_group)[0] == ("198.18.9.2/32", Origin.ASSIGNED)
    assert len(node_group.data_addresses) == 2


def test_a_file_gives_the_first_addresses_that_nobody_has() -> None:
    node_group = compile_for_file(group_of(GROUP_IN_FULL), "n1")
    assert addresses(node_group) == [
        ("198.18.9.2/32", Origin.ASSIGNED),
        ("2001:db8::1/64", Origin.ASSIGNED),
        ("198.18.1.3/24", Origin.POOL),  # .1 is assigned to n2, .2 excluded
        ("198.18.1.4/24", Origin.POOL),
        ("2001:db8::2/128", Origin.POOL),  # ::1 is assigned
    ]
    # The test pool starts at .4, which is a data address by now.
    assert [str(m.test_ipv4) for m in node_group.members] == ["198.18.1.5/24", "198.18.1.6/24"]
    assert node_group.peers == ()
    assert compile_for_file(group_of(GROUP_IN_FULL), "n1") == node_group


def test_a_file_with_too_few_addresses_is_refused_with_every_pool_named() -> None:
    group = group_of(
        {
            POOLS: [{"name": "a", "ranges": ["198.18.1.1"]}, {"name": "b", "ranges": ["198.18.1.1"]}],
            ASSIGNED: [{"nodeName": "n1", "addresses": ["198.18.1.1"]}],
            TEST_POOL: {"ranges": ["198.18.1.1-198.18.1.2"], "prefixLength": 24},
        }
    )
    with pytest.raises(ValidationError) as refused:
        compile_for_file(group, "n1")
    assert [error.field for error in refused.value.errors] == [
        f"{POOLS}[0].perNode",
        f"{POOLS}[1].perNode",
        TEST_POOL,
    ]


def test_free_addresses_come_in_the_order_of_the_ranges() -> None:
    group = group_of({POOLS: [{"name": "a", "ranges": ["198.18.2.1", "198.18.1.1-198.18.1.3"]}]})
    free = free_addresses(group.data_addresses.pools[0], {ip_address("198.18.1.2")})
    assert [str(a) for a in free] == ["198.18.2.1", "198.18.1.1", "198.18.1.3"]
