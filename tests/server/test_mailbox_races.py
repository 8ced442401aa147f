"""Many clients at once on the real application: counters do not drift, nothing is done twice, nothing else is hit."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pyotp
import pytest

from tests.server.mailbox_client import Client, over
from tests.server.test_mailbox_users import new

EML = {"content-type": "message/rfc822"}


async def deliver(api: Client, user: str, box: str, subject: str) -> str:
    path = f"/users/{user}/mailboxes/{box}/messages"
    raw = f"Subject: {subject}\r\n\r\n".encode() + b"shared line\r\n" * 50
    return (await api.ask("POST", path, content=raw, headers=EML, params={"unseen": "1"}))["message"]["name"]  # type: ignore[no-any-return]


async def books(api: Client, user: str) -> None:
    """Counters, quota and references are what the rows say."""
    rows: list[dict[str, Any]] = []
    for box in (await api.ask("GET", f"/users/{user}/mailboxes?counters=1"))["results"]:
        path, found = f"/users/{user}/mailboxes/{box['id']}/messages?limit=250", []
        page = await api.ask("GET", path)
        while True:
            found += page["results"]
            if not page["next"]:
                break
            page = await api.ask("GET", f"{path}&next={page['nextCursor']}")
        assert (box["total"], box["unseen"]) == (len(found), sum(not row["seen"] for row in found))
        assert len({row["uid"] for row in found}) == len(found)
        rows += found
    used = (await api.ask("GET", f"/users/{user}"))["limits"]["quota"]["used"]
    assert used == sum(row["size"] for row in rows)
    assert (await api.ask("GET", f"/users/{user}/search?query=shared&limit=250"))["total"] <= len(rows)
    with api.engine._store.mailboxes._db.read() as db:  # type: ignore[attr-defined]
        refs = "SELECT count(*) FROM blob WHERE refs<>(SELECT count(*) FROM piece p WHERE p.hash=blob.hash)"
        assert db.execute(refs).fetchone() == (0,)


def test_counters_never_drift_under_many_hands() -> None:
    rng = random.Random(11)

    async def story(api: Client) -> None:
        user = await new(api, "cy", address="cy@example.org")
        number = api.engine.mailboxes.user(bytes.fromhex(user))
        boxes = [row["id"] for row in (await api.ask("GET", f"/users/{user}/mailboxes"))["results"]]
        extra = (await api.ask("POST", f"/users/{user}/mailboxes", json={"path": "Extra"}))["id"]

        async def one(at: int) -> None:
            what, box = rng.randrange(10), rng.choice([*boxes, extra])
            path = f"/users/{user}/mailboxes/{box}/messages"
            chosen = f"{path}/{rng.randrange(1, 40)}:{rng.randrange(20, 60)}"
            calls: dict[int, tuple[str, str, dict[str, Any]]] = {
                0: ("PUT", chosen, {"json": {"moveTo": rng.choice(boxes)}}),
                1: ("PUT", chosen, {"json": {"seen": rng.random() < 0.5, "moveTo": rng.choice(boxes)}}),
                2: ("PUT", chosen, {"json": {"seen": rng.random() < 0.5}}),
                3: ("DELETE", f"{path}/{rng.randrange(1, 60)}", {}),
                4: ("DELETE", path if rng.random() < 0.1 else chosen, {}),
            }
            if what in calls:
                verb, url, options = calls[what]
                answer = await api.http.request(verb, url, **options)
                assert answer.status_code in (200, 404), answer.text
            elif what == 5:
                raw = f"From: ann@far.example\r\nSubject: here {at}\r\n\r\nshared line\r\n".encode()
                await api.engine.post.deliver(number, raw, address="cy@example.org")
            elif at == 250:
                await api.ask("DELETE", f"/users/{user}/mailboxes/{extra}")
            else:
                raw = f"Subject: there {at}\r\n\r\nshared line\r\n".encode()
                answer = await api.http.post(path, content=raw, headers=EML, params={"unseen": at % 2})
                assert answer.status_code in (200, 404), answer.text
            if at % 50 == 0:
                await api.engine.messages_of.sweep()

        for start in range(0, 500, 50):
            await asyncio.gather(*(one(at) for at in range(start, start + 50)))
            await books(api, user)

    over(story)


def test_of_racing_moves_each_message_goes_once() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        boxes = [row["id"] for row in (await api.ask("GET", f"/users/{user}/mailboxes"))["results"]]
        for number in range(6):
            await deliver(api, user, boxes[0], f"m{number}")
        path = f"/users/{user}/mailboxes/{boxes[0]}/messages"
        moves = [api.http.put(f"{path}/{uids}", json={"moveTo": boxes[1]}) for uids in ("1:4", "3:6", "1:6", "2")]
        for answer in await asyncio.gather(*moves):
            assert answer.status_code in (200, 404)
        page = await api.ask("GET", f"/users/{user}/mailboxes/{boxes[1]}/messages")
        assert sorted(row["subject"] for row in page["results"]) == [f"m{number}" for number in range(6)]
        await books(api, user)

    over(story)


def test_new_names_of_moved_messages_are_told_of_those_that_moved() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        boxes = [row["id"] for row in (await api.ask("GET", f"/users/{user}/mailboxes"))["results"]]
        for number in range(3):
            await deliver(api, user, boxes[0], f"m{number}")
        path = f"/users/{user}/mailboxes/{boxes[0]}/messages"
        move = api.engine.messages_of.move

        async def after_a_deletion(number: int, messages: Any, mailbox: Any) -> Any:
            await api.engine.messages_of.delete(number, messages[:1])
            return await move(number, messages, mailbox)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(api.engine.messages_of, "move", after_a_deletion)
            answer = await api.ask("PUT", f"{path}/1:3", json={"moveTo": boxes[1]})
            behind = f"/users/{user}/mailboxes/{boxes[1]}/messages/1"
            gone = await api.ask("PUT", behind, 404, json={"moveTo": boxes[0]})
        assert (answer["updated"], answer["id"]) == (2, [[2, 1], [3, 2]])
        assert gone["error"] == "Could not move message, check if message exists"

    over(story)


def test_of_racing_deletions_none_hits_what_comes_in() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        inbox = (await api.ask("GET", f"/users/{user}/mailboxes"))["results"][0]["id"]
        path = f"/users/{user}/mailboxes/{inbox}/messages"
        for at in range(30):
            name = await deliver(api, user, inbox, f"old{at}")
            racing = [api.http.delete(f"{path}/{name}") for _ in range(3)]
            _, made, *_ = await asyncio.gather(racing[0], deliver(api, user, inbox, f"new{at}"), *racing[1:])
            assert (await api.ask("GET", f"{path}/{made}"))["subject"] == f"new{at}"
        await books(api, user)

    over(story)


def test_of_two_racing_codes_one_is_accepted() -> None:
    async def story(api: Client) -> None:
        for at in range(4):
            user = await new(api, f"user{at}")
            path = f"/users/{user}/2fa"
            totp = pyotp.TOTP((await api.ask("POST", path, json={}))["seed"])
            codes = [totp.at(api.engine._ctx.now() - 30), totp.at(api.engine._ctx.now())]
            await api.ask("PUT", path, json={"token": codes[0]})
            answers = await asyncio.gather(*(api.http.get(f"{path}?token={codes[1]}") for _ in range(2)))
            assert sorted(answer.status_code for answer in answers) == [200, 403]

    over(story)


def test_of_racing_creations_of_one_name_one_is_made() -> None:
    async def story(api: Client) -> None:
        body = {"username": "cy", "password": "secretpass"}
        answers = await asyncio.gather(*(api.http.post("/users", json=body) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [200, 400, 400]
        user = next(answer.json()["id"] for answer in answers if answer.status_code == 200)
        boxes = [api.http.post(f"/users/{user}/mailboxes", json={"path": "Mine"}) for _ in range(3)]
        assert sorted(answer.status_code for answer in await asyncio.gather(*boxes)) == [200, 400, 400]

    over(story)
