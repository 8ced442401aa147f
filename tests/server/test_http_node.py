"""The `local` and `raida` buckets, payments, second thoughts and the routes around them, over a real engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from qmail_server.http.app import build_app

import qmail_core
from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.model import Address, Receipt
from tests.engine.test_payments import gift, paid_mail
from tests.server.fake_engine import BASE, OPEN

API = "/api/qmail"
GUID = "5d0e7a1c9b8f42d3a6e07714c2bb9f10"
Story = Callable[["Client"], Awaitable[None]]


class Client:
    """Bob's API without a socket; alice writes to him."""

    def __init__(self, cluster: Cluster, alice: Engine, bob: Engine, http: httpx.AsyncClient) -> None:
        self.cluster, self.alice, self.bob, self.http = cluster, alice, bob, http

    async def get(self, path: str, expected: int = 200, /, **params: Any) -> dict[str, Any]:
        return self._body(await self.http.get(path, params=params), expected)

    async def post(self, path: str, expected: int = 200, /, **request: Any) -> dict[str, Any]:
        return self._body(await self.http.post(path, **request), expected)

    @staticmethod
    def _body(answer: httpx.Response, expected: int) -> dict[str, Any]:
        assert answer.status_code == expected, answer.text
        body: dict[str, Any] = answer.json()
        assert body["success"] is (expected < 400)
        assert expected < 400 or body["code"] == body["error_code"] == expected
        return body

    async def done(self, started: dict[str, Any]) -> Receipt:
        await self.bob.wait(started["task_id"])
        return self.bob.receipt(bytes.fromhex(started["file_guid"]))


def over(story: Story, **config: Any) -> None:
    async def whole() -> None:
        async with Cluster(5) as cluster:
            alice, bob = await cluster.engine("alice"), await cluster.engine("bob", **config)
            transport = httpx.ASGITransport(build_app(bob, OPEN))
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
                await story(Client(cluster, alice, bob, http))

    asyncio.run(whole())


# ------------------------------------------------------------------------------------------------------------------
# Sending


def test_a_subject_that_would_be_cut_is_refused() -> None:
    async def story(api: Client) -> None:
        path, said = f"{API}/net/messages/upload_and_tell", {"body": "x", "to": "alice"}
        for subject in ("s" * 256, "é" * 128, "s" * 100_000):
            refused = await api.post(path, 400, data={"subject": subject, **said})
            assert refused["message"] == "subject is too long (max 255 bytes)"
        assert (await api.get(f"{API}/receipts/list"))["total"] == 0
        for subject in ("s" * 255, "é" * 127 + "s"):
            receipt = await api.done(await api.post(path, data={"subject": subject, **said}))
            assert receipt.upload.subject == subject
            (got,) = await api.alice.receive()
            assert got.message.subject == subject

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Payments


def test_a_payment_is_shown_claimed_and_not_claimed_again() -> None:
    async def story(api: Client) -> None:
        code = await gift(api.alice)
        email_id = (await paid_mail(api.alice, api.bob, code)).hex()
        shown = await api.get(f"{API}/db/payments/get", email_id=email_id)
        assert shown == {
            "command": "payments-get", "success": True, "status": "success", "email_id": email_id, "has_payment": True,
            "locker_code": code, "locker_code_hex": code.encode().hex().ljust(64, "0"), "payment_status": 0,
            "payment_status_text": "unclaimed", "can_retry": True,
        }  # fmt: skip
        mail = await api.get(f"{API}/db/messages/get", email_id=email_id)
        assert (mail["payment_status"], mail["payment_status_text"], mail["subsubject"]) == (0, "unclaimed", "")
        claimed = await api.post(f"{API}/raida/payments/claim", data={"email_id": email_id})
        assert (claimed["status"], claimed["coins_saved"], claimed["total_value"]) == ("claimed", 7, 7)
        again = await api.get(f"{API}/payment/claim", email_id=email_id)
        assert (again["status"], again["coins_found"]) == ("already_claimed", 0)
        shown = await api.get(f"{API}/payment", email_id=email_id)
        assert (shown["payment_status_text"], shown["can_retry"]) == ("claimed", False)
        mail = await api.get(f"{API}/db/messages/get", email_id=email_id)
        assert (mail["payment_status"], mail["payment_status_text"]) == (1, "claimed")

    over(story)


