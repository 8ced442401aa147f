"""Addresses, application passwords, tokens, keys: their rules and the words of their refusals."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from qmail_core.engine.accounts import UserChanges
from qmail_core.engine.accounts.asps import _draw
from qmail_core.engine.accounts.keys import FILE, Keys
from qmail_core.errors import (
    AddressExists,
    AddressNotFound,
    AspNotFound,
    ChangeNotAllowed,
    ConfigError,
    InputInvalid,
    InvalidToken,
    StoreError,
    UserNotFound,
)
from tests.engine.accounts import HERE, NOBODY, World, story

UNKNOWN = r"^Invalid or unknown email address identifier$"


# ------------------------------------------------------------------------------------------------------------------
# Addresses


@story
async def test_addresses_are_added_listed_and_searched(w: World) -> None:
    ada, addresses = await w.user(), w.accounts.addresses
    w.clock += 5
    oid = await addresses.add(ada.oid, "Андрис@Уайлддак.ОРГ")
    listed = addresses.listed(ada.oid)
    assert [(found.address, found.main) for found in listed] == [
        ("ada@example.org", True),
        ("андрис@уайлддак.орг", False),
    ]
    assert addresses.get(ada.oid, oid) == listed[1]
    assert (listed[1].oid, listed[1].created_at, listed[1].user) == (oid, w.clock, ada.oid)
    page = addresses.page(query=" уайлддак ")
    assert (page.rows, page.total, page.more) == ((listed[1],), 1, False)
    assert addresses.page(1).rows == (listed[0],)
    assert addresses.page(1, after=listed[0].oid).rows == (listed[1],)
    assert addresses.page(query="УАЙЛДДАК").rows == ()
    with pytest.raises(InputInvalid):
        addresses.page(query="x" * 256)


@story
async def test_an_added_main_address_takes_over(w: World) -> None:
    ada, addresses = await w.user(), w.accounts.addresses
    await addresses.add(ada.oid, "lovelace@example.org", main=True)
    assert w.accounts.users.get(ada.oid).address == "lovelace@example.org"
    first = next(found for found in addresses.listed(ada.oid) if not found.main)
    await addresses.set_main(ada.oid, first.oid)
    assert w.accounts.users.get(ada.oid).address == "ada@example.org"
    assert [found.main for found in addresses.listed(ada.oid)] == [True, False]


@story
async def test_addresses_are_refused_in_the_documented_words(w: World) -> None:
    ada, bob, addresses = await w.user(), await w.user("bob"), w.accounts.addresses
    (main,) = addresses.listed(ada.oid)
    with pytest.raises(InputInvalid, match=r"^Address can not contain \+$"):
        await addresses.add(ada.oid, "ada+x@example.org")
    with pytest.raises(InputInvalid, match=r'^"address" must be a valid email$'):
        await addresses.add(ada.oid, "ada")
    with pytest.raises(AddressExists, match=r"^This email address already exists$") as caught:
        await addresses.add(bob.oid, "ADA@example.org")
    assert (caught.value.code, caught.value.hint) == ("AddressExistsError", 400)
    with pytest.raises(ChangeNotAllowed, match=r"^Cannot unset main status$"):
        await addresses.set_main(ada.oid, main.oid, main=False)
    with pytest.raises(ChangeNotAllowed, match=r"^Selected address is already the main email address for the user$"):
        await addresses.set_main(ada.oid, main.oid)
    with pytest.raises(ChangeNotAllowed, match=r"^Trying to delete main address\. Set a new main address first$"):
        await addresses.delete(ada.oid, main.oid)
    with pytest.raises(AddressNotFound, match=UNKNOWN):
        await addresses.set_main(ada.oid, NOBODY)
    with pytest.raises(AddressNotFound, match=UNKNOWN):
        await addresses.delete(ada.oid, NOBODY)
    with pytest.raises(AddressNotFound, match=r"^Invalid or unknown address$"):
        addresses.get(ada.oid, NOBODY)
    for call in (addresses.listed, lambda user: addresses.get(user, main.oid)):
        with pytest.raises(UserNotFound, match=r"^This user does not exist$"):
            call(NOBODY)
    for later in (
        addresses.add(NOBODY, "x@example.org"),
        addresses.set_main(NOBODY, main.oid),
        addresses.delete(NOBODY, main.oid),
    ):
        with pytest.raises(UserNotFound, match=r"^This user does not exist$"):
            await later


# ------------------------------------------------------------------------------------------------------------------
# Application passwords


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["*"], ("*",)),
        (["imap", "*"], ("*",)),
        (["smtp", "imap", "pop3"], ("*",)),
        (["smtp", "imap"], ("imap", "smtp")),
        (["pop3"], ("pop3",)),
    ],
)
@story
async def test_scopes_are_kept_sorted_or_as_all(w: World, given: list[str], kept: tuple[str, ...]) -> None:
    ada = await w.user()
    await w.accounts.asps.create(ada.oid, "phone", given)
    assert w.accounts.asps.listed(ada.oid)[0].scopes == kept


@story
async def test_an_application_password_is_made_shown_once_and_deleted(w: World) -> None:
    ada, asps = await w.user(), w.accounts.asps
    made = [await asps.create(ada.oid, f" app {number} ", origin=HERE) for number in range(3)]
    assert [(asp.oid, asp.description, asp.scopes) for asp in asps.listed(ada.oid)] == [
        (asp.oid, f"app {number}", ("*",)) for number, asp in enumerate(made)
    ]
    assert all(re.fullmatch("[a-z]{16}", asp.password) for asp in made)
    with w.store._database.read() as db:
        rows = repr(db.execute("SELECT * FROM asp").fetchall())
    assert not any(asp.password in f"{asp!r} {rows}" for asp in made)
    await asps.delete(ada.oid, made[1].oid, HERE)
    assert [asp.oid for asp in asps.listed(ada.oid)] == [made[0].oid, made[2].oid]
    place = {"ip": HERE.ip, "sess": HERE.session}
    assert [(row.action, row.detail) for row in w.log(ada)[:2]] == [
        ("delete asp", {"asp": made[1].oid.hex(), "result": "success", **place}),
        ("create asp", {"asp": made[2].oid.hex(), "result": "success", **place}),
    ]


@story
async def test_application_passwords_are_refused_in_the_documented_words(w: World) -> None:
    ada, asps = await w.user(), w.accounts.asps
    with pytest.raises(UserNotFound, match=r"^User not found$"):
        await asps.create(NOBODY, "phone")
    with pytest.raises(UserNotFound, match=r"^This user does not exist$"):
        asps.listed(NOBODY)
    with pytest.raises(AspNotFound, match=r"^Application Specific Password was not found$") as caught:
        await asps.delete(ada.oid, NOBODY)
    assert (caught.value.code, caught.value.hint) == ("AspNotFound", 404)
    assert w.log(ada) == []
    for description, scopes, text in (
        (" ", ["*"], '"description" is not allowed to be empty'),
        ("d" * 256, ["*"], '"description" length must be less than or equal to 255 characters long'),
        ("phone", [], '"scopes" must contain at least 1 items'),
        ("phone", ["imap", "imap"], '"scopes" contains a duplicate value'),
        ("phone", ["master"], '"scopes" must be one of'),
    ):
        with pytest.raises(InputInvalid) as refused:
            await asps.create(ada.oid, description, scopes)
        assert text in refused.value.message


def test_letters_are_drawn_evenly() -> None:
    chunks = [bytes(range(234, 250)), bytes([255, 0, 25, 26, 233, *range(2, 13)]), bytes(16)]
    assert _draw(lambda size: chunks.pop(0)[:size]) == "azaz" + "cdefghijklm" + "a"  # 234 and more would favour a few


# ------------------------------------------------------------------------------------------------------------------
# Tokens


@story
async def test_a_token_names_its_user_and_scopes(w: World) -> None:
    ada, tokens = await w.user(), w.accounts.tokens
    own = await tokens.create(ada.oid, scopes=["read"], description="webmail")
    root = await tokens.create(None)
    found = tokens.verify(own.text)
    assert (found.account, found.token, found.allows("read"), found.allows("write")) == (ada, own.token, True, False)
    assert tokens.verify(root.text).account is None
    assert tokens.verify(root.text).allows("anything")
    assert (tokens.listed(ada.oid), tokens.listed(None)) == ([own.token], [root.token])
    with w.store._database.read() as db:
        rows = db.execute("SELECT * FROM token").fetchall()
    secret = bytes.fromhex(own.text)[12:]
    assert len(secret) == 32
    assert not any(value == secret for row in rows for value in row)
    assert own.text not in f"{own!r} {found!r} {rows!r}"


@story
async def test_a_token_that_is_over_opens_nothing(w: World) -> None:
    ada, bob, tokens = await w.user(), await w.user("bob"), w.accounts.tokens
    brief, revoked = await tokens.create(ada.oid, seconds=60), await tokens.create(ada.oid)
    text = (await tokens.create(bob.oid)).text
    w.clock += 59
    tokens.verify(brief.text)
    w.clock += 1
    await tokens.revoke(ada.oid, revoked.token.oid)
    await w.accounts.users.update(bob.oid, UserChanges(disabled=True))
    altered = revoked.text[:-1] + ("0" if revoked.text[-1] != "0" else "1")
    for bad in (brief.text, revoked.text, text, altered, "", "x" * 88, "ab" * 43 + "a ", f"{'00' * 44}", "²" * 88):
        with pytest.raises(InvalidToken, match=r"^Invalid accessToken value$"):
            tokens.verify(bad)
    await w.accounts.sweep()
    assert tokens.listed(ada.oid) == []


@story
async def test_tokens_are_refused(w: World) -> None:
    ada, tokens = await w.user(), w.accounts.tokens
    with pytest.raises(UserNotFound):
        await tokens.create(NOBODY)
    with pytest.raises(InputInvalid):
        await tokens.create(ada.oid, scopes=[])
    with pytest.raises(InputInvalid):
        await tokens.create(ada.oid, description="d" * 256)
    with pytest.raises(InvalidToken):
        await tokens.revoke(ada.oid, NOBODY)


# ------------------------------------------------------------------------------------------------------------------
# The key beside the store


def test_the_key_is_made_once_and_is_for_its_owner(tmp_path: Path) -> None:
    path, folder = tmp_path / FILE, str(tmp_path)
    keys = Keys(folder, os.urandom)
    assert list(tmp_path.iterdir()) == []
    sealed = keys.seal(b"seed", b"ada")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sealed != keys.seal(b"seed", b"ada")
    again = Keys(folder, os.urandom)
    assert again.open(sealed, b"ada") == b"seed"
    assert again.fingerprint("x", b"ada") == keys.fingerprint("x", b"ada") != keys.fingerprint("x", b"bob")
    with pytest.raises(StoreError, match="not sealed with the key"):
        again.open(sealed, b"bob")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Keys(folder, os.urandom).open(sealed, b"ada")
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="32 bytes"):
        Keys(folder, os.urandom).open(sealed, b"ada")
    assert repr(keys) == "Keys()"


# ------------------------------------------------------------------------------------------------------------------
# What is somebody else's


@story
async def test_a_user_reaches_nothing_of_another_user(w: World) -> None:
    ada, eve, a = await w.user(), await w.user("eve"), w.accounts
    address = await a.addresses.add(ada.oid, "lovelace@example.org")
    asp = await a.asps.create(ada.oid, "phone")
    token = await a.tokens.create(ada.oid)
    before = (a.addresses.listed(ada.oid), a.asps.listed(ada.oid), a.tokens.listed(ada.oid), w.log(ada))
    with pytest.raises(AddressNotFound):
        a.addresses.get(eve.oid, address)
    for call, error in (
        (a.addresses.set_main(eve.oid, address), AddressNotFound),
        (a.addresses.delete(eve.oid, address), AddressNotFound),
        (a.asps.delete(eve.oid, asp.oid), AspNotFound),
        (a.tokens.revoke(eve.oid, token.token.oid), InvalidToken),
        (a.tokens.revoke(None, token.token.oid), InvalidToken),
    ):
        with pytest.raises(error):
            await call
    assert (a.asps.listed(eve.oid), a.tokens.listed(eve.oid), w.log(eve)) == ([], [], [])
    assert [found.address for found in a.addresses.listed(eve.oid)] == ["eve@example.org"]
    assert (a.addresses.listed(ada.oid), a.asps.listed(ada.oid), a.tokens.listed(ada.oid), w.log(ada)) == before
