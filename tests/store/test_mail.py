"""The mailbox side of the store: mailboxes, messages, search, pieces, journal."""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import os
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmail_core.errors import Conflict, NotFound, QuotaError, StoreFull, StoreUnavailable, UsageError
from qmail_core.model import Content, Folder, MailboxState, MessageState, Query
from qmail_core.store.database import migrate
from qmail_core.store.mail.pieces import BLOB_LIMIT
from qmail_core.store.mailbox import HOME, FiledAttachment, Filing
from qmail_core.store.sqlite import SqliteStore
from tests.store.schemas import of_schema

NUMBERS = itertools.count(1)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def opened(path: Path | None = None) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(None if path is None else str(path / "mail.db"))
    try:
        yield store
    finally:
        await store.close()


def oid() -> bytes:
    return next(NUMBERS).to_bytes(12, "big")


def filing(mailbox: int, subject: str = "Minutes", text: str = "Dear all", **fields: Any) -> Filing:
    number = next(NUMBERS)
    content = Content(subject=subject, sender=fields.pop("sender", "ada@example.org"), recipients="bob", text=text)
    defaults: dict[str, Any] = {"received_at": 1000 + number, "sent_at": 1000, "size": len(text)}
    return Filing(
        mailbox=mailbox,
        oid=number.to_bytes(12, "big"),
        email_id=number.to_bytes(16, "big"),
        content=content,
        **(defaults | fields),
    )


def inbox(store: SqliteStore) -> MailboxState:
    return store.mailboxes.mailbox_for(HOME, Folder.INBOX)


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "Pieces").rglob("*") if path.is_file()]


def counters(store: SqliteStore) -> None:
    """What the triggers keep is what there is."""
    with store.mailboxes._db.read() as db:
        rows = db.execute(
            "SELECT b.total, b.unseen, b.size, count(m.id), coalesce(sum(NOT m.seen), 0), coalesce(sum(m.size), 0)"
            " FROM mailbox b LEFT JOIN message m ON m.mailbox=b.id GROUP BY b.id"
        ).fetchall()
        assert all(row[:3] == row[3:] for row in rows)
        drift = "SELECT count(*) FROM user u WHERE used<>(SELECT coalesce(sum(size), 0) FROM message WHERE user=u.id)"
        assert db.execute(drift).fetchone() == (0,)
        refs = "SELECT count(*) FROM blob WHERE refs<>(SELECT count(*) FROM piece p WHERE p.hash=blob.hash)"
        assert db.execute(refs).fetchone() == (0,)


@in_loop
async def test_a_new_store_has_the_usual_mailboxes() -> None:
    async with opened() as store:
        found = store.mailboxes.mailboxes(HOME)
        assert [box.path for box in found] == ["INBOX", "Archive", "Drafts", "Junk", "Sent Mail", "Trash"]
        assert {box.special_use for box in found} == {None, "\\Archive", "\\Drafts", "\\Junk", "\\Sent", "\\Trash"}
        assert store.mailboxes.mailbox_for(HOME, Folder.TRASH).path == "Trash"


@in_loop
async def test_filing_counts_and_is_journalled() -> None:
    async with opened() as store:
        woken = []
        store.mailboxes.changed = lambda: woken.append(1)
        first = await store.mailboxes.file(HOME, filing(inbox(store).id))
        second = await store.mailboxes.file(HOME, filing(inbox(store).id, seen=True))
        assert (first.uid, second.uid, second.modseq) == (1, 2, 2)
        box = inbox(store)
        assert (box.total, box.unseen, box.size, box.uidnext) == (2, 1, 16, 3)
        entries = store.mailboxes.journal(HOME, 0, 10)
        assert [(entry.command, entry.uid, entry.mailbox) for entry in entries] == [
            ("EXISTS", 1, box.oid),
            ("EXISTS", 2, box.oid),
        ]
        assert msgspec.json.decode(entries[0].detail)["email_id"] == first.email_id.hex()
        assert len(woken) == 2
        assert store.mailboxes.last_entry() == entries[-1].id
        assert await store.mailboxes.trim_journal(first.received_at + 1) == 1
        counters(store)


@in_loop
async def test_a_guid_is_filed_once_per_direction() -> None:
    async with opened() as store:
        guid = os.urandom(16)
        once = await store.mailboxes.file(HOME, filing(inbox(store).id, guid=guid))
        assert await store.mailboxes.file(HOME, filing(inbox(store).id, guid=guid)) == once
        sent = await store.mailboxes.file(HOME, filing(inbox(store).id, guid=guid, outgoing=True))
        assert sent.id != once.id
        counters(store)


