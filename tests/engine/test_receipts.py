"""The receipt: what it says is what is so, it carries no secret of worth, and its copy is whole."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from qmail_core import Cluster, Engine, Source
from qmail_core.model import Receipt, ReceiptRecipient, ReceiptTell
from tests.engine import couple, play, read


def mirrored(engine: Engine, guid: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read(copy_of(engine, guid)))
    return found


def copy_of(engine: Engine, guid: str) -> Path:
    return Path(engine.config.data, "Wallets", "Mail", "Receipts", f"{guid}.json")


def test_a_receipt_tells_where_everything_lies() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        draft = alice.draft(["bob"], "Grüße", "ü" * 300, attachments=[Source(name="x.bin", data=bytes(5000))])
        receipt = (await alice.send(draft)).receipt
        up = receipt.upload
        assert [(f.role, f.file_type, f.name, f.status) for f in up.files] == [
            ("meta", 0, "meta", "success"),
            ("body", 1, "body", "success"),
            ("attachment", 10, "x.bin", "success"),
        ]
        assert [(r.stripe_index, r.server_id, r.is_parity) for r in up.files[0].stripes] == [
            (i, i, i >= 20) for i in range(25)
        ]
        assert len({row.locker_code for row in up.files[0].stripes}) == 25
        assert (up.subject, up.body_preview) == ("Grüße", "ü" * 127)
        assert (up.profile, up.data_stripes, up.parity_stripes) == ("sealed", 20, 5)
        manifest = up.manifest
        assert [entry.file_type for entry in manifest.files] == [0, 1, 10]
        assert (manifest.file_count, manifest.manifest_len) == (3, 48)
        assert up.total_group_size == sum(entry.size_bytes for entry in manifest.files)
        assert receipt.sender.serial_number == alice.address.serial
        (row,) = receipt.tell.recipients
        assert (row.address, row.kind, row.serial_number, row.status) == ("bob", "to", bob.address.serial, "sent")

    play(story)


def test_a_receipt_carries_no_authenticity_number() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        receipt = (await alice.send(alice.draft(["bob"], "s", "b"))).receipt
        text = read(copy_of(alice, receipt.file_guid)).decode()
        for node in range(25):
            assert alice._ctx.coin.an(node).hex() not in text

    play(story)


def test_the_copy_is_the_receipt_and_for_its_owner_only() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        guid = (await alice.send(alice.draft(["bob"], "s", "b"))).receipt.file_guid
        stored = alice.receipt(bytes.fromhex(guid))
        assert mirrored(alice, guid)["tell"]["status"] == stored.tell.status == "success"
        assert set(mirrored(alice, guid)) == set(Receipt.__struct_fields__)
        path = copy_of(alice, guid)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    play(story, nodes=5)


def replace_by_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_bytes(b"in the way")


def test_a_copy_that_cannot_be_written_fails_no_send() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        folder = Path(alice.config.data, "Wallets", "Mail", "Receipts")
        replace_by_file(folder)
        receipt = (await alice.send(alice.draft(["bob"], "s", "b"))).receipt
        assert receipt.tell.status == "success"
        assert len(await bob.receive()) == 1

    play(story, nodes=5)


def rolled(*words: str) -> ReceiptTell:
    rows = [
        ReceiptRecipient(address="a", kind="to", serial_number=1, denomination=0, beacon_raida=11, status=word)
        for word in words
    ]
    tell = ReceiptTell(recipients=rows)
    tell.roll_up()
    return tell


def test_the_roll_up_follows_its_rows() -> None:
    assert rolled().status == "not_started"
    assert rolled("queued", "queued").status == "not_started"
    assert rolled("sending", "queued").status == "in_progress"
    assert rolled("sent", "sent").status == "success"
    assert rolled("failed", "failed").status == "failed"
    assert rolled("sent", "failed").status == rolled("retry_queued").status == rolled("sent", "sending").status
    assert rolled("sent", "failed").status == "partial"
    summary = rolled("sent", "failed", "retry_queued", "sent").summary
    assert (summary.total, summary.sent, summary.failed, summary.retry_queued) == (4, 2, 1, 1)
