"""The resources of the file-transfer API, and which of its paths answer for themselves."""

from __future__ import annotations

import re

from qmail_server.http.errors import TRANSFER
from qmail_server.http.paths import Resource
from qmail_server.http.transfer import downloads, files, inbox, keys, mails, tus
from qmail_server.http.transfer.given import authorized

# these need a token of their own, whatever the port asks for; all but the bytes of a download, which have a key
OWN_TOKEN = re.compile(r"/api/(?:inbox|mails|files|downloads|keys|pin)(?:/.*)?", re.DOTALL)
LINKS = re.compile(r"/api/downloads/[^/]+")
SECRET = re.compile(r"^(/api/keys/).+", re.DOTALL)  # what no access line shows


_TEMPLATES = (
    ("/api/inbox", {"GET": authorized(inbox.list_inbox)}),
    ("/api/inbox/{id}", {"GET": authorized(inbox.get_mail)}),
    ("/api/mails", {"GET": authorized(mails.list_mails), "POST": authorized(mails.send)}),
    ("/api/mails/{id}", {"GET": authorized(mails.get_mail)}),
    (tus.PATH, {"OPTIONS": tus.about, "POST": tus.spoken(tus.create)}),
    (
        f"{tus.PATH}/{{id}}",
        {
            "OPTIONS": tus.about,
            "HEAD": tus.spoken(tus.look),
            "PATCH": tus.spoken(tus.add),
            "DELETE": tus.spoken(tus.terminate),
            "POST": tus.spoken(tus.overridden),
        },
    ),
    ("/api/files", {"GET": authorized(files.list_files), "POST": authorized(files.upload)}),
    (
        "/api/files/{id}",
        {
            "GET": authorized(files.get_file),
            "PATCH": authorized(files.change_file),
            "DELETE": authorized(files.delete_file),
        },
    ),
    ("/api/downloads", {"POST": authorized(downloads.add_download)}),
    ("/api/downloads/{id}", {"GET": downloads.get_download, "DELETE": authorized(downloads.delete_download)}),
    ("/api/downloads/{id}/keys", {"POST": authorized(downloads.add_key)}),
    ("/api/keys", {"POST": authorized(keys.add_key)}),
    ("/api/keys/{key}", {"DELETE": authorized(keys.delete_key)}),
    ("/api/pin", {"GET": authorized(keys.get_pin), "PUT": authorized(keys.set_pin)}),
    # these two are for whoever may use the port
    ("/api/tokens", {"GET": keys.list_tokens, "POST": keys.add_token}),
    ("/api/tokens/{id}", {"DELETE": keys.delete_token}),
)

RESOURCES = tuple(
    Resource(template, verbs, tus.DIALECT if template.startswith(tus.PATH) else TRANSFER)
    for template, verbs in _TEMPLATES
)