@in_loop
async def test_quota_refuses_and_leaves_nothing() -> None:
    async with opened() as store:
        await store.mailboxes.file(HOME, filing(inbox(store).id, text="x" * 60), quota=100)
        with pytest.raises(QuotaError, match="60 of 100"):
            await store.mailboxes.file(HOME, filing(inbox(store).id, text="x" * 41), quota=100)
        assert inbox(store).total == 1
        await store.mailboxes.file(HOME, filing(inbox(store).id, text="x" * 40), quota=100)
        counters(store)


@in_loop
async def test_a_user_sees_only_own_things() -> None:
    async with opened() as store:
        message = await store.mailboxes.file(HOME, filing(inbox(store).id))
        stranger = 2
        with pytest.raises(NotFound):
            store.mailboxes.message(stranger, message.oid)
        with pytest.raises(NotFound):
            store.mailboxes.mailbox(stranger, inbox(store).oid)
        assert await store.mailboxes.flag(stranger, [message.id], 1, seen=True) == []
        assert await store.mailboxes.remove(stranger, [message.id], 1) == []
        with pytest.raises(NotFound):
            await store.mailboxes.move(stranger, [message.id], inbox(store).id, 1)
        assert store.mailboxes.search(stranger, Query(words="minutes"), 10).total == 0
        assert store.mailboxes.message(HOME, message.oid) == message


@in_loop
async def test_flags_change_once_and_count() -> None:
    async with opened() as store:
        message = await store.mailboxes.file(HOME, filing(inbox(store).id))
        (changed,) = await store.mailboxes.flag(HOME, [message.id], 5, seen=True, flagged=True)
        assert (changed.seen, changed.flagged, changed.modseq) == (True, True, 2)
        assert await store.mailboxes.flag(HOME, [message.id, 999], 6, seen=True) == []
        assert inbox(store).unseen == 0
        entry = store.mailboxes.journal(HOME, 1, 10)[-1]
        assert (entry.command, msgspec.json.decode(entry.detail)["flags"]) == ("FETCH", ["seen", "flagged"])
        with pytest.raises(ValueError, match="no such flag"):
            await store.mailboxes.flag(HOME, [message.id], 5, id=True)
        counters(store)


@in_loop
async def test_a_moved_message_gets_a_new_uid_and_the_expiry_of_its_mailbox() -> None:
    async with opened() as store:
        target = await store.mailboxes.add_mailbox(HOME, "Lists/Python", oid(), 7, retention=60_000)
        message = await store.mailboxes.file(HOME, filing(inbox(store).id))
        (moved,) = await store.mailboxes.move(HOME, [message.id], target.id, 100)
        assert (moved.mailbox, moved.uid, moved.expires, moved.oid) == (target.id, 1, 160, message.oid)
        assert await store.mailboxes.move(HOME, [message.id], target.id, 200) == [moved]
        commands = [entry.command for entry in store.mailboxes.journal(HOME, 0, 10)]
        assert commands == ["CREATE", "EXISTS", "EXPUNGE", "EXISTS"]
        assert store.mailboxes.mailbox(HOME, target.oid).total == 1
        assert await store.mailboxes.expire(159) == []
        assert inbox(store).total == 0
        await store.mailboxes.expire(160)
        assert store.mailboxes.mailbox(HOME, target.oid).total == 0
        counters(store)


@in_loop
async def test_renaming_takes_the_mailboxes_below_along() -> None:
    async with opened() as store:
        boxes = {path: await store.mailboxes.add_mailbox(HOME, path, oid(), 1) for path in ("A", "A/B", "A/B/C", "AB")}
        await store.mailboxes.change_mailbox(HOME, boxes["A/B"].oid, 2, path="A/A")
        renamed = await store.mailboxes.change_mailbox(HOME, boxes["A"].oid, 3, path="Z/A")
        assert renamed.path == "Z/A"
        paths = {store.mailboxes.mailbox(HOME, box.oid).path for box in boxes.values()}
        assert paths == {"Z/A", "Z/A/A", "Z/A/A/C", "AB"}
        assert [entry.command for entry in store.mailboxes.journal(HOME, 4, 10)] == ["RENAME"] * 5


