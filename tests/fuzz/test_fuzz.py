"""Every fuzz target over seeded mutations of valid input: the same inputs in every run, about a second for each."""

from __future__ import annotations

import os
import random

import pytest

from tests.fuzz.fuzz_parsers import TARGETS

INPUTS = int(os.environ.get("QMAIL_FUZZ_INPUTS", "2000"))
EDGES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x1c", b"\x3e\x3e", b"\xff\xff")


def mutate(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One to six changes to a valid input."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 6)):
        change = rng.randrange(7)
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randint(1, 8))
        if change == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        elif change == 2:
            del data[at:end]
        elif change == 3:
            del data[at:]
        elif change == 4:
            edge = rng.choice(EDGES)
            data[at : at + len(edge)] = edge
        elif change == 5:
            data[at:at] = data[at:end] * rng.randint(1, 40)
        else:
            other = rng.choice(seeds)
            data[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(data[:100_000])


@pytest.mark.parametrize("name", TARGETS)
def test_target_survives_mutations(name: str) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds)
    assert seeds
    rng = random.Random(name)
    for seed in seeds:
        target.parse(seed)
    for number in range(INPUTS):
        data = mutate(rng, seeds)
        try:
            target.parse(data)
        except Exception as error:
            raise AssertionError(f"input {number}: {data.hex()}") from error
