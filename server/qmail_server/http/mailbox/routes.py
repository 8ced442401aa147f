"""The resources of the mailbox API; `/user` is understood for `/users`, as its documents write both."""

from __future__ import annotations

from qmail_server.http.errors import MAILBOX
from qmail_server.http.mailbox import mailboxes, messages, source, updates
from qmail_server.http.paths import Resource

_TEMPLATES = (
    ("/users/{user}/mailboxes", {"GET": mailboxes.list_mailboxes, "POST": mailboxes.add_mailbox}),
    (
        "/users/{user}/mailboxes/{mailbox}",
        {"GET": mailboxes.get_mailbox, "PUT": mailboxes.change_mailbox, "DELETE": mailboxes.delete_mailbox},
    ),
    (
        "/users/{user}/mailboxes/{mailbox}/messages",
        {
            "GET": messages.list_messages,
            "POST": source.add_message,
            "PUT": messages.change_message,
            "DELETE": messages.empty_mailbox,
        },
    ),
    (
        "/users/{user}/mailboxes/{mailbox}/messages/{message}",
        {"GET": messages.get_message, "PUT": messages.change_message, "DELETE": messages.delete_message},
    ),
    ("/users/{user}/mailboxes/{mailbox}/messages/{message}/message.eml", {"GET": source.get_source}),
    (
        "/users/{user}/mailboxes/{mailbox}/messages/{message}/attachments/{attachment}",
        {"GET": source.get_attachment},
    ),
    ("/users/{user}/search", {"GET": messages.search_messages}),
    ("/users/{user}/updates", {"GET": updates.updates}),
)

RESOURCES = tuple(
    Resource(prefix + template.removeprefix("/users"), verbs, MAILBOX)
    for template, verbs in _TEMPLATES
    for prefix in (("/users", "/user") if template.startswith("/users") else ("",))
)
