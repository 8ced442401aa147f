"""engine.objects and engine.transfer: objects up and down, through losses, lies, interruptions and cancellation."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qmail_core import Cluster, Engine
from qmail_core.codec import consts as c
from qmail_core.codec import objects as o
from qmail_core.engine.journal import Journal
from qmail_core.engine.objects import Objects
from qmail_core.engine.transfer import CHUNK, ObjectNodes
from qmail_core.errors import (
    Conflict,
    ConnectError,
    ErasureError,
    LocalProtocolError,
    NodeError,
    NotFound,
    PathRefused,
    PaymentError,
    QuorumError,
    RemoteProtocolError,
    UsageError,
)
from qmail_core.model import ObjectManifest, Profile, Striping
from qmail_core.raida.node import Policy
from qmail_core.store.base import LockerState
from tests.syncs import Syncs

from . import BALANCE, check_books, lockers, now, play, read

FREE = {"policy": Policy(storage_fee=0)}
SHAPES = [Striping(Profile.SEALED, 20, 5), Striping(Profile.RS, 20, 5), Striping(Profile.INTEROP, 4, 1)]
GUID = b"G" * 16
Story = Callable[[Cluster, Engine], Any]


def tell(story: Story, nodes: int = 25, config: dict[str, object] | None = None, **options: Any) -> None:
    """A story of one engine where storage is free."""

    async def whole(cluster: Cluster) -> None:
        await story(cluster, await cluster.engine("alice", **(config or {})))  # type: ignore[arg-type]

    play(whole, nodes, **(FREE | options))


def blob(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class Bytes:
    """A Reader over bytes that may break."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.fails_after = 1 << 60  # reads

    def read(self, offset: int, size: int) -> bytes:
        self.fails_after -= 1
        if self.fails_after < 0:
            raise KeyboardInterrupt
        return self.data[offset : offset + size]


def held(cluster: Cluster, node: int) -> tuple[int, int, int]:
    return cluster.raida.nodes[node].state.objects_held(None)


# ------------------------------------------------------------------------------------------------------------------
# striped objects


@pytest.mark.parametrize("striping", SHAPES)
@pytest.mark.parametrize("size", [0, 1, 9_000_000])
def test_an_object_over_all_nodes(tmp_path: Path, striping: Striping, size: int) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        data = blob(size)
        (tmp_path / "in").write_bytes(data)
        seen: list[int] = []
        manifest = await alice.objects.put_object(
            tmp_path / "in", striping, wallet=None, progress=lambda done, total: seen.append(done)
        )
        assert (len(manifest.stripes), manifest.failed) == (striping.n, ())
        assert manifest.sha256 == hashlib.sha256(data).digest()
        assert (seen == sorted(seen), seen[-1]) == (True, size)
        cluster.down |= set(range(0, striping.m * 2, 2))
        assert await alice.objects.get_object(manifest, tmp_path / "out") == ()
        assert read(tmp_path / "out") == data
        assert alice.objects.interrupted() == []

    tell(story)


