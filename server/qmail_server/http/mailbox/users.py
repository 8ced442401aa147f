"""Users: list, get, make, change, remove; authentication, its log, and quotas."""

from __future__ import annotations

from typing import Any

import msgspec

from qmail_core.engine.accounts import Account, Entry, NewUser, UserChanges, defaults
from qmail_server.http.mailbox import fields as f
from qmail_server.http.mailbox.given import given
from qmail_server.http.mailbox.messages import iso
from qmail_server.http.mailbox.paging import Asked, cursor_of
from qmail_server.http.mailbox.who import for_all, me, missing_privileges, origin, speaker, token_of, user_of
from qmail_server.http.respond import Call

_TOKEN_LIFE = 30 * 86_400
_SESS = f.Field("sess", f.text(255))
_PASSWORD = f.text(256, 1, trim=False)
_OPERATORS = ("quota", "recipients", "forwards", "disabled")
_SETTINGS = (
    f.Field("name", f.text(256)),
    f.Field("forward", f.text(320)),
    f.Field("targetUrl", f.text(256)),
    f.Field("language", f.text(20, 2, lower=True)),
    *(f.Field(name, f.number()) for name in ("quota", "retention", "recipients", "forwards")),
    f.Field("metaData", f.structured(dict)),
)


async def list_users(call: Call) -> dict[str, Any]:
    """Users by id; with `query`, those whose username contains it."""
    for_all(call)
    found = await given(call, f.Field("query", f.text(100, lower=True)), f.LIMIT, f.PAGE, *f.CURSORS)
    asked = Asked(found)
    page = call.engine.accounts.users.page(
        asked.limit,
        query=found["query"] or "",
        after=asked.after and asked.after[0],
        before=asked.before and asked.before[0],
    )
    ends = [cursor_of(page.rows[at].oid) for at in (0, -1)] if page.rows else [None, None]
    paging = asked.answer("/users", page.total, *ends, earlier=page.earlier, more=page.more, query=found["query"] or "")
    named = {"query": found["query"]} if found["query"] else {}
    return {"success": True, **named, **paging, "results": [_row(account) for account in page.rows]}


def _row(account: Account) -> dict[str, Any]:
    return {
        "id": account.oid.hex(),
        "username": account.username,
        "name": account.name,
        "address": account.address,
        "quota": _quota(account),
        "enabled2fa": account.enabled2fa,
        "activated": account.activated,
        "disabled": account.disabled,
    }


def _quota(account: Account) -> dict[str, int]:
    return {"allowed": account.quota or defaults.QUOTA, "used": max(account.used, 0)}


async def get_user(call: Call) -> dict[str, Any]:
    """One user."""
    found = await given(call, f.USER)
    user_of(call, found["user"])
    return {"success": True, **_whole(call, call.engine.accounts.users.get(found["user"]))}


async def get_me(call: Call) -> dict[str, Any]:
    """The user whose token it is."""
    return {"success": True, **_whole(call, call.engine.accounts.users.get(me(call)))}


def _whole(call: Call, account: Account) -> dict[str, Any]:
    def counted(kind: str, own: int, default: int) -> dict[str, Any]:
        used, seconds = call.engine.post.usage(account.id, kind)
        return {"allowed": own or default, "used": used, "ttl": seconds or False}

    return {
        "id": account.oid.hex(),
        "username": account.username,
        "name": account.name,
        "address": account.address,
        "language": account.language,
        "retention": account.retention or False,
        "enabled2fa": account.enabled2fa,
        "limits": {
            "quota": _quota(account),
            "recipients": counted("recipients", account.recipients, defaults.RECIPIENTS),
            "forwards": counted("forwards", account.forwards, defaults.FORWARDS),
        },
        "forward": account.forward,
        "targetUrl": account.target_url,
        "metaData": msgspec.json.decode(account.meta),
        "hasPasswordSet": account.has_password,
        "activated": account.activated,
        "disabled": account.disabled,
    }


async def resolve_user(call: Call) -> dict[str, Any]:
    """The id behind a username or an address."""
    for_all(call)
    found = await given(call, f.Field("username", f.text(320, 1), required=True))
    return {"success": True, "id": call.engine.accounts.users.resolve(found["username"]).oid.hex()}


async def add_user(call: Call) -> dict[str, Any]:
    """A new user with an address and the usual mailboxes."""
    for_all(call)
    required = (f.Field("username", f.text(320), required=True), f.Field("password", _PASSWORD, required=True))
    found = await given(call, *required, f.Field("address", f.text(320)), *_SETTINGS, f.IP, _SESS)
    new = NewUser(
        username=found["username"],
        password=found["password"],
        address=found["address"] or "",
        **_columns(found),
    )
    account = await call.engine.accounts.users.create(new, origin(found))
    return {"success": True, "id": account.oid.hex()}


