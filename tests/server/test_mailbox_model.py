"""The mailbox API against a plain model: whatever users do, in whatever order, both remember the same.

One engine serves all examples; each has users of its own. QMAIL_MODEL_EXAMPLES has it look longer.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from qmail_server.http.app import build_app

from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from tests.server.fake_engine import BASE, OPEN
from tests.server.mailbox_model import FLAGS, Box, Letter, Person
from tests.server.test_http_events import Stream

T = TypeVar("T")

EXAMPLES = int(os.environ.get("QMAIL_MODEL_EXAMPLES", "40"))
STEPS = 40
WORDS = ("amber", "basalt", "cedar", "dune")
PATHS = ("A", "A/B", "A/B/C", "AB", "Ä", "Archive/2026", "inbox/sub", "Trash", "x/../y")
QUOTA = 20_000
SPECIAL = {"Sent Mail": "\\Sent", "Trash": "\\Trash", "Drafts": "\\Drafts", "Junk": "\\Junk", "Archive": "\\Archive"}
MONTH = 30 * 86_400_000  # ms

picks = st.integers(0, 1 << 16)
words = st.sampled_from(WORDS)
some_flags = st.dictionaries(st.sampled_from(FLAGS), st.booleans(), min_size=1)


class World:
    """The engine behind the API, with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1_800_000_000
        self.runner = asyncio.Runner()
        self.numbers = itertools.count(1)
        self.cluster = self.run(self._cluster())
        self.engine: Engine = self.run(self.cluster.engine("alice"))
        self.app = build_app(self.engine, OPEN)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=BASE)

    async def _cluster(self) -> Cluster:
        return Cluster(5, clock=lambda: self.now)

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(story)

    def close(self) -> None:
        self.run(self.http.aclose())
        self.run(self.cluster.close())
        self.runner.close()

    async def ask(self, verb: str, path: str, expected: int = 200, **options: Any) -> dict[str, Any]:
        answer = await self.http.request(verb, path, **options)
        assert answer.status_code == expected, (verb, path, options, answer.text)
        body: dict[str, Any] = answer.json()
        return body


