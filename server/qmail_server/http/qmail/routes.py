"""The routes of the QMail node API. Every one answers GET and POST; the older flat names are aliases."""

from __future__ import annotations

from qmail_server.http.errors import LEGACY_UPLOAD
from qmail_server.http.qmail import db, legacy, local, net
from qmail_server.http.respond import Route

ROUTES = (
    Route("/api/qmail/net/messages/upload", net.upload, sink=net.spool),
    Route("/api/qmail/net/messages/tell", net.tell),
    Route("/api/qmail/net/messages/upload_and_tell", net.upload_and_tell, sink=net.spool),
    Route("/api/qmail/net/messages/send", net.upload_and_tell, sink=net.spool),
    Route("/api/qmail/net/messages/download", net.download),
    Route("/api/qmail/net/beacon/peek", net.peek, effects=False),
    Route("/api/qmail/net/beacon/ping", net.ping),
    Route("/api/qmail/receipts", local.receipt, effects=False),
    Route("/api/qmail/db/messages/list", db.list_messages, effects=False),
    Route("/api/qmail/db/messages/get", db.get_message),
    Route("/api/qmail/db/attachments/list", db.list_attachments, effects=False),
    Route("/api/qmail/db/attachments/get", db.get_attachment, effects=False),
    Route("/api/qmail/local/identity/get", local.identity, effects=False),
    Route("/api/qmail/local/identity/whoami", local.whoami, effects=False),
    Route("/api/qmail/local/locker-pool/status", local.locker_pool, effects=False),
    Route("/api/qmail/raida/repair", net.repair),
    Route("/api/system/tasks", local.task, effects=False),
    Route("/api/wallets/balance", local.balance, effects=False),
    Route("/api/wallets/list", local.wallets, effects=False),
    # generation 2
    Route("/api/qmail/upload", legacy.upload, dialect=LEGACY_UPLOAD),
    Route("/api/qmail/check", net.peek, effects=False),
    Route("/api/qmail/poll", net.ping),
    Route("/api/qmail/download", net.download),
    Route("/api/qmail/inbox", db.list_messages, effects=False),
    Route("/api/qmail/read", db.get_message),
)
