"""Users over HTTP: the seed's calls in their order, the words of refusals, and who may speak for whom."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pyotp
import pytest
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings, hosts_for

from tests.server.fake_engine import BASE
from tests.server.mailbox_client import Client, over

CLOSED = GuardSettings(hosts=hosts_for(8080), token="servers-own-token")


async def new(api: Client, username: str = "testuser", **fields: Any) -> str:
    body = {"username": username, "password": "secretpass", "ip": "192.168.10.10"} | fields
    return (await api.ask("POST", "/users", json=body))["id"]  # type: ignore[no-any-return]


def test_a_user_is_made_listed_and_changed() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "testuser01", address="test01@example.org", name="Test User", quota=1024)
        found = await api.ask("GET", "/users?query=testuser01")
        assert found["query"] == "testuser01"
        assert (found["total"], found["page"], found["prev"], found["next"]) == (1, 1, False, False)
        (row,) = found["results"]
        assert (row["id"], row["address"], row["quota"]) == (user, "test01@example.org", {"allowed": 1024, "used": 0})
        whole = await api.ask("GET", f"/users/{user}")
        assert whole["limits"]["recipients"] == {"allowed": 2000, "used": 0, "ttl": False}
        assert (whole["retention"], whole["activated"], whole["enabled2fa"]) == (False, True, False)
        boxes = await api.ask("GET", f"/users/{user}/mailboxes")
        assert len(boxes["results"]) == 6
        assert await api.ask("PUT", f"/users/{user}", json={"quota": 2048, "name": "New"}) == {"success": True}
        assert (await api.ask("GET", f"/users/{user}"))["limits"]["quota"]["allowed"] == 2048
        assert (await api.ask("GET", "/users/resolve/test01@example.org"))["id"] == user
        page = await api.ask("GET", "/users?limit=1")
        assert page["total"] == 2
        assert (await api.ask("GET", page["next"]))["results"][0]["id"] == user
        assert await api.ask("DELETE", f"/users/{user}") == {"success": True}
        gone = await api.ask("GET", f"/users/{user}", 404)
        assert (gone["error"], gone["code"]) == ("This user does not exist", "UserNotFound")

    over(story)


def test_passwords_scopes_and_the_log() -> None:
    async def story(api: Client) -> None:
        user = await new(api)
        login = {"username": "testuser", "password": "secretpass", "ip": "192.168.10.10"}
        answer = await api.ask("POST", "/authenticate", json=login)
        assert (answer["id"], answer["scope"], answer["require2fa"]) == (user, "master", False)
        wrong = await api.ask("POST", "/authenticate", 403, json=login | {"password": "wrong"})
        assert (wrong["error"], wrong["code"]) == ("Authentication failed", "AuthFailed")
        made = await api.ask("POST", f"/users/{user}/asps", json={"description": "Mail client", "scopes": ["pop3"]})
        assert len(made["password"]) == 16
        asp = login | {"password": made["password"]}
        answer = await api.ask("POST", "/authenticate", json=asp | {"scope": "pop3"})
        assert (answer["username"], answer["scope"]) == ("testuser", "pop3")
        refused = await api.ask("POST", "/authenticate", 403, json=asp | {"scope": "imap"})
        assert refused["code"] == "InvalidAuthScope"
        (row,) = (await api.ask("GET", f"/users/{user}/asps"))["results"]
        assert (row["id"], row["scopes"]) == (made["id"], ["pop3"])
        await api.ask("DELETE", f"/users/{user}/asps/{made['id']}?ip=192.168.10.10")
        log = await api.ask("GET", f"/users/{user}/authlog?limit=2")
        assert [entry["action"] for entry in log["results"]] == ["delete asp", "authentication"]
        assert log["results"][0]["ip"] == "192.168.10.10"
        older = await api.ask("GET", log["next"])
        assert [entry["action"] for entry in older["results"]] == ["authentication", "create asp"]
        assert (await api.ask("GET", f"/users/{user}/authlog?action=create+asp"))["total"] == 1
        bad = await api.ask("POST", "/authenticate", 400, json=login | {"scope": "bogus"})
        assert bad["code"] == "InputValidationError"
        changed = {"existingPassword": "wrong", "password": "another one"}
        refused = await api.ask("PUT", f"/users/{user}", 403, json=changed)
        assert refused["error"] == "Password verification failed"

    over(story)


def test_a_second_factor_accepts_each_code_once() -> None:
    async def story(api: Client) -> None:
        user = await new(api)
        path = f"/users/{user}/2fa"
        setup = await api.ask("POST", path, json={"issuer": "testikas", "ip": "192.168.10.10"})
        assert base64.b64decode(setup["qrcode"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
        code = pyotp.TOTP(setup["seed"]).now()
        assert await api.ask("PUT", path, json={"token": code}) == {"success": True}
        again = await api.ask("GET", f"{path}?token={code}&ip=192.168.10.10", 403)
        assert (again["error"], again["code"]) == ("Invalid authentication token", "InvalidToken")
        login = {"username": "testuser", "password": "secretpass"}
        assert (await api.ask("POST", "/authenticate", json=login))["require2fa"] is True
        assert (await api.ask("POST", path, 400, json={}))["code"] == "TotpEnabled"
        assert await api.ask("DELETE", f"{path}?ip=192.168.10.10") == {"success": True}
        assert (await api.ask("GET", f"{path}?token=123456", 400))["error"] == "2FA is not enabled for this user"
        assert (await api.ask("PUT", path, 400, json={}))["error"] == '"token" is required'

    over(story)


def test_addresses_of_a_user() -> None:
    async def story(api: Client) -> None:
        user = await new(api, address="one@example.org")
        path = f"/users/{user}/addresses"
        added = await api.ask("POST", path, json={"address": "андрис@уайлддак.орг"})
        rows = (await api.ask("GET", path))["results"]
        assert {row["address"]: row["main"] for row in rows} == {"one@example.org": True, "андрис@уайлддак.орг": False}
        assert (await api.ask("GET", f"{path}/{added['id']}"))["address"] == "андрис@уайлддак.орг"
        found = await api.ask("GET", "/addresses?query=уайлд")
        assert [row["user"] for row in found["results"]] == [user]
        await api.ask("PUT", f"{path}/{added['id']}", json={"main": True})
        assert (await api.ask("GET", f"/users/{user}"))["address"] == "андрис@уайлддак.орг"
        refused = await api.ask("DELETE", f"{path}/{added['id']}", 400)
        assert refused["error"] == "Trying to delete main address. Set a new main address first"
        taken = await api.ask("POST", path, 400, json={"address": "one@example.org"})
        assert (taken["error"], taken["code"]) == ("This email address already exists", "AddressExistsError")
        plus = await api.ask("POST", path, 400, json={"address": "a+b@example.org"})
        assert "Address can not contain +" in plus["error"]
        old = next(row["id"] for row in rows if row["main"])
        assert await api.ask("DELETE", f"{path}/{old}") == {"success": True}
        assert (await api.ask("GET", f"{path}/{old}", 404))["code"] == "AddressNotFound"

    over(story)


def test_quota_is_counted_anew_and_kept() -> None:
    async def story(api: Client) -> None:
        user = await new(api, quota=500)
        inbox = (await api.ask("GET", f"/users/{user}/mailboxes"))["results"][0]["id"]
        path = f"/users/{user}/mailboxes/{inbox}/messages"
        headers = {"content-type": "message/rfc822"}
        await api.ask("POST", path, content=b"Subject: a\r\n\r\n" + b"x" * 300, headers=headers)
        over_ = await api.ask("POST", path, 413, content=b"Subject: b\r\n\r\n" + b"x" * 300, headers=headers)
        assert over_["code"] == "OverQuotaError"
        answer = await api.ask("POST", f"/users/{user}/quota/reset", json={})
        assert answer["storageUsed"] == answer["previousStorageUsed"] == 314

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Who may speak for whom


def closed(story: Callable[[Client, httpx.AsyncClient], Awaitable[None]]) -> None:
    """As `over`, with a second client of the same engine behind a token."""

    async def both(api: Client) -> None:
        transport = httpx.ASGITransport(build_app(api.engine, CLOSED))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            await story(api, http)

    over(both)


async def token_for(api: Client, username: str) -> str:
    login = {"username": username, "password": "secretpass", "token": True}
    return (await api.ask("POST", "/authenticate", json=login))["token"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", ["/users/{user}/submit", "/users/{user}/mailboxes/{user}/messages", "/users"])
@pytest.mark.parametrize("kind", ["application/json", "message/rfc822", "application/x-www-form-urlencoded"])
def test_no_body_is_read_for_who_shows_no_token(path: str, kind: str) -> None:
    async def story(api: Client, http: httpx.AsyncClient) -> None:
        taken = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal taken
            for _ in range(80):
                taken += 1
                yield bytes(1 << 20)

        for shown in ({}, {"x-access-token": "f" * 88}):
            answer = await http.post(
                path.format(user="f" * 24), content=body(), headers={"content-type": kind, **shown}
            )
            assert (answer.status_code, answer.json()["code"]) == (403, "InvalidToken")
        assert taken == 0

    closed(story)


def test_a_users_own_token_changes_neither_limits_nor_a_password_it_does_not_know() -> None:
    async def story(api: Client, http: httpx.AsyncClient) -> None:
        ada = await new(api, "ada", quota=1000)
        headers = {"x-access-token": await token_for(api, "ada")}

        async def change(expected: int, **fields: Any) -> Any:
            answer = await http.put(f"/users/{ada}", json=fields, headers=headers)
            assert answer.status_code == expected, answer.text
            return answer.json()

        for name in ("quota", "recipients", "forwards", "disabled"):
            for value in (0, 1):
                assert (await change(403, name="Ada", **{name: value}))["code"] == "MissingPrivileges"
        refused = await change(400, password="another one")
        assert refused["details"] == {"existingPassword": '"existingPassword" is required'}
        await change(403, password="another one", existingPassword="wrong")
        shown = await api.ask("GET", f"/users/{ada}")
        assert (shown["name"], shown["limits"]["quota"]["allowed"]) == ("", 1000)
        await change(200, name="Ada", retention=5000, language="et")
        await change(200, password="another one", existingPassword="secretpass")
        await api.ask("PUT", f"/users/{ada}", json={"quota": 2000, "password": "by the operator"})

    closed(story)


def test_a_user_speaks_for_one_user_only() -> None:
    async def story(api: Client, http: httpx.AsyncClient) -> None:
        ada, bob = await new(api, "ada"), await new(api, "bob")
        token = await token_for(api, "ada")
        inbox = (await api.ask("GET", f"/users/{bob}/mailboxes"))["results"][0]["id"]
        await api.ask(
            "POST", f"/users/{bob}/mailboxes/{inbox}/messages",
            content=b"Subject: secret\r\n\r\nx", headers={"content-type": "message/rfc822"},
        )  # fmt: skip
        tried = [
            ("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/mailboxes"), ("POST", "/mailboxes"),
            ("GET", f"/mailboxes/{inbox}"), ("PUT", f"/mailboxes/{inbox}"), ("DELETE", f"/mailboxes/{inbox}"),
            ("GET", f"/mailboxes/{inbox}/messages"), ("POST", f"/mailboxes/{inbox}/messages"),
            ("DELETE", f"/mailboxes/{inbox}/messages"), ("GET", f"/mailboxes/{inbox}/messages/1"),
            ("PUT", f"/mailboxes/{inbox}/messages/1"), ("DELETE", f"/mailboxes/{inbox}/messages/1"),
            ("GET", f"/mailboxes/{inbox}/messages/1/message.eml"),
            ("GET", f"/mailboxes/{inbox}/messages/1/attachments/ATT00001"), ("GET", "/search?query=secret"),
            ("GET", "/updates"), ("GET", "/authlog"), ("GET", "/asps"), ("POST", "/asps"), ("GET", "/addresses"),
            ("POST", "/addresses"), ("POST", "/2fa"), ("DELETE", "/2fa"), ("POST", "/quota/reset"), ("PUT", "/logout"),
        ]  # fmt: skip
        bodies: dict[tuple[str, str], Any] = {
            ("PUT", ""): {"name": "x"}, ("POST", "/mailboxes"): {"path": "x"}, ("POST", "/asps"): {"description": "x"},
            ("PUT", f"/mailboxes/{inbox}"): {"path": "x"}, ("POST", "/addresses"): {"address": "x@example.org"},
            ("POST", f"/mailboxes/{inbox}/messages"): {"raw": "eA=="},
            ("PUT", f"/mailboxes/{inbox}/messages/1"): {"seen": True},
        }  # fmt: skip
        for verb, path in tried:
            options = {"json": bodies[verb, path]} if (verb, path) in bodies else {}
            answer = await http.request(verb, f"/users/{bob}{path}", headers={"x-access-token": token}, **options)
            assert (answer.status_code, answer.json()["code"]) == (403, "MissingPrivileges"), (verb, path)
        for path in ("/users", "/addresses", "/users/resolve/bob"):
            assert (await http.get(path, headers={"x-access-token": token})).status_code == 403
        # nor through a mailbox of one's own name
        own = (await http.get(f"/users/{ada}/mailboxes/{inbox}", headers={"x-access-token": token})).json()
        assert own["code"] == "NoSuchMailbox"
        assert (await api.ask("GET", f"/users/{bob}/mailboxes/{inbox}"))["total"] == 1

    closed(story)


def test_tokens_open_and_end() -> None:
    async def story(api: Client, http: httpx.AsyncClient) -> None:
        ada = await new(api, "ada")
        login = {"username": "ada", "password": "secretpass", "token": True}
        token = (await http.post("/authenticate", json=login)).json()["token"]
        for headers, query in (
            ({"x-access-token": token}, ""),
            ({"authorization": f"Bearer {token}"}, ""),
            ({}, f"?accessToken={token}"),
        ):
            answer = await http.get(f"/users/me{query}", headers=headers)
            assert answer.json()["id"] == ada
            assert (await http.get(f"/users/me/mailboxes{query}", headers=headers)).status_code == 200
        nobody = (await http.get("/users/me")).json()
        assert (nobody["error"], nobody["code"]) == ("Invalid accessToken value", "InvalidToken")
        assert (await http.get("/users", headers={"x-access-token": "0" * 88})).status_code == 403
        root = {"authorization": "Bearer servers-own-token"}
        assert (await http.get("/users", headers=root)).json()["total"] == 2
        assert (await http.delete("/authenticate", headers={"x-access-token": token})).json() == {"success": True}
        assert (await http.get("/users/me", headers={"x-access-token": token})).status_code == 403
        second = (await http.post("/authenticate", json=login)).json()["token"]
        await http.put(f"/users/{ada}/logout", headers=root, json={})
        assert (await http.get("/users/me", headers={"x-access-token": second})).status_code == 403
        assert (await http.get("/api/qmail/db/messages/list", headers={"x-access-token": second})).status_code == 401

    closed(story)


def test_floods_of_wrong_passwords_are_told_to_wait() -> None:
    async def story(api: Client) -> None:
        await new(api)
        login = {"username": "testuser", "password": "wrong"}
        answers = await asyncio.gather(*(api.http.post("/authenticate", json=login) for _ in range(14)))
        assert {answer.status_code for answer in answers} == {403, 429}
        limited = next(answer for answer in answers if answer.status_code == 429)
        assert int(limited.headers["retry-after"]) > 0
        assert limited.json()["code"] == "RateLimitedError"

    over(story)