class MailboxModel(RuleBasedStateMachine):
    """What users may do; after each step the API is asked for everything that step could have touched."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.people: list[Person] = []
        self.began = self.world.engine._ctx.store.mailboxes.last_entry()

    def ask(self, verb: str, path: str, expected: int = 200, **options: Any) -> dict[str, Any]:
        return self.world.run(self.world.ask(verb, path, expected, **options))

    # ------------------------------------------------------------------ who, where, what

    def person(self, pick: int) -> Person:
        return self.people[pick % len(self.people)]

    @staticmethod
    def box(person: Person, pick: int) -> Box:
        return person.boxes[pick % len(person.boxes)]

    @staticmethod
    def full(person: Person, pick: int) -> Box | None:
        """A mailbox that has messages."""
        full = [box for box in person.boxes if box.letters]
        return full[pick % len(full)] if full else None

    @staticmethod
    def letter(box: Box, pick: int) -> Letter:
        return list(box.letters.values())[pick % len(box.letters)]

    @staticmethod
    def path(person: Person, box: Box | None = None, letter: str = "") -> str:
        path = f"/users/{person.oid}/mailboxes"
        path += f"/{box.oid}" if box is not None else ""
        return f"{path}/messages/{letter}" if letter else path

    # ------------------------------------------------------------------ users

    @initialize(retention=st.sampled_from((0, 0, 90_000)))
    def first(self, retention: int) -> None:
        self.add_user(retention)

    @precondition(lambda self: len(self.people) < 2)
    @rule(retention=st.sampled_from((0, 90_000)))
    def add_user(self, retention: int) -> None:
        name = f"user{next(self.world.numbers)}"
        body = {"username": name, "password": "secretpass", "quota": QUOTA, "retention": retention}
        oid = self.ask("POST", "/users", json=body | {"address": f"{name}@example.org"})["id"]
        rows = self.ask("GET", f"/users/{oid}/mailboxes")["results"]
        boxes = [Box(row["id"], row["path"], SPECIAL.get(row["path"]), retention) for row in rows]
        for box in boxes:
            if box.special in ("\\Trash", "\\Junk"):
                box.retention = min(retention or MONTH, MONTH)
        person = Person(oid, name, QUOTA, boxes)
        person.journal = [("CREATE", box.oid, None) for box in boxes]
        self.people.append(person)
        entries = self.journal(person)
        assert sorted(map(str, entries)) == sorted(map(str, person.journal))
        person.journal = entries  # in which order the first ones are made is nobody's business
        self.agree(person)

    @precondition(lambda self: len(self.people) > 1)
    @rule(pick=picks)
    def delete_user(self, pick: int) -> None:
        gone = self.people.pop(pick % len(self.people))
        self.ask("DELETE", f"/users/{gone.oid}")
        self.ask("GET", f"/users/{gone.oid}/mailboxes", 404)
        self.agree(self.people[0])

    @rule(pick=picks)
    def reset_quota(self, pick: int) -> None:
        person = self.person(pick)
        answer = self.ask("POST", f"/users/{person.oid}/quota/reset", json={})
        assert answer["storageUsed"] == answer["previousStorageUsed"] == person.used

    # ------------------------------------------------------------------ mailboxes

    @rule(pick=picks, path=st.sampled_from(PATHS), retention=st.sampled_from((None, 0, 60_000)))
    def add_mailbox(self, pick: int, path: str, retention: int | None) -> None:
        person = self.person(pick)
        stored = path.replace("inbox", "INBOX")
        body = {"path": path} | ({} if retention is None else {"retention": retention})
        taken = person.taken(stored)
        answer = self.ask("POST", self.path(person), 400 if taken else 200, json=body)
        if taken:
            assert answer["code"] == "MailboxExistsError"
        else:
            shown = self.ask("GET", f"{self.path(person)}/{answer['id']}")
            box = Box(answer["id"], stored, retention=shown["retention"] or 0)
            assert retention is None or box.retention == retention
            person.boxes.append(box)
            person.journal.append(("CREATE", box.oid, None))
        self.agree(person)

    @rule(pick=picks, which=picks, path=st.sampled_from(PATHS))
    def rename_mailbox(self, pick: int, which: int, path: str) -> None:
        person = self.person(pick)
        box, stored = self.box(person, which), path.replace("inbox", "INBOX")
        moved = person.below(box)
        after = {stored + one.path[len(box.path) :] for one in moved}
        code = None
        if box.path != stored:
            if box.path == "INBOX" or stored.startswith(f"{box.path}/"):
                code = "DisallowedMailboxMethod"
            elif any(person.taken(path, moved) for path in after):
                code = "MailboxExistsError"
        answer = self.ask("PUT", self.path(person, box), 400 if code else 200, json={"path": path})
        assert answer.get("code") == code
        if code is None and box.path != stored:
            person.rename(box, stored)
        self.agree(person)

    @rule(pick=picks, which=picks, subscribed=st.booleans(), retention=st.sampled_from((None, 0, 120_000)))
    def change_mailbox(self, pick: int, which: int, subscribed: bool, retention: int | None) -> None:
        person = self.person(pick)
        box = self.box(person, which)
        body: dict[str, Any] = {"subscribed": subscribed}
        box.subscribed = subscribed
        if retention is not None:
            body["retention"] = box.retention = retention
        self.ask("PUT", self.path(person, box), json=body)
        self.agree(person)

    @rule(pick=picks, which=picks)
    def delete_mailbox(self, pick: int, which: int) -> None:
        person = self.person(pick)
        box = self.box(person, which)
        answer = self.ask("DELETE", self.path(person, box), 400 if box.fixed else 200)
        if box.fixed:
            assert answer["code"] == "DisallowedMailboxMethod"
        else:
            person.drop(box)
            self.ask("GET", self.path(person, box), 404)
        self.agree(person)

    # ------------------------------------------------------------------ messages come

    @rule(pick=picks, which=picks, word=words, other=words, size=st.integers(0, 6000), as_json=st.booleans(),
          seen=st.booleans(), flagged=st.booleans(), draft=st.booleans())  # fmt: skip
    def upload(
        self, pick: int, which: int, word: str, other: str, size: int, as_json: bool, seen: bool, flagged: bool,
        draft: bool,
    ) -> None:  # fmt: skip
        person = self.person(pick)
        box = self.box(person, which)
        raw = f"Subject: {word}\r\nFrom: ada@example.org\r\n\r\n{other}\r\n".encode() + b"." * size
        marks = {"unseen": not seen, "flagged": flagged, "draft": draft}
        if as_json:
            options: dict[str, Any] = {"json": marks | {"raw": base64.b64encode(raw).decode()}}
        else:
            options = {"content": raw, "params": marks, "headers": {"content-type": "message/rfc822"}}
        fits = person.used + len(raw) <= person.quota
        answer = self.ask("POST", f"{self.path(person, box)}/messages", 200 if fits else 413, **options)
        if fits:
            oid, _, uid = answer["message"]["name"].partition(":")
            flags = {"seen": seen, "flagged": flagged, "deleted": False, "draft": draft}
            made = Letter(oid, int(uid), word, frozenset((word, other)), len(raw), flags, raw)
            assert answer["message"]["size"] == made.size
            person.file(box, made, self.world.now)
        else:
            assert answer["code"] == "OverQuotaError"
        self.agree(person, box)

    @rule(pick=picks, to=picks, word=words, other=words, draft=st.booleans())
    def submit(self, pick: int, to: int, word: str, other: str, draft: bool) -> None:
        person, target = self.person(pick), self.person(to)
        if max(person.used, target.used) > QUOTA - 5000:
            return  # refused somewhere on the way, and told in another letter
        body = {"to": [f"{target.name}@example.org"], "subject": word, "text": other, "isDraft": draft}
        made = self.ask("POST", f"/users/{person.oid}/submit", json=body)["message"]
        box = next(box for box in person.boxes if box.special == ("\\Drafts" if draft else "\\Sent"))
        assert made["mailbox"] == box.oid
        oid, _, uid = made["name"].partition(":")
        flags = {"seen": True, "flagged": False, "deleted": False, "draft": draft}
        person.file(box, Letter(oid, int(uid), word, frozenset((word, other)), made["size"], flags), self.world.now)
        if not draft:
            inbox = next(box for box in target.boxes if box.path == "INBOX")
            row = self.rows(target, inbox)[0]
            arrived = Letter(
                row["id"][:24], row["uid"], word, frozenset((word, other)), row["size"], dict.fromkeys(FLAGS, False)
            )
            target.file(inbox, arrived, self.world.now)
            self.agree(target, inbox)
        self.agree(person, box)

    # ------------------------------------------------------------------ messages change

    @rule(pick=picks, which=picks, at=picks, flags=some_flags, whole=st.booleans())
    def flag(self, pick: int, which: int, at: int, flags: dict[str, bool], whole: bool) -> None:
        person = self.person(pick)
        box = self.full(person, which)
        if box is None:
            return
        text, chosen = self.chosen(box, at, whole)
        answer = self.ask("PUT", self.path(person, box, text), json=flags)
        assert answer["updated"] == len(chosen)
        person.flag(box, chosen, flags)
        self.agree(person, box)

    @rule(pick=picks, which=picks, at=picks, goal=picks, whole=st.booleans(), seen=st.none() | st.booleans())
    def move(self, pick: int, which: int, at: int, goal: int, whole: bool, seen: bool | None) -> None:
        person = self.person(pick)
        box = self.full(person, which)
        if box is None:
            return
        text, chosen = self.chosen(box, at, whole)
        to = self.box(person, goal)
        body: dict[str, Any] = {"moveTo": to.oid} | ({} if seen is None else {"seen": seen})
        before = [letter.uid for letter in chosen]
        answer = self.ask("PUT", self.path(person, box, text), json=body)
        assert (answer["mailbox"], answer["updated"]) == (to.oid, len(chosen))
        if seen is not None:
            person.flag(box, chosen, {"seen": seen})
        person.move(box, chosen, to, self.world.now)
        after = [letter.uid for letter in chosen]
        assert answer["id"] == (
            chosen[0].name if len(chosen) == 1 else [list(p) for p in zip(before, after, strict=True)]
        )
        self.agree(person, box, to)

    @rule(pick=picks, which=picks, at=picks, whole=st.booleans(), later=st.none() | st.integers(1, 300))
    def expire(self, pick: int, which: int, at: int, whole: bool, later: int | None) -> None:
        person = self.person(pick)
        box = self.full(person, which)
        if box is None:
            return
        text, chosen = self.chosen(box, at, whole)
        moment = None if later is None else self.world.now + later
        body = {"expires": False if moment is None else moment * 1000}
        self.ask("PUT", self.path(person, box, text), json=body)
        for letter in chosen:
            letter.expires = moment
        self.agree(person, box)

    @rule(pick=picks, which=picks, at=picks, whole=st.booleans())
    def delete(self, pick: int, which: int, at: int, whole: bool) -> None:
        person = self.person(pick)
        box = self.full(person, which)
        if box is None:
            return
        text, chosen = self.chosen(box, at, whole)
        self.ask("DELETE", self.path(person, box, text))
        person.remove(box, chosen)
        self.ask("GET", self.path(person, box, chosen[0].name), 404)
        self.agree(person, box)

    @rule(pick=picks, which=picks)
    def empty(self, pick: int, which: int) -> None:
        person = self.person(pick)
        box = self.box(person, which)
        answer = self.ask("DELETE", f"{self.path(person, box)}/messages")
        assert answer["deleted"] == len(box.letters)
        person.remove(box, box.range(1, None))
        self.agree(person, box)

    @rule(seconds=st.integers(1, 200))
    def time_passes(self, seconds: int) -> None:
        self.world.now += seconds
        self.world.run(self.world.engine.messages_of.sweep())
        for person in self.people:
            person.expire(self.world.now)
            self.agree(person, *person.boxes)

    def chosen(self, box: Box, at: int, whole: bool) -> tuple[str, list[Letter]]:
        """One message by name, or all from some message on by a range."""
        letter = self.letter(box, at)
        if whole:
            return (f"{letter.uid}:*", box.range(letter.uid, None))
        return (letter.name if at % 2 else str(letter.uid), [letter])

    # ------------------------------------------------------------------ messages are looked for

    @rule(pick=picks, word=words | st.just(""), where=st.none() | picks, flagged=st.booleans(), unseen=st.booleans())
    def search(self, pick: int, word: str, where: int | None, flagged: bool, unseen: bool) -> None:
        person = self.person(pick)
        box = None if where is None else self.box(person, where)
        asked = {"query": word, "flagged": "1" if flagged else "", "unseen": "1" if unseen else ""}
        asked |= {} if box is None else {"mailbox": box.oid}
        if not any(asked.values()):
            self.ask("GET", f"/users/{person.oid}/search", 400)
            return
        names: list[str] = []
        page = self.ask("GET", f"/users/{person.oid}/search", params=asked | {"limit": 3})
        total = page["total"]
        while True:
            names += [row["id"] for row in page["results"]]
            if not page["nextCursor"]:
                break
            cursor = {"next": page["nextCursor"], "limit": 3}
            page = self.ask("GET", f"/users/{person.oid}/search", params=asked | cursor)
        assert len(names) == total
        assert set(names) == person.found(word, box, flagged=flagged, unseen=unseen)

    @rule(pick=picks, which=picks, at=picks)
    def look(self, pick: int, which: int, at: int) -> None:
        person = self.person(pick)
        box = self.full(person, which)
        if box is None:
            return
        letter = self.letter(box, at)
        shown = self.ask("GET", self.path(person, box, letter.name))
        assert {name: shown[name] for name in FLAGS} == letter.flags
        assert (shown["subject"], shown["size"]) == (letter.subject, letter.size)
        assert ("expires" in shown) is (letter.expires is not None)
        answer = self.world.run(self.world.http.get(f"{self.path(person, box, letter.name)}/message.eml"))
        assert len(answer.content) == letter.size
        assert letter.raw is None or answer.content == letter.raw

    # ------------------------------------------------------------------ both agree

    def rows(self, person: Person, box: Box) -> list[dict[str, Any]]:
        page = self.ask("GET", f"{self.path(person, box)}/messages", params={"limit": 250})
        assert page["total"] == len(page["results"])
        found: list[dict[str, Any]] = page["results"]
        return found

    def agree(self, person: Person, *boxes: Box) -> None:
        """Counters, quota, journal, and the messages of these mailboxes are as the model has them."""
        shown = self.ask("GET", self.path(person), params={"counters": "true"})["results"]
        listed = person.listed()
        assert [(row["id"], row["path"], row["subscribed"], row["retention"] or 0) for row in shown] == [
            (box.oid, box.path, box.subscribed, box.retention) for box in listed
        ]
        assert [(row["total"], row["unseen"]) for row in shown] == [(len(box.letters), box.unseen) for box in listed]
        assert [row["modifyIndex"] for row in shown] == [box.changes for box in listed]
        quota = self.ask("GET", f"/users/{person.oid}")["limits"]["quota"]
        assert quota == {"allowed": person.quota, "used": person.used}
        for box in boxes:
            rows = self.rows(person, box)
            assert [row["id"] for row in rows] == [one.name for one in reversed(box.range(1, None))]
            for row in rows:
                letter = box.letters[row["uid"]]
                assert {name: row[name] for name in FLAGS} == letter.flags
                assert (row["subject"], row["size"], row["mailbox"]) == (letter.subject, letter.size, box.oid)
        word = WORDS[len(person.journal) % len(WORDS)]
        found = self.ask("GET", f"/users/{person.oid}/search", params={"query": word, "limit": 250})
        assert {row["id"] for row in found["results"]} == person.found(word)
        assert sorted(map(str, self.journal(person))) == sorted(map(str, person.journal))

    def journal(self, person: Person) -> list[tuple[str, str, int | None]]:
        """A user's entries of this example; numbers of a mailbox's changes rise, so do its uids."""
        store = self.world.engine._ctx.store.mailboxes
        entries = store.journal(store.user_of(bytes.fromhex(person.oid)), self.began, 100_000)
        modseqs: dict[bytes, int] = {}
        uids: dict[bytes, int] = {}
        for entry in entries:
            if entry.modseq is None or entry.mailbox is None or entry.uid is None:
                continue
            assert entry.modseq > modseqs.get(entry.mailbox, 0)
            modseqs[entry.mailbox] = entry.modseq
            if entry.command == "EXISTS":
                assert entry.uid > uids.get(entry.mailbox, 0)
                uids[entry.mailbox] = entry.uid
        return [(entry.command, (entry.mailbox or b"").hex(), entry.uid) for entry in entries]

    def teardown(self) -> None:
        try:
            for person in self.people:
                self.agree(person, *person.boxes)
                self.world.run(self.told(person))
        finally:
            for person in self.people:
                self.ask("DELETE", f"/users/{person.oid}")

    async def told(self, person: Person) -> None:
        """The stream of updates says the same, and ends with the counters there are."""
        stream = Stream(self.world.app, f"/users/{person.oid}/updates", last_event_id=f"{self.began:024x}")
        await stream.status()
        frames = [block.split("\n") for block in (await stream.text()).strip().split("\n\n")]
        await stream.leave()
        events = [json.loads(lines[0].removeprefix("data: ")) for lines in frames]
        told = [(e["command"], e["mailbox"], e.get("uid")) for e in events if e["command"] != "COUNTERS"]
        assert sorted(map(str, told)) == sorted(map(str, person.journal))
        counters = {e["mailbox"]: (e["total"], e["unseen"]) for e in events if e["command"] == "COUNTERS"}
        for box in person.boxes:
            if box.changes:
                assert counters[box.oid] == (len(box.letters), box.unseen)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.mark.timeout(120 + 10 * EXAMPLES)
def test_the_api_remembers_what_a_plain_model_does(world: World) -> None:
    wanted = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(type("Machine", (MailboxModel,), {"world": world}), settings=wanted)
