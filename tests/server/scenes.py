"""A mailbox in which every request the document shows can be made: what its ids stand for, and what must have happened.

`python -m tests.server.scenes` makes all of them and keeps the answers as the document's examples.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyotp
from qmail_server.demo.samples import document
from qmail_server.http import openapi
from qmail_server.http.app import App, build_app

from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.model import Folder, Message, Source, Started
from qmail_core.store.mailbox import HOME
from tests.engine.test_payments import gift, paid_mail
from tests.server.fake_engine import BASE, OPEN

Values = dict[str, Any]
RAW = b"From: Ada <ada@example.org>\r\nTo: bob@example.org\r\nSubject: Hi\r\n\r\nHello\r\n"


class World:
    """Bob's port; alice writes to him."""

    def __init__(self, cluster: Cluster, alice: Engine, bob: Engine, app: App, http: httpx.AsyncClient) -> None:
        self.cluster, self.alice, self.bob, self.app, self.http = cluster, alice, bob, app, http
        self.user = bob.mailboxes.user_id(HOME).hex()
        self.people = 0  # made so far
        self.values: Values = {}

    async def prepare(self) -> None:
        """What most requests are about."""
        outgoing = Path(self.bob.config.data) / "Wallets" / "Mail" / "Outgoing"
        (outgoing / "test1.qmail").write_bytes(document(self.bob.address, "Minutes", "Dear all"))
        mail = await self.mail()
        (attachment,) = self.bob.attachments(mail.id)
        sent = await self.bob.send(self.bob.draft(["alice"], "Plan", "Dear Alice"))
        inbox = next(box.oid for box in self.bob.mailboxes.listed(HOME) if box.path == "INBOX")
        await self.bob.transfer.pins.set(HOME, "1234")
        self.values = {
            "to": [self.alice.address_text],
            "email_id": mail.id.hex(),
            "attachment_id": attachment.id,
            "file_guid": sent.receipt.file_guid,
            "guid": sent.receipt.file_guid,
            "user": self.user,
            "transferToken": (await self.bob.transfer.tokens.create("tests"))[1],
            "mailbox": inbox.hex(),
        }

    async def mail(self) -> Message:
        """A mail from alice in the inbox, with an attachment."""
        files = [Source("minutes.txt", data=b"minutes")]
        sent = await self.alice.send(self.alice.draft(["bob"], "Minutes", "Dear all", attachments=files))
        found = {got.message.guid.hex(): got.message for got in await self.bob.receive()}
        return found[sent.receipt.file_guid]

    async def upload(self, *, tell: bool = False, hold: int = 0) -> Started:
        """A mail of bob's that is stored, and perhaps held."""
        draft = msgspec.structs.replace(self.bob.draft(["alice"], "Later", "text"), hold_seconds=hold)
        started = await self.bob.start_upload(draft, tell=tell)
        if not hold:
            await self.bob.wait(started.task_id)
        return started

    async def letter(self) -> str:
        """The name of a message in the inbox."""
        path = f"/users/{self.user}/mailboxes/{self.values['mailbox']}/messages"
        answer = await self.http.post(path, content=RAW, headers={"content-type": "message/rfc822"})
        return str(answer.json()["message"]["name"])


async def _staged(world: World) -> Values:
    return {"file_guid": (await world.upload()).guid.hex()}


async def _held(world: World) -> Values:
    started = await world.upload(tell=True, hold=600)
    return {"file_guid": started.guid.hex(), "id": started.task_id}


async def _task(world: World) -> Values:
    return {"id": (await world.upload()).task_id}


async def _told(world: World) -> Values:
    sent = await world.alice.send(world.alice.draft(["bob"], "News", "text"))
    await world.bob.peek()
    (row,) = [row for row in world.bob.notifications(50) if row.tell.guid.hex() == sent.receipt.file_guid]
    return {"file_guid": sent.receipt.file_guid, "id": row.id}


