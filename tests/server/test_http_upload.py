"""Upload, tell, upload_and_tell: parameters, order of checks, documented texts and shapes (seed 001)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmail_core.errors import Conflict, NotFound, PaymentError
from qmail_core.model import Draft, Durability, Kind
from tests.server.fake_engine import BOB, GUID, FakeEngine, ask, assert_contains_in_order, receipt_of

UPLOAD = "/api/qmail/net/messages/upload"
BOTH = "/api/qmail/net/messages/upload_and_tell"
SEND = "/api/qmail/net/messages/send"
TELL = "/api/qmail/net/messages/tell"
HINT = " — poll /api/system/tasks for status, or GET /api/qmail/receipts?guid=... for receipt detail"

EXAMPLE = {
    "success": True,
    "command": "qmail-upload",
    "task_id": "task_5a91c802",
    "url": "/api/system/tasks?id=task_5a91c802",
    "file_guid": "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6",
    "duration": 4,
    "message": "Upload started (no Tell)" + HINT,
}


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    found = FakeEngine(tmp_path)
    (tmp_path / "body.txt").write_text("Dear all")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "large.txt").write_bytes(b"x" * 1_000_001)
    (tmp_path / "mail.qmail").write_bytes(b"CBDF")
    (tmp_path / "a,b.pdf").write_bytes(b"PDF")
    return found


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_documented_upload(engine: FakeEngine, method: str) -> None:
    fields = {"body": "QMail upload-only doc test", "subject": "Doc", "to": "@chariot.harbor.byte", "duration": "4"}
    answer = ask(engine, method, UPLOAD, **({"params": fields} if method == "GET" else {"data": fields}))
    assert answer.status_code == 200
    body = answer.json()
    assert_contains_in_order(body, EXAMPLE)
    assert {name: body[name] for name in EXAMPLE} == EXAMPLE
    assert set(body) == {*EXAMPLE, "status", "request_id"}
    assert body["status"] == "success"
    assert body["request_id"] == answer.headers["x-request-id"]
    (draft,) = engine.drafts
    assert (draft.subject, draft.body, draft.document) == ("Doc", "QMail upload-only doc test", None)
    assert [(r.kind, r.text, r.address) for r in draft.recipients] == [(Kind.TO, "@chariot.harbor.byte", BOB)]
    assert (draft.duration_weeks, draft.wallet, draft.durability) == (4, "Default", Durability.SAFE)


def test_all_recipient_fields_and_attachment_forms(engine: FakeEngine) -> None:
    query = (
        "to=a%23b,c%23d&To=e%23f&cc=g%23h&bc=i%23j&body=x&attachment_file_path=a,b.pdf&attachment_file_path=body.txt"
    )
    assert ask(engine, "GET", f"{BOTH}?{query}&attachments=never.used").status_code == 200
    (draft,) = engine.drafts
    kinds = [(r.kind.value, r.text) for r in draft.recipients]
    assert kinds == [("to", "a#b"), ("to", "c#d"), ("to", "e#f"), ("cc", "g#h"), ("bcc", "i#j")]
    assert [source.name for source in draft.attachments] == ["a,b.pdf", "body.txt"]
    assert ask(engine, "GET", f"{UPLOAD}?body=x&attachments=body.txt;mail.qmail").status_code == 200
    assert [source.name for source in engine.drafts[1].attachments] == ["body.txt", "mail.qmail"]


def test_bodies_from_files(engine: FakeEngine) -> None:
    assert ask(engine, "GET", f"{UPLOAD}?plain_text_qmail_path=body.txt").status_code == 200
    assert ask(engine, "GET", f"{UPLOAD}?email_file=mail.qmail").status_code == 200
    assert [(draft.body, draft.document) for draft in engine.drafts] == [("Dear all", None), (None, b"CBDF")]


def test_attachments_that_come_with_the_request(engine: FakeEngine) -> None:
    files = [("attachment", ("../x.bin", b"\0\1")), ("attachment", ("y.txt", b"why"))]
    data = {"to": ["a#b", "c#d"], "body": "x"}
    assert ask(engine, "POST", BOTH, data=data, files=files).status_code == 200
    (draft,) = engine.drafts
    assert [source.name for source in draft.attachments] == ["x.bin", "y.txt"]
    assert all(source.spooled for source in draft.attachments)
    assert [Path(source.path).read_bytes() for source in draft.attachments] == [b"\0\1", b"why"]
    assert draft.guid == GUID
    assert GUID.hex() in draft.attachments[0].path


def test_attachments_of_a_refused_request_are_removed(engine: FakeEngine) -> None:
    files = [("attachment", ("x.bin", b"x"))]
    assert ask(engine, "POST", UPLOAD, data={"body": "x", "to": "nobody"}, files=files).status_code == 400
    engine.fail["start_upload"] = PaymentError("Insufficient balance", needed=45, available=12)
    assert ask(engine, "POST", UPLOAD, data={"body": "x"}, files=files).status_code == 402
    assert engine.spooled() == []
    cut = b'--X\r\nContent-Disposition: form-data; name="attachment"; filename="a"\r\n\r\nhalf'
    headers = {"content-type": "multipart/form-data; boundary=X"}
    assert ask(engine, "POST", UPLOAD, content=cut, headers=headers).status_code == 400
    assert engine.spooled() == []
    assert ask(engine, "POST", TELL, files=files).json()["message"] == 'Unexpected file part "attachment"'


def test_attachments_are_spooled_under_the_guid_of_their_mail(engine: FakeEngine) -> None:
    guid = "5d0e7a1c9b8f42d3a6e07714c2bb9f10"
    files = [("attachment", ("x.bin", b"x"))]
    assert ask(engine, "POST", UPLOAD, data={"body": "x", "file_guid": guid}, files=files).status_code == 200
    assert guid in engine.drafts[0].attachments[0].path
    # a second mail of that guid must not touch the first one's files
    again = ask(engine, "POST", UPLOAD, data={"body": "x", "file_guid": guid}, files=files)
    assert (again.status_code, len(engine.spooled())) == (409, 1)
    late = [("attachment", ("x.bin", b"x")), ("body", (None, "x")), ("file_guid", (None, "0" * 32))]
    answer = ask(engine, "POST", UPLOAD, files=late)
    assert (answer.status_code, answer.json()["message"]) == (400, "file_guid must come before the attachments")
    assert len(engine.spooled()) == 1


@pytest.mark.parametrize(
    ("given", "applied"), [("", 4), ("0", 1), ("-3", 1), ("520", 520), ("521", 520), ("999999999999", 520)]
)
def test_duration_is_clamped(engine: FakeEngine, given: str, applied: int) -> None:
    assert ask(engine, "GET", f"{UPLOAD}?body=x&duration={given}").json()["duration"] == applied
    assert engine.drafts[0].duration_weeks == applied


def test_send_is_an_alias_with_its_older_parameter(engine: FakeEngine) -> None:
    body = ask(engine, "POST", SEND, data={"to": "a#b", "body": "x", "storage_weeks": "8"}).json()
    assert body["command"] == "qmail-upload-and-tell"
    assert body["duration"] == 8
    assert body["message"] == "Upload+Tell started" + HINT


def test_a_given_guid_is_used_in_lower_case(engine: FakeEngine) -> None:
    guid = "5D0E7A1C9B8F42D3A6E07714C2BB9F10"
    assert ask(engine, "GET", f"{UPLOAD}?body=x&file_guid={guid}").json()["file_guid"] == guid.lower()


def test_a_chosen_durability(engine: FakeEngine) -> None:
    ask(engine, "GET", f"{UPLOAD}?body=x&durability=full")
    assert engine.drafts[0].durability is Durability.FULL


MANY = "&".join(f"to=a%23{n}" for n in range(51))


@pytest.mark.parametrize(("body", "expected"), [("x" * 1_000_000, 200), ("x" * 1_000_001, 400), ("é" * 500_001, 400)])
def test_a_body_has_the_size_of_a_body_file(engine: FakeEngine, body: str, expected: int) -> None:
    answer = ask(engine, "POST", UPLOAD, data={"body": body})
    assert answer.status_code == expected
    assert expected == 200 or answer.json()["message"] == "body is too large (max 1 MB)"


def test_a_repeated_idempotency_key_is_refused(engine: FakeEngine) -> None:
    for keys in (("a", "b"), ("a", "a")):
        headers = [("Idempotency-Key", key) for key in keys]
        answer = ask(engine, "POST", UPLOAD, data={"body": "x"}, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["message"] == "Idempotency-Key stands in more than one header"
    assert not engine.drafts


PATHS = "attachments=" + ",".join(["body.txt"] * 245)
NO_BODY = "Missing body source: supply one of body, plain_text_qmail_path, or email_file"
EXCLUSIVE = "body, plain_text_qmail_path and email_file are mutually exclusive"


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("", 400, NO_BODY),
        ("body=", 400, NO_BODY),
        ("body=x&email_file=mail.qmail", 400, EXCLUSIVE),
        ("body=x&plain_text_qmail_path=body.txt&file_guid=bad", 400, EXCLUSIVE),
        ("body=x&file_guid=a1b2", 400, "Invalid file_guid format (expected 32 hex chars)"),
        ("body=x&file_guid=" + "g" * 32, 400, "Invalid file_guid format (expected 32 hex chars)"),
        (f"body=x&{MANY}&cc=bad", 400, "Recipient list too long"),
        (f"body=x&{MANY.replace('to=', 'cc=')}", 400, "CC list too long"),
        (f"body=x&{MANY.replace('to=', 'bcc=')}", 400, "BCC list too long"),
        ("body=x&to=x&wallet=%3F", 400, "Invalid To address \"x\": Missing domain separator '#'."),
        ("body=x&cc=x", 400, "Invalid Cc address \"x\": Missing domain separator '#'."),
        ("body=x&bcc=x", 400, "Invalid Bcc address \"x\": Missing domain separator '#'."),
        ("body=x&wallet_path=%3F&attachments=none", 400, "Invalid wallet_path"),
        ("body=x&wallet=none", 404, "Wallet not found"),
        ("body=x&attachment_file_path=no.pdf", 400, "Attachment not found or not readable: no.pdf"),
        ("body=x&attachment_file_path=../../etc/passwd", 400, "Attachment not found or not readable: ../../etc/passwd"),
        ("body=x&attachment_file_path=" + "x" * 4097, 400, "Attachment path is too long"),
        (f"body=x&{PATHS}", 400, "Too many attachments: maximum is 244"),
        ("email_file=no&attachments=none", 400, "Attachment not found or not readable: none"),
        ("email_file=no", 400, "email_file not found or not readable"),
        ("email_file=empty.txt", 400, "email_file is empty or too large (max 8 MB)"),
        ("plain_text_qmail_path=no", 400, "plain_text_qmail_path not found or not readable"),
        ("plain_text_qmail_path=empty.txt", 400, "plain_text_qmail_path is empty or too large (max 1 MB)"),
        ("plain_text_qmail_path=large.txt", 400, "plain_text_qmail_path is empty or too large (max 1 MB)"),
        ("plain_text_qmail_path=latin.txt", 400, "plain_text_qmail_path is not UTF-8 text"),
        ("body=x&duration=soon", 400, "Invalid duration (must be an integer)"),
        ("body=x&duration=4.5", 400, "Invalid duration (must be an integer)"),
        ("body=x&durability=none", 400, "Invalid durability (fast, safe or full)"),
        ("&".join(["to=a"] * 301), 413, "Too many request parameters"),
    ],
)
def test_refusals(engine: FakeEngine, query: str, status: int, message: str) -> None:
    answer = ask(engine, "POST", UPLOAD, content=query, headers={"content-type": "application/x-www-form-urlencoded"})
    body = answer.json()
    assert (answer.status_code, body["message"]) == (status, message)
    assert_contains_in_order(body, {"error": True, "message": message, "code": status})
    assert body["error_code"] == status
    assert engine.drafts == []


def test_a_guid_that_has_a_receipt_conflicts(engine: FakeEngine) -> None:
    engine.receipts[GUID] = receipt_of(GUID, Draft())
    answer = ask(engine, "GET", f"{UPLOAD}?body=x&to=bad&file_guid={GUID.hex()}")
    assert (answer.status_code, answer.json()["message"]) == (409, "A receipt already exists for that file_guid")


def test_upload_and_tell_needs_a_recipient(engine: FakeEngine) -> None:
    answer = ask(engine, "GET", f"{BOTH}?body=x&to=%20,")
    assert (answer.status_code, answer.json()["message"]) == (400, "At least one recipient required (to/cc/bcc)")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_tell(engine: FakeEngine, method: str) -> None:
    answer = ask(engine, method, f"{TELL}?file_guid={GUID.hex().upper()}")
    body = answer.json()
    example: dict[str, Any] = {
        "success": True,
        "command": "qmail-tell",
        "request_id": answer.headers["x-request-id"],
        "task_id": "task_1b9d03ee",
        "url": "/api/system/tasks?id=task_1b9d03ee",
        "file_guid": GUID.hex(),
        "recipient_count": 2,
        "receipt_recipient_count": 3,
        "message": "Tell started" + HINT,
    }
    assert_contains_in_order(body, example)
    assert body == {**example, "status": "success"}
    assert engine.tells == [GUID]


def test_refusals_of_tell(engine: FakeEngine) -> None:
    def message(query: str) -> tuple[int, str]:
        answer = ask(engine, "GET", f"{TELL}?{query}")
        return answer.status_code, answer.json()["message"]

    guid = f"file_guid={GUID.hex()}"
    overridden = (409, "Recipient overrides are not allowed; recipients come from the receipt")
    assert message("") == (400, "Missing required parameter: file_guid")
    assert message("file_guid=1") == (400, "Invalid file_guid format (expected 32 hex chars)")
    assert [message(f"{guid}&{name}=a%23b") for name in ("to", "cc", "bc")] == [overridden] * 3
    engine.fail["start_tell"] = NotFound("Receipt not found for that file_guid")
    assert message(guid) == (404, "Receipt not found for that file_guid")
    engine.fail["start_tell"] = Conflict("Tell already complete for this email")
    assert message(guid) == (409, "Tell already complete for this email")
