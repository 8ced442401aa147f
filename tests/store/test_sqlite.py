"""SqliteStore holds what every store promises, in memory and on disk; on disk it also outlives whatever happens."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qmail_core.model import Folder
from qmail_core.store.base import LockerState
from qmail_core.store.sqlite import SqliteStore
from tests.store import suite

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