@pytest.mark.parametrize("path", ["A/B", "A/B/C"])
@in_loop
async def test_a_mailbox_is_not_moved_below_itself(path: str) -> None:
    async with opened() as store:
        box = await store.mailboxes.add_mailbox(HOME, "A", oid(), 1)
        await store.mailboxes.add_mailbox(HOME, "A/B", oid(), 1)
        with pytest.raises(UsageError):
            await store.mailboxes.change_mailbox(HOME, box.oid, 2, path=path)
        assert {found.path for found in store.mailboxes.mailboxes(HOME)} >= {"A", "A/B"}


@in_loop
async def test_renaming_to_a_taken_path_changes_nothing() -> None:
    async with opened() as store:
        box = await store.mailboxes.add_mailbox(HOME, "A", oid(), 1)
        await store.mailboxes.add_mailbox(HOME, "A/X", oid(), 1)
        await store.mailboxes.add_mailbox(HOME, "B/X", oid(), 1)
        with pytest.raises(Conflict):
            await store.mailboxes.change_mailbox(HOME, box.oid, 2, path="B")
        with pytest.raises(Conflict):
            await store.mailboxes.add_mailbox(HOME, "A", oid(), 1)
        renamed = await store.mailboxes.change_mailbox(HOME, box.oid, 2, path="C", subscribed=False, retention=5)
        assert (renamed.path, renamed.subscribed, renamed.retention) == ("C", False, 5)
        assert store.mailboxes.mailbox_at(HOME, "C/X") is not None
        with pytest.raises(UsageError):
            await store.mailboxes.change_mailbox(HOME, inbox(store).oid, 2, path="In")


@in_loop
async def test_dropping_a_mailbox_takes_its_messages_and_quota_along() -> None:
    async with opened() as store:
        box = await store.mailboxes.add_mailbox(HOME, "Lists", oid(), 1)
        await store.mailboxes.file(HOME, filing(box.id, pieces=(b"raw",), attachments=(FiledAttachment("a", 1),)))
        await store.mailboxes.drop_mailbox(HOME, box.oid, 2)
        assert store.mailboxes.mailbox_at(HOME, "Lists") is None
        assert await store.mailboxes.collect() == []
        for kept in (inbox(store), store.mailboxes.mailbox_for(HOME, Folder.TRASH)):
            with pytest.raises(UsageError):
                await store.mailboxes.drop_mailbox(HOME, kept.oid, 2)
        counters(store)


@in_loop
async def test_pages_walk_forth_and_back() -> None:
    async with opened() as store:
        box = inbox(store).id
        for _ in range(7):
            await store.mailboxes.file(HOME, filing(box))
        page = store.mailboxes.page(HOME, box, 3)
        assert ([m.uid for m in page.messages], page.total, page.more, page.earlier) == ([7, 6, 5], 7, True, False)
        page = store.mailboxes.page(HOME, box, 3, after=5)
        assert ([m.uid for m in page.messages], page.more, page.earlier) == ([4, 3, 2], True, True)
        assert [m.uid for m in store.mailboxes.page(HOME, box, 3, after=2).messages] == [1]
        assert not store.mailboxes.page(HOME, box, 3, after=2).more
        back = store.mailboxes.page(HOME, box, 3, before=4)
        assert ([m.uid for m in back.messages], back.more, back.earlier) == ([7, 6, 5], True, False)
        up = store.mailboxes.page(HOME, box, 3, after=3, up=True)
        assert [m.uid for m in up.messages] == [4, 5, 6]
        assert [m.uid for m in store.mailboxes.page(HOME, box, 2, before=4, up=True).messages] == [2, 3]


@in_loop
async def test_search_finds_words_fields_and_beginnings() -> None:
    async with opened() as store:
        box = inbox(store).id
        one = await store.mailboxes.file(HOME, filing(box, "Budget Überblick", "the quarterly numbers", flagged=True))
        two = await store.mailboxes.file(HOME, filing(box, "Lunch", "budget for pizza", sender="cy@example.org"))

        def found(**fields: Any) -> set[int]:
            page = store.mailboxes.search(HOME, Query(**fields), 10)
            assert page.total == len(page.messages)
            return {message.id for message in page.messages}

        assert found(words="budget") == {one.id, two.id}
        assert found(words="budget pizza") == found(words="BUDGET piz") == {two.id}
        assert found(words="uberblick") == {one.id}
        assert found(subject="budget") == found(words="budget", flagged=True) == {one.id}
        assert found(sender="cy") == found(words="lunch", sender="cy@example.org") == {two.id}
        assert found(words='"; DROP -pizza*') == set()
        assert found(words='budget" ORX') == set()
        assert found(words="...") == found() == {one.id, two.id}
        assert found(thread=one.thread) == {one.id}
        page = store.mailboxes.search(HOME, Query(words="budget"), 1)
        assert ([m.id for m in page.messages], page.more) == ([two.id], True)
        assert [m.id for m in store.mailboxes.search(HOME, Query(words="budget"), 1, after=two.id).messages] == [one.id]