def test_a_payment_can_fail_and_be_refunded() -> None:
    async def story(api: Client) -> None:
        email_id = (await paid_mail(api.alice, api.bob, "EMPTY")).hex()
        failed = await api.get(f"{API}/raida/payments/claim", 500, email_id=email_id)
        assert failed["message"] == "Payment claim failed - locker may be empty or network error"
        assert (failed["raida_success"], failed["detail"]) == (False, "not_found")
        assert (await api.get(f"{API}/db/payments/get", email_id=email_id))["payment_status_text"] == "failed"
        for again in (False, True):
            noted = await api.get(f"{API}/db/payments/mark-refunded", email_id=email_id)
            assert (noted["status"], noted["payment_status"], noted["already_refunded"]) == ("refunded", 3, again)
        refused = await api.get(f"{API}/raida/payments/claim", 409, email_id=email_id)
        assert refused["message"] == "This payment was refunded"

    over(story)


def test_mail_without_payment_and_what_mails_cost() -> None:
    async def story(api: Client) -> None:
        email_id = (await paid_mail(api.alice, api.bob, "\0")).hex()
        shown = await api.get(f"{API}/db/payments/get", email_id=email_id)
        assert (shown["has_payment"], shown["message"]) == (False, "No recipient payment attached to this email")
        for path in ("raida/payments/claim", "db/payments/mark-refunded"):
            refused = await api.get(f"{API}/{path}", 400, email_id=email_id)
            assert refused["message"] == "No payment attached to this email"
        await api.bob.send(api.bob.draft(["alice"], "Costly", "Dear all"))
        (row,) = (await api.get(f"{API}/db/reports/sent-payments"))["emails"]
        assert (row["subject"], row["recipients"], row["body_preview"], row["total"]) == (
            "Costly", ["alice"], "Dear all", 15,
        )  # fmt: skip
        assert sorted((x["pool_type"], x["funded_amount"]) for x in row["lockers"]) == [(0, 1)] * 5 + [(1, 10)]
        assert (await api.get(f"{API}/db/reports/sent-payments", offset=1))["emails"] == []

    over(story)


def test_receipts_of_money_say_what_was_paid_and_hold_no_code() -> None:
    async def story(api: Client) -> None:
        path = "/api/wallets/receipts"
        assert (await api.get(path))["files"] == []
        sent = await api.bob.send(api.bob.draft(["alice"], "Costly", "Dear all"))
        name = f"{sent.receipt.file_guid}.json"
        listed = await api.get(path, wallet_path="Default")
        assert (listed["files"], listed["count"]) == ([name], 1)
        assert (await api.get(path, offset=1))["files"] == []
        one = await api.get(path, filename=name)
        assert (one["filename"], one["size"]) == (name, len(one["content"].encode()))
        bill = json.loads(one["content"])
        assert (bill["file_guid"], bill["subject"], bill["total_cc"]) == (sent.receipt.file_guid, "Costly", 15)
        paid = sorted((row["paid_for"], row["amount_cc"]) for row in bill["payments"])
        assert paid == [("inbox", 10)] + [("upload", 1)] * 5
        for locker in (await api.get(f"{API}/db/reports/sent-payments"))["emails"][0]["lockers"]:
            assert locker["locker_key"] not in one["content"]
        for wrong in ("f" * 32 + ".json", name.upper(), f"../{name}", name + "\n.json", "x"):
            assert (await api.get(path, 404, filename=wrong))["message"] == "Receipt not found"
        await api.get(path, 404, wallet_path="Nobody")
        assert (await api.get(path, wallet_path="Mail"))["files"] == []  # it never pays

    over(story)


