"""nf_tables as bytes: what we pack is what nft sends, and what others made is read."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipmp_agent.linux.group import pod_egress
from ipmp_agent.linux.messages import netlink, nftables
from ipmp_agent.linux.messages.nftables import NftRule
from ipmp_agent.linux.shared import masquerade
from ipmp_agent.linux.shared.masquerade import Masquerade

NETWORKS = (ip_network("198.19.0.0/20"), ip_network("2001:db8:0:60::/60"))
SOURCES = {4: ip_address("198.18.0.10"), 6: ip_address("2001:db8:0:1::10")}
REPLACEMENT = pod_egress.replacement("ipmp-data", ["nic0"], NETWORKS, SOURCES)

NEW_TABLE, DELETE_TABLE, NEW_CHAIN, NEW_RULE = 0xA00, 0xA02, 0xA03, 0xA06
RULE_EXPRESSIONS = 4

Request = tuple[int, int, bytes, dict[int, bytes]]


def requests(data: bytes) -> list[Request]:
    """Kind, flags, head and attributes of each message."""
    return [(m.kind, m.flags, m.body[:4], netlink.attributes(m.body, 4)) for m in netlink.messages(data)]


def as_nft_sends() -> list[Request]:
    """What nft 1.0.6 sent for the same table (see `strace -e write=all nft -f ...`)."""
    path = Path(__file__).parent / "messages" / "nft_batch.hex"
    return requests(bytes.fromhex(path.read_text(encoding="ascii")))


def rules_as_nft_sends() -> list[NftRule]:
    return [NftRule("", told[RULE_EXPRESSIONS]) for kind, _, _, told in as_nft_sends() if kind == NEW_RULE]


@pytest.mark.parametrize("kind", [NEW_CHAIN, NEW_RULE])
def test_chains_and_rules_are_packed_as_nft_packs_them(kind: int) -> None:
    theirs = [request for request in as_nft_sends() if request[0] == kind]
    assert [request for request in requests(b"".join(REPLACEMENT)) if request[0] == kind] == theirs
    assert theirs


def test_replacement_makes_deletes_and_makes_so_that_it_works_with_and_without_a_table() -> None:
    first = [kind for kind, *_ in requests(b"".join(REPLACEMENT[:3]))]
    assert first == [NEW_TABLE, DELETE_TABLE, NEW_TABLE]


def test_networks_of_a_version_without_an_address_keep_theirs_and_stay_inside() -> None:
    packed = b"".join(pod_egress.replacement("ipmp-data", ["nic0"], NETWORKS, {4: SOURCES[4]}))
    names = [
        [n for n, _ in NftRule("", t[RULE_EXPRESSIONS]).expressions()]
        for k, _, _, t in requests(packed)
        if k == NEW_RULE
    ]
    assert [listed[-1] for listed in names] == ["immediate", "immediate", "immediate", "nat"]


def test_addresses_that_a_table_gives_are_read_back() -> None:
    assert pod_egress.given_addresses(rules_as_nft_sends()) == SOURCES


def test_what_the_host_sends_keeps_its_source_and_is_not_taken_for_what_pods_get() -> None:
    own = [*SOURCES.values(), ip_address("198.18.0.99")]
    packed = b"".join(pod_egress.replacement("ipmp-data", ["nic0"], NETWORKS, SOURCES, own))
    rules = [NftRule("", told[RULE_EXPRESSIONS]) for kind, _, _, told in requests(packed) if kind == NEW_RULE]
    assert pod_egress.given_addresses(rules) == SOURCES
    read = [masquerade.read(rule, ANY)[0].source for rule in rules]
    assert read[1:4] == [ip_network(address) for address in own], "before pods are told from the rest"


@pytest.mark.parametrize(("generation", "following"), [(1, 2), (0xFFFFFFFF, 1)])
def test_generations_have_no_zero(generation: int, following: int) -> None:
    assert nftables.following(generation) == following


# -- rules of others --------------------------------------------------------------------------------------------------

ANY = Masquerade(nftables.INET, "cni", "post", 100, masquerade.VERSIONS[nftables.INET])


def test_source_and_version_of_a_rule_are_read() -> None:
    read = [masquerade.read(rule, ANY)[0] for rule in rules_as_nft_sends()]
    assert [(sorted(each.versions), each.interface, each.source) for each in read] == [
        ([4, 6], "nic0", None),
        ([4], None, None),
        ([6], None, None),
        ([4], None, NETWORKS[0]),
        ([6], None, NETWORKS[1]),
    ]


def expression(name: str, **values: bytes) -> bytes:
    attributes = [netlink.attribute(int(kind[1:]), value) for kind, value in values.items()]
    return netlink.nested(1, netlink.attribute(1, name.encode() + b"\0"), netlink.nested(2, *attributes))


def constant(value: bytes) -> bytes:
    return netlink.attribute(1, value)


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("mask", "compared", "source"),
    [
        ("fffff000", "c6130000", "198.19.0.0/20"),
        ("fffff000", "c6130001", "198.19.0.0/20"),  # never true: the bit is masked
        ("ff00ff00", "c6000000", None),  # no prefix: taken to hold
        ("", "c6130000", "0.0.0.0/0"),
    ],
)
def test_masks_of_a_source(mask: str, compared: str, source: str | None) -> None:
    load = expression("payload", _1=number(1), _2=number(1), _3=number(12), _4=number(4))
    cut = expression("bitwise", _4=constant(bytes.fromhex(mask)))
    equal = expression("cmp", _2=number(0), _3=constant(bytes.fromhex(compared)))
    read, masquerades, _ = masquerade.read(NftRule("post", load + cut + equal + expression("masq")), ANY)
    assert masquerades
    assert str(read.source) == str(source)


EXPRESSIONS = st.builds(
    lambda name, values: expression(name, **{f"_{kind}": value for kind, value in values.items()}),
    st.sampled_from(["meta", "payload", "bitwise", "cmp", "masq", "target", "immediate", "lookup"]),
    st.dictionaries(
        st.integers(1, 5),
        st.one_of(
            st.sampled_from([0, 1, 7, 8, 12, 15, 16]).map(number), st.binary(max_size=20).map(constant), st.binary()
        ),
    ),
)


@given(st.one_of(st.binary(max_size=200), st.lists(EXPRESSIONS, max_size=6).map(b"".join)))
def test_no_rule_of_others_stops_the_reading(packed: bytes) -> None:
    read: tuple[Any, ...] = masquerade.read(NftRule("post", packed), ANY)
    assert read[0].versions <= ANY.versions
