"""Download, beacons, stored messages and attachments: documented texts and shapes (seed 000)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from qmail_server.http.app import build_app
from qmail_server.http.respond import disposition

from qmail_core.errors import ErasureError, QMailError, QuorumError, StoreUnavailable, TransportError
from qmail_core.model import Folder
from tests.server.fake_engine import GUID, OPEN, FakeEngine, ask, assert_contains_in_order, mail

DOWNLOAD = "/api/qmail/net/messages/download"
PEEK = "/api/qmail/net/beacon/peek"
PING = "/api/qmail/net/beacon/ping"
LIST = "/api/qmail/db/messages/list"
GET = "/api/qmail/db/messages/get"
FILES = "/api/qmail/db/attachments/list"
FILE = "/api/qmail/db/attachments/get"

EXAMPLE = {
    "success": True,
    "message": "Email downloaded and stored",
    "email_id": "f8e7d6c5b4a3f2e1d0c9b8a7f6e5d4c3",
    "subject": "Q4 Budget Report",
    "sender_sn": 1048576,
    "stripes_downloaded": 20,
    "stripes_recovered": 5,
}


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


@pytest.fixture
def stored(engine: FakeEngine) -> FakeEngine:
    engine.stored[GUID] = mail(body="Grüße")
    engine.add_file(GUID, "plän.pdf", b"%PDF-1.7")
    engine.add_file(GUID, "run.EXE", b"MZ")
    return engine


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_documented_download(engine: FakeEngine, method: str) -> None:
    engine.waiting[GUID] = mail()
    engine.add_file(GUID, "plan.pdf", b"PDF")
    fields = {"file_guid": GUID.hex().upper()}
    answer = ask(engine, method, DOWNLOAD, **({"params": fields} if method == "GET" else {"data": fields}))
    body = answer.json()
    assert answer.status_code == 200
    assert_contains_in_order(body, EXAMPLE)
    assert {name: body[name] for name in EXAMPLE} == {**EXAMPLE, "email_id": GUID.hex()}
    assert list(body) == [
        *("success", "status", "message", "email_id", "file_guid", "subject", "sender_sn", "sender_address"),
        *("stripes_downloaded", "stripes_recovered", "body", "body_length", "attachments", "received_timestamp"),
        *("already_downloaded", "liars"),
    ]
    (attached,) = body["attachments"]
    assert attached == {
        "attachment_id": 1,
        "name": "plan.pdf",
        "extension": "pdf",
        "storage_mode": 1,
        "size_bytes": 3,
    }
    assert (body["body"], body["body_length"], body["liars"]) == ("Dear all", 8, [3])
    assert ask(engine, method, DOWNLOAD, params=fields).json()["already_downloaded"] is True


NO_TELL = "No pending tell found for this file_guid. Pass sender_sn to download directly."


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("", 400, "Missing required parameter: file_guid"),
        ("file_guid=xyz", 400, "Invalid file_guid format (expected 32 hex chars)"),
        (f"file_guid={GUID.hex()}0", 400, "Invalid file_guid format (expected 32 hex chars)"),
        (f"file_guid={GUID.hex()}", 404, NO_TELL),
        (f"file_guid={GUID.hex()}&sender_sn=7", 404, "no such row"),
        (f"file_guid={GUID.hex()}&sender_sn=x", 400, "Invalid sender_sn (must be a positive integer)"),
        (f"file_guid={GUID.hex()}&sender_sn=0", 400, "Invalid sender_sn (must be a positive integer)"),
        (f"file_guid={GUID.hex()}&sender_sn=4294967296", 400, "Invalid sender_sn (must be a positive integer)"),
    ],
)
def test_the_documented_refusals(engine: FakeEngine, query: str, code: int, message: str) -> None:
    answer = ask(engine, "GET", f"{DOWNLOAD}?{query}")
    assert answer.status_code == code
    assert_contains_in_order(answer.json(), {"error": True, "message": message, "code": code})
    assert answer.json()["message"] == message


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (QuorumError("only 3 of 20 stripes came", {}), "download_error"),
        (ErasureError("stripes contradict each other"), "download_error"),
        (StoreUnavailable("the disk is full"), "store_unavailable"),
        (TransportError("no route"), "transport"),
    ],
)
def test_a_failed_download(engine: FakeEngine, error: QMailError, detail: str) -> None:
    engine.fail["download"] = error
    answer = ask(engine, "GET", f"{DOWNLOAD}?file_guid={GUID.hex()}")
    body = answer.json()
    example = {"error": True, "message": "Download failed", "code": 500, "detail": detail}
    assert answer.status_code == 500
    assert_contains_in_order(body, example)
    assert {name: body[name] for name in example} == example
    assert body["reason"] == error.message


def test_sender_sn_is_handed_on(engine: FakeEngine) -> None:
    engine.waiting[GUID] = mail()
    ask(engine, "GET", f"{DOWNLOAD}?file_guid={GUID.hex()}&sender_sn=1048576")
    assert engine.asked == [("download", GUID, 1048576)]


NOTE: dict[str, Any] = {
    "file_guid": GUID.hex(),
    "sender_sn": 1048576,
    "timestamp": 1767000040,
    "tell_type": 0,
    "total_file_size": 412,
    "manifest_version": 1,
    "file_count": 1,
    "manifest_flags": 1,
    "files": [{"file_type": 1, "flags": 1, "size_bytes": 412, "crc32": 0}],
}


def test_peek(engine: FakeEngine) -> None:
    quiet = ask(engine, "GET", PEEK).json()
    assert (quiet["success"], quiet["new_mail_count"], quiet["notifications"]) == (True, 0, [])
    engine.waiting[GUID] = mail()
    body = ask(engine, "GET", f"{PEEK}?since=5").json()
    keys = ["debug", "success", "status", "new_mail_count", "total_remaining", "notifications", "request_id"]
    assert list(body) == keys
    (note,) = body["notifications"]
    assert_contains_in_order(note, NOTE)
    assert {name: note[name] for name in NOTE} == NOTE
    assert "an_preview" not in body["debug"]
    assert engine.asked == [("peek", 0), ("peek", 5)]


def test_a_failed_peek_and_ping(engine: FakeEngine) -> None:
    engine.fail["peek"] = engine.fail["ping"] = QuorumError("no beacon answers", {})
    for path, message in ((PEEK, "Peek failed"), (PING, "Ping failed")):
        answer = ask(engine, "GET", path)
        assert (answer.status_code, answer.json()["message"]) == (500, message)


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("", 600.0),
        ("timeout=5", 5.0),
        ("timeout=0.5", 0.5),
        ("timeout=9999", 600.0),
        ("timeout=-1", 0.0),
        ("timeout_ms=5000", 5.0),
    ],
)
def test_ping(engine: FakeEngine, query: str, seconds: float) -> None:
    body = ask(engine, "POST", f"{PING}?{query}").json()
    assert engine.asked == [("ping", seconds, 0)]
    example = {
        "success": True,
        "new_mail_count": 0,
        "total_remaining": 0,
        "notifications": [],
        "timed_out": True,
        "status_code": 245,
        "elapsed_ms": 5003,
        "request_id": "",
    }
    assert_contains_in_order(body, example)


def test_a_ping_with_a_bad_timeout(engine: FakeEngine) -> None:
    assert ask(engine, "GET", f"{PING}?timeout=long").json()["message"] == "Invalid timeout (must be a number)"


def test_a_ping_ends_when_its_client_leaves(engine: FakeEngine) -> None:
    async def whole() -> list[Any]:
        engine.quiet = asyncio.Event()
        quiet, sent = engine.quiet, []
        begun = False

        async def receive() -> dict[str, Any]:
            nonlocal begun
            if not begun:
                begun = True
                return {"type": "http.request", "body": b""}
            await quiet.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": PING,
            "query_string": b"timeout=60",
            "scheme": "http",
            "headers": [(b"host", b"127.0.0.1:8080")],
        }
        async with asyncio.timeout(5):
            await build_app(engine, OPEN)(scope, receive, send)  # type: ignore[arg-type]
        return sent

    assert asyncio.run(whole()) == []
    assert engine.ping_cancelled


def test_a_page_of_a_folder(stored: FakeEngine) -> None:
    body = ask(stored, "GET", LIST).json()
    example = {
        "success": True,
        "count": 1,
        "folder": 0,
        "limit": 50,
        "offset": 0,
        "total_in_folder": 1,
        "unread_count": 1,
        "emails": [],
    }
    assert_contains_in_order(body, example)
    (row,) = body["emails"]
    assert_contains_in_order(
        row,
        {
            "email_id": "",
            "subject": "",
            "sender_sn": 0,
            "sender_address": "",
            "sender_denomination_code": 0,
            "received_timestamp": 0,
            "sent_timestamp": 0,
            "is_read": False,
            "is_starred": False,
            "folder": 0,
            "inbox_fee": 0,
            "body_preview": "",
        },
    )
    assert (row["body_preview"], row["sender_denomination"], row["sender_denomination_code"]) == ("Grüße", 10, 1)
    assert "recipient_sn" not in row


def test_rows_of_sent_mails_name_their_recipient(engine: FakeEngine) -> None:
    engine.stored[GUID] = mail(folder=1, body="x" * 300)
    (row,) = ask(engine, "GET", f"{LIST}?folder=sent").json()["emails"]
    assert (row["recipient_address"], row["recipient_count"]) == ("17.0.0@byte", 2)
    assert (row["recipient_sn"], row["recipient_denomination"]) == (0x110000, 10)
    assert len(row["body_preview"]) == 200


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("folder=2&limit=500&offset=7&sort=fee", (Folder.DRAFTS, 200, 7, "fee")),
        ("folder=Trash&limit=0&offset=-1&sort=3", (Folder.TRASH, 1, 0, "starred")),
        ("sort=1", (Folder.INBOX, 50, 0, "unread")),
    ],
)
def test_paging(engine: FakeEngine, query: str, asked: tuple[Any, ...]) -> None:
    assert ask(engine, "GET", f"{LIST}?{query}").status_code == 200
    assert engine.asked == [("messages", *asked)]


@pytest.mark.parametrize("query", ["folder=6", "folder=attic", "folder=-1", "sort=size", "limit=x"])
def test_bad_paging(engine: FakeEngine, query: str) -> None:
    assert ask(engine, "GET", f"{LIST}?{query}").status_code == 400


def test_one_message(stored: FakeEngine) -> None:
    body = ask(stored, "GET", f"{GET}?email_id={GUID.hex()}").json()
    example = {
        "success": True,
        "email_id": GUID.hex(),
        "subject": "Q4 Budget Report",
        "sender_sn": 1048576,
        "received_timestamp": 1767000055,
        "is_read": False,
        "is_starred": False,
        "folder": 0,
        "body": "Grüße",
        "body_length": 7,
        "to": "17.0.0@byte",
        "cc": "Ada#9",
        "bcc": "",
    }
    assert_contains_in_order(body, example)
    assert {name: body[name] for name in example} == example
    ask(stored, "GET", f"{GET}?email_id={GUID.hex()}&peek=1")
    assert [entry for entry in stored.asked if entry[0] == "message"] == [("message", True), ("message", False)]


IDS = "Missing or invalid 'email_id' parameter (32 hex chars)"


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        (GET, 400, "Missing required parameter: email_id"),
        (f"{GET}?email_id=5", 400, "Invalid email_id format"),
        (f"{GET}?email_id={'0' * 32}", 404, "Email not found"),
        (FILES, 400, IDS),
        (f"{FILES}?email_id=5", 400, IDS),
        (f"{FILES}?email_id={'0' * 32}", 404, "Email not found"),
        (f"{FILE}?email_id=5", 400, IDS),
        (f"{FILE}?email_id={GUID.hex()}", 400, "Missing required parameter: attachment_id"),
        (
            f"{FILE}?email_id={GUID.hex()}&attachment_id=-1",
            400,
            "Invalid attachment_id (must be a non-negative integer)",
        ),
        (f"{FILE}?email_id={GUID.hex()}&attachment_id=99", 404, "Attachment not found"),
        (
            f"{FILE}?email_id={'0' * 32}&attachment_id=1",
            403,
            "Attachment does not belong to the specified email",
        ),
    ],
)
def test_refusals_of_the_store(stored: FakeEngine, path: str, code: int, message: str) -> None:
    answer = ask(stored, "GET", path)
    assert (answer.status_code, answer.json()["message"]) == (code, message)


def test_attachments(stored: FakeEngine) -> None:
    body = ask(stored, "GET", f"{FILES}?email_id={GUID.hex()}").json()
    assert list(body) == ["success", "status", "email_id", "count", "attachments"]
    assert [row.get("dangerous") for row in body["attachments"]] == [None, True]
    assert [row.get("warning") for row in body["attachments"]] == [None, "This file can run as a program"]
    info = ask(stored, "GET", f"{FILE}?email_id={GUID.hex()}&attachment_id=1&info=1").json()
    assert info == {
        "success": True,
        "status": "success",
        "attachment_id": 1,
        "name": "plän.pdf",
        "extension": "pdf",
        "size_bytes": 8,
        "storage_mode": 1,
    }


def test_the_bytes_of_an_attachment(stored: FakeEngine) -> None:
    def get(method: str, **options: Any) -> httpx.Response:
        return ask(stored, method, f"{FILE}?email_id={GUID.hex()}&attachment_id=1", **options)

    answer = get("GET")
    assert (answer.status_code, answer.content) == (200, b"%PDF-1.7")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-length"] == "8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox")
    plain, exact = answer.headers["content-disposition"].split("; ")[1:]
    assert plain == 'filename="pl_n.pdf"'
    assert unquote(exact.removeprefix("filename*=UTF-8''")) == "plän.pdf"
    assert get("GET", headers={"range": "bytes=1-3"}).content == b"PDF"
    for passed_over in (
        "items=0-1",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=x-y",
        "bytes=3-1",
        "bytes=0-0,2-2",
    ):  # RFC 9110 14.2
        whole = get("GET", headers={"range": passed_over})
        assert (whole.status_code, whole.content) == (200, b"%PDF-1.7"), passed_over
    for behind in ("bytes=8-", "bytes=9-12", "bytes=-0"):
        refused = get("GET", headers={"range": behind})
        assert (refused.status_code, refused.json()["code"], refused.headers["content-range"]) == (
            416,
            416,
            "bytes */8",
        )
        for name in ("cache-control", "x-content-type-options"):
            assert refused.headers[name] == answer.headers[name]
        stale = get("GET", headers={"range": behind, "if-range": '"another"'})
        assert (stale.status_code, stale.content) == (200, b"%PDF-1.7")
    same = get("GET", headers={"range": "bytes=-3", "if-range": answer.headers["etag"]})
    assert (same.status_code, same.content, same.headers["content-range"]) == (206, b"1.7", "bytes 5-7/8")
    head = get("HEAD")
    assert (head.content, head.headers["content-length"]) == (b"", "8")


def test_an_attachment_that_cannot_be_fetched(stored: FakeEngine) -> None:
    stored.fail["attachment"] = QuorumError("too few stripes", {})
    answer = ask(stored, "GET", f"{FILE}?email_id={GUID.hex()}&attachment_id=1")
    assert (answer.status_code, answer.json()["detail"]) == (500, "download_error")


@pytest.mark.parametrize("name", ['a"b.txt', "a\r\nSet-Cookie: x", "../../etc/passwd", "", "a;b'c%d.txt", "漢字.txt"])
def test_no_name_breaks_out_of_its_header(name: str) -> None:
    header = disposition(name)
    header.encode("ascii")
    assert "\r" not in header
    assert "\n" not in header
    assert header.count('"') == 2
    plain, exact = header.removeprefix('attachment; filename="').split("\"; filename*=UTF-8''")
    assert "/" not in plain
    assert "/" not in exact
    assert unquote(exact) == name
