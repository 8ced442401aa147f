"""The second factor: seeds, codes that work once, and a limit to guessing."""

from __future__ import annotations

import asyncio
import base64
import struct
from urllib.parse import parse_qs, unquote, urlsplit

import pyotp
import pytest

from qmail_core.engine.accounts import Account, Origin
from qmail_core.engine.accounts.totp import step_of
from qmail_core.errors import InputInvalid, InvalidToken, RateLimited, TotpDisabled, TotpEnabled, UserNotFound
from qmail_core.store.accounts import TotpAttempt
from tests.engine.accounts import HERE, NOBODY, World, story

WRONG = r"^Invalid authentication token$"


def code(seed: str, at: int) -> str:
    return pyotp.TOTP(seed).at(at)


def wrong(seed: str, at: int) -> str:
    """Six digits that are no code of these minutes."""
    near = {code(seed, at + 30 * step) for step in range(-30, 31)}
    return next(text for text in map("{:06}".format, range(1000)) if text not in near)


async def switch_on(w: World, user: Account) -> str:
    """Set up and enable; the clock moves on, so that the next code is a fresh one."""
    setup = await w.accounts.totp.setup(user.oid)
    await w.accounts.totp.enable(user.oid, code(setup.seed, w.clock))
    w.clock += 60
    return setup.seed


