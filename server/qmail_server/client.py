"""A small synchronous client of the QMail node API: what the command line needs, no more.

Rules: every failure is a ClientError with a sentence; files appear under their name only when they are whole; a name
that comes from a mail is never trusted as a path.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
import msgspec
from msgspec import Struct

from qmail_server.http.params import file_name

T = TypeVar("T")

_POLL = (0.05, 1.0)  # seconds between two looks at a task: first, last
_TIMEOUT = httpx.Timeout(30.0, read=630.0)  # a long poll may take 600
BODY_NAME = "body.txt"


class ClientError(Exception):
    """An operation failed; `status` is the HTTP status, 0 when there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Started(Struct):
    """An accepted send."""

    task_id: str
    file_guid: str
    message: str


class TaskStatus(Struct):
    """How far a task is."""

    task_id: str
    status: str
    progress: int
    message: str
    data: dict[str, Any] | None = None


class Waiting(Struct):
    """A mail that was announced and not downloaded."""

    file_guid: str
    sender_address: str
    total_file_size: int
    timestamp: int


class Stored(Struct):
    """A mail in the store, as a folder shows it."""

    email_id: str
    subject: str
    sender_address: str
    received_timestamp: int
    is_read: bool
    attachment_count: int


class Mail(Struct):
    """A mail in the store."""

    email_id: str
    subject: str
    sender_address: str
    received_timestamp: int
    to: str
    cc: str
    body: str
    attachment_count: int


class Attachment(Struct):
    """One attachment of a stored mail."""

    attachment_id: int
    name: str
    size_bytes: int


class Saved(Struct):
    """A file that was written."""

    path: str
    size: int
    sha256: str


class Token(Struct):
    """A token of the file-transfer API; its text is in the answer that makes it, and nowhere else."""

    id: int
    name: str
    created_at: str
    token: str = ""

    def __repr__(self) -> str:
        return f"Token({self.id})"


class _Made(Struct):
    data: Token


class _Tokens(Struct):
    data: list[Token]


class _Peeked(Struct):
    notifications: list[Waiting]


class _Listed(Struct):
    emails: list[Stored]


class _Fetched(Struct):
    email_id: str


class _Attached(Struct):
    attachments: list[Attachment]