def test_a_download_nobody_waits_for_is_told_as_an_event_and_by_its_task() -> None:
    async def story(api: Client) -> None:
        path = f"{API}/net/messages/download"
        refused = await api.get(path, 404, file_guid="f" * 32, **{"async": 1})
        assert refused["message"].startswith("No pending tell found")
        sent = await api.alice.send(api.alice.draft(["bob"], "Later", "Dear Bob"))
        guid = sent.receipt.file_guid
        await api.bob.peek()
        first = await api.get(path, 202, file_guid=guid, **{"async": "1"})
        again = await api.get(path, 202, file_guid=guid, **{"async": "true"})
        assert (first["success"], first["command"], first["file_guid"]) == (True, "qmail-download", guid)
        assert first["url"] == f"/api/system/tasks?id={first['task_id']}"
        assert again["task_id"] == first["task_id"]  # one is enough
        ended = await api.bob.wait(first["task_id"])
        assert (ended.status, ended.message) == ("success", "Email downloaded and stored")
        assert ended.data is not None
        assert ended.data["file_guid"] == guid
        stored = await api.get(path, file_guid=guid, **{"async": "1"})
        assert (stored["already_downloaded"], stored["body"]) == (True, "Dear Bob")

    over(story)


def test_a_download_nobody_waits_for_fails_as_a_task() -> None:
    async def story(api: Client) -> None:
        guid = (await api.alice.send(api.alice.draft(["bob"], "Lost", "b"))).receipt.file_guid
        await api.bob.peek()
        api.cluster.down |= set(range(5))
        begun = await api.get(f"{API}/net/messages/download", 202, file_guid=guid, **{"async": "1"})
        assert (await api.bob.wait(begun["task_id"])).status == "failed"
        again = await api.get(f"{API}/net/messages/download", 202, file_guid=guid, **{"async": "1"})
        assert again["task_id"] != begun["task_id"]
        await api.bob.wait(again["task_id"])

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# local


def test_the_state_of_everything() -> None:
    async def story(api: Client) -> None:
        await api.alice.send(api.alice.draft(["bob"], "s", "b"))
        await api.bob.receive()
        body = await api.get(f"{API}/local/status")
        assert body["beacon"] == {
            "running": False, "last_tell_timestamp": 0, "backoff_seconds": 0, "consecutive_errors": 0,
        }  # fmt: skip
        assert body["database"] == {
            "open": True, "inbox_count": 1, "sent_count": 0, "trash_count": 0, "unread_count": 1, "contact_count": 2,
        }  # fmt: skip
        assert (body["servers"]["count"], body["servers"]["data_stripes"]) == (5, 4)
        first = body["servers"]["list"][0]
        assert {name: first[name] for name in ("raida_index", "server_id", "ip", "ip_address", "port")} == {
            "raida_index": 0, "server_id": 0, "ip": "127.0.0.1", "ip_address": "127.0.0.1", "port": 50000,
        }  # fmt: skip
        assert first["is_available"] is True
        assert (await api.get(f"{API}/status"))["servers"]["available"] == 5
        for path in ("local/identity/exists", "has-id"):
            assert (await api.get(f"{API}/{path}"))["has_id"] is True

    over(story)


def test_the_watch_is_started_and_stopped() -> None:
    async def story(api: Client) -> None:
        path = f"{API}/local/beacon/control"
        for action, running in (("status", False), ("start", True), ("start", True), ("stop", False), ("stop", False)):
            body = await api.post(path, data={"action": action})
            assert body["running"] is running, action
        refused = await api.get(path, 400, action="pause")
        assert refused["message"] == "Invalid action (start, stop or status)"
        assert (await api.get(f"{API}/ping"))["beacon_status"] == "idle"

    over(story)


def test_the_oldest_ping() -> None:
    async def story(api: Client) -> None:
        sent = await api.alice.send(api.alice.draft(["bob"], "s", "text"))
        await api.get(f"{API}/local/beacon/control", action="start")
        body = await api.get(f"{API}/ping")
        assert (body["status"], body["beacon_status"], body["has_mail"], body["message_count"]) == (
            "ok", "active", True, 1,
        )  # fmt: skip
        assert body["messages"][0]["id"] == sent.receipt.file_guid

    over(story)


def test_what_a_send_would_cost() -> None:
    async def story(api: Client) -> None:
        for path in ("local/inbox-fee", "inbox-fee"):
            body = await api.get(f"{API}/{path}", to="alice", cc="77")
            assert (body["total_cost_cc"], body["storage_cost_cc"], body["inbox_cost_cc"]) == (25, 5, 20)
        refused = await api.get(f"{API}/local/inbox-fee", 400, to="nobody")
        assert refused["message"].startswith('Invalid To address "nobody": ')
        can = await api.get(f"{API}/local/can-send", to="alice")
        assert can == {
            "command": "can-send", "success": True, "status": "success", "can_send": True, "reason": "ok",
            "message": "Ready to send", "required_upload_lockers": 5, "required_inbox_fee": 10, "wallet_required": 15,
            "wallet_balance": 500, "combined_wallet_value": 500,
        }  # fmt: skip
        cannot = await api.get(f"{API}/local/can-send", upload_lockers=400, inbox_fee=101)
        assert (cannot["can_send"], cannot["reason"], cannot["message"]) == (
            False, "insufficient_balance", "The wallet lacks 1 CC",
        )  # fmt: skip

    over(story)