def test_five_dead_nodes_all_the_way(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        cluster.down |= {1, 5, 9, 13, 24}
        manifest = await alice.objects.put_object(Bytes(blob(2_000_000)), wallet=None)
        assert manifest.failed == (1, 5, 9, 13, 24)
        await alice.objects.get_object(manifest, tmp_path / "out")
        assert read(tmp_path / "out") == blob(2_000_000)
        cluster.down |= {2}
        with pytest.raises(QuorumError):
            await alice.objects.get_object(manifest, tmp_path / "out2")
        assert not (tmp_path / "out2").exists()
        assert not (tmp_path / "out2.part").exists()

    tell(story)


@pytest.mark.parametrize("striping", SHAPES)
def test_liars_are_named(tmp_path: Path, striping: Striping) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        manifest = await alice.objects.put_object(Bytes(blob(300_000)), striping, wallet=None)
        cluster.raida.nodes[3].tamper = lambda data: bytes(len(data))
        assert await alice.objects.get_object(manifest, tmp_path / "out") == (3,)
        assert read(tmp_path / "out") == blob(300_000)

    tell(story)


def test_a_manifest_of_something_else(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        manifest = await alice.objects.put_object(Bytes(blob(300_000)), SHAPES[2], wallet=None)
        fields = {name: getattr(manifest, name) for name in ObjectManifest.__struct_fields__}
        with pytest.raises(ErasureError):
            await alice.objects.get_object(ObjectManifest(**fields | {"sha256": bytes(32)}), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    tell(story)


def test_a_slow_node_is_not_waited_for(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        manifest = await alice.objects.put_object(Bytes(blob(300_000)), wallet=None)
        cluster.delay |= {2: 20.0, 3: 20.0, 4: 20.0}
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await alice.objects.get_object(manifest, tmp_path / "out")
        assert loop.time() - begun < 5

    tell(story)


def test_too_few_nodes_for_an_upload() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        cluster.down |= set(range(6))
        with pytest.raises(QuorumError):
            await alice.objects.put_object(Bytes(b"x"), wallet=None, upload_id=GUID)
        assert alice.objects.interrupted() == [GUID]
        cluster.down.clear()
        manifest = await alice.objects.resume(GUID, Bytes(b"x"))
        assert len(manifest.stripes) == 25
        assert alice.objects.interrupted() == []
        with pytest.raises(UsageError):
            await alice.objects.put_object(Bytes(b"x"), Striping(Profile.RS, 30, 2), wallet=None)

    tell(story)


@pytest.mark.parametrize("striping", SHAPES)
def test_an_interrupted_upload_brings_only_what_is_missing(tmp_path: Path, striping: Striping) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        data = blob(13_000_000)
        (tmp_path / "in").write_bytes(data)

        def stop(done: int, total: int) -> None:
            if done * 2 > total:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await alice.objects.put_object(tmp_path / "in", striping, wallet=None, upload_id=GUID, progress=stop)
        arrived = [sum(high - low for low, high in spans(cluster, node)) for node in range(striping.n)]
        assert min(arrived) > 0
        sent = count_puts(cluster)
        # another engine over the same folder: what a new process would know
        again = Objects(alice._ctx, alice._wallet)
        manifest = await again.resume(GUID)
        assert len(manifest.stripes) == striping.n
        assert sum(sent) == striping.n * manifest.stripe_size - sum(arrived)
        await again.get_object(manifest, tmp_path / "out")
        assert read(tmp_path / "out") == data
        with pytest.raises(NotFound):
            await again.resume(GUID)

    tell(story)


def spans(cluster: Cluster, node: int) -> list[tuple[int, int]]:
    state = cluster.raida.nodes[node].state
    return [span for row in state.due_transfers(1e12, 99) for span in state.spans(row.id, 0, 1 << 40)]


def count_puts(cluster: Cluster) -> list[int]:
    """Sizes of spans that are written from now on."""
    sizes: list[int] = []
    for node in cluster.raida.nodes:
        write = node.state.write_span

        def counting(transfer: bytes, offset: int, data: Any, write: Any = write) -> None:
            sizes.append(len(data))
            write(transfer, offset, data)

        setattr(node.state, "write_span", counting)  # noqa: B010
    return sizes


def test_a_file_that_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        cluster.down |= set(range(6))
        path = tmp_path / "in"
        path.write_bytes(b"first")
        with pytest.raises(QuorumError):
            await alice.objects.put_object(path, wallet=None, upload_id=GUID)
        path.write_bytes(b"other text")
        with pytest.raises(Conflict):
            await alice.objects.resume(GUID)
        with pytest.raises(QuorumError):
            await alice.objects.put_object(Bytes(b"first"), wallet=None, upload_id=b"2" * 16)
        cluster.down.clear()
        with pytest.raises(Conflict):
            await alice.objects.resume(b"2" * 16, Bytes(b"FIRST"))
        with pytest.raises(PathRefused):
            await alice.objects.put_object(tmp_path / "none", wallet=None)

    tell(story)


def test_transfers_that_expired_are_begun_anew(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        cluster.down |= set(range(6))
        with pytest.raises(QuorumError):
            await alice.objects.put_object(Bytes(blob(1000)), wallet=None, upload_id=GUID)
        cluster.down.clear()
        await asyncio.sleep(86_400)
        manifest = await alice.objects.resume(GUID, Bytes(blob(1000)))
        assert len(manifest.stripes) == 25

    tell(story)


def test_a_cancelled_upload_leaves_nothing() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        cluster.down |= set(range(6))
        with pytest.raises(QuorumError):
            await alice.objects.put_object(Bytes(b"x"), wallet=None, upload_id=GUID)
        assert held(cluster, 7)[0] == 1
        await alice.objects.cancel(GUID)
        assert held(cluster, 7) == (0, 0, 0)
        assert alice.objects.interrupted() == []
        with pytest.raises(NotFound):
            await alice.objects.cancel(GUID)

    tell(story)


def test_replacing_and_deleting(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        put = alice.objects.put_object
        await put(Bytes(b"one"), wallet=None, object_id=GUID)
        with pytest.raises(QuorumError):
            await put(Bytes(b"two"), wallet=None, object_id=GUID)
        newer = await put(Bytes(b"two"), wallet=None, object_id=GUID, expected=1, generation=2)
        await alice.objects.get_object(newer, tmp_path / "out")
        assert read(tmp_path / "out") == b"two"
        nodes = alice.objects.nodes
        assert await nodes.delete(0, GUID, 10, 2, 3) == 3
        with pytest.raises(NodeError):
            await nodes.info(0, GUID, 10)
        assert (await nodes.info(1, GUID, 10)).generation == 2
        offer, classes = await nodes.capabilities(1)
        assert (offer.max_chunk, len(classes)) == (CHUNK, 1)

    tell(story)


# ------------------------------------------------------------------------------------------------------------------
# payment


def test_every_node_is_paid_once() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        cluster.down |= {3}
        manifest = await alice.objects.put_object(Bytes(b"x" * 1000), object_id=GUID)
        assert manifest.failed == (3,)
        states = [locker.state for locker in lockers(alice, guid=GUID)]
        assert states.count(LockerState.CONSUMED) == 24
        assert sum(len(node.state.earned()) for node in cluster.raida.nodes) == 24
        cluster.down.clear()
        await asyncio.sleep(60)
        check_books(cluster, alice, BALANCE)

    tell(story, policy=Policy())


def test_an_interrupted_upload_is_not_paid_twice() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        cluster.delay |= dict.fromkeys(range(25), 0.5)

        def stop(done: int, total: int) -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await alice.objects.put_object(Bytes(b"x" * 1000), upload_id=GUID, progress=stop)
        assert sum(len(node.state.earned()) for node in cluster.raida.nodes) == 25
        await alice.objects.resume(GUID, Bytes(b"x" * 1000))
        assert sum(len(node.state.earned()) for node in cluster.raida.nodes) == 25
        check_books(cluster, alice, BALANCE)

    tell(story, policy=Policy())


def test_a_poor_wallet_and_a_cancelled_purchase() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        with pytest.raises(PaymentError):
            await alice.objects.put_object(Bytes(b"x"), upload_id=GUID)
        await alice.objects.cancel(GUID)
        await alice.deposit(cluster._fund(30))
        cluster.down |= set(range(6))
        with pytest.raises(QuorumError):
            await alice.objects.put_object(Bytes(b"x"), upload_id=GUID)
        cluster.down.clear()
        await alice.objects.cancel(GUID)
        await asyncio.sleep(60)
        assert not lockers(alice, state=LockerState.RESERVED)
        check_books(cluster, alice, 30)

    async def whole(cluster: Cluster) -> None:
        await story(cluster, await cluster.engine("alice", balance=0))

    play(whole)


# ------------------------------------------------------------------------------------------------------------------
# one object, one node


def wish(data: bytes, transfer: bytes = b"T" * 16, chunk: int = CHUNK) -> o.Begin:
    digest = hashlib.sha256(data).digest()
    return o.Begin(transfer, GUID, bytes(16), 10, 0, 1, 0, 0, bytes(7), chunk, len(data), 0, 1, digest)


def reads(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]


def test_one_object_to_one_node_and_back(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        nodes, data = alice.objects.nodes, blob(5_000_001)
        seen: list[tuple[int, int]] = []
        done = await nodes.upload(4, wish(data), reads(data), lambda *at: seen.append(at))
        assert (done.total_size, seen[-1]) == (len(data), (len(data), len(data)))
        assert await nodes.upload(4, wish(data), reads(data)) == done
        path = str(tmp_path / "out")
        seen.clear()
        digest = await nodes.download(4, GUID, 10, path, lambda *at: seen.append(at))
        assert (read(path), digest, seen[-1][0]) == (data, wish(data).object_hash, len(data))
        assert os.listdir(tmp_path) == ["out"]

    tell(story)


def test_a_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        nodes, data = alice.objects.nodes, blob(5_000_000)
        await nodes.upload(4, wish(data), reads(data))
        path = str(tmp_path / "out")

        def stop(done: int, total: int) -> None:
            if done >= 2 << 20:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await nodes.download(4, GUID, 10, path, stop)
        seen: list[int] = []
        await nodes.download(4, GUID, 10, path, lambda done, total: seen.append(done))
        assert (read(path), seen[0] > 2 << 20) == (data, True)

    tell(story)


def test_a_download_of_lies(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        nodes, data = alice.objects.nodes, blob(5000)
        await nodes.upload(4, wish(data), reads(data))
        cluster.raida.nodes[4].tamper = lambda found: bytes(len(found))
        path = str(tmp_path / "out")
        with pytest.raises(ErasureError):
            await nodes.download(4, GUID, 10, path)
        cluster.raida.nodes[4].tamper = lambda found: found + found
        with pytest.raises(RemoteProtocolError):
            await nodes.download(4, GUID, 10, path)
        assert "out" not in os.listdir(tmp_path)
        cluster.raida.nodes[4].tamper = None
        await nodes.download(4, GUID, 10, path)
        # a longer leftover of the same name is not believed either
        part = f"{path}.{wish(data).object_hash[:8].hex()}.part"
        with open(part, "wb") as leftover:  # noqa: ASYNC230
            leftover.write(bytes(6000))
        await nodes.download(4, GUID, 10, path)
        assert read(path) == data

    tell(story)


def test_a_file_that_did_not_reach_the_medium_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        nodes, data = alice.objects.nodes, blob(3_000_000)
        await nodes.upload(4, wish(data), reads(data))
        cluster.raida.nodes[5].state.put_page(GUID, 10, 0, b"page", 0.0, None)
        manifest = await alice.objects.put_object(Bytes(data), wallet=None)
        syncs, path = Syncs(monkeypatch), str(tmp_path / "out")
        for download in (
            lambda: nodes.download(4, GUID, 10, path),
            lambda: nodes.download(5, GUID, 10, path),
            lambda: alice.objects.get_object(manifest, path),
        ):
            syncs.fails = True
            with pytest.raises(OSError, match="the medium is broken"):
                await download()
            assert os.listdir(tmp_path) == []  # nothing a repetition could take for stored
            syncs.fails = False
            syncs.names.clear()
            await download()
            part, folder = syncs.names
            assert (os.path.dirname(part), folder) == (str(tmp_path), str(tmp_path))
            assert read(path) in (data, b"page")
            os.remove(path)

    tell(story)


def test_two_downloads_to_one_path(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        data, path = blob(9_000_000), tmp_path / "out"
        manifest = await alice.objects.put_object(Bytes(data), wallet=None)
        half = asyncio.Event()
        cluster.delay.update(dict.fromkeys(range(25), 0.1))
        first = asyncio.ensure_future(alice.objects.get_object(manifest, path, progress=lambda *_: half.set()))
        await half.wait()
        await asyncio.sleep(0.01)  # its next row is asked for
        cluster.delay.update(dict.fromkeys(range(25), 5.0))  # the second comes no further than its own file
        second = asyncio.ensure_future(alice.objects.get_object(manifest, path))
        await asyncio.sleep(0.02)
        cluster.delay.update(dict.fromkeys(range(25), 0.1))
        await first
        assert read(path) == data
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert (read(path), os.listdir(tmp_path)) == (data, ["out"])

    tell(story)


def test_one_node_is_asked_for_an_object_once_at_a_time(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        nodes, data, path = alice.objects.nodes, blob(3_000_000), str(tmp_path / "out")
        await nodes.upload(4, wish(data), reads(data))
        cluster.delay[4] = 0.1
        found = await asyncio.gather(*(nodes.download(4, GUID, 10, path) for _ in range(2)), return_exceptions=True)
        assert [type(one) for one in found] == [bytes, Conflict]
        assert read(path) == data
        await nodes.download(4, GUID, 10, path)

    tell(story)


@pytest.mark.parametrize("size", [3, c.PAGE_SIZE, c.PAGE_SIZE + 9])
def test_what_75_stored_is_read_by_pages(tmp_path: Path, size: int) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        data = blob(size)
        state = cluster.raida.nodes[4].state
        for page, at in enumerate(range(0, size, c.PAGE_SIZE)):
            state.put_page(GUID, 10, page, data[at : at + c.PAGE_SIZE], 0.0, None)
        digest = await alice.objects.nodes.download(4, GUID, 10, str(tmp_path / "out"))
        assert (read(tmp_path / "out"), digest) == (data, hashlib.sha256(data).digest())
        with pytest.raises(NodeError):
            await alice.objects.nodes.download(5, GUID, 10, str(tmp_path / "none"))

    tell(story)


def test_an_object_that_is_not_committed_is_no_reason_to_fall_back(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        await alice.objects.nodes.begin({4: wish(b"x")})
        with pytest.raises(NodeError) as refused:
            await alice.objects.nodes.download(4, GUID, 10, str(tmp_path / "out"))
        assert refused.value.status == 228

    tell(story)


# ------------------------------------------------------------------------------------------------------------------
# retries


class Moody:
    """A handler in front of a node's: says what it is told to first."""

    def __init__(self, cluster: Cluster, node: int, command: int, *statuses: int) -> None:
        from qmail_core.raida.context import Answer

        self.statuses = list(statuses)
        self.asked = 0
        target = cluster.raida.nodes[node]
        run = target._decide

        def decide(handler: Any, request: Any, now: float) -> Any:
            if request.header.command != command:
                return run(handler, request, now)
            self.asked += 1
            return Answer(self.statuses.pop(0)) if self.statuses else run(handler, request, now)

        setattr(target, "_decide", decide)  # noqa: B010


@pytest.mark.parametrize("status", [0, 167, 252, 253])
@pytest.mark.parametrize("command", [76, 77, 78, 79])
def test_failures_that_may_pass_are_tried_again(status: int, command: int) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        moody = Moody(cluster, 4, command, status, status)
        assert (await alice.objects.nodes.upload(4, wish(b"data"), reads(b"data"))).generation == 1
        assert moody.asked >= 3

    # a success without payload cannot be trusted in type 4, so that 0 is read as it stands only in type 1
    tell(story, config={"encryption": 1})


@pytest.mark.parametrize("status", [16, 169, 198, 200, 220, 227, 230, 232, 233, 234, 235])
def test_other_refusals_are_final(status: int) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        moody = Moody(cluster, 4, 76, status)
        with pytest.raises(NodeError) as refused:
            await alice.objects.nodes.upload(4, wish(b"data"), reads(b"data"))
        assert (refused.value.status, moody.asked) == (status, 1)

    tell(story)


def test_a_commit_too_early_asks_what_is_missing() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        moody = Moody(cluster, 4, 79, 225, 225)
        assert (await alice.objects.nodes.upload(4, wish(b"data"), reads(b"data"))).generation == 1
        assert moody.asked == 3
        Moody(cluster, 5, 79, *[225] * 5)
        with pytest.raises(NodeError):
            await alice.objects.nodes.upload(5, wish(b"data"), reads(b"data"))
        Moody(cluster, 6, 79, 225)
        assert len((await alice.objects.put_object(Bytes(b"data"), wallet=None)).stripes) == 25

    tell(story)


def test_silence_is_tried_again_and_then_final() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        cluster.down |= {4}
        asyncio.get_running_loop().call_later(0.3, cluster.down.clear)
        assert (await alice.objects.nodes.upload(4, wish(b"data"), reads(b"data"))).generation == 1
        cluster.down |= {4}
        with pytest.raises(ConnectError):
            await alice.objects.nodes.info(4, GUID, 10)

    tell(story)


def test_a_source_that_shrank() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        with pytest.raises(LocalProtocolError):
            await alice.objects.nodes.upload(4, wish(b"data"), reads(b"dat"))

    tell(story)


def test_a_node_that_fails_half_way_is_left_behind(tmp_path: Path) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        Moody(cluster, 4, 77, *[194] * 9)
        Moody(cluster, 6, 79, *[194] * 9)
        manifest = await alice.objects.put_object(Bytes(blob(100_000)), wallet=None)
        assert manifest.failed == (4, 6)
        for node in (7, 8, 9, 10):
            Moody(cluster, node, 77, *[194] * 9)
        with pytest.raises(QuorumError):
            await alice.objects.put_object(Bytes(blob(100_000)), wallet=None, upload_id=GUID)

    tell(story)


def test_a_node_that_does_not_say_what_it_lacks_is_left_behind() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        cluster.down |= set(range(6))
        with pytest.raises(QuorumError):
            await alice.objects.put_object(Bytes(b"x"), wallet=None, upload_id=GUID)
        cluster.down.clear()
        Moody(cluster, 5, 78, *[194] * 9)
        assert (await alice.objects.resume(GUID, Bytes(b"x"))).failed == (5,)

    tell(story)


@pytest.mark.parametrize("striping", SHAPES)
def test_nodes_that_hang_are_left_behind(tmp_path: Path, striping: Striping) -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        cluster.delay[3] = 1000.0
        begun = now()
        manifest = await alice.objects.put_object(Bytes(blob(100_000)), striping, wallet=None)
        assert (manifest.failed, now() - begun < 10) == ((3,), True)
        await alice.objects.get_object(manifest, tmp_path / "out")
        assert (read(tmp_path / "out"), now() - begun < 10) == (blob(100_000), True)

    tell(story)


def test_ranges_as_small_as_a_node_wants_them() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        manifest = await alice.objects.put_object(Bytes(blob(100_000)), wallet=None)
        assert len(manifest.stripes) == 25

    tell(story, policy=Policy(storage_fee=0, object_chunk=700))


# ------------------------------------------------------------------------------------------------------------------
# the journal


def test_the_journal_is_written_before_the_first_request() -> None:
    async def story(cluster: Cluster, alice: Engine) -> None:
        folder = Path(alice.config.data) / "Transfers"

        async def begin(self: ObjectNodes, wishes: Any, need: int) -> Any:
            assert [path.name for path in folder.iterdir()] == [f"{GUID.hex()}.json"]
            assert all(path.stat().st_mode & 0o77 == 0 for path in (folder, *folder.iterdir()))
            raise ConnectError("crash")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ObjectNodes, "begin", begin)
            with pytest.raises(ConnectError):
                await alice.objects.put_object(Bytes(b"x"), wallet=None, upload_id=GUID)
        assert Journal(str(folder)).open_uploads() == [GUID]
        manifest = await alice.objects.resume(GUID, Bytes(b"x"))
        assert len(manifest.stripes) == 25

    tell(story)


def test_an_empty_journal(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "none"))
    assert journal.open_uploads() == []
    journal.remove(GUID)


def test_what_others_put_beside_the_journal_is_left_alone(tmp_path: Path) -> None:
    names = [f"{GUID.hex()}.json", "notes.json", f"{GUID.hex()}.json.new", f"{GUID.hex().upper()}.json", "00.json"]
    for name in (*names, f"x{GUID.hex()}.json", ".json"):
        (tmp_path / name).write_text("{}")
    assert Journal(str(tmp_path)).open_uploads() == [GUID]
