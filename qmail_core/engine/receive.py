"""The one receive path: ask the beacons, keep the tells, fetch the objects, file the message.

A beacon forgets a tell soon after handing it out, so a tell is committed here before anybody hears of it. A mail is
downloaded at most once into the store; asking again returns the stored copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable
from typing import BinaryIO

import msgspec

from qmail_core.codec import consts as c
from qmail_core.codec import mail, message
from qmail_core.codec.cbdf import MailMeta
from qmail_core.codec.legacy_reader import OldReader
from qmail_core.engine.context import Context
from qmail_core.engine.durable import put_in_place
from qmail_core.engine.fetch import Fetch
from qmail_core.engine.keeper import Pairs
from qmail_core.engine.mailbox import Mailbox
from qmail_core.engine.polls import Polls
from qmail_core.engine.turns import Turns
from qmail_core.errors import Forbidden, NotFound, RemoteProtocolError
from qmail_core.folders import make_private
from qmail_core.model import (
    Address,
    Downloaded,
    FileEntry,
    Kind,
    Notification,
    Polled,
    Recipient,
    StoredAttachment,
    StripeLocation,
    Tell,
)
from qmail_core.store.base import ReceivedTell

log = logging.getLogger("qmail.receive")


def _notification(kept: ReceivedTell) -> Notification:
    tell, _ = mail.parse_record(memoryview(kept.record))
    return Notification(
        id=kept.id, tell=tell, received_at=kept.received_at, downloaded=kept.downloaded, payment=kept.payment
    )


def _since(begun: float) -> int:
    """Milliseconds by the loop's clock, which nobody sets."""
    return int((asyncio.get_running_loop().time() - begun) * 1000)