class Client:
    """One node's API. A context manager; not for several threads at once."""

    def __init__(self, url: str, *, token: str = "", transport: httpx.BaseTransport | None = None) -> None:
        if not token.isascii() or not token.isprintable() or " " in token:
            # before it comes into a header: the library's complaint would quote it
            raise ClientError("QMAIL_TOKEN holds no token: one is ASCII, on one line, without spaces")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = url
        # no proxies from the environment: the API is this machine's own
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT, transport=transport, trust_env=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def send(
        self,
        fields: dict[str, str | Sequence[str]],
        attachments: Sequence[Path] = (),
        *,
        tell: bool = True,
    ) -> Started:
        """Start a send; `fields` are the parameters of the upload routes, attachments travel with the request."""
        route = "/api/qmail/net/messages/" + ("upload_and_tell" if tell else "upload")
        with ExitStack() as stack:
            files = [("attachment", (path.name, stack.enter_context(path.open("rb")))) for path in attachments]
            return self._ask(Started, "POST", route, data=fields, files=files or None)

    def task(self, task_id: str) -> TaskStatus:
        """A task's state."""
        return self._ask(TaskStatus, "GET", "/api/system/tasks", params={"id": task_id})

    def wait(self, task_id: str, progress: Callable[[TaskStatus], None] = lambda _: None) -> TaskStatus:
        """A task once it has ended well; ClientError when it has not."""
        pause, longest = _POLL
        while (state := self.task(task_id)).status == "running":
            progress(state)
            time.sleep(pause)
            pause = min(pause * 1.5, longest)
        progress(state)
        if state.status != "success":
            raise ClientError(state.message or f"Task ended as {state.status}")
        return state

    def waiting(self) -> list[Waiting]:
        """Mails the beacons hold for us."""
        return self._ask(_Peeked, "GET", "/api/qmail/net/beacon/peek").notifications

    def stored(self, limit: int = 50) -> list[Stored]:
        """The newest mails of the inbox."""
        return self._ask(_Listed, "GET", "/api/qmail/db/messages/list", params={"limit": limit}).emails

    def read(self, guid: str) -> Mail:
        """A mail, downloaded first if it is not in the store."""
        try:
            return self._get(guid)
        except ClientError as error:
            if error.status != 404:
                raise
        try:
            fetched = self._ask(_Fetched, "POST", "/api/qmail/net/messages/download", data={"file_guid": guid})
        except ClientError as error:
            if error.status == 404:  # the API's text names a parameter the caller cannot give
                raise ClientError(f"There is no mail {guid}, neither in the store nor announced", 404) from None
            raise
        return self._get(fetched.email_id)  # differs from the guid when one mails oneself

    def _get(self, guid: str) -> Mail:
        return self._ask(Mail, "GET", "/api/qmail/db/messages/get", params={"email_id": guid})

    def attachments(self, guid: str) -> list[Attachment]:
        """The attachments of a stored mail."""
        return self._ask(_Attached, "GET", "/api/qmail/db/attachments/list", params={"email_id": guid}).attachments

    def save(self, guid: str, folder: Path, *, overwrite: bool = False) -> list[Saved]:
        """Write a mail's body and all its attachments into a folder, byte for byte."""
        mail = self.read(guid)
        folder.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        body = [mail.body.encode()]
        saved = [_write(folder / _unused(BODY_NAME, taken), iter(body), len(body[0]), overwrite)]
        for row in self.attachments(mail.email_id):
            target = folder / _unused(file_name(row.name), taken)
            if target.exists() and not overwrite:  # known before the bytes are fetched
                raise ClientError(f"{target} exists already")
            with self._bytes(mail.email_id, row) as chunks:
                saved.append(_write(target, chunks, row.size_bytes, overwrite))
        return saved

    def create_token(self, name: str) -> Token:
        """A new token of the file-transfer API."""
        return self._ask(_Made, "POST", "/api/tokens", json={"name": name}).data

    def tokens(self) -> list[Token]:
        """All tokens, without their texts."""
        return self._ask(_Tokens, "GET", "/api/tokens").data

    def revoke_token(self, token: int) -> None:
        """End a token."""
        with self._translated():
            answer = self._http.delete(f"/api/tokens/{token}")
        if answer.status_code != 204:
            raise _refusal(answer)

    @contextmanager
    def _bytes(self, guid: str, row: Attachment) -> Iterator[Iterator[bytes]]:
        params: dict[str, str | int] = {"email_id": guid, "attachment_id": row.attachment_id}
        with self._translated(), self._http.stream("GET", "/api/qmail/db/attachments/get", params=params) as answer:
            if answer.status_code != 200:
                answer.read()
                raise _refusal(answer)
            yield answer.iter_bytes()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise ClientError(f"{self._url!r} is no base URL of a node API, such as http://127.0.0.1:8080") from None
        except httpx.ConnectError as error:
            raise ClientError(f"No engine answers at {self._url}; --api or QMAIL_API says where one runs") from error
        except httpx.HTTPError as error:
            raise ClientError(f"No answer from {self._url}: {error}") from error

    def _ask(self, kind: type[T], method: str, route: str, **options: Any) -> T:
        with self._translated():
            answer = self._http.request(method, route, **options)
        if answer.status_code != 200:
            raise _refusal(answer)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise ClientError(f"The server's answer makes no sense: {error}", answer.status_code) from error


def _refusal(answer: httpx.Response) -> ClientError:
    try:
        body = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        body = {}
    message = str(body.get("message") or f"The server answered {answer.status_code}")
    if answer.status_code == 401:
        message += "; QMAIL_TOKEN must hold what the file `token` in the engine's folder says"
    reason = body.get("reason")
    return ClientError(f"{message}: {reason}" if reason else message, answer.status_code)


def _unused(name: str, taken: set[str]) -> str:
    """The name, numbered if this mail has used it before; compared without case, as some file systems do."""
    stem, dot, extension = name.rpartition(".") if "." in name else (name, "", "")
    number = 1
    while name.lower() in taken:
        number += 1
        name = f"{stem} ({number}){dot}{extension}"
    taken.add(name.lower())
    return name


def _write(target: Path, chunks: Iterator[bytes], size: int, overwrite: bool) -> Saved:
    """Write beside the target, check the size, then give it its name."""
    digest = hashlib.sha256()
    written = 0
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name[:40]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                written += file.write(chunk)
        if written != size:
            raise ClientError(f"{target.name}: {written} bytes came instead of {size}")
        _name(part, target, overwrite)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
    return Saved(str(target), written, digest.hexdigest())


def _name(part: str, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(part, target)
        return
    try:
        os.link(part, target)  # unlike a rename, it fails when the name is taken
    except FileExistsError as error:
        raise ClientError(f"{target} exists already") from error
    except OSError:  # a file system without links
        if target.exists():
            raise ClientError(f"{target} exists already") from None
        os.rename(part, target)