def test_addresses_by_number_and_base32() -> None:
    async def story(api: Client) -> None:
        path = f"{API}/local/address/from-sn"
        unknown = await api.get(path, sn=1441, denomination=1)
        assert (unknown["email"], unknown["class"], unknown["from_directory"]) == ("5.161@byte", "byte", False)
        assert (await api.get(path, sn=1441))["denomination"] == 2
        for denomination in (-1, 5, 7, 10**17):
            refused = await api.get(path, 400, sn=1441, denomination=denomination)
            assert refused["message"] == "Invalid denomination (must be 0 to 4)"
        known = await api.get(f"{API}/convert_coin_to_email", sn=api.alice.address.serial)
        assert (known["email"], known["denomination"], known["from_directory"]) == ("alice", 1, True)
        for value, text in ((8189, "H97"), (5735, "FVH"), (0, "A"), (2**64 - 1, "R999999999999")):
            for name in ("local/util/base32-encode", "base32"):
                body = await api.get(f"{API}/{name}", value=value)
                assert (body["mode"], body["decimal"], body["base32"]) == ("encode", value, text)
            body = await api.get(f"{API}/local/util/base32-decode", value=text.lower())
            assert (body["mode"], body["decimal"]) == ("decode", value)
            assert (await api.get(f"{API}/base32", value=text, mode="decode"))["decimal"] == value

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# raida, wallets, system


def test_the_identity_is_healed() -> None:
    async def story(api: Client) -> None:
        refused = await api.get(f"{API}/raida/identity/heal", 400)
        assert refused["message"] == "No identity coin found. Place an ID coin in the Mail wallet."
        await api.bob.deposit([api.bob._ctx.coin], "Mail")
        body = await api.post(f"{API}/heal-identity")
        assert (body["command"], body["identity_health"], body["coins_processed"], body["graded_to_bank"]) == (
            "heal-identity", "healthy", 1, 1,
        )  # fmt: skip

    over(story)


def test_nobody_lends_keys_to_an_empty_wallet() -> None:
    async def story(api: Client) -> None:
        await api.bob.deposit([api.bob._ctx.coin], "Mail")
        failed = await api.get(f"{API}/raida/identity/heal", 500)
        assert failed["message"] == "No encryption keys available (no coins in wallet)"

    over(story, balance=0)


def test_credentials_come_out_of_a_locker() -> None:
    async def story(api: Client) -> None:
        path = f"{API}/raida/locker/import-credentials"
        failed = await api.get(path, 500, locker_key="EMPTY")
        assert failed["message"] == "Failed to download credentials from locker"
        assert failed["raida_success"] is False
        body = await api.post(path, data={"locker_key": await gift(api.alice, 1)})
        assert (body["coins_found"], body["coins_saved"], body["total_value"]) == (1, 1, 1)
        assert (body["destination_folder"], body["operation"]) == ("Mail", "import_credentials")
        refused = await api.get(path, 409, locker_key="OTHER")
        assert refused["message"] == "The Mail wallet holds an identity coin already"

    over(story)