@in_loop
async def test_any_letter_may_be_within_a_word_that_is_searched_for() -> None:
    async with opened() as store:
        letters = [chr(code) for code in range(0x80, 0x20000) if chr(code).isalnum()]
        for at in range(0, len(letters), 500):  # one that cuts words makes the whole query a broken one
            words = " ".join(f"a{letter}b" for letter in letters[at : at + 500])
            assert store.mailboxes.search(HOME, Query(words=words), 5).total == 0


@in_loop
async def test_trash_and_junk_are_not_searched_unless_asked_for() -> None:
    async with opened() as store:
        message = await store.mailboxes.file(HOME, filing(inbox(store).id, "Secret plan"))
        trash = store.mailboxes.mailbox_for(HOME, Folder.TRASH)
        await store.mailboxes.move(HOME, [message.id], trash.id, 5)
        assert store.mailboxes.search(HOME, Query(words="plan"), 5).total == 0
        assert store.mailboxes.search(HOME, Query(), 5).total == 0
        assert store.mailboxes.search(HOME, Query(words="plan", everywhere=True), 5).total == 1
        assert store.mailboxes.search(HOME, Query(words="plan", mailbox=trash.id), 5).total == 1
        await store.mailboxes.move(HOME, [message.id], inbox(store).id, 6)
        assert store.mailboxes.search(HOME, Query(words="plan"), 5).total == 1


@in_loop
async def test_messages_that_share_a_key_are_one_thread() -> None:
    async with opened() as store:
        box = inbox(store).id
        first = await store.mailboxes.file(HOME, filing(box, thread_keys=(b"a", b"b")))
        second = await store.mailboxes.file(HOME, filing(box, thread_keys=(b"b", b"c")))
        third = await store.mailboxes.file(HOME, filing(box, thread_keys=(b"c",)))
        other = await store.mailboxes.file(HOME, filing(box, thread_keys=(b"z",)))
        assert first.thread == second.thread == third.thread != other.thread


@in_loop
async def test_threads_nothing_is_left_of_are_forgotten() -> None:
    async with opened() as store:
        box, boxes = inbox(store).id, store.mailboxes

        async def arrive(at: int, *keys: bytes) -> MessageState:
            return await boxes.file(HOME, filing(box, thread_keys=keys, filed_at=at))

        def known() -> set[bytes]:
            with store._database.read() as db:
                return {key for (key,) in db.execute("SELECT key FROM thread")}

        gone = await arrive(1, b"a", b"b")
        kept = await arrive(2, b"c", b"d")
        late = await arrive(10, b"e")
        await boxes.remove(HOME, [gone.id, late.id], 20)
        await boxes.forget_threads(10, 20, limit=1)
        assert known() == {b"b", b"c", b"d", b"e"}
        await boxes.forget_threads(10, 20, limit=1)
        await boxes.forget_threads(10, 20, limit=1)  # what is kept does not stand in the way of the rest
        await boxes.forget_threads(11, 20, limit=2)
        assert known() == {b"c", b"d"}
        assert (await arrive(30, b"d")).thread == kept.thread


@in_loop
async def test_equal_pieces_are_stored_once_and_forgotten_with_their_last_message(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        box = inbox(store).id
        large, small = os.urandom(BLOB_LIMIT + 1), b"head"
        messages = [await store.mailboxes.file(HOME, filing(box, pieces=(small, large))) for _ in range(3)]
        raw = store.mailboxes.raw(messages[2].id)
        assert raw[0] == small
        assert isinstance(raw[1], str)
        assert files(tmp_path)[0].read_bytes() == large
        assert str(files(tmp_path)[0]) == raw[1]
        assert len(files(tmp_path)) == 1
        await store.mailboxes.remove(HOME, [message.id for message in messages[:2]], 5)
        assert await store.mailboxes.collect() == []
        await store.mailboxes.remove(HOME, [messages[2].id], 5)
        assert await store.mailboxes.collect() == [raw[1]]
        counters(store)


@in_loop
async def test_files_no_row_names_are_swept_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        kept = await store.mailboxes.file(HOME, filing(inbox(store).id, pieces=(os.urandom(BLOB_LIMIT + 1),)))
    orphan = tmp_path / "Pieces" / "00" / "00ff"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"left behind")
    async with opened(tmp_path) as store:
        assert files(tmp_path) == [Path(str(store.mailboxes.raw(kept.id)[0]))]


