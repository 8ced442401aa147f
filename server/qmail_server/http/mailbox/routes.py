"""The resources of the mailbox API; `/user` is understood for `/users`, as its documents write both."""

from __future__ import annotations

from qmail_server.http.errors import MAILBOX
from qmail_server.http.mailbox import (
    addresses,
    factors,
    filters,
    mailboxes,
    messages,
    source,
    submit,
    updates,
    users,
    webhooks,
)
from qmail_server.http.paths import Resource

_TOTP = {
    "POST": factors.set_up_totp,
    "PUT": factors.enable_totp,
    "GET": factors.check_totp,
    "DELETE": factors.disable_totp,
}
_TEMPLATES = (
    ("/users", {"GET": users.list_users, "POST": users.add_user}),
    ("/users/me", {"GET": users.get_me}),
    ("/users/resolve/{username}", {"GET": users.resolve_user}),
    ("/users/{user}", {"GET": users.get_user, "PUT": users.change_user, "DELETE": users.delete_user}),
    ("/users/{user}/quota/reset", {"POST": users.reset_quota}),
    ("/users/{user}/logout", {"PUT": users.logout}),
    ("/users/{user}/authlog", {"GET": users.authlog}),
    ("/users/{user}/2fa", _TOTP),
    ("/users/{user}/2fa/totp/setup", {"POST": factors.set_up_totp}),
    ("/users/{user}/2fa/totp/enable", {"POST": factors.enable_totp}),
    ("/users/{user}/2fa/totp/check", {"POST": factors.check_totp}),
    ("/users/{user}/2fa/totp", {"DELETE": factors.disable_totp}),
    ("/users/{user}/asps", {"GET": factors.list_asps, "POST": factors.add_asp}),
    ("/users/{user}/asps/{asp}", {"DELETE": factors.delete_asp}),
    ("/users/{user}/addresses", {"GET": addresses.list_addresses, "POST": addresses.add_address}),
    (
        "/users/{user}/addresses/{address}",
        {"GET": addresses.get_address, "PUT": addresses.change_address, "DELETE": addresses.delete_address},
    ),
    ("/addresses", {"GET": addresses.search_addresses}),
    ("/authenticate", {"POST": users.authenticate, "DELETE": users.end_session}),
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
    ("/users/{user}/submit", {"POST": submit.submit}),
    ("/users/{user}/filters", {"GET": filters.list_filters, "POST": filters.add_filter}),
    (
        "/users/{user}/filters/{filter}",
        {"GET": filters.get_filter, "PUT": filters.change_filter, "DELETE": filters.delete_filter},
    ),
    (
        "/users/{user}/autoreply",
        {"GET": filters.get_autoreply, "PUT": filters.set_autoreply, "DELETE": filters.delete_autoreply},
    ),
    ("/webhooks", {"GET": webhooks.list_webhooks, "POST": webhooks.add_webhook}),
    ("/webhooks/{webhook}", {"GET": webhooks.get_webhook, "DELETE": webhooks.delete_webhook}),
)

RESOURCES = tuple(
    Resource(prefix + template.removeprefix("/users"), verbs, MAILBOX)
    for template, verbs in _TEMPLATES
    for prefix in (("/users", "/user") if template.startswith("/users") else ("",))
)
