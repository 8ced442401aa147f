"""Who gets in, with what, for what; and what is written down of it."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from qmail_core.engine.accounts import Account, Origin, UserChanges
from qmail_core.engine.accounts import passwords as pool
from qmail_core.engine.accounts.passwords import MEMORY_KIB, Passwords
from qmail_core.errors import AuthFailed, InputInvalid, InvalidAuthScope, RateLimited, UserNotFound
from tests.engine.accounts import HERE, NOBODY, PASSWORD, World, story
from tests.engine.accounts.test_totp import switch_on

FAILED = r"^Authentication failed$"


@pytest.mark.parametrize("name", ["ada", "Ada ", "ada@example.org", "Lovelace@Example.org"])
@pytest.mark.parametrize("scope", ["master", "imap", "pop3", "smtp"])
@story
async def test_the_master_password_opens_everything_by_any_name(w: World, name: str, scope: str) -> None:
    ada = await w.user()
    await w.accounts.addresses.add(ada.oid, "lovelace@example.org")
    found = await w.accounts.authenticate(name, PASSWORD, scope=scope)
    assert (found.account, found.scope, found.require2fa, found.asp) == (ada, scope, False, None)


@story
async def test_a_login_is_logged_with_the_documented_keys(w: World) -> None:
    ada = await w.user()
    asp = await w.accounts.asps.create(ada.oid, "phone", ["imap"])
    await w.accounts.authenticate("ada", PASSWORD, protocol="API", origin=HERE)
    await w.accounts.authenticate("ada", asp.password, scope="imap", protocol="IMAP")
    with pytest.raises(AuthFailed):
        await w.accounts.authenticate("ada", "wrong", origin=HERE)
    place = {"ip": HERE.ip, "sess": HERE.session}
    rows = w.log(ada)
    assert {row.action for row in rows[:3]} == {"authentication"}
    assert [row.detail for row in rows[:3]] == [
        {"result": "fail", "source": "master", "protocol": "API", "requiredScope": "master", **place},
        {"result": "success", "source": "asp", "asp": asp.oid.hex(), "protocol": "IMAP", "requiredScope": "imap"},
        {"result": "success", "source": "master", "protocol": "API", "requiredScope": "master", **place},
    ]
    assert int.from_bytes(rows[0].oid[:4], "big") == rows[0].created_at == w.clock


@pytest.mark.parametrize("name", ["eve", "eve@example.org", "", " "])
@story
async def test_nobody_is_refused_like_somebody(w: World, name: str) -> None:
    await w.user()
    with pytest.raises(InputInvalid if not name else AuthFailed) as caught:
        await w.accounts.authenticate(name, PASSWORD)
    if name:
        assert (str(caught.value), caught.value.code, caught.value.hint) == ("Authentication failed", "AuthFailed", 403)


@story
async def test_an_unknown_user_costs_one_hash_too(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await w.user()
    checked: list[str] = []
    real = Passwords._fits

    def spy(self: Passwords, hashed: str, password: str) -> bool:
        checked.append(hashed)
        return real(self, hashed, password)

    monkeypatch.setattr(Passwords, "_fits", spy)
    for name in ("ada", "eve", "local"):
        with pytest.raises(AuthFailed):
            await w.accounts.authenticate(name, "wrong")
    # one each, and of the same price
    assert [hashed.split("$")[1:4] for hashed in checked] == [checked[0].split("$")[1:4]] * 3


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"scope": "bogus"}, '"scope" must be one of [master, imap, pop3, smtp]'),
        ({"password": ""}, '"password" is not allowed to be empty'),
        ({"password": "p" * 257}, '"password" length must be less than or equal to 256 characters long'),
        ({"protocol": ""}, '"protocol" is not allowed to be empty'),
        ({"origin": Origin("10.0.0.0/8")}, '"ip" must be a valid ip address of one of the following versions'),
    ],
)
@story
async def test_what_breaks_a_rule_is_not_tried(w: World, fields: dict[str, str], text: str) -> None:
    ada = await w.user()
    with pytest.raises(InputInvalid) as caught:
        await w.accounts.authenticate(**({"username": "ada", "password": PASSWORD} | fields))  # type: ignore[arg-type]
    assert text in caught.value.message
    assert w.log(ada) == []


@pytest.mark.parametrize(
    ("scopes", "opened"),
    [(["imap"], {"imap"}), (["smtp", "pop3"], {"smtp", "pop3"}), (["*"], {"imap", "pop3", "smtp"})],
)
@story
async def test_an_application_password_opens_its_scopes_and_never_master(
    w: World, scopes: list[str], opened: set[str]
) -> None:
    ada = await w.user()
    asp = await w.accounts.asps.create(ada.oid, "phone", scopes)
    for scope in ("imap", "pop3", "smtp"):
        if scope in opened:
            found = await w.accounts.authenticate("ada", asp.password, scope=scope)
            assert (found.scope, found.require2fa, found.asp) == (scope, False, asp.oid)
            continue
        with pytest.raises(InvalidAuthScope, match=r"^Authentication failed\. Invalid scope$"):
            await w.accounts.authenticate("ada", asp.password, scope=scope)
        assert w.log(ada)[0].detail["result"] == "fail"
        assert w.log(ada)[0].detail["asp"] == asp.oid.hex()
    with pytest.raises(AuthFailed, match=FAILED):
        await w.accounts.authenticate("ada", asp.password)


@story
async def test_an_application_password_may_be_typed_in_groups(w: World) -> None:
    ada = await w.user()
    asp = await w.accounts.asps.create(ada.oid, "phone")
    typed = " ".join(asp.password[at : at + 4] for at in range(0, 16, 4)).upper()
    w.clock += 60
    assert (await w.accounts.authenticate("ada", typed, scope="imap")).asp == asp.oid
    assert w.accounts.asps.listed(ada.oid)[0].used_at == w.clock
    bob = await w.user("bob")
    for name, password in (("bob", asp.password), ("ada", asp.password[:15]), ("ada", "x" * 16)):
        with pytest.raises(AuthFailed, match=FAILED):
            await w.accounts.authenticate(name, password, scope="imap")
    assert len(w.log(bob)) == 1


@story
async def test_with_a_second_factor_the_master_password_opens_no_mail_protocol(w: World) -> None:
    ada = await w.user()
    asp = await w.accounts.asps.create(ada.oid, "phone")
    await switch_on(w, ada)
    assert (await w.accounts.authenticate("ada", PASSWORD)).require2fa
    for scope in ("imap", "pop3", "smtp"):
        with pytest.raises(InvalidAuthScope):
            await w.accounts.authenticate("ada", PASSWORD, scope=scope)
        assert not (await w.accounts.authenticate("ada", asp.password, scope=scope)).require2fa


@story
async def test_a_disabled_user_stays_out(w: World) -> None:
    ada = await w.user()
    asp = await w.accounts.asps.create(ada.oid, "phone")
    await w.accounts.users.update(ada.oid, UserChanges(disabled=True))
    for password, scope in ((PASSWORD, "master"), (asp.password, "imap")):
        with pytest.raises(AuthFailed, match=FAILED):
            await w.accounts.authenticate("ada", password, scope=scope)
        assert w.log(ada)[0].detail["result"] == "disabled"
    assert w.accounts.asps.listed(ada.oid)[0].used_at == 0
    with pytest.raises(AuthFailed):
        await w.accounts.authenticate("ada", "wrong")
    assert w.log(ada)[0].detail["result"] == "fail"


async def fail(w: World, name: str, origin: Origin, times: int) -> None:
    for _ in range(times):
        with pytest.raises(AuthFailed):
            await w.accounts.authenticate(name, "wrong", origin=origin)


@pytest.mark.parametrize("name", ["ada", "nobody"])
@story
async def test_ten_failures_close_a_user_for_five_minutes(w: World, name: str) -> None:
    await w.user()
    await w.user("bob")
    await fail(w, name, Origin(), 9)
    w.clock += 100
    await fail(w, name, Origin(), 1)
    with pytest.raises(RateLimited) as caught:
        await w.accounts.authenticate(name, PASSWORD)
    error = caught.value
    assert (error.code, error.hint, error.retry_after) == ("RateLimitedError", 429, 200)
    await w.accounts.authenticate("bob", PASSWORD)
    w.clock += 199
    with pytest.raises(RateLimited):
        await w.accounts.authenticate(name, PASSWORD)
    w.clock += 1
    await fail(w, name, Origin(), 10)
    with pytest.raises(RateLimited):
        await w.accounts.authenticate(name, PASSWORD)


@story
async def test_a_clock_that_was_ahead_closes_nobody_out(w: World) -> None:
    await w.user()
    w.clock += 365 * 86_400
    await fail(w, "ada", HERE, 10)
    w.clock -= 1  # one that is put right a little opens nothing
    with pytest.raises(RateLimited):
        await w.accounts.authenticate("ada", PASSWORD)
    w.clock -= 365 * 86_400
    await fail(w, "ada", HERE, 9)
    await w.accounts.authenticate("ada", PASSWORD, origin=HERE)
    await fail(w, "ada", HERE, 1)
    with pytest.raises(RateLimited) as caught:
        await w.accounts.authenticate("ada", PASSWORD)
    assert caught.value.retry_after == 300


@pytest.mark.parametrize(
    "names",
    [
        ("ada.love", "adalove", " Ada.Love", "a.da.love"),
        ("eve.bell", "evebell", " Eve.Bell", "e.ve.bell"),
        ("ada@größe.example", "Ada@xn--gre-6ka8i.example", "ADA@GRÖSSE.example".replace("SS", "ß")),
        ("eve@größe.example", "Eve@xn--gre-6ka8i.example", "EVE@GRÖSSE.example".replace("SS", "ß")),
    ],
)
@story
async def test_all_spellings_of_a_name_are_counted_together_whether_anybody_has_it(
    w: World, names: tuple[str, ...]
) -> None:
    ada = await w.user("ada.love")
    await w.accounts.addresses.add(ada.oid, "ada@größe.example")
    for number in range(10):
        await fail(w, names[number % len(names)], Origin(), 1)
    for name in names:
        with pytest.raises(RateLimited):
            await w.accounts.authenticate(name, PASSWORD)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "::ffff:192.0.2.7"),
        ("2001:db8::1", "2001:db8::ffff:1"),
        ("fe80::1%eth0", "fe80::2"),
    ],
)
@story
async def test_thirty_failures_close_a_place_for_whomever(w: World, first: str, second: str) -> None:
    await w.user()
    for number in range(3):
        await fail(w, f"user{number}", Origin(first), 10)
    with pytest.raises(RateLimited):
        await w.accounts.authenticate("ada", PASSWORD, origin=Origin(second))
    await w.accounts.authenticate("ada", PASSWORD, origin=Origin("198.51.100.1"))
    await w.accounts.authenticate("ada", PASSWORD, origin=Origin("2001:db8:0:1::1"))


@story
async def test_only_wrong_passwords_are_counted(w: World) -> None:
    ada = await w.user()
    asp = await w.accounts.asps.create(ada.oid, "phone", ["imap"])
    for _ in range(12):
        await w.accounts.authenticate("ada", PASSWORD, origin=HERE)
        with pytest.raises(InvalidAuthScope):  # a client set up for too much is no burglar
            await w.accounts.authenticate("ada", asp.password, scope="smtp", origin=HERE)


@story
async def test_the_log_is_paged_newest_first_and_filtered(w: World) -> None:
    ada, bob = await w.user(), await w.user("bob")
    await w.accounts.asps.create(ada.oid, "phone")
    for _ in range(4):
        await w.accounts.authenticate("ada", PASSWORD)
    rows = w.log(ada)
    assert [row.oid for row in rows] == sorted((row.oid for row in rows), reverse=True)
    page = w.accounts.authlog(ada.oid, 2, after=rows[1].oid)
    assert (list(page.rows), page.total, page.more, page.earlier) == (rows[2:4], 5, True, True)
    page = w.accounts.authlog(ada.oid, 2, before=rows[2].oid)
    assert (list(page.rows), page.earlier) == (rows[:2], False)
    assert w.accounts.authlog(ada.oid, action="create asp").rows == (rows[4],)
    assert w.log(bob) == []
    with pytest.raises(UserNotFound, match=r"^This user does not exist$"):
        w.accounts.authlog(NOBODY)


@story
async def test_the_log_is_kept_for_thirty_days(w: World) -> None:
    ada = await w.user()
    await w.accounts.authenticate("ada", PASSWORD)
    w.clock += 30 * 86400
    assert len(w.log(ada)) == 1
    w.clock += 1
    assert w.log(ada) == []
    await w.accounts.sweep()
    with w.store._database.read() as db:
        assert db.execute("SELECT count(*) FROM authlog").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM throttle").fetchone() == (0,)
    await w.accounts.authenticate("ada", PASSWORD)
    w.clock += 599
    await w.accounts.sweep()  # too early to look again
    assert len(w.log(ada)) == 1


class Stuck:
    """Checks of passwords that wait to be let go, and how many of them there are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.names: list[str] = []
        self.busy = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        monkeypatch.setattr(Passwords, "_fits", lambda _, hashed, password: self.check())

    def check(self) -> bool:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.names.append(threading.current_thread().name)
            if self._now == pool.WORKERS:
                self._loop.call_soon_threadsafe(self.busy.set)
        self.go.wait(30)
        with self._lock:
            self._now -= 1
        return True