async def _object(world: World) -> Values:
    begun = await world.bob.operations.upload("test1.qmail")
    await world.bob.wait(begun.task_id)
    world.people += 1
    return {
        "object_id": begun.object_id.hex(),
        "operation_id": begun.id.hex(),
        "destination_path": f"copy{world.people}.qmail",
    }


async def _paused(world: World) -> Values:
    world.cluster.down.add(0)
    begun = await world.bob.operations.upload("test1.qmail", node=0)
    await world.bob.wait(begun.task_id)
    world.cluster.down.clear()
    return {"operation_id": begun.id.hex()}


async def _draft(world: World) -> Values:
    return {"email_id": (await world.bob.drafts.create(subject="Plan", body="First")).id.hex()}


async def _trashed(world: World) -> Values:
    draft = await _draft(world)
    await world.bob.mailbox.move(bytes.fromhex(draft["email_id"]), Folder.TRASH)
    return draft


async def _contact(world: World) -> Values:
    await world.http.post("/api/qmail/db/contacts/create", data={"serial_number": 1441})
    return {}


async def _paid(world: World) -> Values:
    return {"email_id": (await paid_mail(world.alice, world.bob, await gift(world.alice))).hex()}


async def _credentials(world: World) -> Values:
    return {"locker_key": await gift(world.alice, 1)}


async def _identity(world: World) -> Values:
    await world.bob.deposit([world.bob._ctx.coin], "Mail")
    return {}


async def _given_up(world: World) -> Values:
    started = await world.upload()
    world.cluster.down |= set(world.bob.config.beacons)
    await world.bob.wait((await world.bob.start_tell(started.guid)).task_id)
    world.cluster.down.clear()
    await world.bob._store.sends.finish_tell(started.guid, 0, "failed", "given up", 1)
    (row,) = world.bob.queue.rows("failed", 10)
    return {"tell_id": row.id}


async def _new_path(world: World) -> Values:
    return {"path": f"Projects/{os.urandom(4).hex()}"}


async def _mailbox(world: World) -> Values:
    box = await world.bob.mailboxes.add(HOME, f"Projects/{os.urandom(4).hex()}")
    return {"mailbox": box.oid.hex(), **await _new_path(world)}


async def _letter(world: World) -> Values:
    return {"message": await world.letter()}


async def _part(world: World) -> Values:
    mail = await world.mail()
    listed = await world.http.get(f"/users/{world.user}/mailboxes/{world.values['mailbox']}/messages")
    name = next(row["id"] for row in listed.json()["results"] if row["subject"] == mail.subject)
    shown = await world.http.get(f"/users/{world.user}/mailboxes/{world.values['mailbox']}/messages/{name}")
    return {"message": name, "attachment": shown.json()["attachments"][0]["id"]}


async def _person(world: World) -> Values:
    world.people += 1
    name = f"ada{world.people}"
    person = {"username": name, "password": "a long password", "address": f"{name}@example.org"}
    made = await world.http.post("/users", json=person)
    return {"user": made.json()["id"], "username": name, "password": "a long password"}


async def _name(world: World) -> Values:
    world.people += 1
    return {"username": f"ada{world.people}", "address": f"ada{world.people}@example.org"}


async def _speaking(world: World) -> Values:
    person = await _person(world)
    issued = await world.bob.accounts.tokens.create(bytes.fromhex(person["user"]), seconds=60, description="test")
    return {"accessToken": issued.text}


async def _seed(world: World) -> Values:
    person = await _person(world)
    setup = await world.http.post(f"/users/{person['user']}/2fa", json={})
    return {**person, "token": pyotp.TOTP(setup.json()["seed"]).now(), "seed": setup.json()["seed"]}


async def _factor(world: World) -> Values:
    person = await _seed(world)
    await world.http.put(f"/users/{person['user']}/2fa", json={"token": person["token"]})
    return {**person, "token": pyotp.TOTP(person["seed"]).at(time.time() + 30)}  # a code counts once


