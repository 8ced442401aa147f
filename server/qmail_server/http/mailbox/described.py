"""What the document says of the mailbox API: answers by endpoint, parameters by the fields each endpoint asks for."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from qmail_server.http.describe import Facts, Param
from qmail_server.http.mailbox import mailboxes, messages, schema, source, updates
from qmail_server.http.mailbox.fields import Field, schema_of
from qmail_server.http.mailbox.given import fields_of
from qmail_server.http.paths import Endpoint

_EXAMPLE_ID = "665f1c0a9d3e4b7a12c04e91"

# what a parameter is, and its value in the request shown; None leaves it out there
ABOUT: dict[str, tuple[str, Any]] = {
    "user": ("Id of the user", _EXAMPLE_ID),
    "mailbox": ("Id of the mailbox", _EXAMPLE_ID),
    "message": ("`<id>:<uid>`; also a uid, a list or a range where several messages can be meant", f"{_EXAMPLE_ID}:1"),
    "attachment": ("Id of the attachment, as the message lists it", "ATT00001"),
    "ip": ("Address of the client", None),
    "limit": ("How many rows at most", 20),
    "page": ("Number of the page, for display", None),
    "next": ("Cursor of the answer before: the rows behind it", None),
    "prev": ("Cursor of the answer before: the rows in front of it", None),
    "previous": ("The same as `prev`", None),
    "counters": ("How much is in each mailbox", True),
    "path": ("Path of the mailbox; `/` separates", "Projects/Harbor"),
    "retention": ("How long new messages are kept, in milliseconds", None),
    "subscribed": ("Whether clients show it", True),
    "order": ("`asc` for oldest first", None),
    "query": ("Words that must all occur", "minutes"),
    "q": ("The same under its other name", None),
    "thread": ("Only messages of this thread", None),
    "from": ("Part of the sender", None),
    "to": ("Part of a recipient", None),
    "subject": ("Part of the subject", None),
    "datestart": ("Not older than this", None),
    "dateend": ("Not newer than this", None),
    "minSize": ("Bytes at least", None),
    "maxSize": ("Bytes at most", None),
    "attachments": ("Only messages with attachments", None),
    "flagged": ("Flagged", None),
    "unseen": ("Unseen", None),
    "searchable": ("Understood and ignored: trash and junk are never searched", None),
    "replaceCidLinks": ("Links inside the HTML lead to the attachments", None),
    "markAsSeen": ("Mark it seen", None),
    "seen": ("Seen", True),
    "deleted": ("Marked for deletion", None),
    "draft": ("A draft", None),
    "expires": ("When it is to be removed", None),
    "newMailbox": ("Move to this mailbox", None),
    "moveTo": ("The same as `newMailbox`", None),
    "async": ("Understood and ignored", None),
    "skipArchive": ("Understood and ignored", None),
    "raw": ("The message in base64", "U3ViamVjdDogSGkKCkhlbGxvCg=="),
    "date": ("When it came", None),
}

ANSWERS: dict[Endpoint, Facts] = {
    mailboxes.list_mailboxes: Facts(answer=schema.MailboxList),
    mailboxes.get_mailbox: Facts(answer=schema.MailboxAnswer),
    mailboxes.add_mailbox: Facts(answer=schema.Created),
    mailboxes.change_mailbox: Facts(answer=schema.Success),
    mailboxes.delete_mailbox: Facts(answer=schema.Success),
    messages.list_messages: Facts(answer=schema.MessageList),
    messages.search_messages: Facts(answer=schema.SearchList),
    messages.get_message: Facts(answer=schema.MessageAnswer),
    messages.change_message: Facts(answer=schema.MessageChanged),
    messages.delete_message: Facts(answer=schema.Success),
    messages.empty_mailbox: Facts(answer=schema.MailboxEmptied),
    source.add_message: Facts(answer=schema.MessageStored, raw="message/rfc822", beside=("unseen", "flagged", "draft")),
    source.get_source: Facts(media="message/rfc822"),
    source.get_attachment: Facts(media="*/*"),
    updates.updates: Facts(media="text/event-stream", endless=True),
}


def _param(field: Field) -> Param:
    about, example = ABOUT.get(field.name, ("", None))
    schema = schema_of(field.check)
    if field.default is not None:
        schema = {**schema, "default": field.default}
    return Param(field.name, about, schema, field.required, example)


FACTS = {
    endpoint: structs.replace(answer, takes=tuple(map(_param, fields_of(endpoint))))
    for endpoint, answer in ANSWERS.items()
}
