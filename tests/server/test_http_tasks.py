"""Tasks, receipts, identity, wallets, repair."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmail_core.model import Draft, TaskState
from tests.server.fake_engine import GUID, FakeEngine, ask, assert_contains_in_order, receipt_of

TASKS = "/api/system/tasks"


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", ["id", "task_id"])
def test_a_finished_task_in_both_shapes(engine: FakeEngine, method: str, name: str) -> None:
    data = {
        "file_guid": GUID.hex(),
        "upload_successes": 25,
        "upload_failures": 0,
        "used_sync_fallback": False,
        "low_balance_warning": False,
    }
    text = "Upload completed; Tell pending"
    engine.tasks["task_5a91c802"] = TaskState(
        id="task_5a91c802", status="success", progress=100, message=text, data=data, started_at=10.0, finished_at=10.812
    )
    example = {"status": "success", "task_id": "task_5a91c802", "progress": 100, "message": text, "data": data}
    body = ask(engine, method, f"{TASKS}?{name}=task_5a91c802").json()
    assert_contains_in_order(body, example)
    assert {key: body[key] for key in example} == example
    assert body == {
        **example,
        "success": True,
        "command": "task-status",
        "id": "task_5a91c802",
        "payload": {
            "id": "task_5a91c802",
            "status": "success",
            "progress": 100,
            "message": text,
            "data": data,
            "elapsed_ms": 812,
        },
    }


@pytest.mark.parametrize("status", ["running", "failed"])
def test_the_top_level_status_is_that_of_the_task(engine: FakeEngine, status: str) -> None:
    engine.tasks["t"] = TaskState(id="t", status=status, progress=47, message="File 1/2", started_at=1.0)
    answer = ask(engine, "GET", f"{TASKS}?id=t")
    body = answer.json()
    assert answer.status_code == 200
    assert (body["status"], body["payload"]["status"], body["data"]) == (status, status, None)
    assert body["payload"]["elapsed_ms"] > 0


def test_refusals_of_tasks(engine: FakeEngine) -> None:
    missing, unknown = ask(engine, "GET", TASKS), ask(engine, "GET", f"{TASKS}?id=task_0")
    assert (missing.status_code, missing.json()["message"]) == (400, "Missing required parameter: id")
    assert (unknown.status_code, unknown.json()["message"]) == (404, "Task not found")


@pytest.mark.parametrize("name", ["guid", "file_guid"])
def test_a_receipt_is_the_whole_answer(engine: FakeEngine, name: str) -> None:
    engine.receipts[GUID] = receipt_of(GUID, Draft())
    body = ask(engine, "GET", f"/api/qmail/receipts?{name}={GUID.hex().upper()}").json()
    keys = ["version", "file_guid", "request_id", "created_at", "updated_at", "wallet_path", "sender", "upload", "tell"]
    assert list(body) == keys
    assert body["upload"]["survives_loss_of"] == 0


def test_refusals_of_receipts(engine: FakeEngine) -> None:
    path = "/api/qmail/receipts"
    answers = [ask(engine, "GET", f"{path}{query}") for query in ("", "?guid=1", f"?guid={GUID.hex()}")]
    assert [(answer.status_code, answer.json()["message"]) for answer in answers] == [
        (400, "Missing required parameter: guid"),
        (400, "Invalid guid format (expected 32 hex chars)"),
        (404, "Receipt not found for that file_guid"),
    ]


def test_identity(engine: FakeEngine) -> None:
    body = ask(engine, "GET", "/api/qmail/local/identity/get").json()
    example = {
        "command": "identity",
        "success": True,
        "registered": True,
        "address": "16.0.0@byte",
        "serial_number": 1048576,
        "denomination": 1,
        "display_name": "SN#1048576",
        "first_name": "",
        "last_name": "",
        "description": "",
        "class_name": "byte",
        "class": "byte",
        "beacon_raida": 11,
    }
    assert_contains_in_order(body, example)
    assert {name: body[name] for name in example} == example
    assert ask(engine, "GET", "/api/qmail/local/identity/whoami").json()["command"] == "whoami"


def test_the_locker_pool(engine: FakeEngine) -> None:
    path = "/api/qmail/local/locker-pool/status"
    example = {
        "command": "locker-pool",
        "success": True,
        "upload_available": 50,
        "inbox_fee_available": 4,
        "wallet_balance": 320,
        "low_balance": False,
    }
    body = ask(engine, "GET", path).json()
    assert_contains_in_order(body, example)
    assert {name: body[name] for name in example} == example
    refused = [ask(engine, "GET", f"{path}?wallet_path={wallet}") for wallet in ("%3F", "none")]
    assert [(answer.status_code, answer.json()["message"]) for answer in refused] == [
        (400, "Invalid wallet_path"),
        (404, "Wallet not found"),
    ]


def test_wallets(engine: FakeEngine) -> None:
    body = ask(engine, "GET", "/api/wallets/list").json()
    assert (body["command"], body["count"]) == ("wallet-list", 2)
    assert [row["wallet_name"] for row in body["wallets"]] == ["Default", "Mail"]


def test_repair(engine: FakeEngine) -> None:
    body = ask(engine, "POST", "/api/qmail/raida/repair", data={"file_guid": GUID.hex()}).json()
    assert (body["checked"], body["rebuilt"], body["unreachable"], body["survives_loss_of"]) == (25, 2, [7], 4)
