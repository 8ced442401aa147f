"""What one user may not do to another: every call of the API that names somebody's object, tried with each of them.

The calls come from the list of routes, so one that is added is tried as well.
"""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from qmail_server.http.mailbox.routes import RESOURCES

from tests.server.mailbox_client import Client
from tests.server.test_mailbox_source import letter
from tests.server.test_mailbox_users import closed, new, token_for

TOTP = {"token": "123456"}
BODIES: dict[tuple[str, str], Any] = {
    ("PUT", "/users/{user}"): {"name": "Mallory"},
    ("PUT", "/users/{user}/2fa"): TOTP,
    ("POST", "/users/{user}/2fa/totp/enable"): TOTP,
    ("POST", "/users/{user}/2fa/totp/check"): TOTP,
    ("POST", "/users/{user}/asps"): {"description": "x"},
    ("POST", "/users/{user}/addresses"): {"address": "mallory@example.org"},
    ("PUT", "/users/{user}/addresses/{address}"): {"main": True},
    ("POST", "/users/{user}/mailboxes"): {"path": "Mallory"},
    ("PUT", "/users/{user}/mailboxes/{mailbox}"): {"path": "Mallory", "retention": 1},
    ("POST", "/users/{user}/mailboxes/{mailbox}/messages"): {"raw": "eA=="},
    ("PUT", "/users/{user}/mailboxes/{mailbox}/messages"): {"message": "1:*", "deleted": True},
    ("PUT", "/users/{user}/mailboxes/{mailbox}/messages/{message}"): {"deleted": True},
    ("POST", "/users/{user}/submit"): {"to": ["mallory@example.org"], "text": "x"},
    ("POST", "/users/{user}/filters"): {"query": {"ha": True}, "action": {"delete": True}},
    ("PUT", "/users/{user}/filters/{filter}"): {"query": {"ha": True}, "action": {"delete": True}},
    ("PUT", "/users/{user}/autoreply"): {"status": True, "text": "x"},
}
QUERIES = {"/users/{user}/search": "?query=text", "/users/{user}/2fa": "?token=123456"}
CALLS = sorted(
    (verb, resource.template)
    for resource in RESOURCES
    for verb in resource.verbs
    if "{user}" in resource.template and not resource.template.startswith("/user/")
)
ALIASED = [(verb, template.replace("/users/", "/user/", 1)) for verb, template in CALLS]


class Scene:
    """Ada, who has a token, and Bob, who has something of everything."""

    def __init__(self, api: Client, http: httpx.AsyncClient) -> None:
        self.api, self.http = api, http

    async def build(self) -> None:
        api = self.api
        self.ada, self.bob = await new(api, "ada"), await new(api, "bob")
        token = await token_for(api, "ada")
        self.headers = {"x-access-token": token}
        of = f"/users/{self.bob}"
        self.things = {"user": self.bob, "attachment": "ATT00001", "username": "bob"}
        self.things["mailbox"] = (await api.ask("POST", f"{of}/mailboxes", json={"path": "Private"}))["id"]
        path = f"{of}/mailboxes/{self.things['mailbox']}/messages"
        headers = {"content-type": "message/rfc822"}
        self.things["message"] = (await api.ask("POST", path, content=letter(), headers=headers))["message"]["name"]
        for name, body in (
            ("asps", {"description": "x"}),
            ("addresses", {"address": "other@example.org"}),
            ("filters", {"query": {"subject": "x"}, "action": {"seen": True}}),
        ):
            made = await api.ask("POST", f"{of}/{name}", json=body)
            self.things[{"asps": "asp", "addresses": "address", "filters": "filter"}[name]] = made["id"]
        await api.ask("PUT", f"{of}/autoreply", json={"status": False, "text": "away"})
        await api.ask("POST", f"{of}/2fa", json={})

    async def call(self, verb: str, template: str, **instead: str) -> httpx.Response:
        canonical = template.replace("/user/", "/users/", 1) if template.startswith("/user/") else template
        path = re.sub(r"\{(\w+)\}", lambda match: (self.things | instead)[match[1]], template)
        body = BODIES.get((verb, canonical), {} if verb in ("POST", "PUT") else None)
        query = QUERIES.get(canonical, "") if verb == "GET" else ""
        return await self.http.request(verb, path + query, headers=self.headers, json=body)

    async def state(self) -> dict[str, Any]:
        """All that Bob has."""
        of, found = f"/users/{self.bob}", {}
        box = f"{of}/mailboxes/{self.things['mailbox']}/messages"
        paths = ("", "/mailboxes?counters=1", "/asps", "/addresses", "/filters", "/autoreply", "/authlog?limit=250")
        for path in (*(of + path for path in paths), box, f"{box}/{self.things['message']}"):
            found[path] = await self.api.ask("GET", path)
        return found


