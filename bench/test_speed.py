"""pytest-benchmark cases of the hot paths: `python -m pytest bench --benchmark-only`.

The named benches (`python -m bench NAME`) hold the comparisons with peers; these are for watching one function.
"""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from qmail_core import Cluster, Profile, ReedSolomon, Striping, _framing
from qmail_core.codec import erasure, packet
from qmail_core.codec.cipher import Key

SEED = bytes(32)


@pytest.mark.parametrize(("k", "m"), [(20, 5), (10, 4), (17, 3), (4, 1), (7, 1)])
@pytest.mark.parametrize("size", [4 << 10, 64 << 10, 1 << 20])
def test_encode_into(benchmark: BenchmarkFixture, k: int, m: int, size: int) -> None:
    shard = -(-size // k)
    stripes = [bytearray(os.urandom(shard)) for _ in range(k + m)]
    benchmark(ReedSolomon(k, m).encode_into, stripes)


@pytest.mark.parametrize("enc", [1, 4])
def test_pack_a_fanout_of_1_kib(benchmark: BenchmarkFixture, enc: int) -> None:
    nodes = list(range(25))
    keys = [os.urandom(32 if enc == 4 else 16) for _ in nodes]
    heads, tails = [os.urandom(102)] * 25, [os.urandom(1024)] * 25
    entropy = os.urandom(25 * (36 if enc == 4 else 20))
    benchmark(_framing.pack_many, 6, 70, enc, nodes, keys, [bytes(5)] * 25, heads, tails, entropy)


@pytest.mark.parametrize("enc", [1, 4])
def test_unpack_an_answer_of_1_kib(benchmark: BenchmarkFixture, enc: int) -> None:
    an, draw = os.urandom(16), os.urandom(36 if enc == 4 else 20)
    key = Key(enc, hashlib.sha256(an).digest() if enc == 4 else an, bytes(5))
    challenge = draw[-12:] + _framing.crc32(draw[-12:]).to_bytes(4, "big")
    header = packet.Header(3, 6, 74, enc, bytes(5), 0, draw[:-12], draw[-14:-12])
    request = packet.Request(header, an, challenge, memoryview(b""))
    answer = packet.build_reply(request, 250, os.urandom(1024), 0, os.urandom(16))
    sent, frame = packet.Sent(3, b"", key, draw), memoryview(bytearray(answer))

    def unpack() -> None:
        frame[:] = answer
        packet.open_reply(sent, frame)

    benchmark(unpack)


@pytest.mark.parametrize("d", [2, 7, 24, 31])
def test_interleave_256_kib(benchmark: BenchmarkFixture, d: int) -> None:
    benchmark(_framing.interleave, os.urandom(1 << 18), d)


def test_crc32_of_1_mib(benchmark: BenchmarkFixture) -> None:
    benchmark(_framing.crc32, os.urandom(1 << 20))


@pytest.mark.parametrize("profile", list(Profile))
def test_split_1_mib(benchmark: BenchmarkFixture, profile: Profile) -> None:
    striping = Striping(profile, 24, 1) if profile == Profile.INTEROP else Striping(profile, 20, 5)
    benchmark(erasure.split, os.urandom(1 << 20), striping, SEED)


@pytest.mark.parametrize("profile", list(Profile))
def test_join_1_mib_with_one_stripe_lost(benchmark: BenchmarkFixture, profile: Profile) -> None:
    striping = Striping(profile, 24, 1) if profile == Profile.INTEROP else Striping(profile, 20, 5)
    stripes = dict(enumerate(erasure.split(os.urandom(1 << 20), striping, SEED)))
    del stripes[3]
    benchmark(erasure.join, stripes, striping, 1 << 20)


def test_a_mail_through_25_nodes_in_memory(benchmark: BenchmarkFixture) -> None:
    async def mails(count: int) -> None:
        async with Cluster() as cluster:
            alice, bob = await cluster.engine("alice", balance=40 * count), await cluster.engine("bob")
            for number in range(count):
                await alice.send(alice.draft(["bob"], f"mail {number}", "x" * 65536))
                await bob.receive()

    benchmark.pedantic(lambda: asyncio.run(mails(10)), rounds=5)  # type: ignore[no-untyped-call]
