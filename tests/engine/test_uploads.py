"""Uploads whose requests end at the wrong moment: what the store has written down and what lies on disk stay one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest

from qmail_core.embed import Cluster
from qmail_core.engine import letters
from qmail_core.engine.accounts import NewUser
from qmail_core.engine.engine import Engine
from qmail_core.engine.files import pins
from qmail_core.engine.files.downloads import Opened
from qmail_core.engine.files.tokens import Owner
from qmail_core.errors import Conflict, NotFound, QuotaError, UsageError
from qmail_core.model import Listing
from qmail_core.store.database import Database
from qmail_core.store.mailbox import HOME

PIN = "123456"
DATA = bytes(range(251)) * 1600  # segments that differ
ALL = Listing(limit=100, offset=0)


class Box:
    """One engine, and somebody with a token who puts files there."""

    def __init__(self, engine: Engine, now: list[float]) -> None:
        self.engine, self._now = engine, now
        self.uploads = engine.transfer.uploads
        self.owner = Owner(HOME, 0, b"")
        self.token = 0

    async def enter(self, user: int = HOME) -> None:
        token, text = await self.engine.transfer.tokens.create("tests", user)
        self.owner, self.token = self.engine.transfer.tokens.owner(text), token.id

    def allow(self, files: int) -> None:
        """So many bytes of files and no more."""
        self.engine._ctx.config = msgspec.structs.replace(self.engine.config, file_quota=files)

    def later(self, seconds: float) -> None:
        self._now[0] += seconds

    async def revoke(self) -> None:
        await self.engine.transfer.tokens.revoke(self.token)

    async def piece(
        self,
        upload: bytes,
        offset: int,
        data: bytes,
        length: int | None = None,
        *,
        between: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Add bytes; something may happen between their halves."""
        half = len(data) // 2
        async with self.uploads.append(self.owner, upload, offset, length) as adding:
            await adding.write(data[:half])
            if between is not None:
                await between()
            await adding.write(data[half:])

    async def kept(self) -> bytes:
        """The id of a file that is there."""
        before = set(self.files)
        await self.form(DATA)
        (new,) = set(self.files) - before
        return new

    async def form(self, data: bytes) -> None:
        one = self.uploads.begin(self.owner, "form.bin", "")
        try:
            await one.write(data)
            await one.finish()
            await self.uploads.commit(self.owner, [one])
        except BaseException:
            await self.uploads.discard([one])
            raise

    async def opened(self, file: bytes) -> Opened:
        downloads = self.engine.transfer.downloads
        key = (await self.engine.transfer.pins.unlock(self.owner, PIN)).key
        made = await downloads.create(self.owner, [file])
        return await downloads.open(made.id, (await downloads.make_key(self.owner, made.id, key)).key)

    async def taken(self, opened: Opened) -> bytes:
        reading = self.engine.transfer.downloads.read(opened, 0, opened.content.size, "here")
        async with contextlib.aclosing(reading) as parts:
            return b"".join([part async for part in parts])

    async def read(self, file: bytes) -> bytes:
        return await self.taken(await self.opened(file))

    @property
    def files(self) -> dict[bytes, int]:
        rows, _ = self.engine.transfer.library.listed(self.owner, ALL)
        return {row.id: row.size for row in rows}

    @property
    def on_disk(self) -> list[str]:
        return sorted(os.listdir(os.path.join(self.engine.config.data, "Files")))

    def held_open(self) -> list[str]:
        """The files of this folder that are open."""
        folder = os.path.join(self.engine.config.data, "Files")
        found = []
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/self/fd/{number}"))
        return [path for path in found if path.startswith(folder)]


def over(story: Callable[[Box], Awaitable[None]]) -> None:
    """Run a story against an engine whose user has a PIN."""

    async def whole() -> None:
        now = [1_800_000_000.0]
        async with Cluster(5, clock=lambda: now[0]) as cluster:
            box = Box(await cluster.engine("alice"), now)
            await box.engine.transfer.pins.set(HOME, PIN)
            await box.enter()
            await story(box)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pins, "COST", 1 << 4)
        asyncio.run(whole())


class Late:
    """Store writes that are carried out, but are answered only when they may be."""

    def __init__(self) -> None:
        self.asked, self.released = asyncio.Event(), asyncio.Event()

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        write = Database.write

        async def late(database: Database, change: Callable[[Any], Any]) -> Any:
            result = asyncio.ensure_future(write(database, change))
            self.asked.set()
            await self.released.wait()
            return await result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Database, "write", late)
            yield

    async def cancel(self, work: Any, *, times: int = 1) -> None:
        """Start something, and cancel it while its write is on its way."""
        with self.patched():
            task = asyncio.ensure_future(work)
            await self.asked.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        self.released.set()
        with pytest.raises(asyncio.CancelledError):
            await task


# ------------------------------------------------------------------------------------------------------------------
# Requests that are cancelled


