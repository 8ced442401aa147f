"""Kept answers: the same question gets the same bytes, and every change of the store is seen at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
from qmail_server.http.app import build_app
from qmail_server.http.respond import Answers, Json
from starlette.types import Message

from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.model import Folder
from tests.server.fake_engine import BASE, OPEN

LIST = "/api/qmail/db/messages/list"
COUNTS = "/api/qmail/db/folders/counts"
Change = Callable[[Engine, Engine], Awaitable[object]]


async def _arrives(alice: Engine, bob: Engine) -> None:
    await alice.send(alice.draft(["bob"], "second", "text"))
    await bob.receive()


async def _trashed(alice: Engine, bob: Engine) -> None:
    await bob.mailbox.move(bob.messages(Folder.INBOX).messages[0].id, Folder.TRASH)


async def _flagged(alice: Engine, bob: Engine) -> None:
    box = bob.mailboxes.at(1, "INBOX")
    assert box is not None
    await bob.messages_of.flag(1, bob.messages_of.uids(1, box, 1, None), seen=True, flagged=True)


async def _deleted(alice: Engine, bob: Engine) -> None:
    box = bob.mailboxes.at(1, "INBOX")
    assert box is not None
    await bob.messages_of.delete(1, bob.messages_of.uids(1, box, 1, None))


async def _lettered(alice: Engine, bob: Engine) -> None:
    box = bob.mailboxes.at(1, "INBOX")
    assert box is not None
    await bob.letters.deliver(1, b"Subject: a letter\r\n\r\ntext\r\n", box)


@contextlib.contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """How many bytes were taken since, and not given back."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: (gc.collect(), tracemalloc.get_traced_memory()[0])[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("change", [_arrives, _trashed, _flagged, _deleted, _lettered])
def test_every_change_is_seen_at_once(change: Change) -> None:
    async def story() -> None:
        async with Cluster(5) as cluster:
            alice, bob = await cluster.engine("alice"), await cluster.engine("bob")
            await alice.send(alice.draft(["bob"], "first", "text"))
            await bob.receive()
            http = httpx.AsyncClient(transport=httpx.ASGITransport(build_app(bob, OPEN)), base_url=BASE)
            before = {path: [(await http.get(path)).content for _ in range(3)] for path in (LIST, COUNTS)}
            await change(alice, bob)
            for path, answers in before.items():
                after = (await http.get(path)).content
                # a fresh application has kept nothing: the oracle
                fresh = httpx.AsyncClient(transport=httpx.ASGITransport(build_app(bob, OPEN)), base_url=BASE)
                assert len(set(answers)) == 1
                assert after == (await fresh.get(path)).content
                assert after != answers[0]

    asyncio.run(story())


def test_answers_of_different_questions_are_kept_apart() -> None:
    async def story() -> None:
        async with Cluster(5) as cluster:
            bob = await cluster.engine("bob")
            http = httpx.AsyncClient(transport=httpx.ASGITransport(build_app(bob, OPEN)), base_url=BASE)
            for _ in range(2):
                assert (await http.get(f"{LIST}?limit=3")).json()["limit"] == 3
                assert (await http.get(f"{LIST}?limit=4")).json()["limit"] == 4
                assert (await http.post(LIST, data={"limit": "5"})).json()["limit"] == 5
                assert (await http.get(f"{LIST}?limit=x")).status_code == 400
                assert (await http.head(LIST)).content == b""
                ids = {(await http.get(LIST)).headers["x-request-id"] for _ in range(3)}
                assert len(ids) == 3

    asyncio.run(story())


TASKS = "/api/system/tasks/list"
RECEIPTS = "/api/qmail/receipts/list"
STATUS = "/api/qmail/local/status"


def test_tasks_receipts_and_state_are_those_of_this_moment() -> None:
    async def story() -> None:
        async with Cluster(5) as cluster:
            alice, _ = await cluster.engine("alice"), await cluster.engine("bob")
            http = httpx.AsyncClient(transport=httpx.ASGITransport(build_app(alice, OPEN)), base_url=BASE)

            async def ask() -> dict[str, bytes]:
                return {path: (await http.get(path)).content for path in (TASKS, RECEIPTS, STATUS)}

            before = await ask()
            assert await ask() == before
            started = await alice.start_upload(alice.draft(["bob"], "s", "b"), tell=True)
            running = await ask()
            assert running[TASKS] != before[TASKS]
            await alice.wait(started.task_id)
            after = await ask()
            fresh = httpx.AsyncClient(transport=httpx.ASGITransport(build_app(alice, OPEN)), base_url=BASE)
            for path, body in after.items():  # a fresh application has kept nothing: the oracle
                assert body not in (before[path], running[path])
                assert body == (await fresh.get(path)).content
            alice.beacon.start()
            await asyncio.sleep(0)
            assert (await ask())[STATUS] != after[STATUS]
            cluster.down.update(range(5))
            watching = await ask()
            for _ in range(3):
                await alice.network.echo()
            assert (await ask())[STATUS] != watching[STATUS]

    asyncio.run(story())


def test_an_answer_made_while_the_store_changed_is_not_kept() -> None:
    answers = Answers()
    answers.keep("q", 1, Json({}))  # the question was asked at revision 1
    assert answers.find("q", 2) is None
    answers.keep("q", 2, Json({}))
    assert answers.find("q", 2) is not None
    assert answers.find("other", 2) is None


def test_answers_to_long_questions_are_not_kept() -> None:
    async def story() -> None:
        async with Cluster(5) as cluster:
            bob = await cluster.engine("bob")
            app, sent = build_app(bob, OPEN), list[Message]()

            async def ask(
                query: bytes,
            ) -> None:  # not through a client: the standard library keeps what URLs it has seen
                scope = {"type": "http", "method": "GET", "path": LIST, "query_string": query, "scheme": "http"}
                await app(scope | {"headers": [(b"host", BASE[7:].encode())]}, received, keep)
                assert sent[0]["status"] == 200
                sent.clear()

            async def keep(message: Message) -> None:
                sent.append(message)

            async def received() -> Message:
                return {"type": "http.disconnect"}

            await ask(b"")
            with traced() as held:
                for number in range(100):
                    await ask(b"x=" + b"a" * 60_000 + b"%d" % number)
                assert held() < 1 << 20

    asyncio.run(story())


def test_what_is_kept_costs_about_what_is_counted() -> None:
    answers = Answers()
    with traced() as held:
        for number in range(10_000):
            answers.keep((LIST, b"q" * 180 + b"%d" % number), 1, Json({"a": "b" * 20}))
        assert held() < 6 << 20


def test_no_more_is_kept_than_a_few_megabytes() -> None:
    answers = Answers()
    large = Json("x" * (1 << 20))
    for key in range(9):
        answers.keep(key, 1, large)
    assert answers.find(8, 1) is large
    assert answers.find(0, 1) is None
