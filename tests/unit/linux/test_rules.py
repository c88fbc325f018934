"""Policy rules as bytes, and where ours belong among those of others."""

from __future__ import annotations

import random
import socket
from dataclasses import replace

import pytest

from ipmp_agent.linux.messages import netlink, rules
from ipmp_agent.linux.messages.rules import FR_ACT_GOTO, FRA_GOTO, PolicyRule

V4 = socket.AF_INET
FRA_SRC, FRA_FWMARK, FRA_IIFNAME = 2, 10, 3
LOCAL, MAIN, DEFAULT = (PolicyRule(V4, p, t, protocol=2) for p, t in ((0, 255), (32766, 254), (32767, 253)))
FROM = PolicyRule(V4, 32765, 100, protocol=3, head=(0, 32, 0, 0), selector=((FRA_SRC, b"\x0a\x4d\0\x0a"),))
WIREGUARD = PolicyRule(V4, 32764, 254, protocol=3, suppressed_length=0)
FOUR = rules.block(MAIN, 73)
TABLES = {254: 73, 100: 730_000_100}


def body(request: bytes) -> bytes:
    (message,) = netlink.messages(request)
    return message.body


def after(found: list[PolicyRule], requests: list[bytes]) -> list[PolicyRule]:
    """The rules as the kernel has them after these requests: a deletion takes the first that it does not rule out."""
    now = list(found)
    for request in requests:
        (message,) = netlink.messages(request)
        rule = rules.decode(message.body)
        assert rule is not None
        if message.kind == netlink.RTM_NEWRULE:
            behind = [at for at, each in enumerate(now) if each.priority <= rule.priority]
            now.insert(behind[-1] + 1 if behind else 0, rule)
            continue
        for at, each in enumerate(now):
            same = (each.priority, each.table, each.head, each.selector) == (
                rule.priority,
                rule.table,
                rule.head,
                rule.selector,
            )
            length = rule.suppressed_length in (None, each.suppressed_length)
            if same and length and rule.suppressed_group in (None, each.suppressed_group):
                assert each.owned, "a rule of somebody else would go"
                del now[at]
                break
        else:
            raise AssertionError(f"{rule} is not there")
    return now


@pytest.mark.parametrize("rule", [*FOUR, *rules.block(FROM, 730_000_100), replace(FROM, head=(8, 24, 4, 2))])
def test_a_rule_reads_back(rule: PolicyRule) -> None:
    assert rules.decode(body(rules.add(rule))) == rule


def test_what_is_no_ip_rule_is_not_read() -> None:
    assert rules.decode(body(rules.add(PolicyRule(128, 1, 2)))) is None


def test_four_rules_stand_right_before_the_hosts_own() -> None:
    found = [LOCAL, MAIN, DEFAULT]
    made = after(found, rules.differences(found, TABLES))
    assert made == [LOCAL, *FOUR, MAIN, DEFAULT]
    assert [(r.table, r.suppressed_group, r.suppressed_length) for r in FOUR] == [
        (254, 73, 0),
        (73, None, 0),
        (254, None, 0),
        (73, None, None),
    ]
    assert {r.priority for r in FOUR} == {32765}
    assert rules.differences(made, TABLES) == []
    assert after(made, rules.differences(made, {})) == found


def test_a_rule_that_leads_to_a_table_with_twins_has_a_pair_with_its_selector() -> None:
    found = [LOCAL, FROM, MAIN, DEFAULT]
    made = after(found, rules.differences(found, TABLES))
    pair = made[1:3]
    assert made == [LOCAL, *pair, FROM, *FOUR, MAIN, DEFAULT]
    assert {(r.priority, r.head, r.selector) for r in pair} == {(32764, FROM.head, FROM.selector)}
    assert [(r.table, r.suppressed_group) for r in pair] == [(100, 73), (730_000_100, None)]


def test_another_rule_for_main_has_a_pair_that_suppresses_what_it_suppresses() -> None:
    found = [LOCAL, WIREGUARD, MAIN, DEFAULT]
    pair = after(found, rules.differences(found, TABLES))[1:3]
    assert [(r.table, r.suppressed_group, r.suppressed_length) for r in pair] == [(254, 73, 0), (73, None, 0)]


