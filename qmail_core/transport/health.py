"""What is known of each node: how long it takes, whether it answers at all. Orders nodes and shuts out the silent.

Latency is kept as a histogram of logarithmic buckets per node, small answers and bulk apart, a few hundred bytes each;
counts are halved now and then, so that the past fades. A node that stays silent several times in a row is shut out for
a growing pause (its circuit is open), then one request is let through to see. Never more than a fifth of the network is
shut out: when more are silent the trouble is most likely on this side, and everybody is worth asking.

Time is an argument: the loop's seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

_BASE = 20e-6  # seconds; the first bucket ends here
_STEP = 4  # buckets to a doubling
_BUCKETS = 88  # the last one holds everything above 80 s
_FADE = 256  # samples after which the past counts half
_SCALE = _STEP / math.log(2)
_OPEN_AFTER = 4  # times silent in a row
_PAUSE = (1.0, 30.0)  # seconds shut out at first and at most


class Sketch:
    """Quantiles of one stream of latencies, within a fifth of the true value, in fixed memory."""

    __slots__ = ("_counts", "_known", "_stale", "total")

    def __init__(self) -> None:
        self.total = 0
        self._counts = [0] * _BUCKETS
        self._known: dict[float, float] = {}
        self._stale = 0

    def add(self, seconds: float) -> None:
        """Count one sample."""
        bucket = int(math.log(seconds / _BASE) * _SCALE) + 1 if seconds > _BASE else 0
        self._counts[bucket if bucket < _BUCKETS else _BUCKETS - 1] += 1
        self.total += 1
        self._stale += 1
        if self.total >= _FADE:
            self._counts = [count >> 1 for count in self._counts]
            self.total = sum(self._counts)

    def quantile(self, share: float) -> float:
        """Seconds below which `share` of the samples lie; 0 without any. Looked up anew once in eight samples."""
        if self._stale >= (8 if self.total >= 64 else 1):
            self._known.clear()
            self._stale = 0
        known = self._known.get(share)
        if known is None:
            known = self._known[share] = self._find(share)
        return known

    def _find(self, share: float) -> float:
        left = share * self.total
        for bucket, count in enumerate(self._counts):
            if count and left <= count:
                return _BASE * math.exp((bucket - 1 + left / count) / _SCALE)
            left -= count
        return 0.0


class Circuit:
    """Whether one node is worth a request now."""

    __slots__ = ("_pause", "_retry", "probing", "silent")

    def __init__(self) -> None:
        self.silent = 0  # times in a row that nothing came back
        self.probing = False
        self._pause = 0.0
        self._retry = 0.0

    @property
    def open(self) -> bool:
        """Whether the node is shut out, but for probes."""
        return self._pause > 0

    def answered(self) -> None:
        """Anything came back: the node lives."""
        self.silent, self.probing, self._pause = 0, False, 0.0

    def failed(self, now: float) -> None:
        """Nothing came back."""
        self.silent += 1
        if self.probing or (self.silent >= _OPEN_AFTER and not self.open):
            self._pause = min(_PAUSE[1], 2 * self._pause) or _PAUSE[0]
            self._retry = now + self._pause
        self.probing = False

    def allows(self, now: float) -> bool:
        """Whether to ask now; True for an open circuit makes the request its probe."""
        if not self._pause:
            return True
        if now < self._retry:
            return False
        # the next one in as long again: this one may be cancelled, and then nobody says how it went
        self._retry = now + self._pause
        self.probing = True
        return True


class Health:
    """Latency, failures and circuits of all nodes."""

    def __init__(self, nodes: int) -> None:
        self.failures = [0] * nodes  # in a row: no answer, a lie, or too slow
        self.circuits = [Circuit() for _ in range(nodes)]
        self._small = [Sketch() for _ in range(nodes)]
        self._bulk = [Sketch() for _ in range(nodes)]
        self._most_open = max(1, nodes // 5)
        self.revision = 0  # grows with every change of a failure count or a latency

    def good(self, node: int, seconds: float, *, bulk: bool = False) -> None:
        """A node answered as it should."""
        self.revision += 1
        self.failures[node] = 0
        circuit = self.circuits[node]
        if circuit.silent or circuit.probing:
            circuit.answered()
        (self._bulk if bulk else self._small)[node].add(seconds)

    def late(self, node: int, seconds: float, *, bulk: bool = False) -> None:
        """A node had not answered after so long, when nobody waited any more: were that forgotten, only its quick
        answers would be known, and it would seem late ever sooner."""
        sketch = (self._bulk if bulk else self._small)[node]
        if seconds > sketch.quantile(0.95):
            self.revision += 1
            sketch.add(seconds)

    def bad(self, node: int) -> None:
        """A node refused, lied or was too slow."""
        self.revision += 1
        self.failures[node] += 1

    def silent(self, node: int, now: float) -> None:
        """A node could not be reached or did not answer in time."""
        self.revision += 1
        self.failures[node] += 1
        self.circuits[node].failed(now)

    def alive(self, node: int) -> None:
        """A node sent something, right or wrong."""
        self.circuits[node].answered()

    def allows(self, node: int, now: float) -> bool:
        """Whether a node is worth a request; False means: fail it without asking."""
        circuit = self.circuits[node]
        if not circuit.open or circuit.allows(now):
            return True
        return sum(other.open for other in self.circuits) > self._most_open

    def median(self, node: int, *, bulk: bool = False) -> float:
        """Seconds half of a node's answers take; 0 while unknown."""
        return (self._bulk if bulk else self._small)[node].quantile(0.5)

    def p95(self, node: int, *, bulk: bool = False, default: float = 0.25) -> float:
        """Seconds all but one in twenty of a node's answers take; `default` until eight have been seen."""
        sketch = (self._bulk if bulk else self._small)[node]
        return sketch.quantile(0.95) if sketch.total >= 8 else default

    def typical_p95(self, *, bulk: bool = False, default: float = 0.25) -> float:
        """What to expect of a node that little is known of: the upper quartile of the others' p95.

        `default` until more than half of the nodes are known.
        """
        sketches = self._bulk if bulk else self._small
        known = sorted(sketch.quantile(0.95) for sketch in sketches if sketch.total >= 8)
        return known[3 * len(known) // 4] if 2 * len(known) > len(sketches) else default

    def order(self, nodes: Iterable[int], *, bulk: bool = False) -> list[int]:
        """Nodes, the most promising first: those that did not fail of late, then the faster ones."""
        return sorted(nodes, key=lambda node: (min(self.failures[node], 3), self.median(node, bulk=bulk), node))
