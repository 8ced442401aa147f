"""The calls of the interface's documents, letter for letter, against a running demo."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.flows.demo import Demo, running

UPLOAD = (
    "/api/qmail/net/messages/upload?body=QMail%20upload-only%20doc%20test%20from%20Client1%20%28no%20Tell%20will%20fire"
    "%29.&subject=Upload-only%20Doc%20Test&to=%40chariot.harbor.byte&duration=4"
)
OUTGOING = "E%3A%5CClient1%5CClient_Data%5CWallets%5CMail%5COutgoing%5C"
UPLOAD_FILES = (
    f"/api/qmail/net/messages/upload?email_file={OUTGOING}test1.qmail&attachment_file_path={OUTGOING}attachment1.pdf"
    f"&attachment_file_path={OUTGOING}attachment2.pdf&to=%40chariot.harbor.byte&subject=Upload%20File%20Doc%20Test"
    "&duration=4"
)
LEGACY = (
    "sender_id=16777216&sender_denomination=1&to=Sean%2316777216"
    "&email_file=E%3A%5CClient_Data%5Coutbox%5Cmessage.qmail&duration=4"
)
LEGACY_FILES = (
    "sender_id=16777216&sender_denomination=1&to=Sean%2316777216,Bob%239876543&cc=Alice%235555555"
    "&email_file=E%3A%5CClient_Data%5Coutbox%5Cmessage.qmail"
    "&attachments=E%3A%5Cfiles%5Cphoto.jpg,E%3A%5Cfiles%5Cdoc.pdf&duration=8"
)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


@pytest.mark.parametrize(("call", "objects"), [(UPLOAD, 2), (UPLOAD_FILES, 4)])
def test_upload_then_tell_then_download(demo: Demo, call: str, objects: int) -> None:
    second = f"http://127.0.0.1:{demo.base + 1}"  # the documents' uploads go to the second port
    started = demo.get(f"{second}{call}")
    assert started["success"] is True
    assert started["command"] == "qmail-upload"
    assert started["duration"] == 4
    assert started["url"] == f"/api/system/tasks?id={quote(started['task_id'])}"
    task = demo.task(started["task_id"], api=second)
    assert (task["status"], task["progress"], task["message"]) == ("success", 100, "Upload completed; Tell pending")
    data = task["data"]
    assert (data["upload_successes"], data["upload_failures"]) == (25, 0)
    guid = started["file_guid"]
    assert data["file_guid"] == guid
    receipt = demo.get(f"{second}/api/qmail/receipts?guid={guid}")
    assert len(receipt["upload"]["files"]) == objects
    assert receipt["tell"]["status"] == "not_started"
    told = demo.get(f"{second}/api/qmail/net/messages/tell?file_guid={guid}")
    assert demo.task(told["task_id"], api=second)["data"]["all_accepted"] is True
    demo.get(f"{demo.bob}/api/qmail/net/beacon/peek")
    mail = demo.get(f"{demo.bob}/api/qmail/net/messages/download?file_guid={guid}")
    assert mail["message"] == "Email downloaded and stored"
    assert mail["sender_sn"] == 1048576
    assert len(mail["attachments"]) == objects - 2


@pytest.mark.parametrize(("body", "files", "people", "weeks"), [(LEGACY, 1, 1, 4), (LEGACY_FILES, 3, 3, 8)])
def test_the_synchronous_upload(demo: Demo, body: str, files: int, people: int, weeks: int) -> None:
    answer = demo.http.post(f"{demo.alice}/api/qmail/upload", content=body, headers=FORM)
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert result["status"] == "success"
    assert result["success"] is True
    assert result["operation"] == "upload"
    assert result["message"] == "Upload completed successfully"
    assert result["files_uploaded"] == files
    assert result["storage_cost_cc"] == 25 * files
    assert result["inbox_cost_cc"] == 10 * people
    assert result["total_cost_cc"] == result["storage_cost_cc"] + result["inbox_cost_cc"]
    assert (result["upload_successes"], result["upload_failures"]) == (25 * files, 0)
    assert result["tell_success"] is True
    assert result["duration_weeks"] == weeks


def test_a_download_without_tell_needs_the_sender(demo: Demo) -> None:
    started = demo.get(f"{demo.alice}{UPLOAD}")
    demo.task(started["task_id"])
    guid = started["file_guid"]
    call = f"{demo.bob}/api/qmail/net/messages/download?file_guid={guid}"
    assert demo.http.get(call).status_code == 404
    mail = demo.get(f"{call}&sender_sn=1048576")
    assert mail["subject"] == "Upload-only Doc Test"
    assert mail["body"] == "QMail upload-only doc test from Client1 (no Tell will fire)."
