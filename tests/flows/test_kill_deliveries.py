"""kill -9 in the middle of 1 000 deliveries: what was acknowledged is there whole, and nothing is there by halves."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from qmail_server.http.app import build_app

from qmail_core.embed import Cluster
from tests.flows.deliveries import USER, engine_in, message
from tests.flows.processes import environment
from tests.server.fake_engine import BASE, OPEN

WORLDS = int(os.environ.get("QMAIL_DELIVERY_WORLDS", "1"))
DELIVERIES = 1000
KILLS = 3


@dataclass
class Told:
    """What the killed processes said."""

    user: str = ""
    stored: dict[int, str] = field(default_factory=dict)  # names by number
    leaving: set[int] = field(default_factory=set)
    ended: bool = False

    def hear(self, line: str) -> None:
        what, *rest = line.split()
        if what == "user":
            self.user = rest[0]
        elif what == "stored":
            self.stored[int(rest[0])] = rest[1]
        elif what == "leaving":
            self.leaving.add(int(rest[0]))
        else:
            self.ended = what == "end"


def deliver(folder: Path, told: Told, first: int, count: int, until: int | None) -> None:
    """Deliver messages in a process of its own; `until` says after how many answers it is killed."""
    words = [sys.executable, "-m", "tests.flows.deliveries", str(folder), str(first), str(count)]
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        heard = 0
        for line in process.stdout:
            if line.endswith("\n"):  # the last one may be cut
                told.hear(line)
            heard += line.startswith("stored")
            if until is not None and heard == until:
                process.kill()
                until = None
    assert told.ended or process.returncode == -9


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(WORLDS))
def test_acknowledged_deliveries_survive(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    told = Told()
    share = DELIVERIES // (KILLS + 1)
    for at in range(KILLS):
        deliver(tmp_path, told, 1 + at * share, share, rng.randrange(1, share - 20))
        assert not told.ended
    deliver(tmp_path, told, 1 + KILLS * share, share, None)
    assert told.ended
    assert len(told.stored) > share
    asyncio.run(check(tmp_path, told))


async def check(folder: Path, told: Told) -> None:
    async with Cluster(5) as cluster:
        engine = engine_in(folder, cluster)
        await engine.start()
        await engine.messages_of.sweep()
        transport = httpx.ASGITransport(build_app(engine, OPEN))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            await check_mail(http, told)
        await engine.close()
    check_books(folder)


async def check_mail(http: httpx.AsyncClient, told: Told) -> None:
    """Over the API: every message whole and found by its word, counters and quota right."""
    account = f"/users/{told.user}"
    boxes = (await http.get(f"{account}/mailboxes?counters=1")).json()["results"]
    inbox = f"{account}/mailboxes/{boxes[0]['id']}/messages"
    rows = []
    page = (await http.get(f"{inbox}?limit=250")).json()
    while page["results"]:
        rows += page["results"]
        page = (
            (await http.get(f"{inbox}?limit=250&next={page['nextCursor']}")).json() if page["next"] else {"results": []}
        )
    here = {row["id"]: row for row in rows}
    kept = {number: name for number, name in told.stored.items() if number not in told.leaving}
    assert set(kept.values()) <= here.keys()
    numbers = {name: int(row["subject"].removeprefix("number w").removesuffix("x")) for name, row in here.items()}
    # what nobody was told of may be there, but once, and whole
    assert len(set(numbers.values())) == len(numbers)
    assert all(numbers[name] == number for number, name in kept.items())
    for name, number in numbers.items():
        raw = (await http.get(f"{inbox}/{name}/message.eml")).content
        assert raw == f"Delivered-To: {USER}@example.org\r\n".encode() + message(number), number
        found = (await http.get(f"{account}/search?query=w{number}x")).json()
        assert [row["id"] for row in found["results"]] == [name]
    assert [row["uid"] for row in rows] == sorted((row["uid"] for row in rows), reverse=True)
    assert (boxes[0]["total"], boxes[0]["unseen"]) == (len(rows), len(rows))
    reset = (await http.post(f"{account}/quota/reset", json={})).json()
    assert reset["storageUsed"] == reset["previousStorageUsed"] == sum(row["size"] for row in rows)


def check_books(folder: Path) -> None:
    """In the store: references, files, index and rows are of one mind, and nothing is left over."""
    db = sqlite3.connect(folder / "store.sqlite")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.execute("INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")
    counted = "SELECT hash, (SELECT count(*) FROM piece p WHERE p.hash=b.hash) FROM blob b"
    refs = dict(db.execute("SELECT hash, refs FROM blob"))
    assert refs == dict(db.execute(counted))
    assert all(refs.values()), "the sweep leaves nothing nobody has"
    assert max(refs.values()) > 10, "equal parts are stored once"
    whole = "SELECT m.size, (SELECT sum(b.size) FROM piece JOIN blob b USING (hash) WHERE message=m.id) FROM message m"
    assert all(size == stored for size, stored in db.execute(whole))
    named = dict(db.execute("SELECT name, size FROM blob WHERE name<>''"))
    db.close()
    files = {path.name: path.stat().st_size for path in (folder / "Pieces").rglob("*") if path.is_file()}
    assert files == named
