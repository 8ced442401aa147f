"""Users come whole or not at all, and go with everything that was theirs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from qmail_core.embed import Cluster
from qmail_core.engine.accounts import NewUser, Origin, UserChanges
from qmail_core.errors import (
    AddressExists,
    AuthFailed,
    ChangeNotAllowed,
    ConfigError,
    Conflict,
    InputInvalid,
    InvalidToken,
    NothingChanged,
    RateLimited,
    StoreUnavailable,
    UserExists,
    UserNotCreated,
    UserNotFound,
)
from qmail_core.model import Content
from qmail_core.store.mailbox import HOME, Filing
from tests.conftest import virtual
from tests.engine.accounts import HERE, NOBODY, PASSWORD, World, story

MONTH = 2_592_000_000


@pytest.mark.parametrize(
    ("language", "names"),
    [
        ("en", ["INBOX", "Sent Mail", "Trash", "Drafts", "Junk", "Archive"]),
        ("ET", ["INBOX", "Saadetud kirjad", "Prügikast", "Mustandid", "Rämpspost", "Arhiiv"]),
        ("tlh", ["INBOX", "Sent Mail", "Trash", "Drafts", "Junk", "Archive"]),
    ],
)
@story
async def test_a_new_user_has_six_mailboxes_in_the_own_language(w: World, language: str, names: list[str]) -> None:
    ada = await w.user(language=language)
    boxes = {box.path: box for box in w.store.mailboxes.mailboxes(ada.id)}
    uses = [None, "\\Sent", "\\Trash", "\\Drafts", "\\Junk", "\\Archive"]
    assert boxes.keys() == set(names)
    assert [boxes[name].special_use for name in names] == uses
    assert {(box.uidvalidity, box.uidnext, box.subscribed) for box in boxes.values()} == {(w.clock, 1, True)}
    assert (ada.activated, ada.language) == (True, language.lower())


@pytest.mark.parametrize(
    ("asked", "kept", "brief"),
    [(0, 0, MONTH), (1000, 1000, 1000), (MONTH, MONTH, MONTH), (MONTH + 1, MONTH + 1, MONTH)],
)
@story
async def test_trash_and_junk_are_kept_a_month_at_most(w: World, asked: int, kept: int, brief: int) -> None:
    ada = await w.user(retention=asked)
    retentions = {box.path: box.retention for box in w.store.mailboxes.mailboxes(ada.id)}
    assert retentions == dict.fromkeys(retentions, kept) | {"Trash": brief, "Junk": brief}
    assert ada.retention == asked


@story
async def test_the_address_is_the_username_at_the_domain_unless_one_is_given(w: World) -> None:
    ada, bob = await w.user("Ada"), await w.user("bob", address=" Робот@XN--80AAXITDBJK.орг ")
    assert (ada.username, ada.address) == ("ada", "ada@example.org")
    assert bob.address == "робот@папироска.орг"
    assert [found.main for found in w.accounts.addresses.listed(ada.oid)] == [True]
    for text in ("ADA", "ada@EXAMPLE.org", " ada "):
        assert w.accounts.users.resolve(text) == ada
    assert w.accounts.users.resolve("робот@папироска.орг") == bob
    assert w.accounts.users.get(ada.oid) == ada


@story
async def test_a_label_behind_a_plus_makes_no_difference_to_delivery(w: World) -> None:
    ada = await w.user()
    assert w.accounts.users.recipient("Ada+lists@example.org") == ada == w.accounts.users.recipient("ada@example.org")
    assert w.accounts.users.recipient("+ada@example.org") is None
    assert w.accounts.users.recipient("eve@example.org") is None


@pytest.mark.parametrize("name", ["ada", "ADA", "a.da"])
@story
async def test_a_username_is_given_once(w: World, name: str) -> None:
    await w.user("ada")
    with pytest.raises(UserExists, match=r"^This username already exists$") as caught:
        await w.user(name, address="other@example.org")
    assert (caught.value.code, caught.value.hint) == ("UserExistsError", 400)


@story
async def test_a_user_whose_address_is_taken_leaves_nothing(w: World) -> None:
    await w.user("ada", address="ada@example.org")
    before = w.store.mailboxes.last_entry()
    with pytest.raises(AddressExists, match=r"^Selected email address already exists$"):
        await w.user("eve", address="ADA@example.org")
    assert w.store.mailboxes.last_entry() == before
    with pytest.raises(UserNotFound):
        w.accounts.users.resolve("eve")
    assert (await w.user("eve")).activated


@story
async def test_a_store_that_fails_is_named(w: World) -> None:
    async def fail(*_: object) -> None:
        raise StoreUnavailable("no space left")

    w.store.accounts.create_account = fail  # type: ignore[assignment, method-assign]
    with pytest.raises(UserNotCreated, match=r"^Database Error, failed to create user$") as caught:
        await w.user()
    assert (caught.value.code, caught.value.hint) == ("InternalDatabaseError", 500)


@story
async def test_all_broken_rules_are_told_and_no_password(w: World) -> None:
    new = NewUser(
        username="a b", password="p" * 257, address="nowhere", name="n" * 257, language="e", retention=-1, quota=2**60,
        forward="@", target_url="u" * 257, meta=b" " * 70_000,
    )  # fmt: skip
    with pytest.raises(InputInvalid) as caught:
        await w.accounts.users.create(new, Origin("300.1.1.1", "s" * 256))
    error = caught.value
    assert (error.code, error.hint) == ("InputValidationError", 400)
    assert error.details.keys() == {
        "username", "password", "address", "name", "language", "retention", "quota", "forward", "targetUrl",
        "metaData", "ip", "sess",
    }  # fmt: skip
    assert '"password" length must be less than or equal to 256 characters long' in error.message
    assert ". ".join(error.details.values()) == error.message
    assert "ppp" not in f"{error!r} {error} {new}"
    with pytest.raises(InputInvalid, match='"password" is not allowed to be empty'):
        await w.accounts.users.create(NewUser(username="ada", password=""))
    with pytest.raises(InputInvalid, match=r"^Address can not contain \+$"):
        await w.user(address="ada+x@example.org")


@story
async def test_nothing_prints_a_password(w: World) -> None:
    ada = await w.user()
    changes = UserChanges(password="a new password", existing_password=PASSWORD, name="Ada")
    credentials = w.store.accounts.credentials(ada.id)
    assert "argon2id" in credentials.password
    shown = f"{NewUser(username='ada', password=PASSWORD)} {changes} {credentials} {ada}"
    assert PASSWORD not in shown
    assert "argon2" not in shown
    assert str(changes) == "UserChanges(existing_password, password, name)"


@story
async def test_only_what_is_given_changes(w: World) -> None:
    ada = await w.user(quota=5, name="Ada")
    w.clock += 9
    await w.accounts.users.update(
        ada.oid,
        UserChanges(
            quota=7, language="ET", forward="Bob+x@example.ORG", target_url="http://h", recipients=3, forwards=4,
            retention=60, disabled=True, meta=b'{"a":1}',
        ),
    )  # fmt: skip
    expected = msgspec.structs.replace(
        ada, quota=7, language="et", forward="bob+x@example.org", target_url="http://h", recipients=3, forwards=4,
        retention=60, disabled=True, meta=b'{"a":1}', updated_at=w.clock,
    )  # fmt: skip
    assert w.accounts.users.get(ada.oid) == expected
    await w.accounts.users.update(ada.oid, UserChanges(forward="", name=""))
    assert (w.accounts.users.get(ada.oid).forward, w.accounts.users.get(ada.oid).name) == ("", "")
    assert {box.retention for box in w.store.mailboxes.mailboxes(ada.id) if not box.special_use} == {0}


@story
async def test_a_change_of_nothing_or_nobody_is_refused(w: World) -> None:
    ada = await w.user()
    with pytest.raises(NothingChanged, match=r"^Nothing was updated$"):
        await w.accounts.users.update(ada.oid, UserChanges(existing_password=PASSWORD))
    with pytest.raises(UserNotFound, match=r"^user was not found$"):
        await w.accounts.users.update(NOBODY, UserChanges(name="x"))
    with pytest.raises(UserNotFound, match=r"^This user does not exist$"):
        w.accounts.users.get(NOBODY)
    with pytest.raises(InputInvalid, match='"password" length must be at least 8 characters long'):
        await w.accounts.users.update(ada.oid, UserChanges(password="seven77"))


@story
async def test_a_new_password_is_stamped_logged_and_ends_tokens(w: World) -> None:
    ada, bob = await w.user(), await w.user("bob")
    ended, kept = await w.accounts.tokens.create(ada.oid), await w.accounts.tokens.create(bob.oid)
    w.clock += 5
    await w.accounts.users.update(ada.oid, UserChanges(password="another one"), HERE)
    assert w.accounts.users.get(ada.oid).password_at == w.clock
    assert [(row.action, row.detail) for row in w.log(ada)] == [
        ("password change", {"result": "success", "ip": HERE.ip, "sess": HERE.session})
    ]
    with pytest.raises(InvalidToken):
        w.accounts.tokens.verify(ended.text)
    assert w.accounts.tokens.verify(kept.text).account == w.accounts.users.get(bob.oid)
    with pytest.raises(AuthFailed):
        await w.accounts.authenticate("ada", PASSWORD)
    assert (await w.accounts.authenticate("ada", "another one")).account.id == ada.id


@story
async def test_the_existing_password_must_fit_and_guesses_are_counted(w: World) -> None:
    ada = await w.user()
    with pytest.raises(AuthFailed, match=r"^Password verification failed$"):
        await w.accounts.users.update(ada.oid, UserChanges(existing_password="wrong", name="Eve"), HERE)
    assert w.accounts.users.get(ada.oid).name == ""
    assert (w.log(ada)[0].action, w.log(ada)[0].detail["result"]) == ("password change", "fail")
    await w.accounts.users.update(ada.oid, UserChanges(existing_password=PASSWORD, name="Ada"))
    assert w.accounts.users.get(ada.oid).name == "Ada"
    for _ in range(9):
        with pytest.raises(AuthFailed):
            await w.accounts.users.update(ada.oid, UserChanges(existing_password="wrong", name="Eve"))
    with pytest.raises(RateLimited):
        await w.accounts.users.update(ada.oid, UserChanges(existing_password=PASSWORD, name="Eve"))


@story
async def test_users_are_listed_in_pages_and_searched_by_name(w: World) -> None:
    made = [await w.user(f"user{number}") for number in range(5)]
    users = w.accounts.users
    await w.accounts.start()
    page = users.page(2, query="USER")
    assert (list(page.rows), page.total, page.more, page.earlier) == (made[:2], 5, True, False)
    page = users.page(2, query="user", after=made[1].oid)
    assert (list(page.rows), page.more, page.earlier) == (made[2:4], True, True)
    page = users.page(2, query="user", before=made[2].oid)
    assert (list(page.rows), page.more, page.earlier) == (made[:2], True, False)
    assert users.page(250).total == 6
    assert [user.username for user in users.page(query="ser3").rows] == ["user3"]
    assert users.page(query="%").rows == users.page(query="_").rows == ()
    with pytest.raises(InputInvalid):
        users.page(query="x" * 101)


def filing(w: World, user: int) -> Filing:
    box = w.store.mailboxes.mailbox_at(user, "INBOX")
    assert box is not None
    content = Content(subject="Minutes", text="Dear all")
    return Filing(
        mailbox=box.id, oid=w.new_oid(), email_id=w.entropy(16), content=content, received_at=1, sent_at=1, size=8,
        thread_keys=(b"key",), pieces=(b"raw",),
    )  # fmt: skip


@story
async def test_a_user_goes_with_everything_and_the_number_is_not_used_again(w: World) -> None:
    ada, bob = await w.user(), await w.user("bob")
    for user in (ada, bob):
        await w.store.mailboxes.file(user.id, filing(w, user.id))
        await w.accounts.asps.create(user.oid, "phone")
        await w.accounts.tokens.create(user.oid)
        await w.accounts.authenticate(user.username, PASSWORD)
    await w.accounts.users.delete(bob.oid)
    with pytest.raises(UserNotFound):
        w.accounts.users.get(bob.oid)
    with w.store._database.read() as db:
        for table in ("mailbox", "message", "address", "asp", "authlog", "token", "thread", "journal"):
            assert db.execute(f"SELECT count(*) FROM {table} WHERE user=?", (bob.id,)).fetchone() == (0,), table
            assert db.execute(f"SELECT count(*) FROM {table} WHERE user=?", (ada.id,)).fetchone() != (0,), table
    again = await w.user("bob")
    assert again.id > bob.id
    with pytest.raises(UserNotFound):
        await w.accounts.users.delete(bob.oid)


@story
async def test_quota_is_counted_anew(w: World) -> None:
    ada = await w.user()
    await w.store.mailboxes.file(ada.id, filing(w, ada.id))
    await w.store._database.write(lambda db: db.execute("UPDATE user SET used=-5 WHERE id=?", (ada.id,)))
    assert w.accounts.users.get(ada.oid).used == 0
    assert await w.accounts.users.reset_quota(ada.oid) == (-5, 8)
    assert w.accounts.users.get(ada.oid).used == 8
    with pytest.raises(UserNotFound, match=r"^This user does not exist$"):
        await w.accounts.users.reset_quota(NOBODY)


@story
async def test_the_own_user_has_a_name_and_an_address_and_no_password(w: World) -> None:
    await w.accounts.start()
    home = w.accounts.users.resolve("local")
    assert (home.id, home.address, home.has_password, home.activated) == (HOME, "50.254@byte", False, True)
    assert int.from_bytes(home.oid[:4], "big") == w.clock
    for scope in ("master", "imap"):
        with pytest.raises(AuthFailed):
            await w.accounts.authenticate("local", "anything", scope=scope)
    await w.accounts.users.update(home.oid, UserChanges(password="now there is one"))
    assert (await w.accounts.authenticate("50.254@byte", "now there is one")).account.id == HOME
    w.clock += 100
    await w.accounts.start()
    assert w.accounts.users.resolve("local").oid == home.oid
    assert len(w.accounts.addresses.listed(home.oid)) == 1
    with pytest.raises(ChangeNotAllowed):
        await w.accounts.users.delete(home.oid)


def test_the_own_user_is_called_as_configured(tmp_path: Path) -> None:
    async def whole() -> None:
        world = World(tmp_path, username="Alice")
        await world.accounts.start()
        assert world.accounts.users.resolve("alice").id == HOME
        await world.user("bob")
        world.config = msgspec.structs.replace(world.config, username="bob")
        with pytest.raises(UserExists):
            await world.accounts.start()
        world.config = msgspec.structs.replace(world.config, username="not a name")
        with pytest.raises(ConfigError, match="username"):
            await world.accounts.start()
        await world.close()

    virtual(whole())


def test_an_engine_has_accounts() -> None:
    async def whole() -> None:
        async with Cluster(3) as cluster:
            engine = await cluster.engine("alice", username="alice")
            home = engine.accounts.users.resolve("alice")
            assert home.address == engine.address_text
            with pytest.raises(Conflict):
                await engine.accounts.users.create(NewUser(username="alice", password=PASSWORD))

    virtual(whole())
