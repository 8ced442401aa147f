"""Filters, automatic answers and webhooks over HTTP."""

from __future__ import annotations

import asyncio

import httpx
from qmail_server.http.app import build_app

from tests.server.fake_engine import BASE
from tests.server.mailbox_client import Client, over
from tests.server.test_mailbox_users import CLOSED, new


def test_filters_are_made_changed_and_removed() -> None:
    async def story(api: Client) -> None:
        query = {"from": "News", "ha": "yes", "size": -1000}
        action = {"seen": True, "flag": False, "mailbox": api.box("Archive"), "targets": "ann@far.example"}
        made = await api.post("/filters", {"name": "News", "query": query, "action": action})
        path = f"/filters/{made['id']}"
        shown = await api.get(path)
        assert shown["query"] == {"from": "News", "ha": True, "size": -1000}
        assert shown["action"] == {"seen": True, "mailbox": api.box("Archive"), "forward": ["ann@far.example"]}
        assert (shown["name"], shown["disabled"]) == ("News", False)
        await api.put(path, {"disabled": True, "action": {"delete": "1"}})
        (row,) = (await api.get("/filters"))["results"]
        assert (row["disabled"], row["action"], row["query"]["from"]) == (True, {"delete": True}, "News")
        await api.delete(path)
        body = await api.get(path, 404)
        assert (body["error"], body["code"]) == ("This filter does not exist", "FilterNotFound")
        await api.delete(path, 404)

    over(story)


def test_filters_are_checked() -> None:
    async def story(api: Client) -> None:
        assert sorted((await api.post("/filters", {"name": "x"}, 400))["details"]) == ["action", "query"]
        bad = {"query": {"bogus": 1, "size": "x"}, "action": {"seen": True}}
        assert sorted((await api.post("/filters", bad, 400))["details"]) == ["bogus", "size"]
        bad = {"query": {"ha": True}, "action": {"mailbox": "00" * 12}}
        assert list((await api.post("/filters", bad, 400))["details"]) == ["mailbox"]
        cy = await new(api, "cy")
        made = await api.post("/filters", {"query": {"ha": True}, "action": {"seen": True}})
        for verb in ("GET", "PUT", "DELETE"):
            body = {"disabled": True} if verb == "PUT" else None
            await api.ask(verb, f"/users/{cy}/filters/{made['id']}", 404, json=body)

    over(story)


def test_an_automatic_answer_is_set_and_removed() -> None:
    async def story(api: Client) -> None:
        assert (await api.get("/autoreply"))["status"] is False
        await api.put("/autoreply", {"status": True, "text": "away", "start": "2026-01-01T00:00:00Z", "end": False})
        shown = await api.get("/autoreply")
        assert (shown["status"], shown["text"]) == (True, "away")
        assert (shown["start"], shown["end"]) == ("2026-01-01T00:00:00.000Z", False)
        await api.put("/autoreply", {"subject": "Away"})
        assert (await api.get("/autoreply"))["text"] == "away"
        body = await api.put("/autoreply", {"end": "2025-01-01"}, 400)
        assert list(body["details"]) == ["end"]
        await api.delete("/autoreply")
        assert (await api.get("/autoreply"))["text"] == ""

    over(story)


def test_webhooks_are_made_and_removed() -> None:
    async def story(api: Client) -> None:
        url = "https://hook.example/news"
        made = await api.ask("POST", "/webhooks", json={"url": url, "type": "*", "user": api.user})
        assert len(made["secret"]) == 64
        (row,) = (await api.ask("GET", "/webhooks"))["results"]
        assert (row["id"], row["url"], row["user"], row["attempts"]) == (made["id"], url, api.user, 0)
        assert "secret" not in row
        own = {"url": url, "secret": "sixteen letters!"}
        other = await api.ask("POST", "/webhooks", json=own)
        assert other["secret"] == "sixteen letters!"
        assert (await api.ask("GET", f"/webhooks/{other['id']}"))["user"] is None
        for found in (made, other):
            await api.ask("DELETE", f"/webhooks/{found['id']}")
        assert (await api.ask("DELETE", f"/webhooks/{made['id']}", 404))["code"] == "WebhookNotFound"
        for bad in ("ftp://x.example/", "http://u:p@x.example/"):
            assert list((await api.ask("POST", "/webhooks", 400, json={"url": bad}))["details"]) == ["url"]
        await api.ask("POST", "/webhooks", 404, json={"url": url, "user": "00" * 12})

    over(story, webhooks=True)


def test_webhooks_are_off_by_default_and_never_a_single_users() -> None:
    async def story(api: Client) -> None:
        body = await api.ask("POST", "/webhooks", 403, json={"url": "https://hook.example/"})
        assert "switched off" in body["error"]
        token = await api.engine.accounts.tokens.create(bytes.fromhex(api.user), seconds=60, description="x")
        for verb in ("GET", "POST"):
            shown = {"x-access-token": token.text}
            assert (await api.http.request(verb, "/webhooks", headers=shown)).status_code == 403
        transport = httpx.ASGITransport(build_app(api.engine, CLOSED))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            answer = await http.get("/webhooks")
            assert (answer.status_code, answer.json()["code"]) == (403, "InvalidToken")

    over(story)


def test_users_reach_only_their_own() -> None:
    async def story(api: Client) -> None:
        cy = await new(api, "cy")
        token = await api.engine.accounts.tokens.create(bytes.fromhex(cy), seconds=60, description="x")
        calls = [
            ("POST", "submit"),
            ("GET", "filters"),
            ("POST", "filters"),
            ("GET", "autoreply"),
            ("PUT", "autoreply"),
        ]
        answers = await asyncio.gather(
            *(
                api.http.request(verb, f"/users/{api.user}/{name}", headers={"x-access-token": token.text})
                for verb, name in [*calls, ("DELETE", "autoreply")]
            )
        )
        assert [answer.status_code for answer in answers] == [403] * 6

    over(story)