async def _asp(world: World) -> Values:
    made = await world.http.post(f"/users/{world.user}/asps", json={"description": "Old client"})
    return {"asp": made.json()["id"]}


async def _address(world: World) -> Values:
    person = await _person(world)
    path = f"/users/{person['user']}/addresses"
    made = await world.http.post(path, json={"address": f"other{world.people}@example.org"})
    return {"user": person["user"], "address": made.json()["id"]}


async def _filter(world: World) -> Values:
    path = f"/users/{world.user}/filters"
    made = await world.http.post(path, json={"query": {"subject": "news"}, "action": {"seen": True}})
    return {"filter": made.json()["id"]}


async def _webhook(world: World) -> Values:
    made = await world.http.post("/webhooks", json={"url": "https://hooks.example.org/mail"})
    return {"webhook": made.json()["id"]}


async def _recipient(world: World) -> Values:
    return {"to": [{"address": "ada@example.org", "name": "Ada"}]}


async def _transfer(world: World, verb: str, path: str, **options: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {world.values['transferToken']}", **options.pop("headers", {})}
    answer = await world.http.request(verb, f"/api/{path}", headers=headers, **options)
    assert answer.status_code < 300, answer.text
    return answer


async def _file(world: World) -> Values:
    made = await _transfer(world, "POST", "files", files={"file": ("notes.txt", b"notes")})
    return {"id": made.json()["data"]["id"], "files": [made.json()["data"]["id"]]}


async def _download(world: World) -> Values:
    made = await _transfer(world, "POST", "downloads", json=await _file(world))
    return {"id": made.json()["data"]["id"], **await _pin_key(world)}


async def _pin_key(world: World) -> Values:
    made = await _transfer(world, "POST", "keys", json={"pin": "1234"})
    key = made.json()["data"]["key"]
    return {"pinKey": key, "key": key}


async def _token(world: World) -> Values:
    row, _ = await world.bob.transfer.tokens.create("more")
    return {"id": str(row.id)}


async def _tus(world: World) -> Values:
    headers = {"tus-resumable": "1.0.0", "upload-length": "5"}
    made = await _transfer(world, "POST", "files/tus", headers=headers)
    return {"id": made.headers["location"].rpartition("/")[2]}


async def _received(world: World) -> Values:
    return {"id": (await _transfer(world, "GET", "inbox")).json()["data"][0]["id"]}


async def _sent(world: World) -> Values:
    mail = {"recipient_email": world.alice.address_text, "subject": "Plan", "body": "Dear Alice"}
    return {"id": (await _transfer(world, "POST", "mails", json=mail)).json()["data"]["id"]}


async def _writing(world: World) -> Values:
    return {"recipient_email": world.alice.address_text}


# what has to happen before the requests of an endpoint, and which ids it makes
SCENES: dict[str, Callable[[World], Awaitable[Values]]] = {
    "qmail.net.tell": _staged,
    "qmail.net.download": _told,
    "qmail.net.cancel_hold": _held,
    "qmail.local.task": _task,
    "qmail.system.cancel_task": _held,
    "qmail.db.messages.delete_message": _trashed,
    "qmail.db.drafts.update_draft": _draft,
    "qmail.db.contacts.delete_contact": _contact,
    "qmail.db.contacts.favorite_contact": _contact,
    "qmail.db.queue.retry_tell": _given_up,
    "qmail.db.queue.dismiss_notification": _told,
    "qmail.db.payments.get_payment": _paid,
    "qmail.db.payments.mark_refunded": _paid,
    "qmail.raida.claim_payment": _paid,
    "qmail.raida.import_credentials": _credentials,
    "qmail.raida.heal_identity": _identity,
    "mailbox.mailboxes.add_mailbox": _new_path,
    "mailbox.mailboxes.change_mailbox": _mailbox,
    "mailbox.mailboxes.delete_mailbox": _mailbox,
    "mailbox.messages.get_message": _letter,
    "mailbox.messages.change_message": _letter,
    "mailbox.messages.delete_message": _letter,
    "mailbox.messages.empty_mailbox": _mailbox,
    "mailbox.users.resolve_user": _person,
    "mailbox.users.add_user": _name,
    "mailbox.users.get_user": _person,
    "mailbox.users.get_me": _speaking,
    "mailbox.users.end_session": _speaking,
    "mailbox.users.change_user": _person,
    "qmail.objects.download": _object,
    "qmail.objects.delete": _object,
    "qmail.objects.status": _object,
    "qmail.objects.resume": _paused,
    "qmail.objects.cancel": _paused,
    "mailbox.users.delete_user": _person,
    "mailbox.users.authenticate": _person,
    "mailbox.factors.set_up_totp": _person,
    "mailbox.factors.enable_totp": _seed,
    "mailbox.factors.check_totp": _factor,
    "mailbox.factors.disable_totp": _factor,
    "mailbox.factors.delete_asp": _asp,
    "mailbox.addresses.add_address": _name,
    "mailbox.addresses.get_address": _address,
    "mailbox.addresses.change_address": _address,
    "mailbox.addresses.delete_address": _address,
    "transfer.inbox.get_mail": _received,
    "transfer.mails.get_mail": _sent,
    "transfer.mails.send": _writing,
    "transfer.files.get_file": _file,
    "transfer.files.change_file": _file,
    "transfer.files.delete_file": _file,
    "transfer.downloads.add_download": _file,
    "transfer.downloads.get_download": _download,
    "transfer.downloads.add_key": _download,
    "transfer.downloads.delete_download": _download,
    "transfer.keys.delete_key": _pin_key,
    "transfer.keys.delete_token": _token,
    "transfer.tus.look": _tus,
    "transfer.tus.add": _tus,
    "transfer.tus.terminate": _tus,
    "transfer.tus.overridden": _tus,
    "mailbox.submit.submit": _recipient,
    "mailbox.webhooks.list_webhooks": _webhook,
    "mailbox.filters.get_filter": _filter,
    "mailbox.filters.change_filter": _filter,
    "mailbox.filters.delete_filter": _filter,
    "mailbox.webhooks.get_webhook": _webhook,
    "mailbox.webhooks.delete_webhook": _webhook,
    "mailbox.source.get_source": _letter,
    "mailbox.source.get_attachment": _part,
}

# the identity coin comes once in a life; nobody is to be told of mail that comes in later
ALONE = ("qmail.raida.import_credentials", "qmail.raida.heal_identity", "mailbox.webhooks.")


@asynccontextmanager
async def new_world() -> AsyncIterator[World]:
    """A fresh mailbox."""
    async with Cluster(5) as cluster:
        alice, bob = (
            await cluster.engine("alice", balance=5000),
            await cluster.engine("bob", balance=5000, webhooks=True),
        )
        app = build_app(bob, OPEN)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as http:
            made = World(cluster, alice, bob, app, http)
            await made.prepare()
            yield made


class Shown:
    """One operation of the document with the request it shows."""

    def __init__(self, document: dict[str, Any], path: str, verb: str) -> None:
        self.path, self.verb, self.name = path, verb.upper(), f"{verb.upper()} {path}"
        self.operation: dict[str, Any] = document["paths"][path][verb]
        self.endpoint: str = self.operation["x-endpoint"]
        self.endless = self.operation.get("x-endless", False)
        (status, answer), *_ = self.operation["responses"].items()
        self.status = int(status)
        self.content: dict[str, Any] = _resolve(document, answer).get("content", {})
        self.body: Values | None = None
        self.kind = ""
        if "requestBody" in self.operation:
            kinds = _resolve(document, self.operation["requestBody"])["content"]
            self.body = next(iter(kinds.values())).get("example")
            self.kind = next(iter(kinds))

    def placed(self, place: str) -> Values:
        """The example parameters of the path or the query string."""
        found = [row for row in self.operation.get("parameters", ()) if row["in"] == place]
        return {row["name"]: row["example"] for row in found if "example" in row}

    def request(self, live: Values) -> dict[str, Any]:
        """The request with what its ids stand for, as the client wants it."""

        def real(shown: Values) -> Values:
            return {name: live.get(name, value) for name, value in shown.items()}

        asked: dict[str, Any] = {"method": self.verb, "url": self.path.format(**real(self.placed("path")))}
        asked["params"] = {name: _word(value) for name, value in real(self.placed("query")).items()}
        asked["headers"] = real(self.placed("header"))
        if self.kind == "multipart/form-data":
            asked["files"] = {"file": ("notes.txt", b"notes")}
        elif self.kind.endswith("octet-stream"):
            asked["content"] = b"hello"
            asked["headers"]["content-type"] = self.kind
        elif self.body is not None:
            asked["json"] = real(self.body)
        if "accessToken" in live:
            asked["headers"]["x-access-token"] = live["accessToken"]
        if {"transferToken": []} in self.operation.get("security", ()):
            asked["headers"]["authorization"] = f"Bearer {live['transferToken']}"
        return asked


def _word(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    found: Any = document
    if "$ref" not in node:
        return node
    for step in node["$ref"][2:].split("/"):
        found = found[step]
    return dict(found)


def operations(document: dict[str, Any]) -> list[Shown]:
    """All operations, in the document's order."""
    return [Shown(document, path, verb) for path, item in document["paths"].items() for verb in item]


async def ask(world: World, shown: Shown) -> tuple[httpx.Response, Values]:
    """Make the request of an operation; the answer, and what the ids stood for."""
    if shown.endpoint.startswith(ALONE):
        async with new_world() as fresh:
            return await _ask(fresh, shown)
    return await _ask(world, shown)


async def _ask(world: World, shown: Shown) -> tuple[httpx.Response, Values]:
    scene = SCENES.get(shown.endpoint)
    live = {**world.values, **(await scene(world) if scene else {})}
    asked = shown.request(live)
    if shown.endless:
        return await beginning(world.app, asked["url"]), live
    return await world.http.request(**asked), live


async def beginning(app: App, path: str) -> httpx.Response:
    """The first bytes of an answer that does not end."""
    heard = asyncio.Event()
    parts: list[Any] = []

    async def receive() -> dict[str, Any]:
        await heard.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        parts.append(message)
        if message["type"] == "http.response.body":
            heard.set()

    headers = [(b"host", BASE.removeprefix("http://").encode())]
    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers, "scheme": "http",
    }  # fmt: skip
    await app(scope, receive, send)
    return httpx.Response(parts[0]["status"], headers=parts[0]["headers"], content=parts[1]["body"])


# ------------------------------------------------------------------------------------------------------------------
# Keeping the answers


async def record() -> dict[str, Any]:
    """An answer of every endpoint that answers in text."""
    kept: dict[str, Any] = {}
    async with new_world() as made:
        described = (await made.http.get("/openapi.json")).json()
        for shown in operations(described):
            if shown.endpoint in kept or not shown.content.keys() & {"application/json", "text/event-stream"}:
                continue
            if shown.endpoint == "pages.document":
                continue
            answer, live = await ask(made, shown)
            assert answer.status_code == shown.status, f"{shown.name}: {answer.text}"
            examples = {**shown.placed("path"), **shown.placed("query"), **(shown.body or {})}
            text = answer.text
            for name, example in examples.items():
                if isinstance(live.get(name), str) and isinstance(example, str):
                    text = text.replace(live[name], example)
            kept[shown.endpoint] = text if shown.endless else msgspec.json.decode(text)
    return kept


if __name__ == "__main__":
    answers = asyncio.run(record())
    openapi.EXAMPLES.write_bytes(msgspec.json.format(msgspec.json.encode(answers), indent=1) + b"\n")
