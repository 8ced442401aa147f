"""The receipt of a send through its life: built, brought up to date, mirrored into the Mail wallet's folder.

The store holds the truth. The file `<data>/Wallets/Mail/Receipts/<guid>.json` is a copy, there before an answer is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import msgspec

from qmail_core.codec import address
from qmail_core.codec import consts as c
from qmail_core.engine.context import Context
from qmail_core.engine.jobs import Job, Object, unit_of
from qmail_core.engine.mirror import Mirror
from qmail_core.model import (
    Address,
    FileEntry,
    Receipt,
    ReceiptFile,
    ReceiptManifest,
    ReceiptManifestFile,
    ReceiptRecipient,
    ReceiptSender,
    ReceiptServers,
    ReceiptStripe,
    ReceiptTell,
    ReceiptUpload,
    RequestKey,
)
from qmail_core.store.base import Claim, Locker, SendRow

_PREVIEW = 255  # bytes


class Receipts:
    """Reads and writes the receipts of one engine."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._folder = os.path.join(ctx.config.data, "Wallets", "Mail", "Receipts")
        self._files = Mirror(self._folder)

    def new(self, job: Job) -> Receipt:
        """The receipt of a send that has just been accepted."""
        striping = job.striping
        receipt = Receipt(
            file_guid=job.guid.hex(),
            request_id=job.task_id,
            created_at=job.created_at,
            updated_at=job.created_at,
            wallet_path=os.path.dirname(self._folder),
            sender=ReceiptSender(
                serial_number=self._ctx.address.serial,
                denomination=self._ctx.address.denomination,
                email=address.render(self._ctx.address),
            ),
            upload=ReceiptUpload(
                started_at=job.created_at,
                subject=job.subject,
                body_preview=job.body.encode()[:_PREVIEW].decode(errors="ignore"),
                servers=ReceiptServers(total=striping.n),
                profile=striping.profile.name.lower(),
                data_stripes=striping.k,
                parity_stripes=striping.m,
                durability=job.durability.value,
            ),
            tell=ReceiptTell(recipients=[self._recipient(r.text, r.kind.value, r.address) for r in job.recipients]),
        )
        receipt.tell.roll_up()
        return receipt

    def _recipient(self, text: str, kind: str, who: Address) -> ReceiptRecipient:
        return ReceiptRecipient(
            address=text,
            kind=kind,
            serial_number=who.serial,
            denomination=who.denomination,
            beacon_raida=self._ctx.beacons(who)[0],
        )

    def describe(self, item: Object, entry: FileEntry, stored: set[int], job: Job) -> ReceiptFile:
        """One stored object; per-stripe rows are added for the first one by `stripes`."""
        return ReceiptFile(
            role=item.role,
            file_type=item.file_type,
            source=item.name,
            name=item.name,
            size_bytes=entry.size,
            stripes_uploaded=len(stored),
            stripes_failed=job.striping.n - len(stored),
            status="success" if len(stored) >= job.striping.k else "failed",
        )

    def stripes(
        self,
        job: Job,
        file_type: int,
        size: int,
        stored: set[int],
        lockers: dict[Claim, Locker],
        errors: dict[int, str],
    ) -> list[ReceiptStripe]:
        """Where each stripe of an object lies."""
        rows = []
        for stripe, node in enumerate(job.servers):
            parity = stripe >= job.striping.k
            rows.append(
                ReceiptStripe(
                    stripe_index=stripe,
                    server_id=node,
                    stripe_size=size,
                    stripe_type="parity" if parity else "data",
                    is_parity=parity,
                    task_id=job.task_id,
                    locker_code=lockers[Claim(unit_of(file_type), node)].code,
                    expires_at=job.created_at + job.duration_weeks * 7 * 86_400,
                    status="ok" if node in stored else "failed",
                    error="" if node in stored else errors.get(node, "not stored yet"),
                )
            )
        return rows

    def manifest(self, entries: tuple[FileEntry, ...]) -> ReceiptManifest:
        """The tell's manifest, in words."""
        return ReceiptManifest(
            file_count=len(entries),
            manifest_len=len(entries) * c.MANIFEST_ENTRY_SIZE,
            flags=1 | c.MANIFEST_HAS_CRC,
            files=[
                ReceiptManifestFile(file_type=e.file_type, flags=e.flags, size_bytes=e.size, crc32=e.crc32 or 0)
                for e in entries
            ],
        )

    def get(self, guid: bytes) -> Receipt:
        """The receipt of a send; NotFound if there is none."""
        return self._ctx.store.sends.receipt(guid)

    async def accept(
        self, receipt: Receipt, job: bytes, objects: dict[int, bytes], stage: str, key: RequestKey | None = None
    ) -> asyncio.Future[None]:
        """Commit a send's intent; the future ends when it is mirrored as well."""
        await self._ctx.store.sends.accept(receipt, job, objects, stage, key)
        return self._mirror(receipt)

    async def change(self, guid: bytes, edit: Callable[[SendRow], None]) -> Receipt:
        """Change a send as the store has it by then, see `SendStore.change`; the receipt, mirrored."""
        now = self._ctx.now()

        def dated(row: SendRow) -> None:
            edit(row)
            row.receipt.updated_at = now

        receipt = (await self._ctx.store.sends.change(guid, dated)).receipt
        await self._mirror(receipt)
        return receipt

    def _mirror(self, receipt: Receipt) -> asyncio.Future[None]:
        text = msgspec.json.format(msgspec.json.encode(receipt), indent=2)
        return self._files.put(f"{receipt.file_guid}.json", text)