class Receiver:
    """Receives the mails of one engine."""

    def __init__(self, ctx: Context, mailbox: Mailbox) -> None:
        self._ctx = ctx
        self._mailbox = mailbox
        self.turns = Turns()  # by mail: who writes its files
        self.polls = Polls(ctx, self._keep, self._waiting)
        self._folder = os.path.join(ctx.config.data, "Attachments")

    # ---------------------------------------------------------------------------------------------- beacons

    async def peek(self, since: int) -> Polled:
        """Ask both beacons now; answers every tell whose mail has not been downloaded yet."""
        begun = asyncio.get_running_loop().time()
        await self.polls.peek(since)
        found = Polled(self.notifications(since), elapsed_ms=_since(begun))
        self.polls.heard(found)
        return found

    async def ping(self, timeout: float, since: int) -> Polled:
        """Wait for new tells at both beacons at once; answers only tells that were not known before."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answer: asyncio.Future[Polled | Exception] = loop.create_future()

        def told(found: Polled | Exception) -> None:
            if not answer.done():
                answer.set_result(found)

        waiting = self.polls.wait(timeout, since, told)
        try:
            found = await answer
        finally:
            waiting.close()
        if isinstance(found, Exception):
            raise found
        return msgspec.structs.replace(found, elapsed_ms=_since(begun))

    async def close(self) -> None:
        """Listen to the beacons no more."""
        await self.polls.close()

    async def _keep(self, pairs: Pairs) -> bool:
        """Commit what beacons handed out, and announce what is new; whether anything was."""
        records = {tell.guid: record for record, tell in pairs.items() if tell.tell_type != c.TELL_READ_RECEIPT}
        new = await self._ctx.store.mail.add_tells(list(records.items()), self._ctx.now())
        if new:
            shown = sorted(map(self.notification, set(new)), key=lambda item: item.id)
            self.polls.announce(Polled(tuple(shown)))
        opened = [await self._note_opened(tell) for tell in pairs.values() if tell.tell_type == c.TELL_READ_RECEIPT]
        return bool(new) or any(opened)

    def _waiting(self, guids: Iterable[bytes]) -> Polled:
        shown = map(self.notification, guids)
        return Polled(tuple(item for item in shown if not item.downloaded))

    async def _note_opened(self, tell: Tell) -> bool:
        """A recipient of a sent mail says that it was opened; the beacon has proved who that is."""
        at = min(tell.timestamp, self._ctx.now()) or self._ctx.now()
        fresh = await self._ctx.store.files.mark_opened(tell.guid, tell.sender, at)
        if fresh:
            log.info("mail %s was opened by %s", tell.guid.hex(), tell.sender)
        return fresh

    def notifications(self, since: int) -> tuple[Notification, ...]:
        """Tells that wait for their download."""
        return tuple(map(_notification, self._ctx.store.mail.pending_tells(since)))

    def notification(self, guid: bytes) -> Notification:
        """One tell; NotFound if none came with this guid."""
        return _notification(self._ctx.store.mail.tell(guid))

    def shown(self, limit: int, *, downloaded: bool) -> tuple[Notification, ...]:
        """Tells the user has not dismissed, newest first."""
        return tuple(map(_notification, self._ctx.store.mail.shown_tells(limit, downloaded=downloaded)))

    # ---------------------------------------------------------------------------------------------- mails

    async def download(self, guid: bytes, sender_sn: int | None) -> Downloaded:
        """Fetch and file one mail.

        sender_sn  permits a download without a tell, from all nodes
        raises     NotFound without a tell; ErasureError, QuorumError when it cannot be rebuilt now (nothing is stored
                   then, and a later try may succeed)
        """
        async with self.turns.take(guid):
            stored = self._stored(guid)
            return stored if stored is not None else await self._download(guid, sender_sn)

    def look(self, guid: bytes, sender_sn: int | None) -> Downloaded | None:
        """The mail if it was fetched before; NotFound if `download` could not tell where it is."""
        stored = self._stored(guid)
        if stored is None:
            self._tell(guid, sender_sn)
        return stored

    def _stored(self, guid: bytes) -> Downloaded | None:
        found = self._ctx.store.mail.received(guid)
        if found is None:
            return None
        return Downloaded(found, tuple(self._ctx.store.mail.attachments(found.id)), 0, 0, already_downloaded=True)

    async def _download(self, guid: bytes, sender_sn: int | None) -> Downloaded:
        tell = self._tell(guid, sender_sn)
        fetches = [Fetch(self._ctx, tell, kind, self._entry(tell, kind)) for kind in (c.FILE_META, c.FILE_BODY)]
        # both at once: neither depends on the other
        meta, body = await asyncio.gather(*map(self._whole, fetches))
        parsed = message.parse(meta, body)
        if parsed.meta.guid != guid:
            raise RemoteProtocolError("the mail names another GUID than its tell")
        sizes = [entry.size for entry in tell.files if entry.file_type >= c.FILE_ATTACHMENT]
        names = list(parsed.meta.attachment_names)
        if self._entry(tell, c.FILE_META) is None:  # nothing lists the files: no tell, or one of an early client
            sizes = await self._attachment_sizes(tell, len(names))
        names += [f"attachment-{i + 1}.bin" for i in range(len(names), len(sizes))]
        filed = await self._mailbox.file_received(
            guid,
            tell.sender if sender_sn is None else parsed.meta.sender,
            parsed.meta.subject,
            parsed.text,
            self._recipients(parsed.meta),
            parsed.meta.timestamp,
            list(zip(names, sizes, strict=False)),
        )
        failed = {node: error for fetch in fetches for node, error in fetch.failed.items()}
        good = set.union(*(fetch.good for fetch in fetches)) - set(failed)
        unlisted = fetches[0].striping.n - len(tell.servers)
        return Downloaded(
            filed,
            tuple(self._ctx.store.mail.attachments(filed.id)),
            stripes_downloaded=len(good),
            stripes_recovered=len(failed) + max(0, unlisted),
            liars=tuple(sorted(set.union(*(fetch.liars for fetch in fetches)))),
        )

    def _recipients(self, meta: MailMeta) -> list[Recipient]:
        named = [(Kind.TO, who) for who in meta.to] + [(Kind.CC, who) for who in meta.cc]
        return [Recipient(kind, self._mailbox.name_of(who), who) for kind, who in named]

    async def _whole(self, fetch: Fetch) -> bytes:
        return b"".join([part async for part in fetch.plaintext()])

    async def _attachment_sizes(self, tell: Tell, count: int) -> list[int]:
        """Without a manifest the stripes themselves say how large each attachment is."""
        sizes = []
        for position in range(count):
            fetch = Fetch(self._ctx, tell, c.FILE_ATTACHMENT + position, None)
            shards = await fetch.row(0)
            assert fetch.reader is not None
            if isinstance(fetch.reader, OldReader):
                fetch.reader.join(0, shards)  # only the bytes themselves tell their number
            sizes.append(fetch.reader.length)
        return sizes

    def _entry(self, tell: Tell, file_type: int) -> FileEntry | None:
        return next((entry for entry in tell.files if entry.file_type == file_type), None)

    def _tell(self, guid: bytes, sender_sn: int | None) -> Tell:
        try:
            return mail.parse_record(memoryview(self._ctx.store.mail.tell(guid).record))[0]
        except NotFound:
            if sender_sn is None:
                raise
        striping = self._ctx.config.striping
        servers = tuple(StripeLocation(node, node >= striping.k, node) for node in range(striping.n))
        return Tell(guid=guid, sender=Address(0, sender_sn), timestamp=0, striping=striping, servers=servers)

    # ---------------------------------------------------------------------------------------------- attachments

    async def attachment(self, message_id: bytes, attachment_id: int, *, fetch: bool) -> StoredAttachment:
        """One attachment of a message; with `fetch` its bytes are on disk when this returns."""
        found = self._ctx.store.mail.attachment(attachment_id)
        if found.message_id != message_id:
            raise Forbidden("Attachment does not belong to the specified email")
        if not fetch or found.mode == 0 or _on_disk(found):  # 0: the store has it, see engine/letters.py
            return found
        async with self.turns.take(message_id):
            found = self._ctx.store.mail.attachment(attachment_id)
            if _on_disk(found):
                return found
            return await self._fetch_attachment(found)

    async def _fetch_attachment(self, found: StoredAttachment) -> StoredAttachment:
        tell = self._tell_of_message(found.message_id)
        file_type = c.FILE_ATTACHMENT + found.position
        fetch = Fetch(self._ctx, tell, file_type, self._entry(tell, file_type))
        path = os.path.join(self._folder, found.message_id.hex(), str(found.position))
        loop = asyncio.get_running_loop()
        try:
            with create(f"{path}.part") as file:
                async for part in fetch.plaintext():
                    await loop.run_in_executor(None, file.write, part)
                await loop.run_in_executor(None, finish, file, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(f"{path}.part")
            raise
        return await self._ctx.store.mail.attachment_fetched(found.id, path)

    def _tell_of_message(self, message_id: bytes) -> Tell:
        """The tell a message came with; for one that was sent, or downloaded without, all nodes are asked."""
        found = self._ctx.store.mail.message_of(message_id)
        return self._tell(found.guid, found.sender.serial)


def _on_disk(found: StoredAttachment) -> bool:
    return found.mode == 1 and os.path.exists(found.path)


def create(path: str) -> BinaryIO:
    """A new file for its owner only, with the folders above it."""
    make_private(os.path.dirname(path))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def finish(file: BinaryIO, path: str) -> None:
    """Give a complete file its name; before that nobody sees it."""
    file.flush()
    os.fdatasync(file.fileno())
    put_in_place(f"{path}.part", path)
