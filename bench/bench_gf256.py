"""Speed of qmail_core._gf256 against ISA-L and against the libraries one would use from Python.

Rule: every side works on the same buffers, 64-byte aligned on huge pages; the batches of the two sides alternate. A
value is a median, a ratio the median of the ratios of neighbouring batches, `spread` the half-width of their middle
half. GB/s are 10^9 bytes of data (k stripes) per second.

ISA-L is the copy inside the pyeclib wheel. Its functions and ours are both called from a C loop (loop.c, compiled when
the bench starts), so neither side is charged for Python; what Python adds has rows of its own. Peers that are not
installed, and the C loops where there is no compiler, are left out.

`roof` is our share of the fastest code that only reads the inputs and writes the outputs (roof.c), on the same buffers
in the same run. A goal that is missed with ROOF_SHARE of it has `limit` "memory roof": no code could reach it here.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import mmap
import random
import shlex
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qmail_core import _gf256
from qmail_core._gf256 import ReedSolomon

HERE = Path(__file__).parent
KIB, MIB = 1 << 10, 1 << 20
SIZES = (4 * KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB)
BATCHES = 15
BATCH_SECONDS = 0.006

# (k, m) -> least ratio to ISA-L's ec_encode_data for each of SIZES
ENCODE_GOALS: dict[tuple[int, int], tuple[float | None, ...]] = {
    (20, 5): (1.5, 1.5, 1.5, 2.0, 2.5),
    (10, 4): (1.4, 1.4, 1.4, 1.4, 1.4),
    (17, 3): (1.4, 1.4, 1.4, 1.4, 2.0),
    (4, 1): (2.0, 2.0, 2.0, None, 1.35),
    (7, 1): (2.0, 2.0, 2.0, None, 1.35),
}
DECODE_GOALS = (20.0, 3.5, 1.2, 1.2, 1.2)
XOR_GOAL = 1.0  # never below xor_gen
ONE_LOSS_GOAL = 0.95  # XOR speed, within the noise
KERNEL_GOAL = 0.95
PYTHON_GOALS = {"zfec": 30.0, "pyeclib": 5.0, "galois": 100.0}
LATENCY_GOALS = {(4, 1): 200.0, (20, 5): 450.0}  # ns for 4 KiB
THREADS_GOAL = 1.7
ROOF_SHARE = 0.9  # of the roof counts as all of it
BANDWIDTH_SHARE = 0.9  # of the measured bandwidth counts as all of it

Row = dict[str, Any]
Call = Callable[[int], object]  # does its work so many times


class Stripes:
    """Stripes in one anonymous mapping: aligned, and not all at the same place of a page, as caches dislike that."""

    def __init__(self, n: int, each: int) -> None:
        step = (each + 63) // 64 * 64 + 64
        self.space = mmap.mmap(-1, (n * step // (2 * MIB) + 1) * 2 * MIB)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self.space.madvise(mmap.MADV_HUGEPAGE)
        block = random.Random(256).randbytes(64 * KIB + 1)
        self.space.write((block * (len(self.space) // len(block) + 1))[: len(self.space)])
        self.each = each
        self.anchor = ctypes.c_char.from_buffer(self.space)
        self.start = ctypes.addressof(self.anchor)
        self.pointers = (ctypes.c_void_p * n)(*(self.start + i * step for i in range(n)))
        view = memoryview(self.space)
        self.buffers = [view[i * step : i * step + each] for i in range(n)]


# ---- measuring ----


def timed(call: Call, rounds: int) -> float:
    """Seconds per round."""
    start = time.perf_counter()
    call(rounds)
    return (time.perf_counter() - start) / rounds


def rounds_of(call: Call) -> int:
    """How many rounds make a batch."""
    call(1)
    return max(1, int(BATCH_SECONDS / min(timed(call, 1), timed(call, 1), timed(call, 2))))


def seconds(*calls: Call) -> list[list[float]]:
    """Seconds per round of each, batch by batch; the batches alternate, so a busy machine slows all of them alike."""
    rounds = [rounds_of(call) for call in calls]
    turns = [[timed(call, count) for call, count in zip(calls, rounds, strict=True)] for _ in range(BATCHES)]
    return [list(column) for column in zip(*turns, strict=True)]


def repeated(call: Callable[..., object], *arguments: object) -> Call:
    def loop(rounds: int) -> None:
        for _ in range(rounds):
            call(*arguments)

    return loop


def compared(
    what: str, size: int, ours: Call, peer: str, theirs: Call, goal: float | None, roof: Call | None = None
) -> Row:
    """One row: our speed, how many times theirs it is, and our share of the roof."""
    mine, other, *least = seconds(ours, theirs, *([roof] if roof else []))
    ratios = [b / a for a, b in zip(mine, other, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    row = {
        "what": what,
        "value": round(size / statistics.median(mine) / 1e9, 2),
        "unit": "GB/s",
        "peer": peer,
        "ratio": round(ratio, 2),
        "goal": goal,
        "holds": goal is None or ratio >= goal,
        "spread": round((high - low) / 2, 2),
    }
    if least:
        share = statistics.median(b / a for a, b in zip(mine, least[0], strict=True))
        row["roof"] = round(share, 2)
        if not row["holds"] and share >= ROOF_SHARE:
            row["limit"] = "memory roof"
    return row


def size_name(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


# ---- C ----


def built(sources: list[Path], *flags: str) -> ctypes.CDLL | None:
    """A library made of C files; none where there is no compiler for it."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        target = f"{folder}/built.so"
        command = [*compiler, "-O3", "-shared", "-fPIC", *flags, "-o", target, *map(str, sources)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return ctypes.CDLL(target)


def loops() -> ctypes.CDLL | None:
    """loop.c and the kernels as a library of their own, with the flags of setup.py."""
    ext = HERE.parent / "ext"
    sources = [HERE / "loop.c", *sorted(ext.glob("gf256*.c"))]
    library = built(sources, "-fno-strict-aliasing", "-fvisibility=hidden", "-pthread", f"-I{ext}")
    return library if library and library.loop_start(_gf256.isa.encode()) == 0 else None


def isa_l() -> ctypes.CDLL | None:
    """The ISA-L that pyeclib carries."""
    spec = importlib.util.find_spec("pyeclib")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.parent.glob("pyeclib.libs/libisal*.so*"))
    return ctypes.CDLL(str(found[0])) if found else None


