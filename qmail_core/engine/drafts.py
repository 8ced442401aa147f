"""Mails being written: kept as they were typed, recipients included, until they are sent or thrown away."""

from __future__ import annotations

import msgspec

from qmail_core.codec import address
from qmail_core.engine.context import Context
from qmail_core.engine.people import People
from qmail_core.errors import AddressError
from qmail_core.model import DraftCopy, Folder, Kind, Message, MessagePage, Recipient


class Drafts:
    """The drafts of one engine."""

    def __init__(self, ctx: Context, people: People) -> None:
        self._ctx = ctx
        self._people = people

    def page(self, limit: int, offset: int) -> MessagePage:
        """Drafts, the newest first."""
        return self._ctx.store.mail.messages(Folder.DRAFTS, limit, offset, "newest")

    def get(self, draft_id: bytes) -> DraftCopy:
        """NotFound if there is no such draft."""
        return self._ctx.store.mail.draft(draft_id)

    async def create(self, **fields: str) -> Message:
        """Keep a new draft (fields of DraftCopy)."""
        return await self._save(DraftCopy(id=self._ctx.entropy(16), **fields))  # type: ignore[arg-type]

    async def update(self, draft_id: bytes, **fields: str) -> Message:
        """Change the given fields of a draft; an empty text clears one. NotFound if there is no such draft."""
        return await self._save(msgspec.structs.replace(self.get(draft_id), **fields))

    async def _save(self, draft: DraftCopy) -> Message:
        named = msgspec.json.encode(self._recipients(draft))
        kept = msgspec.structs.replace(draft, recipients=named)
        return await self._ctx.store.mail.save_draft(kept, self._ctx.new_oid(), self._ctx.now())

    def _recipients(self, draft: DraftCopy) -> list[Recipient]:
        """Those who can be resolved already; what is typed so far may well mean nobody yet."""
        found = []
        for kind in Kind:
            for text in address.split_list([getattr(draft, kind.value)]):
                try:
                    found.append(Recipient(kind, text, self._people.resolve(text)))
                except AddressError:
                    continue
        return found
