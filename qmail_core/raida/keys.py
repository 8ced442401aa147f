"""Handlers of group 15 (RKE): master keys of content servers and shares of them. Mirrors codec/keys.py; wire E.2.

The standard leaves open how a share comes from a master secret and who may ask; docs/protocol.md lists what is decided
here. Rules: nothing of this group travels in the clear; only coins the operator named may preload, and only a client
gets a share in its own name; neither secrets nor shares enter a log or an error.
"""

from __future__ import annotations

import hmac

from qmail_core.codec import consts as c
from qmail_core.codec import keys as codec
from qmail_core.codec.mail import build_selector, read_selector
from qmail_core.codec.packet import Refused, Request
from qmail_core.raida.context import Answer, Command, Context

_COIN_TYPES = frozenset({c.ENC_COIN, c.ENC_COIN256})  # the wire key proves a coin


def preload_master_key(context: Context, request: Request, now: float) -> Answer:
    """Command 1: keep master keys of a content server."""
    if read_selector(_speaker(request)) not in context.policy.key_servers:
        raise Refused(c.STATUS_ADMIN)
    server_id, keys = codec.parse_preload_master_key(request.payload)
    if not 0 < len(server_id) <= codec.SERVER_ID_SIZE:
        raise Refused(c.STATUS_INVALID_PARAMETER)
    for key in keys:
        context.state.set_master_key(server_id.ljust(codec.SERVER_ID_SIZE, b"\0"), key.kid, key.secret)
    return Answer(c.STATUS_SUCCESS)


def get_key_share(context: Context, request: Request, now: float) -> Answer:
    """Command 2: this node's byte of a client's session key."""
    speaker = _speaker(request)
    wanted = codec.parse_get_key_share(request.payload)
    if build_selector(wanted.client) != speaker:
        raise Refused(c.STATUS_INVALID_PARAMETER)
    secret = context.state.master_key(wanted.server_id, wanted.kid)
    if secret is None:
        raise Refused(c.STATUS_NO_ENTRY)
    return Answer(c.STATUS_SUCCESS, codec.build_key_share(share_of(secret, wanted)))


def share_of(secret: bytes, wanted: codec.ShareRequest) -> int:
    """The byte a master secret gives for one request.

    Bound to server, key, client and timestamp, so that a share tells nothing about the secret or about other sessions;
    the content server, which knows the secrets it preloaded, computes the same.
    """
    return hmac.digest(secret, codec.build_get_key_share(wanted), "sha256")[0]


def _speaker(request: Request) -> bytes:
    """The selector of the coin whose key the request was encrypted with."""
    if request.header.enc not in _COIN_TYPES:
        raise Refused(c.STATUS_INVALID_ENCRYPTION)
    return request.header.selector


KEYS = {
    c.CMD_PRELOAD_MASTER_KEY: Command(preload_master_key),
    c.CMD_GET_KEY_SHARE: Command(get_key_share),
}
