"""The second factor (TOTP, RFC 6238): SHA-1, six digits, 30 seconds, one step before and behind.

The seed is sealed in the store. A step whose code was accepted is used up, and so are those before it.
"""

from __future__ import annotations

import base64
import hmac
from urllib.parse import quote

import pyotp
import segno
from msgspec import Struct

from qmail_core.engine.accounts.desk import NOWHERE, Desk, Origin, totp_gates
from qmail_core.engine.accounts.rules import Faults
from qmail_core.errors import InputInvalid, InvalidToken, TotpDisabled, TotpEnabled
from qmail_core.store.accounts import Account, TotpAttempt

STEP = 30  # seconds
_SEED = 20  # bytes
_DIGITS = 6
_ISSUER = "QMail"
_ENABLED = "2FA is already enabled for this user"


class TotpSetup(Struct, frozen=True):
    """A seed for the user's device. Prints without it."""

    seed: str  # Base32
    url: str
    qrcode: str  # data URL of a picture of `url`

    def __repr__(self) -> str:
        return "TotpSetup()"


class Totp:
    """The second factors of one engine's users."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._store = desk.store

    async def setup(self, user: bytes, issuer: str = "", origin: Origin = NOWHERE) -> TotpSetup:
        """Draw a seed; it is used once a code of it came back (`enable`), until then it can be replaced."""
        issuer = issuer.strip()
        faults = Faults()
        faults.text("issuer", issuer, most=255)
        origin.check(faults)
        faults.settle()
        account = self._desk.need(user, "Could not find user data")
        secret = self._desk.ctx.entropy(_SEED)
        seed = base64.b32encode(secret).decode()
        name, service = quote(account.username, safe=""), quote(issuer or _ISSUER, safe="")
        url = f"otpauth://totp/{name}?secret={seed}&issuer={service}"
        qrcode = await self._desk.passwords.run(lambda: _picture(url))
        sealed = self._desk.keys.seal(secret, account.oid)
        if not await self._store.seed_totp(account.id, sealed, self._desk.entry("new 2fa seed", origin)):
            raise TotpEnabled(_ENABLED)
        return TotpSetup(seed, url, qrcode)

    async def enable(self, user: bytes, token: str, origin: Origin = NOWHERE) -> None:
        """Switch the second factor on with a first code; TotpEnabled, TotpDisabled, InvalidToken."""
        _check(token, origin)
        account = self._desk.need(user, "This username does not exist")
        if account.enabled2fa:
            raise TotpEnabled(_ENABLED)
        await self._use(account, token, origin, enable=True, unset="2FA is not initialized for this user")

    async def check(self, user: bytes, token: str, origin: Origin = NOWHERE) -> None:
        """Accept a code, once; TotpDisabled, InvalidToken, RateLimited."""
        _check(token, origin)
        account = self._desk.need(user)
        unset = "2FA is not enabled for this user"
        if not account.enabled2fa:
            raise TotpDisabled(unset)
        await self._use(account, token, origin, enable=False, unset=unset)

    async def disable(self, user: bytes, origin: Origin = NOWHERE) -> None:
        """Switch the second factor off; TotpDisabled if it is."""
        faults = Faults()
        origin.check(faults)
        faults.settle()
        account = self._desk.need(user)
        if not await self._store.drop_totp(account.id, self._desk.entry("disable 2fa", origin)):
            raise TotpDisabled("Could not update user, check if 2FA is not already disabled")

    async def _use(self, account: Account, token: str, origin: Origin, *, enable: bool, unset: str) -> None:
        sealed = self._store.credentials(account.id).totp_seed
        if sealed is None:
            raise TotpDisabled(unset)
        action, now = "enable 2fa" if enable else "2fa", self._desk.ctx.now()
        attempt = TotpAttempt(
            sealed=sealed,
            step=step_of(self._desk.keys.open(sealed, account.oid), token, now),
            enable=enable,
            gates=totp_gates(account.oid.hex(), origin),
            passed=self._desk.entry(action, origin, result="success"),
            failed=self._desk.entry(action, origin, result="fail"),
        )
        if not await self._store.use_totp(account.id, attempt, now):
            raise InvalidToken("Invalid authentication token")


def step_of(secret: bytes, token: str, now: int) -> int | None:
    """The step whose code this is, of those around now; all are computed, whichever it is."""
    codes = pyotp.HOTP(base64.b32encode(secret).decode())
    here = now // STEP
    given = token.encode("utf-8", "surrogatepass")
    fitting = [
        step for step in range(max(here - 1, 0), here + 2) if hmac.compare_digest(codes.at(step).encode(), given)
    ]
    return max(fitting, default=None)


def _check(token: str, origin: Origin) -> None:
    faults = Faults()
    if len(token) != _DIGITS:
        faults.add("token", f"length must be {_DIGITS} characters long")
    origin.check(faults)
    faults.settle()


def _picture(url: str) -> str:
    try:
        return segno.make(url, micro=False).png_data_uri(scale=4)
    except segno.DataOverflowError:
        raise InputInvalid({"issuer": '"issuer" is too long for a QR code'}) from None