@pytest.mark.parametrize("times", [1, 3])
def test_a_piece_that_is_cancelled_while_it_is_written_down_is_there(times: int) -> None:
    async def story(box: Box) -> None:
        row = await box.uploads.create(box.owner, "a.bin", "", len(DATA))
        await box.piece(row.id, 0, DATA[:100_000])
        await Late().cancel(box.piece(row.id, 100_000, DATA[100_000:250_000]), times=times)
        offset = box.uploads.get(box.owner, row.id).size
        assert offset == 250_000
        await box.piece(row.id, offset, DATA[offset:])
        assert await box.read(row.id) == DATA

    over(story)


def test_a_piece_that_is_cancelled_while_it_is_written_down_outlives_a_restart() -> None:
    async def story(box: Box) -> None:
        row = await box.uploads.create(box.owner, "a.bin", "", len(DATA))
        await Late().cancel(box.piece(row.id, 0, DATA[:250_000]))
        box.uploads.close()
        await box.piece(row.id, 250_000, DATA[250_000:])
        assert await box.read(row.id) == DATA

    over(story)


def test_a_last_piece_that_is_cancelled_while_it_is_written_down_makes_the_file() -> None:
    async def story(box: Box) -> None:
        row = await box.uploads.create(box.owner, "a.bin", "", len(DATA))
        await Late().cancel(box.piece(row.id, 0, DATA))
        assert await box.read(row.id) == DATA
        assert box.held_open() == []

    over(story)


def test_a_form_that_is_cancelled_while_it_is_written_down_keeps_its_file() -> None:
    async def story(box: Box) -> None:
        await Late().cancel(box.form(DATA))
        (file,) = box.files
        assert await box.read(file) == DATA

    over(story)


def test_a_download_that_is_cancelled_gives_its_file_back_when_its_threads_have_ended() -> None:
    async def story(box: Box) -> None:
        await box.form(bytes(5 << 20))  # several chunks, which are read ahead
        opened = await box.opened(*box.files)
        read, loop, failed = opened.content.read, asyncio.get_running_loop(), []
        begun, ended, first, others = asyncio.Event(), asyncio.Event(), threading.Event(), threading.Event()

        def slow(offset: int, size: int) -> bytes:
            loop.call_soon_threadsafe(begun.set)
            (others if offset else first).wait(5)
            try:
                return read(offset, size)
            except Exception as error:
                failed.append(error)
                raise
            finally:
                loop.call_soon_threadsafe(ended.set)

        opened.content.read = slow  # type: ignore[method-assign]
        task = asyncio.ensure_future(box.taken(opened))
        await begun.wait()
        task.cancel()
        first.set()
        await ended.wait()
        for _ in range(10):  # the first is over, those that were read ahead are not
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        others.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (box.held_open(), failed) == ([], [])

    over(story)


def test_an_upload_that_is_cancelled_while_it_is_begun_can_expire() -> None:
    async def story(box: Box) -> None:
        await Late().cancel(box.uploads.create(box.owner, "a.bin", "", 1000))
        assert len(box.on_disk) == 1
        box.later(86_400)
        await box.uploads.expire()
        assert (box.on_disk, box.held_open()) == ([], [])

    over(story)


def test_an_upload_the_store_refuses_leaves_nothing() -> None:
    async def story(box: Box) -> None:
        async def refuse(*_: object) -> None:
            raise NotFound("refused")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(box.uploads._store, "add_upload", refuse)
            with pytest.raises(NotFound):
                await box.uploads.create(box.owner, "a.bin", "", 1000)
        assert (box.on_disk, box.held_open()) == ([], [])

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Uploads that go while somebody writes


@pytest.mark.parametrize("size", [1000, 900], ids=["last piece", "piece"])
def test_a_token_that_is_revoked_ends_an_upload_under_way(size: int) -> None:
    async def story(box: Box) -> None:
        row = await box.uploads.create(box.owner, "a.bin", "", 1000)
        with pytest.raises(NotFound):
            await box.piece(row.id, 0, bytes(size), between=box.revoke)
        assert (box.files, box.on_disk, box.held_open()) == ({}, [], [])

    over(story)


def test_a_token_that_is_revoked_gives_back_what_its_uploads_hold() -> None:
    async def story(box: Box) -> None:
        async def leave() -> None:
            await box.revoke()
            raise ValueError("the client has gone")

        for _ in range(2):
            row = await box.uploads.create(box.owner, "a.bin", "", 1000)
            await box.piece(row.id, 0, bytes(500))
        with pytest.raises(ValueError, match="the client has gone"):
            await box.piece(row.id, 500, bytes(500), between=leave)
        assert (box.on_disk, box.held_open()) == ([], [])

    over(story)


