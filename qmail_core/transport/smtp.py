"""A relay over SMTP: one connection per message, on a thread of its own; RFC 5321, RFC 3207, RFC 6531."""

from __future__ import annotations

import asyncio
import os
import re
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from qmail_core.codec.mime.mailbox import domain_to_ascii
from qmail_core.config import EngineConfig
from qmail_core.errors import ConfigError, TransportError
from qmail_core.transport.outside import Refusal

_TIMEOUT = 60.0  # seconds one step may take
_LINE_END = re.compile(rb"\r\n|\r|\n")
LOCAL = ("localhost", "127.0.0.1", "::1")
_NOT_SPOKEN = Refusal(553, "the relay takes no address in this script")


class SmtpRelay:
    """A MailRelay.

    login  user and password; asked for only behind TLS, or on this machine
    """

    def __init__(
        self, host: str, port: int, *, name: str, login: tuple[str, str] | None = None, starttls: bool = True
    ) -> None:
        if login is not None and not starttls and host not in LOCAL:
            raise ConfigError("a password is not sent to another machine without TLS: leave smtp_starttls on")
        self._place = (host, port)
        self._name = name
        self._login = login
        self._starttls = starttls
        self._threads = ThreadPoolExecutor(1, "qmail-smtp")

    def __repr__(self) -> str:
        return f"SmtpRelay({self._place[0]}:{self._place[1]})"

    async def submit(self, sender: str, recipients: Sequence[str], raw: bytes) -> Mapping[str, Refusal]:
        """See MailRelay."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._submit, sender, recipients, raw)
        except smtplib.SMTPResponseException as error:
            # about the connection, not about a message: such as a login that is not right, which may be put right
            raise TransportError(f"the relay said {error.smtp_code} {_text(error.smtp_error)}") from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise TransportError(f"the relay cannot be used: {error}") from None

    def _submit(self, sender: str, recipients: Sequence[str], raw: bytes) -> dict[str, Refusal]:
        with smtplib.SMTP(*self._place, local_hostname=self._name, timeout=_TIMEOUT) as smtp:
            smtp.ehlo_or_helo_if_needed()
            if self._starttls:
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo()
            if self._login is not None:
                smtp.login(*self._login)
            return _hand_over(smtp, sender, recipients, raw)


def _hand_over(smtp: smtplib.SMTP, sender: str, recipients: Sequence[str], raw: bytes) -> dict[str, Refusal]:
    wire = {text: _wire(text) for text in recipients}
    wide = [text for text in recipients if not (wire[text].isascii() and _wire(sender).isascii())]
    refused = {} if smtp.has_extn("smtputf8") else dict.fromkeys(wide, _NOT_SPOKEN)
    left = [text for text in recipients if text not in refused]
    if not left:
        return refused
    options = ["SMTPUTF8"] if wide and not refused else []
    if not raw.isascii() and smtp.has_extn("8bitmime"):
        options.append("BODY=8BITMIME")
    answer = smtp.mail(_wire(sender), options)
    if answer[0] != 250:
        return refused | dict.fromkeys(left, _refusal(answer))
    for text in tuple(left):
        answer = smtp.rcpt(wire[text])
        if answer[0] not in (250, 251):
            refused[text] = _refusal(answer)
            left.remove(text)
    if left:
        # one kind of line end only: others let a message end early for whoever reads them differently
        answer = smtp.data(_LINE_END.sub(b"\r\n", raw))
        if answer[0] != 250:
            refused |= dict.fromkeys(left, _refusal(answer))
    return refused


def _wire(address: str) -> str:
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{domain_to_ascii(domain)}"


def _refusal(answer: tuple[int, bytes]) -> Refusal:
    # a server that says nothing sensible may do better next time
    return Refusal(answer[0] if 400 <= answer[0] < 600 else 451, _text(answer[1]))


def _text(said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return " ".join(text.split())[:300]


def relay_of(config: EngineConfig) -> SmtpRelay | None:
    """The relay of an engine's settings; ConfigError if they make no sense."""
    if not config.smtp_relay:
        return None
    host, _, port = config.smtp_relay.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError("smtp_relay has the form host:port")
    login = _read_login(config.smtp_login) if config.smtp_login else None
    return SmtpRelay(host.strip("[]"), int(port), name=config.domain, login=login, starttls=config.smtp_starttls)


def _read_login(path: str) -> tuple[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others: chmod 600 it")
            user, colon, password = file.readline(4096).rstrip("\r\n").partition(":")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if not colon:
        raise ConfigError(f"{path} has no line of the form user:password")
    return user, password