@in_loop
async def test_who_stops_waiting_for_a_message_takes_no_file_away(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        held = threading.Event()
        blocked = asyncio.ensure_future(store.mailboxes._db.write(lambda _: held.wait(5)))
        raw = os.urandom(BLOB_LIMIT + 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.mailboxes, "_prepare", prepared_at_once(store))
            waiting = asyncio.ensure_future(store.mailboxes.file(HOME, filing(inbox(store).id, pieces=(raw,))))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        held.set()
        await blocked
        again = await store.mailboxes.file(HOME, filing(inbox(store).id, pieces=(raw,)))
        assert list(map(str, files(tmp_path))) == store.mailboxes.raw(again.id)


def prepared_at_once(store: SqliteStore) -> Callable[[Filing], Coroutine[Any, Any, list[Any]]]:
    """Pieces written without giving way, so that what comes next is known."""

    async def prepare(filing: Filing) -> list[Any]:
        return store.mailboxes._pieces.prepare(filing.pieces)

    return prepare


@in_loop
async def test_a_number_means_one_message_for_ever() -> None:
    async with opened() as store:
        first = await store.mailboxes.file(HOME, filing(inbox(store).id))
        await store.mailboxes.remove(HOME, [first.id], 5)
        second = await store.mailboxes.file(HOME, filing(inbox(store).id))
        # whoever looked the first one up before it went must not meet the second one now
        assert await store.mailboxes.flag(HOME, [first.id], 5, seen=True) == []
        await store.mailboxes.remove(HOME, [first.id], 5)
        assert store.mailboxes.message(HOME, second.oid) == second
        box = await store.mailboxes.add_mailbox(HOME, "Extra", oid(), 1)
        await store.mailboxes.drop_mailbox(HOME, box.oid, 5)
        await store.mailboxes.add_mailbox(HOME, "Another", oid(), 1)
        with pytest.raises(NotFound):
            await store.mailboxes.file(HOME, filing(box.id))


@in_loop
async def test_an_old_message_is_news_and_stays_as_long_as_others() -> None:
    async with opened() as store:
        box = await store.mailboxes.add_mailbox(HOME, "Brief", oid(), 1, retention=60_000)
        old = await store.mailboxes.file(HOME, filing(box.id, received_at=1000, filed_at=900_000))
        assert (old.received_at, old.expires) == (1000, 900_060)
        await store.mailboxes.trim_journal(890_000)
        assert store.mailboxes.journal(HOME, 0, 10)[-1].message == old.oid


@in_loop
async def test_a_refused_message_leaves_no_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        big = filing(inbox(store).id, pieces=(os.urandom(BLOB_LIMIT + 1),), size=BLOB_LIMIT + 1)
        with pytest.raises(QuotaError):
            await store.mailboxes.file(HOME, big, quota=10)
        assert files(tmp_path) == []


class Unwritable:
    """A connection whose commits fail for want of room."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *args: Any) -> Any:
        if sql == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(sql, *args)


@in_loop
async def test_a_message_that_is_not_committed_leaves_no_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        big = filing(inbox(store).id, pieces=(os.urandom(BLOB_LIMIT + 1), os.urandom(BLOB_LIMIT + 2)))
        database = store.mailboxes._db
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(database, "_writer", Unwritable(database._writer))
            with pytest.raises(StoreUnavailable):
                await store.mailboxes.file(HOME, big)
        assert files(tmp_path) == []
        await store.mailboxes.file(HOME, big)


@in_loop
async def test_a_medium_that_fills_while_pieces_are_written_keeps_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        big = filing(inbox(store).id, pieces=(os.urandom(BLOB_LIMIT + 1), os.urandom(BLOB_LIMIT + 2)))
        synced: list[int] = []

        def full(descriptor: int) -> None:
            synced.append(descriptor)
            if len(synced) > 3:  # the first file and its folders have been brought down
                raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreFull):
                await store.mailboxes.file(HOME, big)
        assert files(tmp_path) == []
        await store.mailboxes.file(HOME, big)


@in_loop
async def test_who_stops_waiting_for_pieces_leaves_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        loop, begun, held = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        loop.set_default_executor(ThreadPoolExecutor(1))
        prepare = store.mailboxes._pieces.prepare

        def slow(pieces: Any) -> Any:
            loop.call_soon_threadsafe(begun.set)
            held.wait(5)
            return prepare(pieces)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.mailboxes._pieces, "prepare", slow)
            raw = os.urandom(BLOB_LIMIT + 1)
            waiting = asyncio.ensure_future(store.mailboxes.file(HOME, filing(inbox(store).id, pieces=(raw,))))
            await begun.wait()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            held.set()
        await loop.run_in_executor(None, list)  # there is one thread: it has ended what it did
        assert files(tmp_path) == []


def test_messages_of_the_first_schema_come_along() -> None:
    with of_schema(1) as db:
        row = (b"i" * 16, b"g" * 16, 0, 0, 3, 4, "Subject", "Hello body", 1, 42, "a@b", b"[]", 100, 99, 0, 1, 1, 0)
        db.execute(f"INSERT INTO message VALUES ({','.join('?' * len(row))})", row)
        db.execute("INSERT INTO attachment VALUES (7, ?, 0, 'x.pdf', 90, 2, '')", (row[0],))
        db.execute("UPDATE mailbox SET uidnext=4, modseq=4 WHERE folder=0")
        migrate(db)
        shown = "SELECT path, uidnext, modseq, total, unseen, size FROM mailbox WHERE folder=0"
        assert db.execute(shown).fetchone() == ("INBOX", 4, 4, 1, 1, 100)
        assert db.execute("SELECT email_id, uid, preview, flagged FROM message").fetchall() == [
            (row[0], 3, "Hello body", 1)
        ]
        assert db.execute("SELECT rowid FROM search WHERE search MATCH 'text : hello'").fetchall() == [(1,)]
        assert db.execute("SELECT id, message FROM attachment").fetchall() == [(7, 1)]


STEPS = st.lists(
    st.tuples(st.sampled_from(["file", "flag", "move", "remove", "drop"]), st.integers(0, 999)), max_size=30
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(0, 2**32))
def test_counters_never_drift(steps: list[tuple[str, int]], seed: int) -> None:
    """Whatever happens, in whatever order: a model in a dictionary, and the counters, agree with the store."""
    asyncio.run(_play(steps, random.Random(seed)))


async def _play(steps: list[tuple[str, int]], rng: random.Random) -> None:
    async with opened() as store:
        where: dict[int, int] = {}  # message -> mailbox
        extra = await store.mailboxes.add_mailbox(HOME, "Extra", oid(), 1)
        boxes = [box.id for box in store.mailboxes.mailboxes(HOME)]
        for step, number in steps:
            some = rng.sample(sorted(where), min(len(where), 1 + number % 3))
            if step == "file":
                box = boxes[number % len(boxes)]
                text = "w" * rng.randrange(50)
                pieces = (b"common", text.encode())
                message = await store.mailboxes.file(HOME, filing(box, text=text, seen=number % 2 == 0, pieces=pieces))
                where[message.id] = box
            elif step == "flag":
                await store.mailboxes.flag(HOME, some, 5, seen=number % 2 == 0)
            elif step == "move":
                target = boxes[number % len(boxes)]
                await store.mailboxes.move(HOME, some, target, 5)
                where |= dict.fromkeys(some, target)
            elif step == "remove":
                await store.mailboxes.remove(HOME, some, 5)
                where = {message: box for message, box in where.items() if message not in some}
            elif extra.id in boxes:
                await store.mailboxes.drop_mailbox(HOME, extra.oid, 5)
                boxes.remove(extra.id)
                where = {message: box for message, box in where.items() if box != extra.id}
            counters(store)
        for box in boxes:
            page = store.mailboxes.page(HOME, box, 100)
            assert {message.id for message in page.messages} == {m for m, kept in where.items() if kept == box}
            assert [m.uid for m in page.messages] == sorted((m.uid for m in page.messages), reverse=True)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
@example("a\u1cf2b")
@example("a\u1cf3b")
def test_no_text_is_a_broken_search(text: str) -> None:
    async def look() -> None:
        async with opened() as store:
            assert store.mailboxes.search(HOME, Query(words=text, sender=text, subject=text), 5).total == 0

    asyncio.run(look())
