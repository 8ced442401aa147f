"""What happens to mail that comes in: filters, and the answer of somebody who is away."""

from __future__ import annotations

from typing import Any

from qmail_core.engine.post import Autoreply, Filter
from qmail_server.http.mailbox import fields as f
from qmail_server.http.mailbox.given import given
from qmail_server.http.mailbox.messages import iso
from qmail_server.http.mailbox.submit import listed
from qmail_server.http.mailbox.who import user_of
from qmail_server.http.respond import Call

_SESS = f.Field("sess", f.text(255))
FILTER = f.Field("filter", f.hex_id, required=True)
_MOST_SIZE = 1 << 40


def _hex_text(name: str, value: Any) -> str:
    return f.hex_id(name, value).hex()


_QUERY = (
    *(f.Field(name, f.text(255)) for name in ("from", "to", "subject", "text")),
    f.Field("ha", f.flag),
    f.Field("size", f.number(-_MOST_SIZE, _MOST_SIZE)),
)
_ACTION = (
    *(f.Field(name, f.flag) for name in ("seen", "flag", "delete", "spam")),
    f.Field("mailbox", _hex_text),
    f.Field("forward", listed(f.email, 20)),
    f.Field("targets", listed(f.email, 20)),  # today's word for it
)
_SETTINGS = (
    f.Field("name", f.text(255)),
    f.Field("query", f.structured(dict)),
    f.Field("action", f.structured(dict)),
    f.Field("disabled", f.flag),
    f.IP,
    _SESS,
)


def _query(given_: dict[str, Any]) -> dict[str, Any]:
    found = f.read(given_, _QUERY, strict=True)
    return {name: value for name, value in found.items() if value not in (None, "")}


def _action(given_: dict[str, Any]) -> dict[str, Any]:
    found = f.read(given_, _ACTION, strict=True)
    targets = found.pop("targets")
    found["forward"] = found["forward"] or targets
    return {name: value for name, value in found.items() if value not in (None, [], False)}


async def list_filters(call: Call) -> dict[str, Any]:
    """A user's filters, in the order they are asked."""
    found = await given(call, f.USER)
    rows = call.engine.post.filters.listed(user_of(call, found["user"]))
    return {"success": True, "results": [_shown(item) for item in rows]}


async def get_filter(call: Call) -> dict[str, Any]:
    """One filter."""
    found = await given(call, f.USER, FILTER)
    return {"success": True, **_shown(call.engine.post.filters.get(user_of(call, found["user"]), found["filter"]))}


async def add_filter(call: Call) -> dict[str, Any]:
    """A new filter, for mail that comes in from now on."""
    found = await given(call, f.USER, *_SETTINGS)
    user = user_of(call, found["user"])
    item = Filter(
        oid=b"",
        name=found["name"] or "",
        query=_query(found["query"] or {}),
        action=_action(found["action"] or {}),
        disabled=bool(found["disabled"]),
    )
    return {"success": True, "id": (await call.engine.post.filters.add(user, item)).oid.hex()}


async def change_filter(call: Call) -> dict[str, Any]:
    """Change what is given; a query or an action replaces the whole one there was."""
    found = await given(call, f.USER, FILTER, *_SETTINGS)
    user = user_of(call, found["user"])
    was = call.engine.post.filters.get(user, found["filter"])
    item = Filter(
        oid=was.oid,
        name=was.name if found["name"] is None else found["name"],
        query=was.query if found["query"] is None else _query(found["query"]),
        action=was.action if found["action"] is None else _action(found["action"]),
        disabled=was.disabled if found["disabled"] is None else found["disabled"],
        created_at=was.created_at,
    )
    await call.engine.post.filters.change(user, item)
    return {"success": True}


async def delete_filter(call: Call) -> dict[str, Any]:
    """Take a filter away."""
    found = await given(call, f.USER, FILTER, f.IP, _SESS)
    await call.engine.post.filters.remove(user_of(call, found["user"]), found["filter"])
    return {"success": True}


def _shown(item: Filter) -> dict[str, Any]:
    return {
        "id": item.oid.hex(),
        "name": item.name,
        "created": iso(item.created_at),
        "query": item.query,
        "action": item.action,
        "disabled": item.disabled,
    }


# ------------------------------------------------------------------------------------------------------------------
# Automatic answers

_ANSWER = (
    f.Field("status", f.flag),
    f.Field("name", f.text(128)),
    f.Field("subject", f.text(2 * 1024)),
    f.Field("text", f.text(128 * 1024, trim=False)),
    f.Field("html", f.text(128 * 1024, trim=False)),
    f.Field("start", f.when),
    f.Field("end", f.when),
)


async def get_autoreply(call: Call) -> dict[str, Any]:
    """What is answered, and whether it is."""
    found = await given(call, f.USER)
    item = call.engine.post.autoreplies.get(user_of(call, found["user"]))
    return {
        "success": True,
        "status": item.status,
        "name": item.name,
        "subject": item.subject,
        "text": item.text,
        "html": item.html,
        "start": False if item.start is None else iso(item.start),
        "end": False if item.end is None else iso(item.end),
    }


async def set_autoreply(call: Call) -> dict[str, Any]:
    """Change what is given; `false` takes a date away. Everybody may have the answer once more."""
    found = await given(call, f.USER, *_ANSWER, f.IP, _SESS)
    user = user_of(call, found["user"])
    was = call.engine.post.autoreplies.get(user)
    values = {field.name: found[field.name] for field in _ANSWER}
    kept = {name: getattr(was, name) if value is None else value for name, value in values.items()}
    for name in ("start", "end"):
        kept[name] = None if kept[name] is False else kept[name]
    if kept["start"] is not None and kept["end"] is not None and kept["end"] <= kept["start"]:
        raise f.invalid({"end": "must be greater than start"})
    await call.engine.post.autoreplies.set(user, Autoreply(**kept))
    return {"success": True}


async def delete_autoreply(call: Call) -> dict[str, Any]:
    """Answer no more."""
    found = await given(call, f.USER, f.IP, _SESS)
    await call.engine.post.autoreplies.remove(user_of(call, found["user"]))
    return {"success": True}
