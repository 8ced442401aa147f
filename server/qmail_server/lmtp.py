"""Mail from the SMTP server of this machine: LMTP (RFC 2033), which answers for each recipient on its own.

There is no login in LMTP, so it listens on loopback or on a Unix socket and nowhere else. aiosmtpd speaks the protocol;
it comes with the extra `lmtp` and is imported when a listener is asked for. An answer with 250 means: on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import logging
import os
import weakref
from typing import TYPE_CHECKING, Any

from qmail_core.engine.letters import MAX_MESSAGE
from qmail_core.errors import AddressError, ConfigError, QMailError, QuotaError, UsageError

if TYPE_CHECKING:
    from qmail_core.engine.engine import Engine

log = logging.getLogger("qmail.lmtp")

MOST_RECIPIENTS = 100  # of one message
LONGEST_LINE = 1 << 16  # bytes; more than SMTP has, as mail is broken in every way
# what the library says once of a message that is refused as a whole, though every recipient waits for an answer
_OF_ALL = ("500 Line too long", "552 Error: Too much mail data")


class LmtpServer:
    """A listener that delivers to the users of an engine.

    place  `HOST:PORT` on loopback, or the path of a Unix socket
    """

    def __init__(self, engine: Engine, place: str, *, most: int = MAX_MESSAGE) -> None:
        self._deliveries = _Deliveries(engine)
        self._name = engine.config.domain
        self._most = most
        self._path, self._address = _read_place(place)
        self._protocol = _protocol()
        self._server: asyncio.AbstractServer | None = None
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()

    async def start(self) -> None:
        """Listen; ConfigError if that is not possible."""
        loop = asyncio.get_running_loop()
        try:
            if self._path:
                self._server = await loop.create_unix_server(self._session, self._path)
                os.chmod(self._path, 0o660)  # the SMTP server is another user of the same group
            else:
                self._server = await loop.create_server(self._session, *self._address)
        except OSError as error:
            raise ConfigError(f"--lmtp {self._path or ':'.join(map(str, self._address))}: {error.strerror}") from None

    def port(self) -> int:
        """The TCP port, for those who asked for any."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]

    async def stop(self) -> None:
        """End the listener and its connections; what was not answered is tried again by who sent it."""
        if self._server is None:
            return
        self._server.close()
        for session in list(self._open):
            if session.transport is not None:
                session.transport.close()
        await self._server.wait_closed()
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._path)

    def _session(self) -> Any:
        made = self._protocol(
            self._deliveries,
            hostname=self._name,
            ident="LMTP",
            data_size_limit=self._most,
            enable_SMTPUTF8=True,
            loop=asyncio.get_running_loop(),
        )
        made.line_length_limit = LONGEST_LINE
        say = made.push

        async def push(status: str) -> None:
            if status.startswith(_OF_ALL):
                status = "\r\n".join([status] * len(made.envelope.rcpt_tos))
            await say(status)

        made.push = push
        self._open.add(made)
        return made


class _Deliveries:
    """What the library asks about recipients and messages; names are the library's."""

    def __init__(self, engine: Engine) -> None:
        self._post = engine.post

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if len(envelope.rcpt_tos) >= MOST_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        if not self._post.knows(address):
            return "550 5.1.1 Unknown recipient"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        raw, sender = bytes(envelope.content), envelope.mail_from or ""
        return "\r\n".join([await self._deliver(raw, sender, who) for who in envelope.rcpt_tos])

    async def _deliver(self, raw: bytes, sender: str, who: str) -> str:
        try:
            message = await self._post.deliver_to(who, raw, sender=sender)
        except AddressError:
            return "550 5.1.1 Unknown recipient"
        except QuotaError:
            return "552 5.2.2 Mailbox full"
        except UsageError as error:
            return f"554 5.6.0 {error.message}"
        except QMailError as error:
            log.warning("a message was not delivered: %s", error)
            return "451 4.3.0 Try again later"
        except Exception:
            log.exception("a message was not delivered")
            return "451 4.3.0 Try again later"
        return f"250 2.0.0 Message stored as {message.oid.hex()}" if message else "250 2.0.0 Message filtered out"


def _read_place(place: str) -> tuple[str, tuple[str, int]]:
    """A path, or else host and port."""
    if place.startswith("/"):
        return place, ("", 0)
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--lmtp {place} is neither of the form HOST:PORT nor an absolute path")
    try:
        loopback = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(f"--lmtp {place}: there is no login in LMTP, so it listens on loopback or a Unix socket only")
    return "", (host, int(port))


def _protocol() -> Any:
    try:
        found = importlib.import_module("aiosmtpd.lmtp").LMTP
    except ImportError:
        raise ConfigError("--lmtp needs aiosmtpd: install qmail-core[lmtp]") from None
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # below that it logs what people write to each other
    return found