def test_every_call_is_known_here() -> None:
    wanted = {(verb, template) for verb, template in CALLS if verb in ("POST", "PUT")}
    assert set(BODIES) <= wanted
    named = {name for _, template in CALLS for name in re.findall(r"\{(\w+)\}", template)}
    assert named == {"user", "mailbox", "message", "attachment", "asp", "address", "filter"}


@pytest.mark.parametrize("calls", [CALLS, ALIASED], ids=["users", "user"])
def test_nothing_of_another_user_is_seen_or_changed(calls: list[tuple[str, str]]) -> None:
    async def story(api: Client, http: httpx.AsyncClient) -> None:
        scene = Scene(api, http)
        await scene.build()
        before = await scene.state()
        for verb, template in calls:
            answer = await scene.call(verb, template)
            assert (answer.status_code, answer.json()["code"]) == (403, "MissingPrivileges"), (verb, template)
        assert await scene.state() == before

    closed(story)


def test_another_users_objects_are_not_found_below_ones_own_name() -> None:
    async def story(api: Client, http: httpx.AsyncClient) -> None:
        scene = Scene(api, http)
        await scene.build()
        own = (await api.ask("GET", f"/users/{scene.ada}/mailboxes"))["results"][0]["id"]
        before = await scene.state()
        for verb, template in CALLS:
            if template.count("{") == 1:
                continue
            for instead in ({"user": scene.ada}, {"user": scene.ada, "mailbox": own}, {"user": "me"}):
                if "mailbox" in instead and "{message}" not in template:
                    continue
                answer = await scene.call(verb, template, **instead)
                assert answer.status_code == 404, (verb, template, instead, answer.text)
        assert await scene.state() == before

    closed(story)


def test_another_users_objects_are_not_reached_through_bodies_and_queries() -> None:
    async def story(api: Client, http: httpx.AsyncClient) -> None:
        scene = Scene(api, http)
        await scene.build()
        own = (await api.ask("GET", f"/users/{scene.ada}/mailboxes"))["results"][0]["id"]
        path = f"/users/{scene.ada}/mailboxes/{own}/messages"
        await api.ask("POST", path, content=b"Subject: mine\r\n\r\nx", headers={"content-type": "message/rfc822"})
        before = await scene.state()
        theirs, uid = scene.things["mailbox"], scene.things["message"].partition(":")[2]
        tried: list[tuple[str, str, Any]] = [
            ("PUT", f"{path}/1", {"moveTo": theirs}),
            ("PUT", f"{path}/1", {"newMailbox": theirs}),
            ("PUT", path, {"message": "1:*", "moveTo": theirs}),
            ("GET", f"/users/{scene.ada}/search?query=x&mailbox={theirs}", None),
            ("POST", f"/users/{scene.ada}/submit", {"mailbox": theirs, "to": ["ada@localhost"], "uploadOnly": True}),
            ("POST", f"/users/{scene.ada}/submit", {"reference": {"mailbox": theirs, "id": int(uid)}, "text": "x"}),
            ("POST", f"/users/{scene.ada}/submit",
             {"to": ["x@y.example"],
              "reference": {"mailbox": theirs, "id": int(uid), "action": "forward", "attachments": True}}),
            ("POST", f"/users/{scene.ada}/filters", {"query": {"ha": True}, "action": {"mailbox": theirs}}),
        ]  # fmt: skip
        for verb, url, body in tried:
            answer = await http.request(verb, url, headers=scene.headers, json=body)
            assert answer.status_code in (400, 404), (url, body, answer.text)
        # a search sees one's own mail only, whatever thread is asked for
        thread = (await api.ask("GET", f"/users/{scene.bob}/mailboxes/{theirs}/messages"))["results"][0]["thread"]
        found = await http.get(f"/users/{scene.ada}/search?thread={thread}", headers=scene.headers)
        assert found.json()["total"] == 0
        assert await scene.state() == before
        assert (await api.ask("GET", path))["total"] == 1

    closed(story)


def test_calls_about_everybody_are_not_for_users() -> None:
    async def story(api: Client, http: httpx.AsyncClient) -> None:
        scene = Scene(api, http)
        await scene.build()
        for verb, path, body in (
            ("GET", "/users", None),
            ("POST", "/users", {"username": "mallory", "password": "secretpass"}),
            ("DELETE", f"/users/{scene.ada}", None),
            ("GET", "/users/resolve/bob", None),
            ("GET", "/addresses", None),
            ("GET", "/webhooks", None),
            ("POST", "/webhooks", {"type": ["*"], "url": "https://example.org/"}),
            ("GET", f"/webhooks/{'0' * 24}", None),
            ("DELETE", f"/webhooks/{'0' * 24}", None),
        ):
            answer = await http.request(verb, path, headers=scene.headers, json=body)
            assert answer.status_code == 403, (verb, path, answer.text)

    closed(story)