def test_a_rule_that_comes_later_at_our_priority_gets_before_ours() -> None:
    found = [LOCAL, *FOUR, FROM, MAIN, DEFAULT]
    made = after(found, rules.differences(found, TABLES))
    assert made[3:] == [FROM, *FOUR, MAIN, DEFAULT]


def test_a_deletion_that_hit_the_first_of_a_pair_meant_the_rule_that_it_repeats() -> None:
    found = [LOCAL, FROM, MAIN, DEFAULT]
    whole = after(found, rules.differences(found, TABLES))
    hit, second = whole[1:3]
    left = [rule for rule in whole if rule != hit]
    assert after(left, rules.differences(left, TABLES)) == whole, "nobody was heard"
    (first, *_) = rules.differences(left, TABLES, {hit})
    assert rules.decode(body(first)) == FROM
    cleared = [rule for rule in left if rule != FROM]
    assert after(cleared, rules.differences(left, TABLES, {hit})[1:]) == [LOCAL, *FOUR, MAIN, DEFAULT]
    flushed = [rule for rule in left if rule != second]
    assert after(flushed, rules.differences(flushed, TABLES, {hit, second})) == whole, "it took the whole pair"


def test_tables_without_twins_are_left_alone() -> None:
    found = [LOCAL, FROM, MAIN, DEFAULT]
    made = after(found, rules.differences(found, {254: 73}))
    assert made == [LOCAL, FROM, *FOUR, MAIN, DEFAULT]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_somebody_did_to_ours_is_mended_and_at_no_moment_is_one_missing(seed: int) -> None:
    chance = random.Random(seed)
    found = [LOCAL, FROM, MAIN, DEFAULT]
    whole = after(found, rules.differences(found, TABLES))
    ours = [rule for rule in whole if rule.owned]
    left = [rule for rule in whole if not rule.owned or chance.random() < 0.6]
    mine = [rule for rule in left if rule.owned]
    for _ in range(chance.randrange(4)):
        left.insert(left.index(MAIN), chance.choice([r for r in ours if r.priority == 32765]))
    requests = rules.differences(left, TABLES)
    for count in range(len(requests) + 1):
        now = after(left, requests[:count])
        assert not [rule for rule in mine if rule not in now]
    assert after(left, requests) == whole


@pytest.mark.parametrize(
    ("rule", "others", "words"),
    [
        (replace(FROM, priority=0), (), "before it"),
        (replace(FROM, suppressed_group=5), (), "interface group itself"),
        (FROM, (PolicyRule(V4, 9, 0, FR_ACT_GOTO, protocol=3, target=FROM.priority),), "rule 9 jumps to it"),
        (FROM, (PolicyRule(V4, 9, 0, FR_ACT_GOTO, protocol=3, target=MAIN.priority),), None),
        (FROM, (), None),
    ],
)
def test_a_rule_that_cannot_be_followed_says_why(
    rule: PolicyRule, others: tuple[PolicyRule, ...], words: str | None
) -> None:
    why = rules.obstacle(rule, [*others, rule])
    assert (why is None) if words is None else (why is not None and words in why)
    if words is not None:
        found = sorted([LOCAL, *others, rule, MAIN, DEFAULT], key=lambda each: each.priority)
        assert not [
            r for r in after(found, rules.differences(found, TABLES)) if r.owned and r.head == rule.head != (0, 0, 0, 0)
        ]


def test_the_target_of_a_jump_is_no_selector() -> None:
    jump = netlink.message(
        netlink.RTM_NEWRULE,
        0,
        bytes([V4, 0, 0, 0, 0, 0, 0, FR_ACT_GOTO, 0, 0, 0, 0]),
        netlink.u32(FRA_GOTO, 100),
    )
    read = rules.decode(body(jump))
    assert read is not None
    assert (read.target, read.selector, read.table) == (100, (), 0)
