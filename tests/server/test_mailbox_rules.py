"""The rules of the mailbox API that hold for many calls, and those of single ones nobody else looks at."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pyotp
import pytest

from tests.server.mailbox_client import Client, over
from tests.server.test_mailbox_users import new

EML = {"content-type": "message/rfc822"}
DAY = 86_400


async def boxes(api: Client, user: str) -> dict[str, str]:
    listed = (await api.ask("GET", f"/users/{user}/mailboxes"))["results"]
    return {row["path"]: row["id"] for row in listed}


async def store(api: Client, user: str, box: str, raw: bytes, **params: Any) -> dict[str, Any]:
    path = f"/users/{user}/mailboxes/{box}/messages"
    made = await api.ask("POST", path, content=raw, headers=EML, params=params)
    return await api.ask("GET", f"{path}/{made['message']['name']}")


# ------------------------------------------------------------------------------------------------------------------
# Common to all calls


def test_bodies_come_as_json_form_and_multipart() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        path = f"/users/{user}"
        await api.ask("PUT", path, json={"name": "by JSON", "existingPassword": "secretpass"})
        assert (await api.ask("GET", path))["name"] == "by JSON"
        await api.ask("PUT", path, data={"name": "by form", "existingPassword": "secretpass"})
        assert (await api.ask("GET", path))["name"] == "by form"
        parts = {"name": (None, "by pärts"), "existingPassword": (None, "secretpass")}
        await api.ask("PUT", path, files=parts)
        assert (await api.ask("GET", path))["name"] == "by pärts"
        bad = await api.ask("PUT", path, 400, files={"bogus": (None, "x")})
        assert bad["error"] == '"bogus" is not allowed'
        kind = {"content-type": "multipart/form-data; boundary=b"}
        for broken in (b"--b\r\n", b"", b"--b\r\ncontent-disposition: form-data\r\n\r\nx\r\n--b--\r\n"):
            answer = await api.http.put(path, content=broken, headers=kind)
            assert answer.status_code == 400, broken

    over(story)


@pytest.mark.parametrize("body", [b'{"name":"\xff"}', b'{"\xc3":1}', b"{", b"[" * 100_000, b"1"])
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    async def story(api: Client) -> None:
        kind = {"content-type": "application/json"}
        bad = await api.ask("PUT", f"/users/{api.user}", 400, content=body, headers=kind)
        assert (bad["error"][:14], bad["code"]) == ("Invalid JSON: ", "InvalidContent")

    over(story)


@pytest.mark.parametrize(
    "raw", [b"\xff", b'{"$oid":"\xff"}', b"[" * 20_000, b"{}", b'[18446744073709551616,{"$oid":"%s"}]' % (b"a" * 24)]
)
def test_a_cursor_that_is_none_is_refused(raw: bytes) -> None:
    async def story(api: Client) -> None:
        cursor = base64.urlsafe_b64encode(raw).decode()
        bad = await api.get(f"/mailboxes/{api.box('INBOX')}/messages?next={cursor}", 400)
        assert bad["code"] == "InputValidationError"

    over(story)


def test_the_path_wins_over_the_body_and_the_body_over_the_query() -> None:
    async def story(api: Client) -> None:
        cy, dee = await new(api, "cy"), await new(api, "dee")
        made = await api.ask("POST", f"/users/{cy}/mailboxes?path=Query", json={"path": "Body", "user": dee})
        assert (await boxes(api, cy))["Body"] == made["id"]
        await api.ask("POST", f"/users/{cy}/mailboxes?path=Query")
        assert "Query" in await boxes(api, cy)
        assert len(await boxes(api, dee)) == 6

    over(story)


def test_ids_are_read_in_capitals_and_unknown_names_ignored_in_lists() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        assert (await api.ask("GET", f"/users/{user.upper()}?bogus=1&sess=x&ip=127.0.0.1"))["id"] == user
        for path in ("/users", "/addresses", f"/users/{user}/authlog"):
            assert (await api.ask("GET", f"{path}?bogus=1"))["total"] >= 0
            for limit, words in (
                ("0", "greater than or equal to 1"),
                ("251", "less than or equal to 250"),
                ("x", "a number"),
            ):
                body = await api.ask("GET", f"{path}?limit={limit}", 400)
                assert words in body["error"]
            assert (await api.ask("GET", f"{path}?next=%21", 400))["code"] == "InputValidationError"

    over(story)


@pytest.mark.parametrize(
    ("words", "value"),
    [(("true", "on", "yes", "1", "y", "Y", "YES"), True), (("false", "off", "no", "0", "n", "N", ""), False)],
)
def test_yes_and_no_have_many_words(words: tuple[str, ...], value: bool) -> None:
    async def story(api: Client) -> None:
        for word in words:
            listed = await api.get(f"/mailboxes?counters={word}")
            assert ("total" in listed["results"][0]) is value, word

    over(story)


def test_ip_and_session_are_understood_and_checked_everywhere() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy", ip="2001:db8::1", sess="s")
        assert (await api.ask("GET", f"/users/{user}?ip=::1&sess=x"))["id"] == user
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/authenticate", {"username": "cy", "password": "x"}),
            ("POST", "/users", {"username": "dee", "password": "x"}),
            ("PUT", f"/users/{user}", {"name": "x"}),
            ("POST", f"/users/{user}/asps", {"description": "x"}),
            ("POST", f"/users/{user}/2fa", {}),
        ]
        for verb, path, body in calls:
            for wrong in ("10.0.0.0/8", "nowhere", "256.1.1.1"):
                answer = await api.ask(verb, path, 400, json=body | {"ip": wrong})
                assert '"ip" must be a valid ip address' in answer["error"], path

    over(story)


def test_what_is_nowhere_is_said_in_the_same_words() -> None:
    async def story(api: Client) -> None:
        body = await api.ask("GET", f"/users/{api.user}/nosuch", 404)
        assert (body["code"], body["message"]) == ("ResourceNotFound", f"/users/{api.user}/nosuch does not exist")
        body = await api.ask("PATCH", "/users", 405)
        assert (body["code"], body["error"]) == ("MethodNotAllowed", "PATCH is not allowed")

    over(story)


def test_cursors_are_those_clients_have_always_been_given() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        inbox = (await boxes(api, user))["INBOX"]
        for subject in ("one", "two", "three"):
            await store(api, user, inbox, f"Subject: {subject}\r\n\r\nx".encode())

        def opened(cursor: str) -> Any:
            return json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))

        page = await api.ask("GET", f"/users/{user}/mailboxes/{inbox}/messages?limit=1")
        assert opened(page["nextCursor"]) == [3, {"$oid": page["results"][0]["id"][:24]}]
        page = await api.ask("GET", "/users?limit=1")
        assert opened(page["nextCursor"]) == {"$oid": page["results"][0]["id"]}
        second = await api.ask("GET", page["next"])
        back = await api.ask("GET", second["prev"])
        assert (back["results"], back["page"], back["prev"]) == (page["results"], 1, False)
        for name in ("prev", "previous"):
            again = await api.ask("GET", f"/users?limit=1&{name}={second['previousCursor']}")
            assert again["results"] == page["results"]
        page = await api.ask("GET", "/addresses?limit=1")
        assert opened(page["nextCursor"]) == {"$oid": page["results"][0]["id"]}
        assert (await api.ask("GET", page["next"]))["next"] is False
        log = await api.ask("GET", f"/users/{user}/authlog")
        assert (log["next"], log["nextCursor"]) == (False, False)

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Users

WRONG_USERS: list[tuple[dict[str, Any], str]] = [
    ({"username": None}, "username"),
    ({"password": None}, "password"),
    ({"password": "x" * 257}, "password"),
    ({"address": "no address"}, "address"),
    ({"quota": -1}, "quota"),
    ({"recipients": -1}, "recipients"),
    ({"forwards": 1.5}, "forwards"),
    ({"retention": "long"}, "retention"),
    ({"name": "x" * 257}, "name"),
    ({"forward": "nobody"}, "forward"),
    ({"targetUrl": "x" * 300}, "targetUrl"),
    ({"username": "spaces in it"}, "username"),
    ({"bogus": 1}, "bogus"),
]


def test_wrong_users_are_told_what_is_wrong() -> None:
    async def story(api: Client) -> None:
        for change, name in WRONG_USERS:
            body = {"username": "cy", "password": "secretpass"} | change
            given = {key: value for key, value in body.items() if value is not None}
            answer = await api.ask("POST", "/users", 400, json=given)
            assert answer["code"] == "InputValidationError", change
            assert list(answer["details"]) == [name], change
        assert (await api.ask("GET", "/users"))["total"] == 1

    over(story)


def test_names_and_addresses_are_taken_once() -> None:
    async def story(api: Client) -> None:
        await new(api, "cy", address="One@Example.org")
        taken = await api.ask("POST", "/users", 400, json={"username": "CY", "password": "x"})
        assert (taken["error"], taken["code"]) == ("This username already exists", "UserExistsError")
        again = {"username": "dee", "password": "x", "address": "one@example.ORG"}
        taken = await api.ask("POST", "/users", 400, json=again)
        assert (taken["error"], taken["code"]) == ("Selected email address already exists", "AddressExistsError")
        # nothing of the user that was not made is left
        made = await new(api, "dee")
        assert (await api.ask("GET", f"/users/{made}"))["address"] == "dee@localhost"
        assert (await api.ask("GET", "/users?query=E"))["query"] == "e"
        assert [row["username"] for row in (await api.ask("GET", "/users?query=de"))["results"]] == ["dee"]
        assert "query" not in await api.ask("GET", "/users")

    over(story)


def test_changes_of_a_user_and_their_refusals() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        path = f"/users/{user}"
        assert (await api.ask("PUT", path, 400, json={}))["error"] == "Nothing was updated"
        assert (await api.ask("PUT", path, 400, json={"password": "short"}))["code"] == "InputValidationError"
        await api.ask("PUT", path, json={"password": "another password"})
        await api.ask("POST", "/authenticate", 403, json={"username": "cy", "password": "secretpass"})
        await api.ask("POST", "/authenticate", json={"username": "cy", "password": "another password"})
        missing = await api.ask("PUT", f"/users/{'0' * 24}", 404, json={"name": "x"})
        assert missing["code"] == "UserNotFound"
        settings = {
            "language": "ET",
            "forward": "ann@far.example",
            "targetUrl": "https://x.example/",
            "retention": 5000,
        }
        await api.ask("PUT", path, json=settings | {"recipients": 3, "forwards": 4, "metaData": {"a": [1]}})
        shown = await api.ask("GET", path)
        assert (shown["language"], shown["forward"], shown["retention"]) == ("et", "ann@far.example", 5000)
        assert (shown["targetUrl"], shown["metaData"]) == ("https://x.example/", {"a": [1]})
        limits = shown["limits"]
        assert (limits["recipients"]["allowed"], limits["forwards"]["allowed"]) == (3, 4)
        # the default of new mailboxes alone
        inbox = (await boxes(api, user))["INBOX"]
        assert (await api.ask("GET", f"{path}/mailboxes/{inbox}"))["retention"] is False
        box = (await api.ask("POST", f"{path}/mailboxes", json={"path": "New"}))["id"]
        assert (await api.ask("GET", f"{path}/mailboxes/{box}"))["retention"] == 5000

    over(story)


def test_the_disabled_do_not_get_in() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        await api.ask("PUT", f"/users/{user}", json={"disabled": True})
        assert (await api.ask("GET", "/users?query=cy"))["results"][0]["disabled"] is True
        login = {"username": "cy", "password": "secretpass"}
        await api.ask("POST", "/authenticate", 403, json=login)
        await api.ask("PUT", f"/users/{user}", json={"disabled": False})
        assert (await api.ask("POST", "/authenticate", json=login))["id"] == user

    over(story)


@pytest.mark.parametrize(
    ("language", "names"),
    [
        ("en", ["INBOX", "Archive", "Drafts", "Junk", "Sent Mail", "Trash"]),
        ("et", ["INBOX", "Arhiiv", "Mustandid", "Prügikast", "Rämpspost", "Saadetud kirjad"]),
        ("xx", ["INBOX", "Archive", "Drafts", "Junk", "Sent Mail", "Trash"]),
    ],
)
def test_new_users_have_mailboxes_in_their_language(language: str, names: list[str]) -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy", language=language, retention=7_000_000_000)
        rows = (await api.ask("GET", f"/users/{user}/mailboxes"))["results"]
        assert [row["path"] for row in rows] == names
        assert all(row["subscribed"] for row in rows)
        uses = {row["specialUse"]: row["retention"] for row in rows}
        assert uses == {
            None: 7_000_000_000, "\\Archive": 7_000_000_000, "\\Drafts": 7_000_000_000, "\\Sent": 7_000_000_000,
            "\\Trash": 2_592_000_000, "\\Junk": 2_592_000_000,
        }  # fmt: skip

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# What opens an account


def test_users_log_in_by_any_address_and_it_is_logged() -> None:
    now = [1_800_000_000.0]

    async def story(api: Client) -> None:
        user = await new(api, "cy", address="cy@example.org")
        await api.ask("POST", f"/users/{user}/addresses", json={"address": "other@example.org"})
        for name in ("cy", "CY", "cy@example.org", "Other@Example.org"):
            login = {"username": name, "password": "secretpass", "protocol": "TEST", "ip": "10.1.2.3"}
            assert (await api.ask("POST", "/authenticate", json=login))["username"] == "cy"
        unknown = await api.ask("POST", "/authenticate", 403, json={"username": "nobody", "password": "x"})
        assert (unknown["error"], unknown["code"]) == ("Authentication failed", "AuthFailed")
        wrong = {"existingPassword": "no", "password": "long enough"}
        await api.ask("PUT", f"/users/{user}", 403, json=wrong)
        await api.ask("PUT", f"/users/{user}", json=wrong | {"existingPassword": "secretpass"})
        rows = (await api.ask("GET", f"/users/{user}/authlog"))["results"]
        assert [(row["action"], row["result"]) for row in rows[:3]] == [
            ("password change", "success"), ("password change", "fail"), ("authentication", "success"),
        ]  # fmt: skip
        last = rows[2]
        assert (last["protocol"], last["requiredScope"], last["source"], last["ip"]) == (
            "TEST", "master", "master", "10.1.2.3",
        )  # fmt: skip
        assert last["created"].endswith("Z")
        now[0] += 31 * DAY
        assert (await api.ask("GET", f"/users/{user}/authlog"))["total"] == 0

    over(story, clock=lambda: now[0])


def test_application_passwords_have_scopes() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        path = f"/users/{user}/asps"
        made = await api.ask("POST", path, json={"description": " Phone "})
        login = {"username": "cy", "password": made["password"]}
        spaced = " ".join(made["password"][at : at + 4] for at in range(0, 16, 4)).upper()
        for scope in ("imap", "pop3", "smtp"):
            shown = await api.ask("POST", "/authenticate", json=login | {"scope": scope, "password": spaced})
            assert (shown["scope"], shown["require2fa"]) == (scope, False)
        assert (await api.ask("POST", "/authenticate", 403, json=login))["code"] in ("AuthFailed", "InvalidAuthScope")
        for scopes, kept in (
            (["smtp", "imap"], ["imap", "smtp"]),
            (["imap", "pop3", "smtp"], ["*"]),
            ("imap,pop3", None),
        ):
            one = (await api.ask("POST", path, json={"description": "x", "scopes": scopes}))["id"]
            rows = {row["id"]: row for row in (await api.ask("GET", path))["results"]}
            assert rows[one]["scopes"] == (kept or ["imap", "pop3"])
        assert next(iter(rows)) == made["id"]
        assert rows[made["id"]]["description"] == "Phone"
        for bad in ({}, {"description": "x", "scopes": ["imap", "imap"]}, {"description": "x", "scopes": ["web"]}):
            await api.ask("POST", path, 400, json=bad)
        gone = await api.ask("DELETE", f"{path}/{'0' * 24}", 404)
        assert gone["code"] == "AspNotFound"

    over(story)


def test_the_second_factor_in_all_its_states() -> None:
    now = [1_800_000_000.0]

    async def story(api: Client) -> None:
        user = await new(api, "cy")
        path = f"/users/{user}/2fa"
        assert (await api.ask("PUT", path, 400, json={"token": "123456"}))[
            "error"
        ] == "2FA is not initialized for this user"
        assert "already disabled" in (await api.ask("DELETE", path, 400))["error"]
        first = (await api.ask("POST", path, json={}))["seed"]
        second = (await api.ask("POST", path, json={}))["seed"]  # replaces the first one
        await api.ask("PUT", path, 403, json={"token": pyotp.TOTP(first).at(now[0])})
        assert '"token" length' in (await api.ask("PUT", path, 400, json={"token": "12345"}))["error"]
        await api.ask("PUT", path, json={"token": pyotp.TOTP(second).at(now[0])})
        now[0] += 60
        code = pyotp.TOTP(second).at(now[0])
        assert await api.ask("GET", f"{path}?token={code}") == {"success": True}
        login = {"username": "cy", "password": "secretpass"}
        for scope in ("imap", "pop3", "smtp"):  # the master password alone does not open these any more
            await api.ask("POST", "/authenticate", 403, json=login | {"scope": scope})
        assert "token" not in await api.ask("POST", "/authenticate", json=login | {"token": True})
        await api.ask("DELETE", path)
        assert (await api.ask("POST", "/authenticate", json=login | {"scope": "imap"}))["require2fa"] is False
        actions = [row["action"] for row in (await api.ask("GET", f"/users/{user}/authlog"))["results"]]
        assert {"new 2fa seed", "enable 2fa", "2fa", "disable 2fa"} <= set(actions)

    over(story, clock=lambda: now[0])


def test_addresses_and_the_main_one() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy", address="cy@example.org")
        path = f"/users/{user}/addresses"
        made = (await api.ask("POST", path, json={"address": "b@example.org", "main": True}))["id"]
        assert (await api.ask("GET", f"/users/{user}"))["address"] == "b@example.org"
        rows = (await api.ask("GET", path))["results"]
        assert [(row["address"], row["main"]) for row in rows] == [("b@example.org", True), ("cy@example.org", False)]
        for body, words in (({"main": False}, "Cannot unset main status"), ({"main": True}, "is already the main")):
            assert words in (await api.ask("PUT", f"{path}/{made}", 400, json=body))["error"]
        missing = f"{path}/{'0' * 24}"
        for verb, options in (("GET", {}), ("PUT", {"json": {"main": True}}), ("DELETE", {})):
            assert (await api.ask(verb, missing, 404, **options))["code"] == "AddressNotFound"
        strange = await api.ask("GET", f"/users/{'0' * 24}/addresses", 404)
        assert strange["error"] == "This user does not exist"
        assert (await api.ask("GET", "/addresses?query=B@EX"))["total"] in (0, 1)
        assert (await api.ask("GET", "/addresses?query=b@ex"))["results"][0]["user"] == user
        # an address that was wild in spelling is one address
        again = await api.ask("POST", path, 400, json={"address": " CY@EXAMPLE.org "})
        assert again["code"] == "AddressExistsError"

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Mailboxes and messages


def test_mailboxes_in_their_order_and_with_their_names() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        path = f"/users/{user}/mailboxes"
        for name in ("zoo", "Alpha", "inbox/Sub", "/Lead"):
            await api.ask("POST", path, json={"path": name})
        found = await boxes(api, user)
        await api.ask("PUT", f"{path}/{found['Alpha']}", json={"subscribed": False})
        names = list(await boxes(api, user))
        assert names[0] == "INBOX"
        assert names[-1] == "Alpha"
        assert {"INBOX/Sub", "Lead", "zoo"} <= set(names)
        await api.ask("PUT", f"{path}/{found['Trash']}", json={"path": "Bin"})
        shown = await api.ask("GET", f"{path}/{found['Trash']}")
        assert (shown["path"], shown["specialUse"]) == ("Bin", "\\Trash")
        refused = await api.ask("DELETE", f"{path}/{found['Trash']}", 400)
        assert refused["code"] == "DisallowedMailboxMethod"
        await api.ask("PUT", f"{path}/{'0' * 24}", 404, json={"path": "x"})
        await api.ask("DELETE", f"{path}/{'0' * 24}", 404)
        await api.ask("PUT", f"{path}/{found['zoo']}", json={"retention": 1000})
        assert (await api.ask("DELETE", f"{path}/{found['zoo']}")) == {"success": True}

    over(story)


def test_what_goes_with_a_mailbox_is_given_back() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        box = (await api.ask("POST", f"/users/{user}/mailboxes", json={"path": "Box"}))["id"]
        await store(api, user, box, b"Subject: x\r\n\r\n" + b"y" * 500)
        assert (await api.ask("GET", f"/users/{user}"))["limits"]["quota"]["used"] == 514
        await api.ask("DELETE", f"/users/{user}/mailboxes/{box}")
        assert (await api.ask("GET", f"/users/{user}"))["limits"]["quota"]["used"] == 0

    over(story)


def test_messages_expire_by_the_policy_of_their_mailbox() -> None:
    now = [1_800_000_000.0]

    async def story(api: Client) -> None:
        user = await new(api, "cy", retention=60_000)
        found = await boxes(api, user)
        path = f"/users/{user}/mailboxes/{found['INBOX']}"
        shown = await store(
            api,
            user,
            found["INBOX"],
            b"Subject: x\r\n\r\ny",
        )
        assert shown["expires"] == "2027-01-15T08:01:00.000Z"
        await api.ask("PUT", f"/users/{user}/mailboxes/{found['Archive']}", json={"retention": 0})
        kept = await api.ask("PUT", f"{path}/messages/{shown['id']}", json={"moveTo": found["Archive"]})
        moved = await api.ask("GET", f"/users/{user}/mailboxes/{found['Archive']}/messages/{kept['id']}")
        assert "expires" not in moved
        await store(api, user, found["INBOX"], b"Subject: y\r\n\r\ny")
        now[0] += 61
        await api.engine.messages_of.sweep()
        assert (await api.ask("GET", path))["total"] == 0
        assert (await api.ask("GET", f"/users/{user}"))["limits"]["quota"]["used"] == moved["size"]

    over(story, clock=lambda: now[0])


def field(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda shown: shown.get(name)


SHOWN: list[tuple[str, Callable[[dict[str, Any]], Any], Any]] = [
    ("From: Ann <ann@far.example>", field("from"), {"address": "ann@far.example", "name": "Ann"}),
    ("Sender: ann@far.example", field("from"), {"address": "ann@far.example", "name": ""}),
    ("Subject: Re: Subject   line", field("subject"), "Re: Subject line"),
    ("Subject: =?utf-8?q?J=C3=B5geva?=", field("subject"), "Jõgeva"),
    ("Reply-To: a@b.example, c@d.example", lambda shown: len(shown["replyTo"]), 2),
    ("Cc: Ünal <u@b.example>", lambda shown: shown["cc"][0]["name"], "Ünal"),
    ("To: x@xn--fr-via.example", lambda shown: shown["to"], [{"address": "x@fär.example", "name": ""}]),
    ("X: y", field("to"), []),
    ("List-ID: News <news.example>\r\nList-Unsubscribe: <mailto:x@y.example>", lambda shown: set(shown["list"]),
     {"id", "unsubscribe"}),
    ("Date: Fri, 21 Nov 1997 09:55:06 -0600", field("date"), "1997-11-21T15:55:06.000Z"),
    ("Message-ID: <1@x.example>", field("messageId"), "<1@x.example>"),
    ("X: y", field("attachments"), []),
    ("X: y", lambda shown: "expires" in shown, False),
]  # fmt: skip


def test_what_a_message_says_of_itself() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        inbox = (await boxes(api, user))["INBOX"]
        for header, look, wanted in SHOWN:
            shown = await store(api, user, inbox, f"{header}\r\n\r\ntext".encode())
            assert look(shown) == wanted, header
        undated = await store(api, user, inbox, b"Subject: x\r\n\r\n" + b"word " * 60)
        assert undated["date"] == undated["idate"]
        row = (await api.ask("GET", f"/users/{user}/mailboxes/{inbox}/messages?limit=1"))["results"][0]
        assert len(row["intro"]) <= 128
        assert row["intro"].endswith("word…")
        html = b"Content-Type: text/html\r\n\r\n<p>rich &amp; famous</p><script>x</script>"
        await store(api, user, inbox, html)
        row = (await api.ask("GET", f"/users/{user}/mailboxes/{inbox}/messages?limit=1"))["results"][0]
        assert row["intro"] == "rich & famous"

    over(story)


def test_trash_is_not_searched_until_what_lay_there_comes_back() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        found = await boxes(api, user)
        path = f"/users/{user}/mailboxes"
        shown = await store(api, user, found["Trash"], b"Subject: x\r\n\r\nneedle")
        search = f"/users/{user}/search?query=needle"
        assert (await api.ask("GET", search))["total"] == 0
        assert (await api.ask("GET", f"{search}&mailbox={found['Trash']}"))["total"] == 1
        back = {"moveTo": found["INBOX"]}
        await api.ask("PUT", f"{path}/{found['Trash']}/messages/{shown['id']}", json=back)
        assert (await api.ask("GET", search))["results"][0]["mailbox"] == found["INBOX"]
        assert (await api.ask("GET", f"{search}&order=asc&limit=1"))["total"] == 1
        long = await api.ask("GET", f"/users/{user}/search?query={'x' * 256}", 400)
        assert '"query" length' in long["error"]

    over(story)


def test_drafts_are_drafts_and_flags_are_their_own() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy")
        inbox = (await boxes(api, user))["INBOX"]
        path = f"/users/{user}/mailboxes/{inbox}/messages/1"
        await store(api, user, inbox, b"Subject: x\r\n\r\ny")
        for name in ("seen", "deleted", "flagged", "draft"):
            before = await api.ask("GET", path)
            await api.ask("PUT", path, json={name: not before[name]})
            after = await api.ask("GET", path)
            changed = {key for key in before if before[key] != after[key]}
            assert changed == {name}

    over(story)


def test_sending_and_storing_stop_at_the_quota() -> None:
    async def story(api: Client) -> None:
        user = await new(api, "cy", address="cy@example.org", quota=2000)
        parts = {"to": ["cy@example.org"], "text": "x" * 3000}
        body = await api.ask("POST", f"/users/{user}/submit", 413, json=parts)
        assert body["code"] == "OverQuotaError"
        assert (await api.ask("GET", f"/users/{user}"))["limits"]["quota"] == {"allowed": 2000, "used": 0}

    over(story)
