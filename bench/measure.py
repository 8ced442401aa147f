"""How the benches of this folder take time, and the rows they make of it.

Rule: calls that are compared alternate in short batches, so that a busy machine slows all of them alike; a figure is
the median of its batches, its spread half the distance between the quartiles, as a share of the median.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BATCHES = 9

Row = dict[str, Any]


class Timing(NamedTuple):
    """Seconds of one call."""

    seconds: float
    spread: float


def batch(call: Callable[[], object], rounds: int) -> float:
    """Seconds per call over one batch."""
    start = time.perf_counter()
    for _ in range(rounds):
        call()
    return (time.perf_counter() - start) / rounds


def timings(calls: Sequence[Callable[[], object]], least: float = 0.02) -> list[Timing]:
    """Time calls against each other, in batches of at least `least` seconds."""
    rounds = []
    for call in calls:
        call()
        count = 1
        while (spent := batch(call, count) * count) < least / 4:
            count *= 4
        rounds.append(max(1, round(count * least / spent)))
    turns = [[batch(call, count) for call, count in zip(calls, rounds, strict=True)] for _ in range(BATCHES)]
    found = []
    for column in zip(*turns, strict=True):
        low, middle, high = statistics.quantiles(column, n=4)
        found.append(Timing(middle, (high - low) / 2 / middle))
    return found


def row(what: str, value: float, unit: str, spread: float, peer: tuple[str, float] | None = None) -> Row:
    """One line without a goal; `peer` is its name and how many times better we are."""
    return {
        "what": what,
        "value": round(value, 3),
        "unit": unit,
        "spread": round(spread, 3),
        "peer": peer[0] if peer else None,
        "ratio": round(peer[1], 2) if peer else None,
        "goal": None,
        "holds": True,
    }


def want(line: Row, goal: str) -> Row:
    """The same line with a goal: "<= 0.4 us" and ">= 1.5 GB/s" on the value, ">= 10 x" on the ratio."""
    sign, bound, unit = goal.split()
    found = line["ratio"] if unit == "x" else line["value"]
    assert unit in ("x", line["unit"])
    return line | {"goal": goal, "holds": found >= float(bound) if sign == ">=" else found <= float(bound)}


def resident() -> float:
    """Resident memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
