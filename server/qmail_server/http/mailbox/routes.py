"""The resources of the mailbox API; `/user` is understood for `/users`, as its documents write both."""

from __future__ import annotations

from qmail_server.http.errors import MAILBOX
from qmail_server.http.mailbox import mailboxes
from qmail_server.http.paths import Resource

_TEMPLATES = (
    ("/users/{user}/mailboxes", {"GET": mailboxes.list_mailboxes, "POST": mailboxes.add_mailbox}),
    (
        "/users/{user}/mailboxes/{mailbox}",
        {"GET": mailboxes.get_mailbox, "PUT": mailboxes.change_mailbox, "DELETE": mailboxes.delete_mailbox},
    ),
)

RESOURCES = tuple(
    Resource(prefix + template.removeprefix("/users"), verbs, MAILBOX)
    for template, verbs in _TEMPLATES
    for prefix in (("/users", "/user") if template.startswith("/users") else ("",))
)