def test_an_upload_somebody_writes_to_does_not_expire() -> None:
    async def story(box: Box) -> None:
        row = await box.uploads.create(box.owner, "a.bin", "", len(DATA))
        await box.piece(row.id, 0, DATA[:100_000])
        box.later(86_399)

        async def end() -> None:
            box.later(2)
            await box.uploads.expire()

        await box.piece(row.id, 100_000, DATA[100_000:], between=end)
        assert await box.read(row.id) == DATA

    over(story)


def test_nobody_writes_to_an_upload_that_is_being_terminated() -> None:
    async def story(box: Box) -> None:
        row = await box.uploads.create(box.owner, "a.bin", "", 1000)
        late = Late()
        with late.patched():
            task = asyncio.ensure_future(box.uploads.terminate(box.owner, row.id))
            await late.asked.wait()
        with pytest.raises((Conflict, NotFound)):
            await box.piece(row.id, 0, bytes(1000))
        late.released.set()
        await task
        assert (box.files, box.on_disk, box.held_open()) == ({}, [], [])

    over(story)


def test_an_upload_without_its_row_becomes_no_file() -> None:
    async def story(box: Box) -> None:
        row = await box.uploads.create(box.owner, "a.bin", "", 1000)
        with pytest.raises(NotFound):
            await box.piece(row.id, 0, bytes(1000), between=lambda: box.uploads._store.drop_upload(row.id))
        assert (box.files, box.on_disk, box.held_open()) == ({}, [], [])

    over(story)


def test_a_user_who_is_deleted_leaves_no_files() -> None:
    async def story(box: Box) -> None:
        account = await box.engine.accounts.users.create(NewUser(username="bob", password="secretpass"))
        await box.engine.transfer.pins.set(account.id, PIN)
        mine, kept = box.on_disk, await box.kept()
        await box.enter(account.id)
        await box.kept()
        row = await box.uploads.create(box.owner, "b.bin", "", 1000)
        await box.piece(row.id, 0, bytes(500))
        await box.engine.accounts.users.delete(account.oid)
        assert (mine, box.on_disk, box.held_open()) == ([], [kept.hex()], [])

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Lengths that are said later


@pytest.mark.parametrize("way", ["whole", "whole, no length", "half", "length alone"])
def test_uploads_whose_lengths_were_not_said_share_the_room_there_is(way: str) -> None:
    async def story(box: Box) -> None:
        box.allow(1000)
        one, other = [await box.uploads.create(box.owner, "a", "", None) for _ in range(2)]
        length = None if way == "whole, no length" else 800
        data = bytes({"half": 300, "length alone": 0}.get(way, 800))
        with pytest.raises(QuotaError):  # the other fits while nobody has brought as much
            await box.piece(one.id, 0, data, length, between=lambda: box.piece(other.id, 0, bytes(800), 800))
        assert sum(box.files.values()) + box.uploads.get(box.owner, one.id).size <= 1000

    over(story)


def test_what_had_its_length_from_the_start_ends_however_little_room_is_left() -> None:
    async def story(box: Box) -> None:
        row = await box.uploads.create(box.owner, "a", "", 1000)
        box.allow(500)
        await box.piece(row.id, 0, bytes(700))
        await box.piece(row.id, 700, bytes(300))
        assert box.files == {row.id: 1000}

    over(story)


def test_a_length_is_not_below_what_has_come() -> None:
    async def story(box: Box) -> None:
        row = await box.uploads.create(box.owner, "a", "", None)
        await box.piece(row.id, 0, bytes(100))
        with pytest.raises(UsageError, match="has more bytes"):
            await box.piece(row.id, 100, b"", 99)
        await box.piece(row.id, 100, b"", 100)
        assert box.files == {row.id: 100}

    over(story)


@pytest.mark.parametrize("kept", ["file", "upload"])
def test_a_quota_of_ones_own_is_for_messages_and_files_together(kept: str) -> None:
    async def story(box: Box) -> None:
        new = NewUser(username="bob", password="secretpass", quota=200_000)
        account = await box.engine.accounts.users.create(new)
        await box.engine.transfer.pins.set(account.id, PIN)
        await box.enter(account.id)
        letter = b"Subject: x\r\n\r\n" + b"x" * 150_000
        if kept == "file":
            await box.form(bytes(60_000))
        else:
            await box.uploads.create(box.owner, "a", "", 60_000)
        with pytest.raises(QuotaError):
            await box.engine.post.deliver(account.id, letter, sender="a@far.example")
        await box.engine.post.deliver(account.id, letter[:100_000], sender="a@far.example")
        with pytest.raises(QuotaError):
            await box.form(bytes(60_000))

    over(story)


def test_who_has_no_quota_of_ones_own_gets_mail_however_many_files_there_are() -> None:
    async def story(box: Box) -> None:
        box.allow(len(DATA))
        await box.form(DATA)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(letters, "QUOTA", len(DATA))
            await box.engine.post.deliver(HOME, b"Subject: x\r\n\r\n" + b"x" * 1000, sender="a@far.example")

    over(story)