def test_lockers_and_balances() -> None:
    async def story(api: Client) -> None:
        filled = await api.post(f"{API}/raida/locker-pool/replenish")
        assert (filled["upload_available"], filled["inbox_fee_available"]) == (6, 1)
        assert (filled["locked_value"], filled["locked_upload_value"], filled["locked_inbox_fee_value"]) == (16, 6, 10)
        assert await api.get(f"{API}/local/locker-pool/status") == filled
        await api.bob.deposit(api.cluster.mint([Address(1, 900)]))
        body = await api.get("/api/wallets/balance")
        assert (body["total_value"], body["total_notes"], body["denominations"]) == (494, 485, {"bit": 484, "byte": 1})
        assert (body["folders"]["bank_coins"], body["log_balance"], body["balance_reconciled"]) == (485, 494, True)
        for wallet in (await api.get("/api/wallets/list"))["wallets"]:
            shown = await api.get("/api/wallets/balance", wallet_path=wallet["wallet_path"])
            assert shown["wallet_name"] == wallet["wallet_name"]
            assert shown["total_value"] == (494 if wallet["wallet_name"] == "Default" else 0)
        change = await api.get("/api/coins/prepare-change", wallet_path="Default")
        assert (change["coins_broken"], change["message"]) == (0, "Nothing to break")

    over(story, pool_upload=6, pool_inbox=1)


def test_echo_sync_and_version() -> None:
    async def story(api: Client) -> None:
        api.cluster.down.add(2)
        body = await api.get("/api/raida/echo")
        assert [row["status"] for row in body["raidas"]] == ["Ready", "Ready", "Error", "Ready", "Ready"]
        assert (body["total_available"], body["total_error"], body["total_timeout"]) == (4, 1, 0)
        assert body["array_usable"] is True
        synced = await api.post("/api/admin/sync")
        assert (synced["status"], synced["users_synced"], synced["servers_synced"]) == ("success", 2, 5)
        version = await api.get("/api/system/version-check")
        assert (version["update_available"], version["current_version"]) == (False, qmail_core.__version__)

    over(story)


def test_tasks_and_receipts_are_listed() -> None:
    async def story(api: Client) -> None:
        first = await api.get(f"{API}/net/messages/upload", body="one", to="alice", subject="First")
        await api.done(first)
        second = await api.get(f"{API}/net/messages/send", body="two", to="alice")
        await api.done(second)
        listed = await api.get("/api/system/tasks/list", limit=1)
        assert (listed["count"], listed["total"], listed["tasks"][0]["id"]) == (1, 2, second["task_id"])
        assert (await api.get("/api/system/tasks/list", status="failed"))["total"] == 0
        page = await api.get(f"{API}/receipts/list", status="not_started")
        assert (page["count"], page["total"]) == (1, 1)
        row = page["receipts"][0]
        assert (row["file_guid"], row["subject"], row["recipients"]) == (first["file_guid"], "First", ["alice"])
        assert {row["status"] for row in (await api.get(f"{API}/receipts/list"))["receipts"]} == {
            "success",
            "not_started",
        }
        assert (await api.get(f"{API}/receipts/list", limit=1, offset=1))["count"] == 1

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Second thoughts


def test_a_held_mail_is_let_go_or_cancelled() -> None:
    async def story(api: Client) -> None:
        held = {"body": "b", "to": "alice", "hold_seconds": 3600}
        started = await api.get(f"{API}/net/messages/upload_and_tell", **held)
        cancelled = await api.post(f"{API}/net/messages/hold/cancel", data={"file_guid": started["file_guid"]})
        assert cancelled["file_guid"] == started["file_guid"]
        assert (await api.done(started)).tell.status == "not_started"
        other = await api.get(f"{API}/net/messages/upload_and_tell", **held)
        body = await api.post("/api/system/tasks/cancel", data={"id": other["task_id"]})
        assert body["status"] == "cancelled"
        task = await api.get("/api/system/tasks", id=other["task_id"])
        assert (task["status"], task["payload"]["status"]) == ("cancelled", "cancelled")
        refused = await api.get("/api/system/tasks/cancel", 400, id=other["task_id"])
        assert refused["message"] == "Task already finished"
        told = await api.get(f"{API}/net/messages/tell", file_guid=started["file_guid"])
        await api.bob.wait(told["task_id"])
        late = await api.get(f"{API}/net/messages/hold/cancel", 409, file_guid=started["file_guid"])
        assert late["message"] == "Tell has begun and can no longer be cancelled"
        plain = await api.get(f"{API}/net/messages/upload", body="b")
        late = await api.get(f"{API}/net/messages/hold/cancel", 409, file_guid=plain["file_guid"])
        assert late["message"] == "This mail was not held"

    over(story)


