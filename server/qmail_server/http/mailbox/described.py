"""What the document says of the mailbox API: answers by endpoint, parameters by the fields each endpoint asks for."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from qmail_server.http.describe import Facts, Param
from qmail_server.http.mailbox import (
    addresses,
    factors,
    filters,
    mailboxes,
    messages,
    schema,
    source,
    submit,
    updates,
    users,
    webhooks,
)  # fmt: skip
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
    "sess": ("Session of the client, for the log", None),
    "username": ("Name to log in with", "ada"),
    "password": ("The password", "a long password"),
    "existingPassword": ("The password so far, which must be right", None),
    "name": ("Name of the user", "Ada Byron"),
    "forward": ("Where mail is forwarded to", None),
    "targetUrl": ("Where mail is posted to", None),
    "language": ("Language of the user", "en"),
    "quota": ("Bytes the user may keep; 0 for the usual", None),
    "recipients": ("Recipients a day; 0 for the usual", None),
    "forwards": ("Forwarded messages a day; 0 for the usual", None),
    "metaData": ("Anything, kept as it is", None),
    "disabled": ("Nobody logs in", None),
    "reason": ("Why, for the log", "lost device"),
    "scope": ("What is to be opened: `master`, `imap`, `pop3` or `smtp`", None),
    "protocol": ("How, for the log", None),
    "appId": ("What asks, for the list of tokens", None),
    "action": ("Only entries of this action", None),
    "issuer": ("Name the authenticator shows", None),
    "token": ("The code the authenticator shows", "123456"),
    "description": ("What it is for", "Mail client"),
    "scopes": ("What it opens", ["imap"]),
    "asp": ("Id of the application password", _EXAMPLE_ID),
    "address": ("Id of the address", _EXAMPLE_ID),
    "main": ("Make it the main one", True),
    "filter": ("Id of the filter", _EXAMPLE_ID),
    "status": ("Whether it is answered", True),
    "text": ("The text", "Dear Ada"),
    "html": ("The same as HTML", None),
    "start": ("From when", None),
    "end": ("Until when", None),
    "cc": ("Recipients of copies", None),
    "bcc": ("Recipients nobody else is told of", None),
    "replyTo": ("Where answers go", None),
    "reference": ("The message that is answered or forwarded: `mailbox`, `id`, `action`", None),
    "isDraft": ("Only keep it as a draft", None),
    "uploadOnly": ("Only file it", True),
    "webhook": ("Id of the webhook", _EXAMPLE_ID),
    "url": ("Where mail is announced", "https://hooks.example.org/mail"),
    "type": ("What is announced", None),
    "secret": ("Key of the signatures; one is made otherwise", None),
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

_FILTERS = (filters.add_filter, filters.change_filter)
# the same of parameters that mean something else where these endpoints ask for them
OTHERWISE: dict[tuple[Endpoint, str], tuple[str, Any]] = {
    **{
        (end, "query"): ("What mail it is for: `from`, `to`, `subject`, `text`, `ha`, `size`", {"subject": "news"})
        for end in _FILTERS
    },
    **{
        (end, "action"): ("What becomes of it: `seen`, `flag`, `delete`, `spam`, `mailbox`, `forward`", {"seen": True})
        for end in _FILTERS
    },
    **{(end, "name"): ("Name of the filter", "News") for end in _FILTERS},
    (filters.set_autoreply, "name"): ("Name of the sender", None),
    (filters.set_autoreply, "subject"): ("The subject", "Away"),
    (filters.set_autoreply, "text"): ("The text", "Back on Monday"),
    (submit.submit, "mailbox"): ("Mailbox it is filed in, if not the usual one", None),
    (submit.submit, "from"): ("The sender: an address, or `address` and `name`", None),
    (submit.submit, "to"): (
        "Recipients: addresses, or `address` and `name`",
        [{"address": "ada@example.org", "name": "Ada"}],
    ),
    (submit.submit, "subject"): ("The subject", "Plan"),
    (submit.submit, "attachments"): ("Files: `content` in base64, `filename`, `contentType`, `cid`", None),
    (webhooks.add_webhook, "user"): ("Only mail of this user", None),
    (users.authenticate, "token"): ("An access token comes along", True),
    (users.authenticate, "username"): ("Username, or any address of the user", "ada"),
    (users.resolve_user, "username"): ("Username, or any address of the user", "ada"),
    (users.change_user, "password"): ("A new password", None),
    (users.list_users, "query"): ("Part of the username", None),
    (addresses.search_addresses, "query"): ("Part of the address", None),
    (addresses.add_address, "address"): ("The address", "ada.byron@example.org"),
    (users.add_user, "address"): ("The main address; one is made of the username otherwise", "ada@example.org"),
}

TOKEN_ONLY = (users.get_me, users.end_session)  # they read whose token it is, and nothing else

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
    submit.submit: Facts(answer=schema.SubmitAnswer),
    filters.list_filters: Facts(answer=schema.FilterList),
    filters.get_filter: Facts(answer=schema.FilterAnswer),
    filters.add_filter: Facts(answer=schema.Created),
    filters.change_filter: Facts(answer=schema.Success),
    filters.delete_filter: Facts(answer=schema.Success),
    filters.get_autoreply: Facts(answer=schema.AutoreplyAnswer),
    filters.set_autoreply: Facts(answer=schema.Success),
    filters.delete_autoreply: Facts(answer=schema.Success),
    webhooks.list_webhooks: Facts(answer=schema.WebhookList),
    webhooks.get_webhook: Facts(answer=schema.WebhookAnswer),
    webhooks.add_webhook: Facts(answer=schema.WebhookMade),
    webhooks.delete_webhook: Facts(answer=schema.Success),
    users.list_users: Facts(answer=schema.UserList),
    users.get_user: Facts(answer=schema.UserAnswer),
    users.get_me: Facts(answer=schema.UserAnswer),
    users.resolve_user: Facts(answer=schema.Created),
    users.add_user: Facts(answer=schema.Created),
    users.change_user: Facts(answer=schema.Success),
    users.delete_user: Facts(answer=schema.Success),
    users.reset_quota: Facts(answer=schema.QuotaReset),
    users.logout: Facts(answer=schema.Success),
    users.authenticate: Facts(answer=schema.Authenticated),
    users.end_session: Facts(answer=schema.Success),
    users.authlog: Facts(answer=schema.LogList),
    factors.set_up_totp: Facts(answer=schema.TotpSeed),
    factors.enable_totp: Facts(answer=schema.Success),
    factors.check_totp: Facts(answer=schema.Success),
    factors.disable_totp: Facts(answer=schema.Success),
    factors.list_asps: Facts(answer=schema.AspList),
    factors.add_asp: Facts(answer=schema.AspMade),
    factors.delete_asp: Facts(answer=schema.Success),
    addresses.search_addresses: Facts(answer=schema.AddressPage),
    addresses.list_addresses: Facts(answer=schema.AddressList),
    addresses.get_address: Facts(answer=schema.AddressAnswer),
    addresses.add_address: Facts(answer=schema.Created),
    addresses.change_address: Facts(answer=schema.Success),
    addresses.delete_address: Facts(answer=schema.Success),
}


def _param(endpoint: Endpoint, field: Field) -> Param:
    about, example = OTHERWISE.get((endpoint, field.name)) or ABOUT.get(field.name, ("", None))
    schema = schema_of(field.check)
    if field.default is not None:
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        schema = {**schema, "default": default}
    return Param(field.name, about, schema, field.required, example)


def _facts(endpoint: Endpoint, answer: Facts) -> Facts:
    fields = () if endpoint in TOKEN_ONLY else fields_of(endpoint)
    return structs.replace(answer, takes=tuple(_param(endpoint, field) for field in fields))


FACTS: dict[Endpoint, Facts] = {endpoint: _facts(endpoint, answer) for endpoint, answer in ANSWERS.items()}