async def waiting(account: Account, w: World, stuck: Stuck, count: int) -> list[asyncio.Task[object]]:
    """So many logins under way, and the threads busy."""
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[object]] = [
        loop.create_task(w.accounts.authenticate(account.username, PASSWORD)) for _ in range(count)
    ]
    await stuck.busy.wait()
    return tasks


@story
async def test_logins_run_in_few_threads_and_never_on_the_loop(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await w.user()
    stuck = Stuck(monkeypatch)
    tasks = await waiting(ada, w, stuck, 6)
    assert not any(task.done() for task in tasks)  # and yet we are here
    stuck.go.set()
    await asyncio.gather(*tasks)
    assert stuck.most == pool.WORKERS
    assert {name.split("_")[0] for name in stuck.names} == {"qmail-password"}


@story
async def test_a_flood_of_logins_is_turned_away(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await w.user()
    monkeypatch.setattr(pool, "MOST_WAITING", 3)
    stuck = Stuck(monkeypatch)
    tasks = await waiting(ada, w, stuck, pool.WORKERS + 3)
    with pytest.raises(RateLimited):
        await w.accounts.authenticate("ada", PASSWORD)
    stuck.go.set()
    await asyncio.gather(*tasks)
    await w.accounts.authenticate("ada", PASSWORD)


@story
async def test_a_login_that_is_given_up_gives_its_turn_back(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await w.user()
    stuck = Stuck(monkeypatch)
    tasks = await waiting(ada, w, stuck, pool.WORKERS + 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    stuck.go.set()
    await w.accounts.authenticate("ada", PASSWORD)


@story
async def test_passwords_are_hashed_as_documented(w: World, caplog: pytest.LogCaptureFixture) -> None:
    passwords = Passwords(w.entropy)
    hashed = await passwords.hash("Schlüssel")
    assert hashed.startswith(f"$argon2id$v=19$m={MEMORY_KIB},t=1,p=1$")
    assert await passwords.verify(hashed, "Schlüssel")
    assert not await passwords.verify(hashed, "schlüssel")
    assert hashed != await passwords.hash("Schlüssel")
    with caplog.at_level(logging.ERROR):
        assert not await passwords.verify("$damaged", "Schlüssel")
    assert "Schlüssel" not in caplog.text
    passwords.close()


@story
async def test_nothing_secret_is_logged(w: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        ada = await w.user()
        asp = await w.accounts.asps.create(ada.oid, "phone")
        with pytest.raises(AuthFailed) as caught:
            await w.accounts.authenticate("ada", "wrong password")
    for secret in (PASSWORD, "wrong password", asp.password):
        assert secret not in caplog.text
        assert secret not in f"{caught.value!r} {asp!r} {w.log(ada)}"