def _columns(found: dict[str, Any]) -> dict[str, Any]:
    """Settings in the engine's names; those that were not given are left out."""
    names = {"targetUrl": "target_url", "metaData": "meta"}
    given_ = {field.name: found[field.name] for field in _SETTINGS if found[field.name] is not None}
    if "metaData" in given_:
        given_["metaData"] = msgspec.json.encode(given_["metaData"])
    return {names.get(name, name): value for name, value in given_.items()}


async def change_user(call: Call) -> dict[str, Any]:
    """Change what is given; with `existingPassword` only if that is right.

    A user's own access token changes neither limits nor `disabled`, and a password only beside the present one.
    """
    passwords = (f.Field("password", _PASSWORD), f.Field("existingPassword", _PASSWORD))
    found = await given(call, f.USER, *passwords, *_SETTINGS, f.Field("disabled", f.flag), f.IP, _SESS)
    user_of(call, found["user"])
    if speaker(call) is not None:
        _check_own(found)
    changes = _columns(found)
    for name, column in (("password", "password"), ("existingPassword", "existing_password"), ("disabled", "disabled")):
        if found[name] is not None:
            changes[column] = found[name]
    await call.engine.accounts.users.update(found["user"], UserChanges(**changes), origin(found))
    return {"success": True}


def _check_own(found: dict[str, Any]) -> None:
    """What a user may change without whoever runs the server: who has found a token cannot keep the account by it."""
    if any(found[name] is not None for name in _OPERATORS):
        raise missing_privileges()
    if found["password"] is not None and found["existingPassword"] is None:
        raise f.invalid({"existingPassword": "is required"})


async def delete_user(call: Call) -> dict[str, Any]:
    """Remove a user with all mail."""
    for_all(call)
    found = await given(call, f.USER, f.IP, _SESS)
    await call.engine.accounts.users.delete(found["user"])
    return {"success": True}


async def reset_quota(call: Call) -> dict[str, Any]:
    """Count a user's bytes anew."""
    found = await given(call, f.USER, f.IP, _SESS)
    user_of(call, found["user"])
    before, used = await call.engine.accounts.users.reset_quota(found["user"])
    return {"success": True, "storageUsed": used, "previousStorageUsed": before}


async def logout(call: Call) -> dict[str, Any]:
    """End all access tokens of a user."""
    found = await given(call, f.USER, f.Field("reason", f.text(128)), f.IP, _SESS)
    user_of(call, found["user"])
    tokens = call.engine.accounts.tokens
    for token in tokens.listed(found["user"]):
        await tokens.revoke(found["user"], token.oid)
    return {"success": True}


# ------------------------------------------------------------------------------------------------------------------
# Authentication


async def authenticate(call: Call) -> dict[str, Any]:
    """Who it is, by username or any address; with `token` an access token comes along."""
    found = await given(
        call,
        f.Field("username", f.text(320, 1), required=True),
        f.Field("password", _PASSWORD, required=True),
        f.Field("scope", f.text(30), default="master"),
        f.Field("protocol", f.text(100), default="API"),
        f.Field("token", f.flag, default=False),
        f.Field("appId", f.text(128)),
        f.IP,
        _SESS,
        anybody=True,
    )
    who = await call.engine.accounts.authenticate(
        found["username"],
        found["password"],
        scope=found["scope"],
        protocol=found["protocol"],
        origin=origin(found),
    )
    answer: dict[str, Any] = {
        "success": True,
        "id": who.account.oid.hex(),
        "username": who.account.username,
        "scope": who.scope,
        "require2fa": who.require2fa,
        "address": who.account.address,
    }
    if found["token"] and not who.require2fa and who.scope == "master":
        issued = await call.engine.accounts.tokens.create(
            who.account.oid, seconds=_TOKEN_LIFE, description=found["appId"] or "API"
        )
        answer["token"] = issued.text
    return answer


async def end_session(call: Call) -> dict[str, Any]:
    """End the access token the request shows."""
    user = me(call)
    shown = call.engine.accounts.tokens.verify(token_of(call)).token
    await call.engine.accounts.tokens.revoke(user, shown.oid)
    return {"success": True}


async def authlog(call: Call) -> dict[str, Any]:
    """What happened around a user's passwords in the last 30 days, newest first."""
    found = await given(call, f.USER, f.Field("action", f.text(100)), f.LIMIT, f.PAGE, *f.CURSORS)
    user_of(call, found["user"])
    asked = Asked(found)
    page = call.engine.accounts.authlog(
        found["user"],
        asked.limit,
        action=found["action"],
        after=asked.after and asked.after[0],
        before=asked.before and asked.before[0],
    )
    ends = [cursor_of(page.rows[at].oid) for at in (0, -1)] if page.rows else [None, None]
    path = f"/users/{found['user'].hex()}/authlog"
    paging = asked.answer(path, page.total, *ends, earlier=page.earlier, more=page.more, action=found["action"])
    return {"success": True, **paging, "results": [_entry(entry) for entry in page.rows]}


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.oid.hex(),
        "action": entry.action,
        **entry.detail,
        "created": iso(entry.created_at),
    }
