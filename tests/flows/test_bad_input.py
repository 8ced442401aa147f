"""Bad input against a running demo: the documented error, and nothing half-written left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.flows.demo import Demo, running

UPLOAD = "/api/qmail/net/messages/upload"
LEGACY = "/api/qmail/upload"
BOB = "@chariot.harbor.byte"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running(tmp_path_factory.mktemp("demo")) as demo:
        (demo.data / "alice" / "Wallets" / "Empty").mkdir()
        yield demo


@pytest.fixture
def spends() -> None:
    """Asked for by tests whose requests reach servers, which take their fee whatever becomes of the mail."""


@pytest.fixture(autouse=True)
def nothing_left(demo: Demo, request: pytest.FixtureRequest) -> Iterator[None]:
    """No test may leave a spooled file or a half-written receipt, and none may lose money by being refused."""
    before = state(demo)
    yield
    after = state(demo)
    assert after["spool"] == []
    assert after["halves"] == []
    if "spends" not in request.fixturenames:
        assert after["money"] == before["money"]


def state(demo: Demo) -> dict[str, Any]:
    """What a failed request must not change."""
    alice = demo.data / "alice"
    pool = demo.get(f"{demo.alice}/api/qmail/local/locker-pool/status", wallet_path="Default")
    spool = alice / "Spool"
    return {
        "spool": [str(path) for path in spool.rglob("*") if path.is_file()] if spool.exists() else [],
        "halves": [path.name for path in alice.rglob("*") if path.suffix in (".new", ".part")],
        "money": pool["wallet_balance"] + pool["upload_available"] + 10 * pool["inbox_fee_available"],
    }


def refused(demo: Demo, path: str, status: int, message: str, **params: Any) -> dict[str, Any]:
    """The answer to GET and POST alike, which must be this error."""
    for answer in (
        demo.http.get(f"{demo.alice}{path}", params=params),
        demo.http.post(f"{demo.alice}{path}", data=params),
    ):
        assert answer.status_code == status, answer.text
        body: dict[str, Any] = answer.json()
        assert body["message"] == message
        assert body["error"] is True
        assert body["success"] is False
    return body


def test_no_body_source(demo: Demo) -> None:
    message = "Missing body source: supply one of body, plain_text_qmail_path, or email_file"
    body = refused(demo, UPLOAD, 400, message, subject="x")
    assert body["code"] == 400


def test_two_body_sources(demo: Demo) -> None:
    message = "body, plain_text_qmail_path and email_file are mutually exclusive"
    refused(demo, UPLOAD, 400, message, body="x", email_file="test1.qmail")


def test_a_guid_that_exists(demo: Demo) -> None:
    guid = os.urandom(16).hex()
    started = demo.get(f"{demo.alice}{UPLOAD}", body="x", file_guid=guid.upper(), wallet="Empty")
    assert started["file_guid"] == guid
    refused(demo, UPLOAD, 409, "A receipt already exists for that file_guid", body="x", file_guid=guid)
    demo.task(started["task_id"])


def test_a_malformed_guid(demo: Demo) -> None:
    refused(demo, UPLOAD, 400, "Invalid file_guid format (expected 32 hex chars)", body="x", file_guid="12")


@pytest.mark.parametrize("path", ["/etc/passwd", "nowhere.txt", "../../store.sqlite", "/proc/self/environ"])
def test_an_unreadable_or_outside_path(demo: Demo, path: str) -> None:
    message = "plain_text_qmail_path not found or not readable"
    refused(demo, UPLOAD, 400, message, plain_text_qmail_path=path)
    refused(demo, UPLOAD, 400, "email_file not found or not readable", email_file=path)
    message = f"Attachment not found or not readable: {path}"
    refused(demo, UPLOAD, 400, message, body="x", attachment_file_path=path)


@pytest.mark.parametrize(("field", "name"), [("to", "Recipient"), ("cc", "CC"), ("bcc", "BCC")])
def test_fifty_one_recipients(demo: Demo, field: str, name: str) -> None:
    many = [f"1.{i}@byte" for i in range(51)]
    refused(demo, UPLOAD, 400, f"{name} list too long", body="x", **{field: many})


def test_a_malformed_address(demo: Demo) -> None:
    message = "Invalid To address \"billy.jenkins@hotdog\": Missing domain separator '#'."
    refused(demo, UPLOAD, 400, message, body="x", to="billy.jenkins@hotdog")
    body = refused(
        demo,
        LEGACY,
        422,
        "Invalid QMail address: billy.jenkins@hotdog. Missing domain separator '#'.",
        to="billy.jenkins@hotdog",
        email_file="test1.qmail",
    )
    assert body["error_code"] == 422
    assert body["operation"] == "upload"


def test_unknown_guids(demo: Demo) -> None:
    guid = "00" * 16
    refused(demo, "/api/qmail/receipts", 404, "Receipt not found for that file_guid", guid=guid)
    refused(demo, "/api/qmail/net/messages/tell", 404, "Receipt not found for that file_guid", file_guid=guid)
    message = "No pending tell found for this file_guid. Pass sender_sn to download directly."
    refused(demo, "/api/qmail/net/messages/download", 404, message, file_guid=guid)
    refused(demo, "/api/system/tasks", 404, "Task not found", id="task_00000000")
    refused(demo, "/api/qmail/db/messages/get", 404, "Email not found", email_id=guid)


@pytest.mark.parametrize(("asked", "kept"), [("0", 1), ("100000", 520), ("-3", 1), ("520", 520)])
def test_a_duration_is_clamped(demo: Demo, asked: str, kept: int) -> None:
    started = demo.get(f"{demo.alice}{UPLOAD}", body="x", duration=asked, wallet="Empty")
    assert started["duration"] == kept
    demo.task(started["task_id"])


def test_a_body_file_of_a_megabyte_and_one_byte(demo: Demo) -> None:
    outgoing = demo.data / "alice" / "Wallets" / "Mail" / "Outgoing"
    (outgoing / "large.txt").write_text("x" * 1_000_001)
    (outgoing / "nothing.txt").write_text("")
    message = "plain_text_qmail_path is empty or too large (max 1 MB)"
    refused(demo, UPLOAD, 400, message, plain_text_qmail_path="large.txt")
    refused(demo, UPLOAD, 400, message, plain_text_qmail_path="nothing.txt")


def test_an_empty_wallet(demo: Demo) -> None:
    body = refused(
        demo,
        LEGACY,
        402,
        "Insufficient balance: need 35 CC (25 storage + 10 inbox), wallet has 0 CC",
        to=BOB,
        email_file="test1.qmail",
        wallet_path="Empty",
    )
    assert body["error_code"] == 402
    started = demo.get(f"{demo.alice}{UPLOAD}", body="x", wallet="Empty")
    task = demo.task(started["task_id"])
    assert task["status"] == "failed"
    assert "Failed to acquire funded locker codes from pool" in task["message"]
    receipt = demo.get(f"{demo.alice}/api/qmail/receipts", guid=started["file_guid"])
    assert receipt["upload"]["status"] == "failed"
    assert receipt["upload"]["files"] == []


def test_wallets_that_do_not_exist(demo: Demo) -> None:
    refused(demo, UPLOAD, 404, "Wallet not found", body="x", wallet="Nowhere")
    refused(demo, UPLOAD, 400, "Invalid wallet_path", body="x", wallet="..")


def test_a_corrupted_document_is_refused(demo: Demo) -> None:
    outgoing = demo.data / "alice" / "Wallets" / "Mail" / "Outgoing"
    (outgoing / "broken.qmail").write_bytes(b"\xff\xff\x01\xffnonsense")
    answer = demo.http.get(f"{demo.alice}{UPLOAD}", params={"email_file": "broken.qmail"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["message"].startswith("email_file is not a QMail document: ")


def test_a_mail_to_a_mailbox_nobody_has(demo: Demo, spends: None) -> None:
    answer = demo.http.post(f"{demo.alice}{LEGACY}", data={"to": "1.2.3@giga", "email_file": "test1.qmail"})
    assert answer.status_code == 502, answer.text
    body = answer.json()
    assert body["message"] == ("Files uploaded but recipient notification failed. Recipients will not see this email.")
    assert body["files_uploaded"] == 1
    receipt = demo.get(f"{demo.alice}/api/qmail/receipts", guid=body["file_guid"])
    assert receipt["tell"]["status"] == "failed"


@pytest.fixture
def nineteen_servers(demo: Demo) -> Iterator[None]:
    for node in range(6):
        demo.node(node, "down")
    yield
    for node in range(6):
        demo.node(node, "up")


def test_too_few_servers(demo: Demo, nineteen_servers: None, spends: None) -> None:
    answer = demo.http.post(f"{demo.alice}{LEGACY}", data={"to": BOB, "email_file": "test1.qmail"})
    assert answer.status_code == 503, answer.text
    body = answer.json()
    assert body["message"] == "Upload failed: only 19 of 25 stripes succeeded for email"
    assert (body["files_completed"], body["files_failed"]) == (0, 1)
    assert body["status"] == "fail"
    started = demo.send(body="x", to=BOB)
    task = demo.task(started["task_id"])
    assert task["status"] == "failed"
    assert task["message"].startswith("Upload failed: only 19 of 25 stripes")


def test_too_few_good_stripes_to_download_and_a_later_try(demo: Demo, spends: None) -> None:
    started = demo.send(body="patience", to=BOB)
    assert demo.task(started["task_id"])["status"] == "success"
    guid = started["file_guid"]
    demo.get(f"{demo.bob}/api/qmail/net/beacon/peek")
    for node in range(6):
        demo.node(node, "corrupt" if node % 2 else "down")
    try:
        answer = demo.http.get(f"{demo.bob}/api/qmail/net/messages/download", params={"file_guid": guid})
        assert answer.status_code == 500, answer.text
        body = answer.json()
        assert body["message"] == "Download failed"
        assert body["detail"] == "download_error"
        inbox = demo.get(f"{demo.bob}/api/qmail/db/messages/list")
        assert guid not in [row["email_id"] for row in inbox["emails"]]
    finally:
        for node in range(6):
            demo.node(node, "up")
    again = demo.get(f"{demo.bob}/api/qmail/net/messages/download", file_guid=guid)
    assert again["body"] == "patience"


def test_foreign_pages_and_hosts_are_kept_out(demo: Demo) -> None:
    url = f"{demo.alice}{UPLOAD}"
    for headers, status in (
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ):
        assert demo.http.get(url, params={"body": "x"}, headers=headers).status_code == status


def test_demo_nodes_refuse_nonsense(demo: Demo) -> None:
    assert demo.http.post(f"{demo.alice}/api/demo/nodes/25", data={"state": "up"}).status_code == 404
    answer = demo.http.post(f"{demo.alice}/api/demo/nodes/3", data={"state": "sideways"})
    assert answer.status_code == 400
    assert len(demo.get(f"{demo.alice}/api/demo/nodes")["nodes"]) == 25
