"""The synchronous upload and the flat aliases (seed 002)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmail_core.errors import PaymentError, QMailError, QuorumError, TellError, TransportError
from tests.server.fake_engine import GUID, FakeEngine, ask, assert_contains_in_order, mail

UPLOAD = "/api/qmail/upload"
FIELDS = {"to": "a#1,b#2", "cc": "c#3", "email_file": "msg001.qmail", "attachments": "photo.jpg,doc.pdf"}
QUERY = "to=a%231&email_file=msg001.qmail"

SUCCESS = {
    "status": "success",
    "operation": "upload",
    "message": "Upload completed successfully",
    "file_guid": "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6",
    "files_uploaded": 3,
    "total_cost_cc": 45,
    "storage_cost_cc": 15,
    "inbox_cost_cc": 30,
    "upload_successes": 15,
    "upload_failures": 0,
    "tell_success": True,
    "duration_weeks": 4,
}


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    for name in ("msg001.qmail", "photo.jpg", "doc.pdf"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.qmail").touch()
    return FakeEngine(tmp_path)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_documented_success(engine: FakeEngine, method: str) -> None:
    fields = {**FIELDS, "duration": "4", "sender_id": "16777216", "sender_denomination": "1"}
    answer = ask(engine, method, UPLOAD, **({"params": fields} if method == "GET" else {"data": fields}))
    assert answer.status_code == 200
    assert_contains_in_order(answer.json(), SUCCESS)
    assert answer.json() == {**SUCCESS, "success": True}
    assert engine.drafts[0].document == b"x"


def test_the_spellings_of_the_page(engine: FakeEngine) -> None:
    query = "To=a%231&to=b%232&bc=c%233&email_file=msg001.qmail&attachment=doc.pdf&attachement=photo.jpg"
    body = ask(engine, "GET", f"{UPLOAD}?{query}").json()
    assert body["duration_weeks"] == 35
    (draft,) = engine.drafts
    assert [r.kind.value for r in draft.recipients] == ["to", "to", "bcc"]
    assert [source.name for source in draft.attachments] == ["doc.pdf", "photo.jpg"]


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("", 400, "Missing required parameter: to"),
        ("to=a%231", 400, "Missing required parameter: email_file"),
        ("to=a%231&email_file=E:%5Coutbox%5Cmsg001.qmail", 404, "Email file not found: E:\\outbox\\msg001.qmail"),
        ("to=a%231&email_file=empty.qmail", 400, "email_file is empty or too large (max 8 MB)"),
        (f"{QUERY}&attachments=no.pdf", 404, "Attachment file not found: no.pdf"),
        (
            "to=billy.jenkins@hotdog&email_file=none",
            422,
            "Invalid QMail address: billy.jenkins@hotdog. Missing domain separator '#'.",
        ),
        (f"{QUERY}&duration=x", 400, "Invalid duration (must be an integer)"),
        (f"{QUERY}&{'&'.join(['a=1'] * 299)}", 413, "Too many request parameters"),
    ],
)
def test_the_documented_refusals(engine: FakeEngine, query: str, code: int, message: str) -> None:
    answer = ask(engine, "GET", f"{UPLOAD}?{query}")
    example = {"status": "fail", "operation": "upload", "error_code": code, "message": message}
    assert answer.status_code == code
    assert_contains_in_order(answer.json(), example)
    assert answer.json() == {
        **example,
        "success": False,
        "error": True,
        "code": code,
        "request_id": answer.headers["x-request-id"],
    }


def quorum() -> QuorumError:
    error = QuorumError("Upload failed: only 2 of 5 stripes succeeded for attachment 1", {})
    error.guid, error.files_completed, error.files_failed = GUID, 1, 1
    return error


TOLD = "Files uploaded but recipient notification failed. Recipients will not see this email."


@pytest.mark.parametrize(
    ("error", "code", "message", "context"),
    [
        (
            PaymentError("any", needed=45, available=12),
            402,
            "Insufficient balance: need 45 CC (15 storage + 30 inbox), wallet has 12 CC",
            {},
        ),
        (
            quorum(),
            503,
            "Upload failed: only 2 of 5 stripes succeeded for attachment 1",
            {"file_guid": GUID.hex(), "files_completed": 1, "files_failed": 1},
        ),
        (TellError(TOLD, guid=GUID, files_uploaded=3), 502, TOLD, {"file_guid": GUID.hex(), "files_uploaded": 3}),
        (TransportError("no node answered"), 502, "no node answered", {}),
    ],
)
def test_the_documented_failures(
    engine: FakeEngine, error: QMailError, code: int, message: str, context: dict[str, Any]
) -> None:
    engine.fail["send"] = error
    answer = ask(engine, "POST", UPLOAD, data=FIELDS)
    example = {"status": "fail", "operation": "upload", "error_code": code, "message": message, **context}
    assert answer.status_code == code
    assert_contains_in_order(answer.json(), example)
    assert {name: answer.json()[name] for name in example} == example
    assert set(answer.json()) == {*example, "success", "error", "code", "request_id"}


@pytest.mark.parametrize(
    ("alias", "route"),
    [
        ("check", "net/beacon/peek"),
        ("poll?timeout=0", "net/beacon/ping?timeout=0"),
        (f"download?file_guid={GUID.hex()}", f"net/messages/download?file_guid={GUID.hex()}"),
        ("inbox", "db/messages/list"),
        (f"read?email_id={GUID.hex()}", f"db/messages/get?email_id={GUID.hex()}"),
    ],
)
def test_flat_aliases(engine: FakeEngine, alias: str, route: str) -> None:
    engine.stored[GUID] = mail()
    answers = [ask(engine, method, f"/api/qmail/{path}") for path in (alias, route) for method in ("GET", "POST")]
    assert {answer.status_code for answer in answers} == {200}
    own = {"request_id": "", "elapsed_ms": 0}
    bodies = [{**answer.json(), **own} for answer in answers]
    assert all(body == bodies[0] for body in bodies)
