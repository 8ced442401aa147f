"""kill -9 at any moment: what was accepted arrives exactly once after a restart, and no coin is spent twice."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.demo import Demo

WORLDS = int(os.environ.get("QMAIL_KILL_WORLDS", "4"))
ROUNDS = 25  # kills per world; more would only empty the purse
PURSE = 3000  # CloudCoins each demo identity starts with
NODES = 25


class Sender(threading.Thread):
    """Sends mails until the process is gone; remembers those that were accepted."""

    def __init__(self, demo: Demo, round_number: int) -> None:
        super().__init__(daemon=True)
        self.accepted: dict[str, str] = {}  # body by guid
        self._demo = demo
        self._round = round_number

    def run(self) -> None:
        with httpx.Client(timeout=10.0) as http:
            for number in range(6):
                body = f"round {self._round} mail {number}"
                files = {"attachment": ("data.bin", os.urandom(400_000))} if number % 3 == 1 else None
                try:
                    answer = http.post(
                        f"{self._demo.alice}/api/qmail/net/messages/upload_and_tell",
                        data={"body": body, "to": "@chariot.harbor.byte"},
                        files=files,
                    )
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200, answer.text
                self.accepted[answer.json()["file_guid"]] = body


def settle(demo: Demo, guid: str) -> dict[str, Any]:
    """A mail's receipt once nothing is under way any more."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        receipt = demo.get(f"{demo.alice}/api/qmail/receipts", guid=guid)
        if receipt["upload"]["status"] != "in_progress" and receipt["tell"]["status"] not in (
            "not_started",
            "in_progress",
        ):
            return receipt
        if receipt["upload"]["status"] == "failed":
            return receipt
        time.sleep(0.02)
    raise AssertionError(f"{guid} is still under way: {receipt}")


def check_books(data: Path) -> None:
    """Databases sound, coins conserved, every spent locker spent once."""
    for path in [*data.glob("*/store.sqlite"), *data.glob("raida/*/node.sqlite")]:
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",), path
        db.close()
    db = sqlite3.connect(data / "alice" / "store.sqlite")
    free = db.execute("SELECT sum(CASE denomination WHEN 1 THEN 10 ELSE 1 END) FROM coin WHERE wallet='Default'")
    lockers = db.execute("SELECT sum(value) FROM locker")
    assert (free.fetchone()[0] or 0) + (lockers.fetchone()[0] or 0) == PURSE
    twice = db.execute("SELECT denomination, serial FROM coin INTERSECT SELECT denomination, serial FROM locker_coin")
    assert twice.fetchall() == []
    consumed = db.execute("SELECT node, count(*) FROM locker WHERE state=2 AND kind=0 GROUP BY node").fetchall()
    db.close()
    for node, count in consumed:
        # every locker Alice counts as spent at a node was really taken there, once
        held = sqlite3.connect(data / "raida" / f"{node:02}" / "node.sqlite")
        (payments,) = held.execute("SELECT count(*) FROM payments").fetchone()
        held.close()
        assert payments >= count


@pytest.mark.timeout(60 + 20 * ROUNDS)
@pytest.mark.parametrize("seed", range(WORLDS))
def test_a_killed_process_finishes_or_cleanly_fails_what_it_accepted(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    accepted: dict[str, str] = {}
    demo = Demo(tmp_path)
    try:
        for number in range(ROUNDS):
            demo.start()
            sender = Sender(demo, number)
            sender.start()
            time.sleep(rng.uniform(0.0, 0.25))
            demo.kill()
            sender.join(15)
            accepted |= sender.accepted
        demo.start()
        receipts = {guid: settle(demo, guid) for guid in accepted}
        failed = {guid: r["upload"]["error"] for guid, r in receipts.items() if r["upload"]["status"] == "failed"}
        # many rounds empty the purse; that is the one reason a mail may fail for
        assert all("Insufficient balance" in error for error in failed.values()), failed
        accepted = {guid: body for guid, body in accepted.items() if guid not in failed}
        waiting = [row["file_guid"] for row in demo.get(f"{demo.bob}/api/qmail/net/beacon/peek")["notifications"]]
        assert len(waiting) == len(set(waiting))
        assert set(accepted) <= set(waiting)
        for guid, body in accepted.items():
            mail = demo.get(f"{demo.bob}/api/qmail/net/messages/download", file_guid=guid)
            assert mail["body"] == body
            for row in mail["attachments"]:
                got = demo.http.get(
                    f"{demo.bob}/api/qmail/db/attachments/get",
                    params={"email_id": mail["email_id"], "attachment_id": row["attachment_id"]},
                )
                assert len(got.content) == 400_000
        inbox = demo.get(f"{demo.bob}/api/qmail/db/messages/list", limit=200)
        assert sorted(row["body_preview"] for row in inbox["emails"]) == sorted(accepted.values())
        demo.stop()
        check_books(tmp_path)
        assert accepted, "the rounds were too short for a single mail to be accepted"
    finally:
        demo.close()
