"""SqliteStore holds what every store promises, in memory and on disk; on disk it also outlives whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from qmail_core.errors import NotFound
from qmail_core.model import Folder
from qmail_core.store.base import LockerState
from qmail_core.store.sqlite import SqliteStore
from tests.store import suite
from tests.store.schemas import of_schema

FACTORIES: dict[str, Callable[[Path], SqliteStore]] = {
    "memory": lambda folder: SqliteStore(None),
    "disk": lambda folder: SqliteStore(str(folder / "deep" / "store.sqlite")),
}


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("check", suite.SUITE, ids=lambda check: check.__name__)
def test_promise(check: suite.Promise, kind: str, tmp_path: Path) -> None:
    async def run() -> None:
        store = FACTORIES[kind](tmp_path)
        try:
            await check(store)
        finally:
            await store.close()

    asyncio.run(run())


def test_what_was_written_is_there_at_the_next_start(tmp_path: Path) -> None:
    async def write() -> None:
        store = FACTORIES["disk"](tmp_path)
        await suite.fund(store, "AB")
        await store.wallet.reserve(suite.GUID, "Default", suite.uploads(3))
        await store.sends.accept(suite.receipt(), b"job", {0: b"meta"}, "upload")
        await store.mail.deliver(suite.incoming(), suite.oid())
        await store.close()

    async def read() -> None:
        store = FACTORIES["disk"](tmp_path)
        (held,) = store.wallet.lockers(guid=suite.GUID)
        assert (held.node, held.state) == (3, LockerState.RESERVED)
        assert store.sends.open_sends() == [suite.GUID]
        assert store.mail.messages(Folder.INBOX, 1, 0, "newest").total == 1
        # the counters go on where they were
        assert (await store.mail.deliver(suite.incoming(suite.OTHER), suite.oid())).uid == 2
        await store.close()

    asyncio.run(write())
    asyncio.run(read())


def test_sends_and_lockers_of_an_earlier_schema_come_along(tmp_path: Path) -> None:
    path = str(tmp_path / "store.sqlite")
    body, done = msgspec.json.encode(suite.receipt()), msgspec.json.encode(suite.receipt(suite.OTHER))
    with of_schema(10, path) as db:
        db.execute("INSERT INTO receipt VALUES (?,?,'in_progress','not_started',5)", (suite.GUID, body))
        db.execute("INSERT INTO receipt VALUES (?,?,'success','sent',6)", (suite.OTHER, done))
        db.execute("INSERT INTO send VALUES (?,x'01','upload',5), (?,x'02','done',6)", (suite.GUID, suite.OTHER))
        db.execute("INSERT INTO send_object VALUES (?,0,x'03'), (?,0,x'04')", (suite.GUID, suite.OTHER))
        db.execute("INSERT INTO locker VALUES ('A',0,1,0,'Default',x'',NULL,NULL,NULL,3,0)")
        db.execute("INSERT INTO locker VALUES ('B',0,1,2,'Default',x'',NULL,NULL,NULL,3,4)")
        db.execute("INSERT INTO locker_coin VALUES ('A',0,7,?1), ('B',0,8,?1)", (suite.coin(7).ans,))

    async def look() -> None:
        store = SqliteStore(path)
        assert store.sends.open_sends() == [suite.GUID]
        assert store.sends.receipts(None, 10, 0) == [suite.receipt(suite.OTHER), suite.receipt()]
        assert store.sends.job(suite.OTHER) == (b"\2", "done")
        assert store.sends.object(suite.GUID, 0) == b"\3"
        assert store.wallet.locker_coins("A") == [suite.coin(7)]
        # of what is over only that is kept which somebody will read
        assert store.wallet.locker_coins("B") == []
        with pytest.raises(NotFound):
            store.sends.object(suite.OTHER, 0)
        # what follows a receipt still does
        await store.sends.change(suite.GUID, lambda row: None)
        assert [row.recipient for row in store.files.sent_rows(suite.GUID)] == ["ü@x"]
        await store.close()

    asyncio.run(look())
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    asyncio.run(FACTORIES["disk"](tmp_path).close())
    path = tmp_path / "deep" / "store.sqlite"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


KILLED = """
import asyncio, os, sys
from qmail_core.store.sqlite import SqliteStore
from tests.store import suite

async def main():
    store = SqliteStore(sys.argv[1])
    for i in range(10):
        await store.mail.deliver(suite.incoming(bytes((i,)) * 16), suite.oid())
    await asyncio.gather(*(store.mail.deliver(suite.incoming(bytes((i,)) * 16), suite.oid()) for i in range(10, 20)))
    store.wallet  # what nobody was answered for may be lost, and never half of it
    asyncio.ensure_future(store.mail.deliver(suite.incoming(bytes((20,)) * 16), suite.oid()))
    await asyncio.sleep(0)
    os._exit(9)

asyncio.run(main())
"""


def test_a_process_that_dies_after_an_answered_write_has_lost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    found = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        check=False,
        timeout=30,
    )
    assert found.returncode == 9

    async def look() -> None:
        store = SqliteStore(str(path))
        page = store.mail.messages(Folder.INBOX, 50, 0, "newest")
        assert {mail.id[0] for mail in page.messages} >= set(range(20))
        assert all(len(store.mail.attachments(mail.id)) == 2 for mail in page.messages)
        await store.close()

    asyncio.run(look())
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()


def test_a_locker_prints_without_its_code() -> None:
    async def run() -> None:
        store = SqliteStore(None)
        await suite.fund(store, "Z")
        assert "Z" not in repr(store.wallet.lockers()).replace("UPLOAD", "")
        await store.close()

    asyncio.run(run())
