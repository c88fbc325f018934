"""The targets of the fuzzer with a fixed corpus: every seed, and what a few hundred mutations make of it."""

from __future__ import annotations

import random
import string
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.targets import TARGETS, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

MUTANTS = 150
WORDS = [b"[", b"]", b"{", b"}", b"\xff", b"\0", b"\n", b"null", b"-1", b"1e999", b"9" * 400, b"&a", b"!!int x"]


def mutants(target: Target) -> Iterator[bytes]:
    """Yield each seed, cut short and changed at random, the same at every run."""
    chance = random.Random(target.name)
    seeds = target.seeds()
    for seed in seeds:
        yield seed
        yield from (seed[:end] for end in range(min(len(seed), 64)))
    for _ in range(MUTANTS):
        data = bytearray(chance.choice(seeds)[:4096])
        for _ in range(chance.randint(1, 4)):
            at = chance.randint(0, len(data))
            match chance.randrange(4):
                case 0:
                    data[at : at + 1] = bytes((chance.randrange(256),))
                case 1:
                    data[at:at] = chance.choice(WORDS)
                case 2:
                    del data[at : at + chance.randint(1, 8)]
                case _:
                    data[at:at] = data[at : at + chance.randint(1, 64)]
        yield bytes(data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_parser_raises_what_it_does_not_declare(target: Target) -> None:
    for data in mutants(target):
        try:
            target(data)
        except Exception as error:
            error.add_note(f"input: {data!r}")
            raise


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_target_reads_its_seeds(target: Target) -> None:
    """A corpus that the parser refuses at the first byte would find nothing."""
    seeds = target.seeds()
    assert seeds
    for seed in seeds:
        target.parse(seed)


def test_every_target_has_a_name_that_a_command_line_takes() -> None:
    assert all(set(name) <= {*string.ascii_lowercase, *string.digits, "-"} for name in TARGETS)