def test_a_mail_is_explained() -> None:
    async def story(api: Client) -> None:
        started = await api.get(f"{API}/net/messages/send", body="b", to="alice")
        await api.done(started)
        api.cluster.down.add(1)
        body = await api.get(f"{API}/net/messages/explain", file_guid=started["file_guid"])
        assert (body["stored"], body["reachable"], body["survives_loss_of"], body["readable"]) == (5, 4, 0, True)
        assert (body["profile"], body["data_stripes"], body["parity_stripes"]) == ("sealed", 4, 1)
        assert [row["answers"] for row in body["stripes"]] == [True, False, True, True, True]
        assert body["expires_at"] > 0
        api.cluster.down.add(2)
        body = await api.get(f"{API}/net/messages/explain", file_guid=started["file_guid"])
        assert (body["readable"], body["message"]) == (False, "Not readable now: 1 more servers are needed")

    over(story)


@pytest.mark.parametrize("route", ["upload", "upload_and_tell", "send"])
@pytest.mark.parametrize("how", ["header", "parameter"])
def test_a_repeated_request_is_answered_with_the_same_task(route: str, how: str) -> None:
    async def story(api: Client) -> None:
        path = f"{API}/net/messages/{route}"
        headers = {"Idempotency-Key": "order-1"} if how == "header" else {}
        data = {"body": "b", "to": "alice"} | ({"idempotency_key": "order-1"} if how == "parameter" else {})
        files = {"attachment": ("a.txt", b"same")}
        answers = [await api.post(path, data=data, files=files, headers=headers) for _ in range(2)]
        both = await asyncio.gather(*(api.post(path, data=data, files=files, headers=headers) for _ in range(2)))
        assert len({(body["task_id"], body["file_guid"]) for body in [*answers, *both]}) == 1
        await api.done(answers[0])
        assert len(api.bob.tasks()) == 1
        for wrong in ({"data": {**data, "body": "c"}, "files": files}, {"data": data, "files": {"attachment": b"x"}}):
            refused = await api.post(path, 409, headers=headers, **wrong)
            assert refused["message"] == "Idempotency key was used with other parameters"
        assert len(api.bob.tasks()) == 1

    over(story)


def test_two_first_requests_at_once_start_one_task() -> None:
    async def story(api: Client) -> None:
        path, data = f"{API}/net/messages/send", {"body": "b", "to": "alice", "idempotency_key": "k"}
        answers = await asyncio.gather(*(api.post(path, data=data) for _ in range(5)))
        assert len({body["file_guid"] for body in answers}) == 1
        assert len(api.bob.tasks()) == 1

    over(story)


def test_a_repeated_request_may_name_its_guid() -> None:
    async def story(api: Client) -> None:
        path = f"{API}/net/messages/send"
        for _ in range(2):
            parts = {"data": {"body": "b", "to": "alice", "file_guid": GUID}, "files": {"attachment": ("a", b"1")}}
            body = await api.post(path, headers={"Idempotency-Key": "k"}, **parts)
            assert body["file_guid"] == GUID
        used = await api.post(path, 409, data={"body": "b", "to": "alice", "file_guid": GUID})
        assert used["message"] == "A receipt already exists for that file_guid"

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Everything that is refused