def pointer(function: Any) -> ctypes.c_void_p:
    return ctypes.cast(function, ctypes.c_void_p)


def kernel(library: ctypes.CDLL, code: ReedSolomon, stripes: Stripes) -> Call:
    """Our encoder without Python."""
    each = ctypes.c_size_t(stripes.each)
    return lambda rounds: library.loop_encode(ctypes.c_long(rounds), code.k, code.m, each, stripes.pointers)


def isal_encoder(library: ctypes.CDLL, peer: ctypes.CDLL, code: ReedSolomon, stripes: Stripes) -> Call:
    tables = ctypes.create_string_buffer(32 * code.k * code.m)
    peer.ec_init_tables(code.k, code.m, b"".join(code.generator_matrix()), tables)
    encode = pointer(peer.ec_encode_data)
    return lambda rounds: library.loop_isal_encode(
        ctypes.c_long(rounds), code.k, code.m, stripes.each, stripes.pointers, encode, tables
    )


def isal_xor(library: ctypes.CDLL, peer: ctypes.CDLL, sources: int, stripes: Stripes) -> Call:
    xor_gen = pointer(peer.xor_gen)
    return lambda rounds: library.loop_isal_xor(ctypes.c_long(rounds), sources, stripes.each, stripes.pointers, xor_gen)


