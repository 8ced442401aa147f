"""What an AccountStore promises: whole changes, own rows only, steps and counters that cannot be raced."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from qmail_core.errors import (
    AddressExists,
    AddressNotFound,
    ChangeNotAllowed,
    RateLimited,
    UserExists,
    UserNotFound,
)
from qmail_core.store.accounts import (
    Account,
    AccountStore,
    Asp,
    Entry,
    Gate,
    NewAccount,
    NewMailbox,
    Token,
    TotpAttempt,
)
from qmail_core.store.database import migrate
from qmail_core.store.mailbox import HOME
from qmail_core.store.sqlite import SqliteStore
from tests.store.schemas import of_schema
from tests.store.test_mail import in_loop, oid, opened

NOW = 1000


def new(username: str, *, address: str = "", boxes: tuple[str, ...] = ("INBOX", "Trash"), **fields: Any) -> NewAccount:
    return NewAccount(
        oid=oid(),
        username=username,
        password=f"hash of {username}",
        address=address or f"{username}@example.org",
        address_oid=oid(),
        mailboxes=tuple(NewMailbox(oid(), path, None, 7) for path in boxes),
        fields=fields,
    )


async def made(store: SqliteStore, username: str = "ada", **fields: Any) -> Account:
    return await store.accounts.create_account(new(username, **fields), NOW)


def entry(action: str = "test", at: int = NOW, **detail: str) -> Entry:
    return Entry(oid(), action, at, detail)


def actions(store: SqliteStore, user: Account) -> list[str]:
    return [row.action for row in store.accounts.log(user.id, 0, 100).rows]


def attempt(sealed: bytes, step: int | None, *, enable: bool = False, gates: tuple[Gate, ...] = ()) -> TotpAttempt:
    return TotpAttempt(
        sealed=sealed, step=step, enable=enable, gates=gates, passed=entry("passed"), failed=entry("failed")
    )


def test_the_embedded_store_is_one() -> None:
    async def check() -> None:
        async with opened() as store:
            promised: AccountStore = store.accounts
            assert promised.account(bytes(12)) is None

    asyncio.run(check())


@in_loop
async def test_an_account_is_made_with_all_that_belongs_to_it() -> None:
    async with opened() as store:
        woken: list[int] = []
        store.mailboxes.changed = lambda: woken.append(1)
        given = new("ada", quota=5, name="Ada", language="et")
        ada = await store.accounts.create_account(given, NOW)
        assert (ada.oid, ada.username, ada.address) == (given.oid, "ada", "ada@example.org")
        assert (ada.quota, ada.name, ada.language, ada.used) == (5, "Ada", "et", 0)
        assert (ada.activated, ada.disabled, ada.enabled2fa, ada.has_password) == (True, False, False, True)
        assert (ada.created_at, ada.updated_at, ada.password_at) == (NOW, NOW, NOW)
        assert [(box.path, box.retention) for box in store.mailboxes.mailboxes(ada.id)] == [("INBOX", 7), ("Trash", 7)]
        assert [found.command for found in store.mailboxes.journal(ada.id, 0, 9)] == ["CREATE", "CREATE"]
        assert len(woken) == 1
        for found in (
            store.accounts.account(ada.oid),
            store.accounts.account_named("a.d.a"),
            store.accounts.account_at("ada@example.org"),
        ):
            assert found == ada
        assert "hash" not in f"{given!r} {store.accounts.credentials(ada.id)!r}"


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (lambda: new("a.da", address="x@example.org"), UserExists),
        (lambda: new("bob", address="ada@example.org"), AddressExists),
        (lambda: new("bob", boxes=("INBOX", "INBOX")), Exception),
    ],
)
@in_loop
async def test_an_account_that_cannot_be_whole_is_not_made(second: Any, error: type[Exception]) -> None:
    async with opened() as store:
        await made(store)
        entries = store.mailboxes.last_entry()
        with pytest.raises(error):
            await store.accounts.create_account(second(), NOW)
        assert store.accounts.accounts(9).total == 2  # the engine's own, and ada
        assert store.mailboxes.last_entry() == entries
        assert store.accounts.all_addresses(9).total == 1


@in_loop
async def test_of_two_that_want_one_name_one_gets_it() -> None:
    async with opened() as store:
        done = await asyncio.gather(made(store), made(store, address="x@example.org"), return_exceptions=True)
        assert sorted(type(result).__name__ for result in done) == ["Account", "UserExists"]


@in_loop
async def test_the_own_user_is_named_once_and_keeps_its_id() -> None:
    async with opened() as store:
        first = oid()
        await store.accounts.adopt_home("local", "5@bit", first, oid(), NOW)
        await store.accounts.adopt_home("alice", "6@bit", oid(), oid(), NOW)
        home = store.accounts.account_named("alice")
        assert home is not None
        assert (home.id, home.oid, home.address, home.has_password) == (HOME, first, "5@bit", False)
        assert [found.address for found in store.accounts.addresses(HOME)] == ["5@bit", "6@bit"]
        await made(store, "bob")
        with pytest.raises(UserExists):
            await store.accounts.adopt_home("bob", "6@bit", oid(), oid(), NOW)


@in_loop
async def test_fields_change_and_a_password_ends_tokens() -> None:
    async with opened() as store:
        ada, bob = await made(store), await made(store, "bob")
        for user in (ada, bob):
            await store.accounts.add_token(token(user), b"h" * 32)
        assert await store.accounts.change_account(ada.id, {"name": "Ada"}, 5, None)
        assert (await changed(store, ada)).password_at == NOW
        assert len(store.accounts.tokens(ada.id)) == 1
        assert await store.accounts.change_account(ada.id, {"password": "other"}, 6, entry("password change"))
        assert (await changed(store, ada)).password_at == 6
        assert store.accounts.credentials(ada.id).password == "other"
        assert (store.accounts.tokens(ada.id), len(store.accounts.tokens(bob.id))) == ([], 1)
        assert actions(store, ada) == ["password change"]
        assert not await store.accounts.change_account(99, {"name": "x"}, 5, entry())
        with pytest.raises(ValueError, match="no such field: totp_step"):
            await store.accounts.change_account(ada.id, {"totp_step": 1}, 5)


async def changed(store: SqliteStore, user: Account) -> Account:
    found = store.accounts.account(user.oid)
    assert found is not None
    return found


@in_loop
async def test_a_user_has_one_main_address_always() -> None:
    async with opened() as store:
        ada, eve = await made(store), await made(store, "eve")
        second, third = oid(), oid()
        await store.accounts.add_address(ada.id, second, "b@example.org", NOW, main=False)
        await store.accounts.add_address(ada.id, third, "a@example.org", NOW, main=True)
        shown = [(found.address, found.main) for found in store.accounts.addresses(ada.id)]
        assert shown == [("a@example.org", True), ("ada@example.org", False), ("b@example.org", False)]
        with pytest.raises(ChangeNotAllowed):
            await store.accounts.remove_address(ada.id, third)
        for strange in (store.accounts.set_main_address, store.accounts.remove_address):
            with pytest.raises(AddressNotFound):
                await strange(eve.id, second)
        assert store.accounts.address(eve.id, second) is None
        await asyncio.gather(
            *(store.accounts.set_main_address(ada.id, which) for which in (second, third)), return_exceptions=True
        )
        assert sum(found.main for found in store.accounts.addresses(ada.id)) == 1
        with pytest.raises(AddressExists):
            await store.accounts.add_address(eve.id, oid(), "b@example.org", NOW, main=False)
        with pytest.raises(UserNotFound):
            await store.accounts.add_address(99, oid(), "c@example.org", NOW, main=False)


def asp(number: bytes) -> Asp:
    return Asp(oid=number, description="phone", scopes=("imap",), created_at=NOW)


@in_loop
async def test_application_passwords_are_their_users_own() -> None:
    async with opened() as store:
        ada, eve = await made(store), await made(store, "eve")
        first, second = asp(oid()), asp(oid())
        for one in (first, second):
            await store.accounts.add_asp(ada.id, one, b"selector", b"hash" + one.oid, entry("create asp"))
        assert store.accounts.asps(ada.id) == [first, second]
        assert store.accounts.selected_asps(ada.id, b"selector") == [
            (first, b"hash" + first.oid),
            (second, b"hash" + second.oid),
        ]
        assert (store.accounts.selected_asps(eve.id, b"selector"), store.accounts.asps(eve.id)) == ([], [])
        assert not await store.accounts.remove_asp(eve.id, first.oid, entry("delete asp"))
        await store.accounts.record_login(eve.id, entry(), (), 77, asp=first.oid)
        assert store.accounts.asps(ada.id)[0].used_at == 0
        await store.accounts.record_login(ada.id, entry(), (), 77, asp=first.oid)
        assert store.accounts.asps(ada.id)[0].used_at == 77
        assert await store.accounts.remove_asp(ada.id, first.oid, entry("delete asp"))
        assert store.accounts.asps(ada.id) == [second]
        assert (actions(store, ada)[0], actions(store, eve)) == ("delete asp", ["test"])


@in_loop
async def test_steps_only_grow_and_one_of_many_takes_each() -> None:
    async with opened() as store:
        ada, use = await made(store), store.accounts.use_totp
        assert await store.accounts.seed_totp(ada.id, b"sealed", entry("seed"))
        assert not await use(ada.id, attempt(b"sealed", 5), NOW)  # not switched on
        assert await use(ada.id, attempt(b"sealed", 5, enable=True), NOW)
        assert not await store.accounts.seed_totp(ada.id, b"other", entry("seed"))
        assert not await use(ada.id, attempt(b"sealed", 6, enable=True), NOW)  # is on already
        assert not await use(ada.id, attempt(b"sealed", 5), NOW)
        assert not await use(ada.id, attempt(b"sealed", None), NOW)
        assert not await use(ada.id, attempt(b"other", 6), NOW)
        done = await asyncio.gather(*(use(ada.id, attempt(b"sealed", 6), NOW) for _ in range(5)))
        assert sorted(done) == [False] * 4 + [True]
        assert actions(store, ada).count("passed") == 2
        assert await store.accounts.drop_totp(ada.id, entry("drop"))
        assert not await store.accounts.drop_totp(ada.id, entry("drop"))
        assert actions(store, ada).count("drop") == 1
        assert await store.accounts.seed_totp(ada.id, b"other", entry("seed"))
        assert await use(ada.id, attempt(b"other", 1, enable=True), NOW)  # a new seed counts its own steps


@in_loop
async def test_a_closed_gate_refuses_the_right_code_and_changes_nothing() -> None:
    async with opened() as store:
        ada, gate = await made(store), Gate("totp", 2, 300)
        await store.accounts.seed_totp(ada.id, b"s", entry())
        tries = [store.accounts.use_totp(ada.id, attempt(b"s", None, enable=True, gates=(gate,)), NOW) for _ in "ab"]
        assert await asyncio.gather(*tries) == [False, False]
        right = attempt(b"s", 9, enable=True, gates=(gate,))
        logged = actions(store, ada)
        with pytest.raises(RateLimited):
            await store.accounts.use_totp(ada.id, right, NOW + 299)
        assert actions(store, ada) == logged
        assert not (await changed(store, ada)).enabled2fa
        assert await store.accounts.use_totp(ada.id, right, NOW + 300)


@in_loop
async def test_gates_close_after_their_failures_and_open_in_time() -> None:
    async with opened() as store:
        few, many = Gate("few", 2, 100), Gate("many", 3, 500)
        closed = store.accounts.closed_for
        await store.accounts.record_login(None, None, (few, many), NOW)
        assert closed((few, many), NOW) == 0
        await store.accounts.record_login(None, None, (few, many), NOW + 10)
        assert (closed((few,), NOW + 10), closed((many,), NOW + 10), closed((few, many), NOW + 99)) == (90, 0, 1)
        await store.accounts.record_login(None, None, (many,), NOW + 20)
        assert closed((few, many), NOW + 20) == 480
        assert closed((few,), NOW + 100) == 0
        await store.accounts.record_login(None, None, (few,), NOW + 100)
        assert closed((few,), NOW + 100) == 0  # counting began again
        await store.accounts.forget(0, NOW + 500)
        assert closed((many,), NOW) == 0


@in_loop
async def test_the_log_is_the_users_own_and_is_forgotten() -> None:
    async with opened() as store:
        ada, eve = await made(store), await made(store, "eve")
        for at in range(4):
            await store.accounts.record_login(ada.id, entry(f"a{at}", NOW + at, result="fail"), (), NOW)
        await store.accounts.record_login(eve.id, entry("e"), (), NOW)
        await store.accounts.record_login(99, entry("nobody"), (), NOW)  # gone meanwhile
        assert actions(store, ada) == ["a3", "a2", "a1", "a0"]
        assert actions(store, eve) == ["e"]
        page = store.accounts.log(ada.id, NOW + 1, 2)
        assert ([row.action for row in page.rows], page.total, page.more) == (["a3", "a2"], 3, True)
        assert page.rows[0].detail == {"result": "fail"}
        assert store.accounts.log(ada.id, 0, 9, action="a1").total == 1
        await store.accounts.forget(NOW + 2, 0)
        assert (actions(store, ada), actions(store, eve)) == (["a3", "a2"], [])


def token(user: Account | None, expires: int | None = None) -> Token:
    whose = None if user is None else user.oid
    return Token(oid=oid(), user=whose, description="", scopes=("*",), created_at=NOW, expires_at=expires)


@in_loop
async def test_tokens_are_their_users_own_and_end() -> None:
    async with opened() as store:
        ada, eve = await made(store), await made(store, "eve")
        own, brief, free = token(ada), token(ada, NOW + 5), token(None)
        for one in (own, brief, free):
            await store.accounts.add_token(one, b"h" * 32)
        assert store.accounts.token(own.oid) == (own, b"h" * 32)
        assert store.accounts.token(bytes(12)) is None
        assert (store.accounts.tokens(ada.id), store.accounts.tokens(None)) == ([own, brief], [free])
        assert not await store.accounts.remove_token(eve.id, own.oid)
        assert not await store.accounts.remove_token(None, own.oid)
        assert not await store.accounts.remove_token(ada.id, free.oid)
        await store.accounts.forget(0, NOW + 4)
        assert len(store.accounts.tokens(ada.id)) == 2
        await store.accounts.forget(0, NOW + 5)
        assert store.accounts.tokens(ada.id) == [own]
        assert await store.accounts.remove_token(ada.id, own.oid)
        await store.accounts.remove_account(eve.id, NOW)
        with pytest.raises(UserNotFound):
            await store.accounts.add_token(token(eve), b"h" * 32)


@in_loop
async def test_accounts_outlive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        ada, bob = await made(store), await made(store, "bob")
        await store.accounts.remove_account(bob.id, NOW)
        await store.accounts.record_login(ada.id, entry(), (Gate("few", 1, 100),), NOW)
    async with opened(tmp_path) as store:
        assert store.accounts.account_named("ada") == ada
        assert store.accounts.closed_for((Gate("few", 1, 100),), NOW) == 100
        assert (await made(store, "cy")).id > bob.id


def test_users_of_the_schema_before_come_along() -> None:
    with of_schema(4) as db:
        migrate(db)
        assert db.execute("SELECT username, password, activated, totp_seed, meta FROM user").fetchall() == [
            ("local", "", 0, None, b"{}")
        ]
        assert db.execute("SELECT id FROM user_number").fetchall() == [(HOME,)]