INVALID_GUID = "Invalid file_guid format (expected 32 hex chars)"
INVALID_ID = "Invalid email_id format (expected 32 hex chars)"
BASE32 = "Invalid base32 string (valid chars: ABCDEFGHJKLMNPQRSTUVWXYZ23456789)"
ENCODE = "Invalid value for encode (must be a non-negative integer)"
REFUSED: list[tuple[str, int, dict[str, Any], str]] = [
    *(
        case
        for path in ("db/payments/get", "db/payments/mark-refunded", "raida/payments/claim")
        for case in (
            (path, 400, {}, "Missing 'email_id' parameter"),
            (path, 400, {"email_id": "zz"}, INVALID_ID),
            (path, 404, {"email_id": GUID}, "Email not found"),
        )
    ),
    ("raida/payments/claim", 404, {"email_id": GUID, "wallet_path": "None"}, "Wallet not found"),
    ("raida/locker/import-credentials", 400, {}, "Missing required parameter: locker_key"),
    ("raida/locker/import-credentials", 400, {"locker_key": "A", "wallet_path": ".."}, "Invalid wallet path"),
    ("raida/locker/import-credentials", 404, {"locker_key": "A", "wallet_path": "None"}, "Wallet not found"),
    ("raida/locker-pool/replenish", 400, {"wallet_path": "Mail"}, "Invalid wallet_path"),
    ("raida/locker-pool/replenish", 404, {"wallet_path": "None"}, "Wallet not found"),
    ("local/locker-pool/status", 400, {"wallet_path": ".."}, "Invalid wallet_path"),
    ("local/can-send", 404, {"wallet_path": "None"}, "Wallet not found"),
    ("local/can-send", 400, {"upload_lockers": "x"}, "Invalid upload_lockers (must be an integer)"),
    ("local/inbox-fee", 400, {"attachments": "none"}, "Attachment not found or not readable: none"),
    ("local/address/from-sn", 400, {}, "Missing required parameter: sn"),
    ("local/address/from-sn", 400, {"sn": "0"}, "Invalid sn (must be a positive integer)"),
    ("local/address/from-sn", 400, {"sn": "x"}, "Invalid sn (must be a positive integer)"),
    ("local/util/base32-encode", 400, {}, "Missing required parameter: value"),
    ("local/util/base32-encode", 400, {"value": "-1"}, ENCODE),
    ("local/util/base32-encode", 400, {"value": 2**64}, ENCODE),
    ("local/util/base32-decode", 400, {}, "Missing required parameter: value"),
    ("local/util/base32-decode", 400, {"value": "A!"}, BASE32),
    ("local/util/base32-decode", 400, {"value": "9" * 14}, BASE32),
    ("net/messages/hold/cancel", 400, {}, "Missing required parameter: file_guid"),
    ("net/messages/hold/cancel", 400, {"file_guid": "1"}, INVALID_GUID),
    ("net/messages/hold/cancel", 404, {"file_guid": GUID}, "Receipt not found for that file_guid"),
    ("net/messages/explain", 400, {}, "Missing required parameter: file_guid"),
    ("net/messages/explain", 404, {"file_guid": GUID}, "Nothing is known of that file_guid"),
    (
        "net/messages/upload",
        400,
        {"body": "b", "hold_seconds": 5},
        "hold_seconds needs a Tell to hold: use upload_and_tell",
    ),
    (
        "net/messages/upload",
        400,
        {"body": "b", "idempotency_key": "a b"},
        "Invalid idempotency_key (1 to 255 visible ASCII characters)",
    ),
    (
        "receipts/list",
        400,
        {"status": "lost"},
        "Invalid status (in_progress, not_started, success, partial, failed)",
    ),
    ("../system/tasks", 400, {}, "Missing required parameter: id"),
    ("../system/tasks/cancel", 400, {}, "Missing required parameter: id"),
    ("../system/tasks/cancel", 404, {"id": "task_0"}, "Task not found"),
    ("../wallets/balance", 404, {"wallet_path": "None"}, "Wallet not found"),
    ("../coins/prepare-change", 400, {"wallet_path": ".."}, "Invalid wallet_path"),
    ("../coins/prepare-change", 400, {"wallet_path": "Mail"}, "Invalid wallet_path"),
    ("../wallets/balance", 400, {"wallet_path": "Mail/.."}, "Invalid wallet_path"),
]


def test_every_refusal_has_its_words() -> None:
    async def story(api: Client) -> None:
        for path, status, params, message in REFUSED:
            where = f"/api/{path[3:]}" if path.startswith("../") else f"{API}/{path}"
            assert (await api.get(where, status, **params))["message"] == message, path

    over(story)


def test_servers_that_are_away_have_their_words() -> None:
    async def story(api: Client) -> None:
        await api.bob.deposit([api.bob._ctx.coin], "Mail")
        await api.bob.deposit(api.cluster.mint([Address(2, 900)]))
        email_id = (await paid_mail(api.alice, api.bob, "GIFT")).hex()
        api.cluster.down |= set(range(5))
        failed = await api.get("/api/coins/prepare-change", 500)
        assert failed["message"] == "Change could not be prepared"
        failed = await api.get(f"{API}/raida/payments/claim", 500, email_id=email_id)
        assert failed["message"] == "Payment claim failed - locker may be empty or network error"
        healed = await api.get(f"{API}/raida/identity/heal")
        assert healed["identity_health"] == "still_fracked"

    over(story, balance=1)
