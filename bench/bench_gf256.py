"""Encoding speed of qmail_core._gf256 against the libraries one would use instead.

Rule: every side encodes the same seeded data from and into buffers that exist already where its interface allows
that, in one thread; a value is the median of alternating batches, in 10^9 bytes of data per second. Peers that are not
installed are left out. ISA-L is called at its C function through ctypes (the copy inside the pyeclib wheel), with
tables and pointers made beforehand: it is charged for one foreign call, while our side takes and checks every buffer.
"""

from __future__ import annotations

import ctypes
import importlib.util
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qmail_core._gf256 import ReedSolomon

CODES = ((20, 5), (10, 4), (17, 3), (4, 1), (7, 1))
SIZES = (4 << 10, 64 << 10, 1 << 20, 16 << 20)
BATCHES = 9
BATCH_SECONDS = 0.01
GALOIS_LIMIT = 64 << 10  # galois needs seconds above this

# What must hold against each peer; ISA-L is native code of the same kind, the others are what `pip install` offers.
GOALS = {"isa-l": 1.0, "zfec": 10.0, "galois": 50.0}

Stripes = list[bytearray]
Peer = Callable[[ReedSolomon, Stripes], Callable[[], object]]


def batch_speed(call: Callable[[], object], rounds: int, size: int) -> float:
    """GB/s of one batch of `rounds` calls."""
    start = time.perf_counter()
    for _ in range(rounds):
        call()
    return size * rounds / (time.perf_counter() - start) / 1e9


def rounds_of(call: Callable[[], object]) -> int:
    """How many calls make a batch of about BATCH_SECONDS."""
    call()
    start = time.perf_counter()
    call()
    return max(1, int(BATCH_SECONDS / (time.perf_counter() - start + 1e-9)))


def speeds(calls: tuple[Callable[[], object], ...], size: int) -> list[float]:
    """Median speed of each; the batches alternate, so that a busy machine slows all of them alike."""
    rounds = [rounds_of(call) for call in calls]
    turns = [
        [batch_speed(call, count, size) for call, count in zip(calls, rounds, strict=True)] for _ in range(BATCHES)
    ]
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def ours(code: ReedSolomon, stripes: Stripes) -> Callable[[], object]:
    return lambda: code.encode_into(stripes)


def isa_l() -> Peer | None:
    """ec_encode_data of the library that pyeclib carries."""
    spec = importlib.util.find_spec("pyeclib")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.parent.glob("pyeclib.libs/libisal*.so*"))
    if not found:
        return None
    library = ctypes.CDLL(str(found[0]))

    def prepare(code: ReedSolomon, stripes: Stripes) -> Callable[[], object]:
        tables = ctypes.create_string_buffer(32 * code.k * code.m)
        library.ec_init_tables(code.k, code.m, b"".join(code.generator_matrix()), tables)
        views = [ctypes.c_char.from_buffer(stripe) for stripe in stripes]
        starts = [ctypes.addressof(view) for view in views]
        data = (ctypes.c_void_p * code.k)(*starts[: code.k])
        parity = (ctypes.c_void_p * code.m)(*starts[code.k :])
        length = len(stripes[0])

        def call() -> object:
            library.ec_encode_data(length, code.k, code.m, tables, data, parity)
            return views  # the exports live as long as the call may be made

        return call

    return prepare


def zfec() -> Peer | None:
    """The encoder of Tahoe-LAFS; it returns new objects for the parity."""
    if importlib.util.find_spec("zfec") is None:
        return None
    module: Any = importlib.import_module("zfec")

    def prepare(code: ReedSolomon, stripes: Stripes) -> Callable[[], object]:
        data = [bytes(stripe) for stripe in stripes[: code.k]]
        encoder = module.Encoder(code.k, code.n)
        wanted = list(range(code.k, code.n))
        return lambda: encoder.encode(data, wanted)

    return prepare


def galois() -> Peer | None:
    """Matrix product over the field of the galois package, numba behind it."""
    if importlib.util.find_spec("galois") is None or importlib.util.find_spec("numpy") is None:
        return None
    module: Any = importlib.import_module("galois")
    numpy: Any = importlib.import_module("numpy")
    field = module.GF(2**8, irreducible_poly=0x11D)

    def prepare(code: ReedSolomon, stripes: Stripes) -> Callable[[], object]:
        matrix = field([list(row) for row in code.generator_matrix()])
        data = field(numpy.array([list(stripe) for stripe in stripes[: code.k]], dtype=numpy.uint8))
        return lambda: matrix @ data

    return prepare


def rows() -> Iterator[dict[str, Any]]:
    """One row per code, size and peer: our speed, the peer's name, ours / theirs, and whether the goal holds."""
    made = {"isa-l": isa_l(), "zfec": zfec(), "galois": galois()}
    peers = {name: peer for name, peer in made.items() if peer is not None}
    source = random.Random(256)
    for k, m in CODES:
        code = ReedSolomon(k, m)
        for size in SIZES:
            each = size // k
            stripes = [bytearray(source.randbytes(each)) for _ in range(k + m)]
            done = k * each
            what = f"encode {k}+{m}, {size >> 10} KiB"
            for name, peer in peers.items():
                if name == "galois" and size > GALOIS_LIMIT:
                    continue
                value, theirs = speeds((ours(code, stripes), peer(code, stripes)), done)
                row = {"what": what, "value": round(value, 2), "unit": "GB/s", "peer": name}
                yield {
                    **row,
                    "ratio": round(value / theirs, 2),
                    "goal": GOALS[name],
                    "holds": value >= GOALS[name] * theirs,
                }
            if not peers:
                (value,) = speeds((ours(code, stripes),), done)
                row = {"what": what, "value": round(value, 2), "unit": "GB/s", "peer": None}
                yield {**row, "ratio": None, "goal": None, "holds": True}