def test_codes_are_those_of_the_standard() -> None:
    # RFC 6238 appendix B, the last six digits
    secret = b"12345678901234567890"
    for at, digits in ((59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")):
        assert step_of(secret, digits, at) == at // 30


@pytest.mark.parametrize(("shift", "fits"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)])
def test_one_step_before_and_behind_is_borne(shift: int, fits: bool) -> None:
    secret = b"12345678901234567890"
    at = 1234567890
    digits = code(base64.b32encode(secret).decode(), at + shift)
    assert step_of(secret, digits, at) == ((at + shift) // 30 if fits else None)
    assert step_of(secret, "ünïcöd", at) is None


@story
async def test_setting_up_shows_a_seed_as_a_picture(w: World) -> None:
    ada = await w.user("a.da")
    setup = await w.accounts.totp.setup(ada.oid, " My mail & more ", HERE)
    url = urlsplit(setup.url)
    assert (url.scheme, url.netloc, unquote(url.path)) == ("otpauth", "totp", "/a.da")
    assert parse_qs(url.query) == {"secret": [setup.seed], "issuer": ["My mail & more"]}
    assert len(base64.b32decode(setup.seed)) == 20
    head, _, data = setup.qrcode.partition(",")
    picture = base64.b64decode(data, validate=True)
    assert head == "data:image/png;base64"
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert width == height > 100
    assert [(row.action, row.detail) for row in w.log(ada)] == [("new 2fa seed", {"ip": HERE.ip, "sess": HERE.session})]
    assert "issuer=QMail" in (await w.accounts.totp.setup(ada.oid)).url
    assert not w.accounts.users.get(ada.oid).enabled2fa


@story
async def test_a_seed_is_sealed_in_the_store_and_printed_nowhere(w: World) -> None:
    ada = await w.user()
    setup = await w.accounts.totp.setup(ada.oid)
    sealed = w.store.accounts.credentials(ada.id).totp_seed
    assert sealed is not None
    assert base64.b32decode(setup.seed) not in sealed
    assert setup.seed not in repr(setup)
    assert setup.seed not in str(w.log(ada))


@story
async def test_a_first_code_switches_it_on(w: World) -> None:
    ada = await w.user()
    first = await w.accounts.totp.setup(ada.oid)
    second = await w.accounts.totp.setup(ada.oid)  # replaces the first
    with pytest.raises(InvalidToken, match=WRONG) as caught:
        await w.accounts.totp.enable(ada.oid, code(first.seed, w.clock))
    assert (caught.value.code, caught.value.hint) == ("InvalidToken", 403)
    assert not w.accounts.users.get(ada.oid).enabled2fa
    await w.accounts.totp.enable(ada.oid, code(second.seed, w.clock), HERE)
    assert w.accounts.users.get(ada.oid).enabled2fa
    assert [(row.action, row.detail["result"]) for row in w.log(ada)[:2]] == [
        ("enable 2fa", "success"),
        ("enable 2fa", "fail"),
    ]
    assert w.log(ada)[0].detail["ip"] == HERE.ip


@story
async def test_every_refusal_has_its_words(w: World) -> None:
    ada, totp = await w.user(), w.accounts.totp
    already = r"^2FA is already enabled for this user$"
    with pytest.raises(TotpDisabled, match=r"^2FA is not initialized for this user$"):
        await totp.enable(ada.oid, "123456")
    with pytest.raises(TotpDisabled, match=r"^2FA is not enabled for this user$"):
        await totp.check(ada.oid, "123456")
    with pytest.raises(TotpDisabled, match=r"^Could not update user, check if 2FA is not already disabled$"):
        await totp.disable(ada.oid)
    await totp.setup(ada.oid)
    with pytest.raises(TotpDisabled, match=r"^2FA is not enabled for this user$"):
        await totp.check(ada.oid, "123456")
    await switch_on(w, ada)
    with pytest.raises(TotpEnabled, match=already):
        await totp.setup(ada.oid)
    with pytest.raises(TotpEnabled, match=already):
        await totp.enable(ada.oid, "123456")
    for call, words in (
        (totp.setup(NOBODY), "Could not find user data"),
        (totp.enable(NOBODY, "123456"), "This username does not exist"),
        (totp.check(NOBODY, "123456"), "This user does not exist"),
        (totp.disable(NOBODY), "This user does not exist"),
    ):
        with pytest.raises(UserNotFound, match=f"^{words}$"):
            await call
    for token in ("12345", "1234567", ""):
        with pytest.raises(InputInvalid, match='"token" length must be 6 characters long'):
            await totp.check(ada.oid, token)
    with pytest.raises(InputInvalid, match="issuer"):
        await totp.setup(ada.oid, "i" * 256)
    bob = await w.user("bob")
    with pytest.raises(InputInvalid, match='"issuer" is too long for a QR code'):
        await totp.setup(bob.oid, "\U0001f600" * 255)


@story
async def test_a_code_works_once_and_those_before_it_no_more(w: World) -> None:
    ada = await w.user()
    seed = await switch_on(w, ada)
    await w.accounts.totp.check(ada.oid, code(seed, w.clock), HERE)
    for at in (w.clock, w.clock - 30):
        with pytest.raises(InvalidToken, match=WRONG):
            await w.accounts.totp.check(ada.oid, code(seed, at))
    await w.accounts.totp.check(ada.oid, code(seed, w.clock + 30))
    assert [row.detail["result"] for row in w.log(ada) if row.action == "2fa"] == ["success", "fail", "fail", "success"]


@story
async def test_codes_of_a_clock_that_was_ahead_do_not_shut_out_those_of_today(w: World) -> None:
    ada = await w.user()
    w.clock += 365 * 86_400
    seed = await switch_on(w, ada)
    await w.accounts.totp.check(ada.oid, code(seed, w.clock))
    w.clock -= 365 * 86_400
    await w.accounts.totp.check(ada.oid, code(seed, w.clock))
    with pytest.raises(InvalidToken):
        await w.accounts.totp.check(ada.oid, code(seed, w.clock))


@story
async def test_of_racing_checks_of_one_code_one_is_accepted(w: World) -> None:
    ada = await w.user()
    seed = await switch_on(w, ada)
    digits = code(seed, w.clock)
    done = await asyncio.gather(*(w.accounts.totp.check(ada.oid, digits) for _ in range(4)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in done) == ["InvalidToken"] * 3 + ["NoneType"]


@story
async def test_of_racing_enablings_one_is_accepted(w: World) -> None:
    ada = await w.user()
    setup = await w.accounts.totp.setup(ada.oid)
    digits = code(setup.seed, w.clock)
    done = await asyncio.gather(*(w.accounts.totp.enable(ada.oid, digits) for _ in range(2)), return_exceptions=True)
    assert [type(result).__name__ for result in done] == ["NoneType", "InvalidToken"]


@story
async def test_a_code_of_a_seed_that_was_replaced_meanwhile_is_refused(w: World) -> None:
    ada = await w.user()
    setup = await w.accounts.totp.setup(ada.oid)
    use = w.store.accounts.use_totp

    async def late(user: int, attempt: TotpAttempt, now: int) -> bool:
        await w.accounts.totp.setup(ada.oid)
        return await use(user, attempt, now)

    w.store.accounts.use_totp = late  # type: ignore[method-assign]
    with pytest.raises(InvalidToken):
        await w.accounts.totp.enable(ada.oid, code(setup.seed, w.clock))
    assert not w.accounts.users.get(ada.oid).enabled2fa


@story
async def test_five_failures_close_a_user_for_five_minutes(w: World) -> None:
    ada = await w.user()
    seed = await switch_on(w, ada)
    attempts = [w.accounts.totp.check(ada.oid, wrong(seed, w.clock)) for _ in range(9)]
    done = await asyncio.gather(*attempts, return_exceptions=True)
    # the gate is looked at where failures are counted, so not one slips through
    assert [type(result) for result in done] == [InvalidToken] * 5 + [RateLimited] * 4
    with pytest.raises(RateLimited) as caught:
        await w.accounts.totp.check(ada.oid, code(seed, w.clock))
    assert caught.value.retry_after == 300
    w.clock += 300
    await w.accounts.totp.check(ada.oid, code(seed, w.clock))


@story
async def test_five_failures_close_a_place_for_all_users(w: World) -> None:
    ada, bob = await w.user(), await w.user("bob")
    seed = await switch_on(w, ada)
    other = await switch_on(w, bob)
    for _ in range(5):
        with pytest.raises(InvalidToken):
            await w.accounts.totp.check(ada.oid, wrong(seed, w.clock), HERE)
    with pytest.raises(RateLimited):
        await w.accounts.totp.check(bob.oid, code(other, w.clock), HERE)
    await w.accounts.totp.check(bob.oid, code(other, w.clock), Origin("198.51.100.1"))


@story
async def test_switching_off_forgets_the_seed(w: World) -> None:
    ada = await w.user()
    await switch_on(w, ada)
    await w.accounts.totp.disable(ada.oid, HERE)
    assert w.store.accounts.credentials(ada.id).totp_seed is None
    assert (w.log(ada)[0].action, "result" in w.log(ada)[0].detail) == ("disable 2fa", False)
    await switch_on(w, ada)
