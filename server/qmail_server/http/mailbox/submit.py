"""Sending: a message from its parts, filed in Sent Mail (or kept as a draft) and delivered."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from qmail_core.engine.post import Attached, Person, Reference, Submission
from qmail_server.http.mailbox import fields as f
from qmail_server.http.mailbox.given import MAX_BODY, given
from qmail_server.http.mailbox.messages import name_of, uid_of
from qmail_server.http.mailbox.who import user_of
from qmail_server.http.respond import Call

_MOST_PEOPLE = 1000
_MOST_FILES = 200
_TEXT = f.text(1 << 24, trim=False)


_PERSON = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"address": {"type": "string"}, "name": {"type": "string"}},
            "required": ["address"],
        },
    ]
}


@f.shaped(**_PERSON)
def person(name: str, value: Any) -> Person:
    """An address with a name, or an address alone."""
    if isinstance(value, str):
        value = {"address": value}
    if not isinstance(value, dict) or not isinstance(value.get("address"), str) or not value["address"].strip():
        raise ValueError("must be an object with an address")
    named = value.get("name") or ""
    if not isinstance(named, str) or len(named) > 255 or len(value["address"]) > 320:
        raise ValueError("must be an object with an address")
    return Person(named, value["address"].strip())


def listed(each: Callable[[str, Any], Any], most: int) -> f.Check:
    """A list, or one alone."""

    @f.shaped(type="array", items=f.schema_of(each), maxItems=most)
    def check(name: str, value: Any) -> list[Any]:
        found = value if isinstance(value, list) else [value]
        if len(found) > most:
            raise ValueError(f"must contain less than or equal to {most} items")
        return [each(name, one) for one in found]

    return check


@f.shaped(type="object", properties={"content": {"type": "string"}}, required=["content"])
def attached(name: str, value: Any) -> Attached:
    """A file: `content` in base64 (unless `encoding` says `utf8`), `filename`, `contentType`, `cid`."""
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ValueError("must be objects with content")
    return Attached(
        _word(value, "filename", "attachment"),
        _bytes(value["content"], _word(value, "encoding", "base64")),
        _word(value, "contentType", "application/octet-stream"),
        _word(value, "cid", ""),
    )


def _word(value: Mapping[str, Any], name: str, default: str) -> str:
    found = value.get(name, default)
    if not isinstance(found, str) or len(found) > 255:
        raise ValueError(f"has a {name} that is no text of at most 255 characters")
    return found


def _bytes(content: str, encoding: str) -> bytes:
    if encoding in ("utf8", "utf-8"):
        return content.encode("utf-8", "replace")
    try:
        return base64.b64decode(content, validate=True)
    except ValueError:
        raise ValueError("has content that is not valid base64") from None


@f.shaped(type="object", properties={"mailbox": {"type": "string"}, "id": {"type": ["integer", "string"]}})
def reference(name: str, value: Any) -> Reference:
    """The message that is answered or forwarded."""
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    action = value.get("action", "reply")
    if action not in ("reply", "replyAll", "forward"):
        raise ValueError("has an action that must be one of [reply, replyAll, forward]")
    uid = uid_of(str(value.get("id", "")))
    if uid is None:
        raise ValueError("has an id that is not the id of a message")
    files = value.get("attachments", False)
    if isinstance(files, list):
        files = tuple(map(str, files))
    elif not isinstance(files, bool):
        raise ValueError("has attachments that must be a boolean or an array")
    return Reference(mailbox=f.hex_id(name, value.get("mailbox")), uid=uid, action=action, attachments=files)


_PEOPLE = tuple(f.Field(name, listed(person, _MOST_PEOPLE), default=()) for name in ("to", "cc", "bcc"))
_FIELDS = (
    f.USER,
    f.Field("mailbox", f.hex_id),
    f.Field("from", person),
    f.Field("replyTo", person),
    *_PEOPLE,
    f.Field("subject", f.text(2000)),
    f.Field("text", _TEXT, default=""),
    f.Field("html", _TEXT, default=""),
    f.Field("attachments", listed(attached, _MOST_FILES), default=()),
    f.Field("reference", reference),
    f.Field("isDraft", f.flag, default=False),
    f.Field("uploadOnly", f.flag, default=False),
    f.IP,
    f.Field("sess", f.text(255)),
)


async def submit(call: Call) -> dict[str, Any]:
    """Compose a message, file it and send it; with `isDraft` or `uploadOnly` it is only filed."""
    found = await given(call, *_FIELDS, most=MAX_BODY)
    user = user_of(call, found["user"])
    made = await call.engine.post.submit(
        user,
        Submission(
            from_=found["from"] or Person("", ""),
            reply_to=found["replyTo"],
            to=tuple(found["to"]),
            cc=tuple(found["cc"]),
            bcc=tuple(found["bcc"]),
            subject=found["subject"],
            text=found["text"],
            html=found["html"],
            attachments=tuple(found["attachments"]),
            reference=found["reference"],
            draft=found["isDraft"],
            upload_only=found["uploadOnly"],
            mailbox=found["mailbox"],
        ),
    )
    return {
        "success": True,
        "message": {
            "id": made.message.uid,
            "name": name_of(made.message),
            "mailbox": made.mailbox.hex(),
            "queueId": made.queue_id,
            "size": made.message.size,
        },
    }
