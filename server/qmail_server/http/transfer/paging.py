"""Lists: which rows a request wants, and the page it gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from qmail_core.model import Listing
from qmail_server.http.respond import Call
from qmail_server.http.transfer.given import query, wrong

PER_PAGE = 50
_MOST = 100
_PAGES = 1_000_000


def included(call: Call, *known: str) -> set[str]:
    """What `include` names."""
    names = {name for name in query(call).get("include", "").split(",") if name}
    unknown = sorted(names - set(known))
    if unknown:
        raise wrong({"include": f"The selected include is invalid: {unknown[0]}."})
    return names


def listing(call: Call, sorts: dict[str, str]) -> Listing:
    """The rows a request wants; `sorts` maps what it may say to what the list knows."""
    asked = query(call)
    sort = asked.get("sort", "")
    name = sort.removeprefix("-")
    if sort and name not in sorts:
        raise wrong({"sort": "The selected sort is invalid."})
    per_page = _number(asked, "per_page", PER_PAGE, _MOST)
    return Listing(
        keyword=asked.get("keyword", "")[:200],
        sort=sorts.get(name, ""),
        descending=sort.startswith("-"),
        limit=per_page,
        offset=(_number(asked, "page", 1, _PAGES) - 1) * per_page,
        trashed=asked.get("trashed", "").lower() in ("1", "true"),
    )


def _number(asked: dict[str, str], name: str, default: int, most: int) -> int:
    text = asked.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most and len(text) < 9):
        raise wrong({name: f"The {name} must be between 1 and {most}."})
    return int(text)


def page(call: Call, rows: Sequence[Any], asked: Listing, total: int) -> dict[str, Any]:
    """A list's answer: its rows, and beside them where they stand."""
    last = max(1, -(-total // asked.limit))
    number = asked.offset // asked.limit + 1

    def link(wanted: int) -> str | None:
        if not 1 <= wanted <= last:
            return None
        pairs = parse_qsl(call.scope["query_string"].decode("utf-8", "replace"), keep_blank_values=True)
        kept = [(name, value) for name, value in pairs if name not in ("page", "per_page")]
        return f"{call.scope['path']}?{urlencode([*kept, ('page', wanted), ('per_page', asked.limit)])}"

    return {
        "data": rows,
        "links": {"first": link(1), "last": link(last), "prev": link(number - 1), "next": link(number + 1)},
        "meta": {
            "current_page": number,
            "from": asked.offset + 1 if rows else None,
            "last_page": last,
            "per_page": asked.limit,
            "to": asked.offset + len(rows) if rows else None,
            "total": total,
        },
    }


def same(*names: str) -> dict[str, str]:
    """Sorts that are called what the list calls them."""
    return {name: name for name in names}