def isal_decoder(library: ctypes.CDLL, peer: ctypes.CDLL, code: ReedSolomon, stripes: Stripes) -> Call:
    """The first m data stripes from all others: the k x k matrix of what is left is inverted each time."""
    k, m = code.k, code.m
    left = [bytes(i == row for i in range(k)) for row in range(m, k)] + code.generator_matrix()
    matrix = b"".join(left)
    functions = [pointer(f) for f in (peer.ec_encode_data, peer.ec_init_tables, peer.gf_invert_matrix)]
    return lambda rounds: library.loop_isal_decode(
        ctypes.c_long(rounds), k, m, stripes.each, stripes.pointers, matrix, *functions
    )


def decoder(library: ctypes.CDLL, code: ReedSolomon, stripes: Stripes, gone: int) -> Call:
    each = ctypes.c_size_t(stripes.each)
    return lambda rounds: library.loop_reconstruct(ctypes.c_long(rounds), code.k, code.m, each, stripes.pointers, gone)


def mixed(inputs: list[int | None]) -> list[int | None]:
    """In an order without equal distances, as a load that walks at one distance misleads the hardware prefetcher."""
    return random.Random(len(inputs)).sample(inputs, len(inputs))


def roof(library: ctypes.CDLL | None, code: ReedSolomon, stripes: Stripes) -> Call | None:
    """The fastest way to read k stripes and write m, of all shapes and two orders of the inputs."""
    if library is None:
        return None
    inputs, outputs = stripes.pointers[: code.k], stripes.pointers[code.k :]
    orders = [(ctypes.c_void_p * code.n)(*order, *outputs) for order in (inputs, mixed(inputs))]

    def shape(number: int, order: ctypes.Array[ctypes.c_void_p]) -> Call:
        each = ctypes.c_size_t(stripes.each)
        return lambda rounds: library.roof_run(number, ctypes.c_long(rounds), code.k, code.m, each, order)

    shapes = range(ctypes.c_int.in_dll(library, "roof_shapes").value)
    ways = [shape(number, order) for order in orders for number in shapes]
    for turns, left in ((1, 6), (5, 1)):  # all of them once, then the best more carefully
        speed = [0.0] * len(ways)
        rounds = [max(1, rounds_of(way) // 4) for way in ways]
        for _ in range(turns):
            for i, way in enumerate(ways):
                speed[i] = max(speed[i], 1 / timed(way, rounds[i]))
        ways = [way for _, way in sorted(zip(speed, ways, strict=True), key=lambda pair: -pair[0])[:left]]
    return ways[0]


def kernel_rows(library: ctypes.CDLL, peer: ctypes.CDLL | None) -> Iterator[Row]:
    """Encode and decode, C against C; then what Python adds to a large encode."""
    reader = built([HERE / "roof.c"], "-march=native")
    for (k, m), goals in ENCODE_GOALS.items():
        code = ReedSolomon(k, m)
        for size, goal, decode_goal in zip(SIZES, goals, DECODE_GOALS, strict=True):
            stripes = Stripes(k + m, -(-size // k))
            done = k * stripes.each
            ours = kernel(library, code, stripes)
            name = f"{k}+{m}, {size_name(size)}"
            if peer:
                least = roof(reader, code, stripes)
                theirs = isal_encoder(library, peer, code, stripes)
                yield compared(f"encode {name}", done, ours, "isa-l", theirs, goal, least)
                if m == 1:
                    xor = isal_xor(library, peer, k, stripes)
                    yield compared(f"encode {name}", done, ours, "isa-l xor_gen", xor, XOR_GOAL, least)
                if (k, m) in ((20, 5), (17, 3)):
                    mine, theirs = decoder(library, code, stripes, m), isal_decoder(library, peer, code, stripes)
                    yield compared(f"decode {name}, {m} lost", done, mine, "isa-l", theirs, decode_goal)
                    mine, theirs = decoder(library, code, stripes, 1), isal_xor(library, peer, k + m - 1, stripes)
                    yield compared(f"decode {name}, 1 lost", done, mine, "isa-l xor_gen", theirs, ONE_LOSS_GOAL)
            if size >= MIB:
                python = repeated(code.encode_into, stripes.buffers)
                yield compared(f"encode_into {name}", done, python, "C kernel", ours, KERNEL_GOAL)


# ---- Python ----


def latency_rows() -> Iterator[Row]:
    """A whole call of encode_into for 4 KiB, buffers taken and checked."""
    for (k, m), goal in LATENCY_GOALS.items():
        code = ReedSolomon(k, m)
        buffers = [bytearray(-(-4096 // k)) for _ in range(k + m)]
        (batches,) = seconds(repeated(code.encode_into, buffers))
        low, value, high = (batch * 1e9 for batch in statistics.quantiles(batches, n=4))
        yield {
            "what": f"encode_into {k}+{m}, 4 KiB, at most",
            "value": round(value, 1),
            "unit": "ns",
            "peer": None,
            "ratio": None,
            "goal": goal,
            "holds": value <= goal,
            "spread": round((high - low) / 2, 1),
        }


def zfec(code: ReedSolomon, data: list[bytes]) -> Callable[[], object]:
    module: Any = importlib.import_module("zfec")
    encoder = module.Encoder(code.k, code.n)
    wanted = list(range(code.k, code.n))
    return lambda: encoder.encode(data, wanted)


def pyeclib(code: ReedSolomon, data: list[bytes]) -> Callable[[], object]:
    module: Any = importlib.import_module("pyeclib.ec_iface")
    driver = module.ECDriver(k=code.k, m=code.m, ec_type="isa_l_rs_cauchy")
    whole = b"".join(data)
    return lambda: driver.encode(whole)


def galois(code: ReedSolomon, data: list[bytes]) -> Callable[[], object]:
    module: Any = importlib.import_module("galois")
    field = module.GF(2**8, irreducible_poly=0x11D)
    matrix, columns = (field([list(row) for row in rows]) for rows in (code.generator_matrix(), data))
    return lambda: matrix @ columns


def python_rows() -> Iterator[Row]:
    """What `pip install` offers, each as its interface is meant to be used."""
    code = ReedSolomon(20, 5)
    each = -(-64 * KIB // 20)
    data = [random.Random(i).randbytes(each) for i in range(20)]
    buffers = [*map(bytearray, data), *(bytearray(each) for _ in range(5))]
    for name, peer in (("zfec", zfec), ("pyeclib", pyeclib), ("galois", galois)):
        if importlib.util.find_spec(name) is None:
            continue
        ours, theirs = repeated(code.encode_into, buffers), repeated(peer(code, data))
        yield compared("encode_into 20+5, 64 KiB", 20 * each, ours, name, theirs, PYTHON_GOALS[name])


# ---- threads ----


def thread_rows(library: ctypes.CDLL | None) -> Iterator[Row]:
    """Two threads against one; enough if together they use up the memory bandwidth that two plain readers get."""
    for k, m in ((20, 5), (4, 1)):
        one, two = ReedSolomon(k, m), ReedSolomon(k, m, threads=2)
        for size in (16 * MIB, 64 * MIB):
            stripes = Stripes(k + m, -(-size // k))
            calls = [repeated(code.encode_into, stripes.buffers) for code in (two, one)]
            row = compared(f"encode {k}+{m}, {size_name(size)}, 2 threads", k * stripes.each, calls[0], "1 thread",
                           calls[1], THREADS_GOAL)  # fmt: skip
            if library:
                whole = ctypes.c_size_t(len(stripes.space))
                start = ctypes.c_void_p(stripes.start)
                (batches,) = seconds(lambda rounds: library.loop_read(ctypes.c_long(rounds), start, whole, 2))  # noqa: B023
                bandwidth = len(stripes.space) / statistics.median(batches) / 1e9
                used = row["value"] * (k + m) / k
                row["bandwidth"] = round(bandwidth, 1)
                row["what"] += f", moves {used:.0f} of {bandwidth:.0f} GB/s"
                row["holds"] = row["holds"] or used >= BANDWIDTH_SHARE * bandwidth
            yield row


def rows() -> Iterator[Row]:
    library = loops()
    yield from latency_rows()
    yield from python_rows()
    if library:
        yield from kernel_rows(library, isa_l())
    yield from thread_rows(library)
