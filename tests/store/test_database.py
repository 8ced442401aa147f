"""One writer, group commit: changes of one group stand or fall alone, and an answer means it is on disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qmail_core.errors import Conflict, StoreError, StoreUnavailable
from qmail_core.store.database import Database

Story = Callable[[Database], Awaitable[None]]


@pytest.fixture(params=["memory", "disk"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return None if request.param == "memory" else str(tmp_path / "db.sqlite")


def run(path: str | None, story: Story) -> None:
    async def main() -> None:
        database = Database(path)
        try:
            await story(database)
        finally:
            await database.close()

    asyncio.run(main())


def insert(number: int) -> Callable[[sqlite3.Connection], int]:
    def change(db: sqlite3.Connection) -> int:
        db.execute("INSERT INTO repair (guid, due) VALUES (?,?)", (bytes((number,)), number))
        return number

    return change


def rows(database: Database) -> set[int]:
    with database.read() as db:
        return {due for (due,) in db.execute("SELECT due FROM repair")}


async def grouped(database: Database, *changes: Callable[[sqlite3.Connection], object]) -> list[object]:
    """Changes that are certain to share one commit: the writer is held until all are queued."""
    entered, gate = threading.Event(), threading.Event()

    def hold(db: sqlite3.Connection) -> None:
        entered.set()
        gate.wait(5)

    held = asyncio.ensure_future(database.write(hold))
    await asyncio.sleep(0)
    await asyncio.to_thread(entered.wait, 5)
    queued = [asyncio.ensure_future(database.write(change)) for change in changes]
    await asyncio.sleep(0)
    gate.set()
    await held
    return await asyncio.gather(*queued, return_exceptions=True)


def test_a_failing_change_undoes_itself_and_nothing_else(path: str | None) -> None:
    def fail(db: sqlite3.Connection) -> None:
        insert(100)(db)
        raise Conflict("no")

    def violate(db: sqlite3.Connection) -> None:
        insert(101)(db)
        insert(1)(db)

    def bug(db: sqlite3.Connection) -> None:
        insert(102)(db)
        raise KeyError("bug")

    async def story(database: Database) -> None:
        found = await grouped(database, insert(1), fail, insert(2), violate, bug, insert(3))
        assert [found[0], found[2], found[5]] == [1, 2, 3]
        assert isinstance(found[1], Conflict)
        assert isinstance(found[3], StoreError)
        assert isinstance(found[4], KeyError)
        assert rows(database) == {1, 2, 3}

    run(path, story)


def test_many_writers_share_few_commits(path: str | None) -> None:
    async def story(database: Database) -> None:
        commits = 0

        def trace(statement: str) -> None:
            nonlocal commits
            commits += statement == "COMMIT"

        database._writer.set_trace_callback(trace)
        assert await grouped(database, *map(insert, range(200))) == list(range(200))
        database._writer.set_trace_callback(None)
        assert commits <= 2
        assert rows(database) == set(range(200))

    run(path, story)


MISTAKES = [
    "INSERT INTO repair (guid, due) VALUES (x'63', NULL)",
    "INSERT INTO nowhere VALUES (1)",
    "SELECT",
    "SELECT json_extract('{', '$.a')",
    "INSERT INTO repair (guid, due) VALUES (zeroblob(1 << 40), 1)",
    "INSERT INTO repair (guid, due) VALUES (?, ?)",  # without values
]


@pytest.mark.parametrize("sql", MISTAKES)
def test_a_change_that_is_at_fault_itself_fails_alone(path: str | None, sql: str) -> None:
    def mistaken(db: sqlite3.Connection) -> None:
        insert(100)(db)
        db.execute(sql)

    async def story(database: Database) -> None:
        first, error, last = await grouped(database, insert(1), mistaken, insert(2))
        assert (first, last) == (1, 2)
        assert isinstance(error, StoreError)
        assert not isinstance(error, StoreUnavailable)
        assert rows(database) == {1, 2}

    run(path, story)


def test_a_medium_that_fails_fails_the_whole_group_and_then_works_again(path: str | None) -> None:
    def too_much(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO repair (guid, due) VALUES (randomblob(1 << 20), 1)")

    async def story(database: Database) -> None:
        (pages,) = database._writer.execute("PRAGMA page_count").fetchone()
        database._writer.execute(f"PRAGMA max_page_count={pages + 8}")
        found = await grouped(database, insert(1), too_much, insert(2))
        assert all(isinstance(outcome, StoreUnavailable) for outcome in found)
        assert "disk is full" in str(found[0])
        assert rows(database) == set()
        database._writer.execute("PRAGMA max_page_count=1000000")
        await database.write(insert(3))
        assert rows(database) == {3}

    run(path, story)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_NOMEM])
def test_what_the_medium_is_to_blame_for_is_not_handed_to_one_change(path: str | None, code: int) -> None:
    def broken(db: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = code
        raise error

    async def story(database: Database) -> None:
        found = await grouped(database, insert(1), broken)
        assert all(isinstance(outcome, StoreUnavailable) for outcome in found)
        assert rows(database) == set()

    run(path, story)


def test_a_change_that_lost_the_transaction_fails_the_whole_group(path: str | None) -> None:
    """As SQLite itself ends one after some errors."""

    def lose(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")
        raise Conflict("no")

    async def story(database: Database) -> None:
        found = await grouped(database, insert(1), lose, insert(2))
        assert all(isinstance(outcome, StoreUnavailable) for outcome in found)
        assert rows(database) == set()

    run(path, story)


def test_a_cancelled_caller_changes_nothing_about_the_write(path: str | None) -> None:
    async def story(database: Database) -> None:
        writing = asyncio.ensure_future(database.write(insert(1)))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await database.write(insert(2))
        assert rows(database) == {1, 2}

    run(path, story)


def test_closing_finishes_what_is_queued_and_refuses_the_rest(path: str | None) -> None:
    async def story(database: Database) -> None:
        writing = [asyncio.ensure_future(database.write(insert(i))) for i in range(250)]
        await asyncio.sleep(0)
        await database.close()
        assert await asyncio.gather(*writing) == list(range(250))
        await database.close()
        with pytest.raises(StoreUnavailable):
            await database.write(insert(7))
        with pytest.raises(StoreUnavailable), database.read():
            pass

    run(path, story)


def test_readers_cannot_write(tmp_path: Path) -> None:
    async def story(database: Database) -> None:
        with database.read() as db, pytest.raises(sqlite3.OperationalError):
            db.execute("DELETE FROM repair")

    run(str(tmp_path / "db.sqlite"), story)


def test_every_answer_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"

    async def story(database: Database) -> None:
        with database.read() as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database._writer.execute("PRAGMA synchronous").fetchone() == (2,)
        for number in range(5):
            await database.write(insert(number))
            other = sqlite3.connect(path)
            assert other.execute("SELECT count(*) FROM repair").fetchone() == (number + 1,)
            other.close()

    run(str(path), story)


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"

    async def story(database: Database) -> None:
        await database.write(insert(1))

    run(str(path), story)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        Database(str(path))
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (99,)
    assert db.execute("SELECT count(*) FROM repair").fetchone() == (1,)
    db.close()


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    path.write_bytes(b"this is no database " * 100)
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        Database(str(path))
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        Database(str(tmp_path))
    assert path.read_bytes() == b"this is no database " * 100


def test_the_revision_has_grown_when_a_change_is_answered(path: str | None) -> None:
    async def story(database: Database) -> None:
        for number in range(3):
            before = database.revision
            await database.write(insert(number))
            assert database.revision > before
        unchanged = database.revision
        with database.read() as db:
            assert db.execute("SELECT count(*) FROM repair").fetchone() == (3,)
        assert database.revision == unchanged

    run(path, story)
