"""Pages of a list: the cursor a page ends with, and the links to its neighbours.

A cursor is URL-safe base64 of extended JSON, as clients of this API have always been given: `{"$oid": ...}` where the
list is ordered by id, `[uid, {"$oid": ...}]` where it is ordered by uid.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from qmail_server.http.mailbox.fields import invalid
from qmail_server.http.params import json_of


def cursor_of(oid: bytes, uid: int | None = None) -> str:
    """The cursor of a row."""
    value: Any = {"$oid": oid.hex()}
    raw = msgspec.json.encode(value if uid is None else [uid, value])
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def read_cursor(name: str, text: str) -> tuple[bytes, int | None]:
    """The oid, and the uid if there is one, of a cursor."""
    try:
        found = json_of(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        uid, value = found if isinstance(found, list) else (None, found)
        oid = bytes.fromhex(value["$oid"])
        if len(oid) != 12 or not (uid is None or (isinstance(uid, int) and 0 <= uid < 1 << 63)):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise invalid({name: "is not a cursor of this list"}) from None
    return oid, uid


class Asked:
    """Where in a list the request wants to be."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        backwards = found.get("previous") or found.get("prev")
        self.limit: int = found["limit"]
        self.after = read_cursor("next", found["next"]) if found.get("next") else None
        self.before = read_cursor("previous", backwards) if backwards and self.after is None else None
        self._page: int = found["page"]

    def answer(
        self,
        path: str,
        total: int,
        first: str | None,
        last: str | None,
        *,
        earlier: bool,
        more: bool,
        **keep: Any,
    ) -> dict[str, Any]:
        """The paging members of an answer: both the old form (relative links) and today's (cursors)."""
        page = self._page if earlier else 1
        if self.before is not None and earlier:
            page = max(page, 1)
        kept = {name: value for name, value in keep.items() if value is not None}

        def link(name: str, cursor: str, number: int) -> str:
            return f"{path}?{urlencode({name: cursor, 'limit': self.limit, **kept, 'page': number})}"

        return {
            "total": total,
            "page": page,
            "prev": link("prev", first, max(page - 1, 1)) if earlier and first else False,
            "next": link("next", last, page + 1) if more and last else False,
            "previousCursor": first if earlier and first else False,
            "nextCursor": last if more and last else False,
        }
