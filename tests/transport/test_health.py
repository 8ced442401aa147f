"""What is remembered of nodes: quantiles in fixed memory, circuits that open and are probed, budgets that are kept."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.transport.health import Circuit, Health, Sketch
from qmail_core.transport.hedge import Budget


@given(st.lists(st.floats(1e-4, 50.0), min_size=20, max_size=200))
def test_quantiles_are_within_a_bucket_of_the_truth(samples: list[float]) -> None:
    sketch = Sketch()
    for seconds in samples:
        sketch.add(seconds)
    ordered = sorted(samples)
    for share in (0.5, 0.95):
        at = share * len(ordered)
        low, high = ordered[max(0, int(at) - 1)], ordered[min(len(ordered) - 1, int(at))]
        assert low / 1.2 <= sketch.quantile(share) <= high * 1.2


def test_extreme_latencies_have_a_place() -> None:
    sketch = Sketch()
    assert sketch.quantile(0.5) == 0.0
    sketch.add(0.0)
    assert 0 < sketch.quantile(0.5) < 1e-4
    for _ in range(50):
        sketch.add(1e9)
    assert sketch.quantile(0.5) > 60


def test_the_past_fades() -> None:
    sketch = Sketch()
    for _ in range(5000):
        sketch.add(1.0)
    for _ in range(1000):
        sketch.add(0.01)
    assert sketch.quantile(0.95) < 0.02
    assert sketch.total <= 256


def test_p95_is_a_default_until_enough_is_known() -> None:
    health = Health(2)
    rng = random.Random(1)
    samples = [rng.uniform(0.01, 0.02) for _ in range(200)]
    for count, seconds in enumerate(samples):
        assert health.p95(0, default=0.25) == 0.25 if count < 8 else health.p95(0) < 0.025
        health.good(0, seconds)
    assert health.p95(0) == pytest.approx(statistics.quantiles(samples, n=20)[18], rel=0.2)
    assert health.p95(0, bulk=True, default=0.5) == 0.5  # bulk is another matter


def test_answers_nobody_waited_for_count_as_late_as_they_were() -> None:
    health = Health(1)
    for _ in range(20):
        health.good(0, 0.01, bulk=True)
    before = health.p95(0, bulk=True)
    health.late(0, 0.001, bulk=True)  # that says nothing
    assert health.p95(0, bulk=True) == before
    for _ in range(3):
        health.late(0, 0.3, bulk=True)
    assert health.p95(0, bulk=True) > 0.1


def test_a_circuit_opens_probes_and_closes() -> None:
    circuit = Circuit()
    states = []
    for _ in range(4):
        circuit.failed(0.0)
        states.append(circuit.open)
    assert states == [False, False, False, True]
    assert not circuit.allows(0.9)
    assert circuit.allows(1.0)  # the probe
    assert not circuit.allows(1.0)  # one at a time
    circuit.failed(1.0)
    assert not circuit.allows(2.9)  # the pause is doubled
    assert circuit.allows(3.0)
    circuit.answered()
    assert not circuit.open
    assert circuit.allows(3.0)


def test_a_probe_nobody_waited_for_is_followed_by_another() -> None:
    circuit = Circuit()
    for _ in range(4):
        circuit.failed(0.0)
    assert [circuit.allows(now) for now in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)] == [False, True, False, True, False, True]


def test_the_pause_of_a_circuit_is_bounded() -> None:
    circuit, now = Circuit(), 0.0
    for _ in range(4):
        circuit.failed(now)
    pauses = []
    for _ in range(8):
        begun = now
        while not circuit.allows(now):
            now += 0.5
        pauses.append(now - begun)
        circuit.failed(now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_no_more_than_a_fifth_of_the_network_is_shut_out() -> None:
    health = Health(25)
    for node in range(5):
        for _ in range(4):
            health.silent(node, 0.0)
    assert [health.allows(node, 0.5) for node in range(6)] == [False] * 5 + [True]
    for _ in range(4):
        health.silent(5, 0.0)
    assert all(health.allows(node, 0.5) for node in range(25))
    health.alive(5)
    assert not health.allows(0, 0.5)


@given(st.lists(st.tuples(st.integers(1, 200_000), st.booleans()), min_size=1, max_size=300))
def test_hedges_never_cost_more_than_their_share(steps: list[tuple[int, bool]]) -> None:
    budget = Budget(share=0.05, burst=0)
    largest = 0
    for size, hedge in steps:
        if hedge and budget.spend(size):
            largest = max(largest, size)
        elif not hedge:
            budget.earn(20 * size)
    assert budget.spent <= 0.05 * budget.asked + 1e-6


def test_a_hedge_that_cost_nothing_is_given_back() -> None:
    budget = Budget(burst=100)
    assert budget.spend(100)
    assert not budget.spend(1)
    budget.give_back(100)
    assert budget.spent == 0
    assert budget.spend(100)


def test_a_node_little_is_known_of_is_taken_to_be_like_the_others() -> None:
    health = Health(8)
    for node in range(4):
        for _ in range(8):
            health.good(node, 0.01 * (node + 1), bulk=True)
    assert health.typical_p95(bulk=True, default=7.0) == 7.0  # half of them are too few
    for _ in range(8):
        health.good(4, 0.05, bulk=True)
    assert 0.03 <= health.typical_p95(bulk=True, default=7.0) <= 0.05
    assert health.typical_p95(default=7.0) == 7.0  # of small answers nothing is known
