"""The parameters of one request: query string and body, merged once, names without case.

Rule: a value is only ever text. `application/x-www-form-urlencoded`, `multipart/form-data` and a flat JSON object all
end up in the same table; the query string comes first, so for a single value the body wins. File parts of a multipart
body go straight to files a sink opens and never pass through memory as a whole. Limits hold before anything is kept.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote_to_bytes

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.types import Message, Receive, Scope

from qmail_core.errors import UsageError
from qmail_core.model import Source
from qmail_server.http.parts import Parts

MAX_PARAMETERS = 300
MAX_NAME = 64
MAX_FORM = 4 << 20  # bytes of a body without its file parts
MAX_FILES = 244  # file types 10..253 are attachments, so no mail can carry more
MAX_FILE = 4 << 30  # bytes of one file part

# Names the interface's documents and clients have used for the same thing; keys are lower case.
ALIASES = {
    "bc": "bcc",
    "attachment": "attachments",
    "attachement": "attachments",
    "wallet": "wallet_path",
    "sender_id": "sender",
    "storage_weeks": "duration",
}
_KINDS = frozenset((b"application/x-www-form-urlencoded", b"application/json"))
FILE_PARTS = frozenset(("attachment", "attachement", "attachments"))

_FLAT = dict[str, bool | int | float | str | list[str | int] | None]
_YES = frozenset(("true", "1", "yes", "on"))
_NO = frozenset(("false", "0", "no", "off"))
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{0,18})?", re.ASCII)

_ASCII = {form % code: chr(code) for code in range(128) for form in ("%02x", "%02X")}

Sink = Callable[[str], tuple[BinaryIO, Source]]


class ClientGone(Exception):
    """The client closed the connection before it had its answer; nobody is left to tell."""


def pairs_of(raw: bytes, most: int = MAX_PARAMETERS) -> list[tuple[str, str]]:
    """Names and values of a query string or an urlencoded body, blank values too; UsageError if there are too many."""
    if raw.count(b"&") >= most:
        raise _too_many()
    text = raw.decode("utf-8", "replace")
    if "+" in text:
        text = text.replace("+", " ")
    pairs = []
    for pair in text.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            pairs.append((_unquote(name) if "%" in name else name, _unquote(value) if "%" in value else value))
    return pairs


def json_of(raw: bytes, kind: Any = Any) -> Any:
    """A body that says it is JSON, as a value of this type; ValueError, whatever is wrong with it."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _unquote(text: str) -> str:
    first, *others = text.split("%")
    found = [first]
    for part in others:
        char = _ASCII.get(part[:2])
        if char is None:  # a piece of a longer character, or nothing that was quoted
            return unquote_to_bytes(text).decode("utf-8", "replace")
        found.append(char)
        found.append(part[2:])
    return "".join(found)


class Params:
    """Parameters by canonical name, each with all its values in the order they came; and the files that came along."""

    __slots__ = ("_count", "_values", "files")

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}
        self._count = 0
        self.files: list[Source] = []

    def add(self, name: str, *values: str) -> None:
        """Append values; UsageError beyond the limits. Without any, the name counts as given and empty."""
        self._count += len(values) or 1
        if self._count > MAX_PARAMETERS:
            raise _too_many()
        if len(name) > MAX_NAME:
            raise _long_name()
        name = name.strip().lower()
        self._values.setdefault(ALIASES.get(name, name), []).extend(values)

    def add_form(self, raw: bytes) -> None:
        """Append everything of a query string or an urlencoded body."""
        pairs = pairs_of(raw, MAX_PARAMETERS - self._count)  # which sees to the limit for all of them
        self._count += len(pairs)
        values = self._values
        for name, value in pairs:
            if len(name) > MAX_NAME:
                raise _long_name()
            name = name.strip().lower()
            name = ALIASES.get(name, name)
            if name in values:
                values[name].append(value)
            else:
                values[name] = [value]

    def add_json(self, raw: bytes) -> None:
        """Append the members of a flat JSON object: lists are repeated values, an empty one is given, null is not."""
        try:
            document = json_of(raw, _FLAT)
        except ValueError:
            raise UsageError("Invalid JSON body: a flat object of texts, numbers and lists is expected") from None
        for name, value in document.items():
            if value is not None:
                self.add(name, *map(_word, value if isinstance(value, list) else [value]))

    def has(self, *names: str) -> bool:
        """Whether any of these was given a value that is not empty."""
        return any(any(self._values.get(name, ())) for name in names)

    def items(self) -> list[tuple[str, list[str]]]:
        """Everything that was given, by name."""
        return list(self._values.items())

    def given(self, name: str) -> bool:
        """Whether this was given at all, be it empty."""
        return name in self._values

    def last(self, name: str) -> str:
        """The last value, be it empty."""
        values = self._values[name]
        return values[-1] if values else ""

    def text(self, *names: str, default: str = "") -> str:
        """The last value of the first of these names that was given; an empty value counts as not given."""
        for name in names:
            values = self._values.get(name)
            if values:
                found = values[-1] or next(filter(None, reversed(values)), "")
                if found:
                    return found
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean parameter."""
        if name not in self._values:  # as most are, and `debug` is looked for in every request
            return default
        word = self.text(name).strip().lower()
        if word in _YES:
            return True
        if word in _NO:
            return False
        if not word:
            return default
        raise UsageError(f"Invalid {name} (must be true or false)")

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number, clamped to low..high."""
        text = self.text(name).strip()
        if not text:
            return default
        if not _INTEGER.fullmatch(text):
            raise UsageError(f"Invalid {name} (must be an integer)")
        return min(max(int(text), low), high)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A decimal number, clamped to low..high."""
        text = self.text(name).strip()
        if not text:
            return default
        if not _NUMBER.fullmatch(text):
            raise UsageError(f"Invalid {name} (must be a number)")
        return min(max(float(text), low), high)

    def many(self, name: str) -> list[str]:
        """All values that are not empty, as they came."""
        return [value for value in self._values.get(name, ()) if value]


async def read(params: Params, scope: Scope, receive: Receive, sink: Sink | None = None) -> None:
    """Fill in the parameters of a request.

    sink      opens a file for an uploaded one of the given (harmless) name, and is called when the parts before it
              have been read; None: file parts are refused
    raises    UsageError for what the client did wrong, ClientGone; files that were opened are closed, not removed
    """
    if scope["query_string"]:
        params.add_form(scope["query_string"])
    if scope["method"] not in ("GET", "HEAD"):
        await _read_body(params, scope, receive, sink)


async def _read_body(params: Params, scope: Scope, receive: Receive, sink: Sink | None) -> None:
    header = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            header = value
            break
    kind = header if header in _KINDS else header.partition(b";")[0].strip().lower()
    if kind == b"multipart/form-data":
        await read_multipart(params, header, receive, sink)
        return
    body = await whole(receive)
    if not body:
        return
    if kind == b"application/x-www-form-urlencoded":
        params.add_form(body)
    elif kind == b"application/json":
        params.add_json(body)
    else:
        raise UsageError("Unsupported content type: send a form, multipart/form-data or JSON", hint=415)


async def chunks(receive: Receive) -> AsyncIterator[bytes]:
    """A body piece by piece; ClientGone when its sender leaves."""
    more = True
    while more:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def whole(receive: Receive, most: int = MAX_FORM) -> bytes:
    """A whole body; UsageError when it is larger than it may be (by default than a form may), ClientGone."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:  # not over `chunks`: most bodies are one piece, and this is half of what reading them costs
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > most:
            raise _too_large()
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Fields(Protocol):
    """Where the parts of a multipart body go."""

    files: list[Source]

    def add(self, name: str, value: str) -> None:
        """One part that is text."""
        ...


async def read_multipart(params: Fields, header: bytes, receive: Receive, sink: Sink | None) -> None:
    """Read a multipart body; UsageError, ClientGone. Without a sink it has no files."""
    boundary = parse_options_header(header)[1].get(b"boundary")
    if not boundary:
        raise UsageError("Invalid multipart body: no boundary")
    form = _Multipart(params, sink)
    try:
        parser = form.parser(boundary)
        async for chunk in chunks(receive):
            parser.write(chunk)
            while form.written:
                # the answer to an upload promises that nothing is lost: the disk has it before the engine accepts it
                await asyncio.to_thread(_commit, form.written.pop())
        if not form.finished:
            raise UsageError("Invalid multipart body: it ends early")
    except FormParserError:
        raise UsageError("Invalid multipart body") from None
    finally:
        form.close()


def _commit(file: BinaryIO) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())


class _Multipart(Parts):
    """Callbacks of the parser: texts go to the parameters, files to the sink."""

    def __init__(self, params: Fields, sink: Sink | None) -> None:
        super().__init__()
        self._params = params
        self._sink = sink
        self._kept = 0  # bytes of text parts so far
        self._name = ""
        self._text = bytearray()
        self._file: BinaryIO | None = None
        self._skip = False
        self._size = 0
        self.written: list[BinaryIO] = []  # complete, not yet on disk

    def begin(self) -> None:
        super().begin()
        self._text = bytearray()
        self._skip = False
        self._size = 0

    def headers_finished(self) -> None:
        options = self.options("Invalid multipart body: a part without a name")
        self._name = options[b"name"].decode("utf-8", "replace")
        filename = options.get(b"filename")
        if filename is None:
            return
        self._skip = not filename  # a form's empty file field
        if filename:
            self._open(filename.decode("utf-8", "replace"))

    def _open(self, filename: str) -> None:
        if self._sink is None or self._name.strip().lower() not in FILE_PARTS:
            raise UsageError(f'Unexpected file part "{self._name[:MAX_NAME]}"')
        if len(self._params.files) >= MAX_FILES:
            raise UsageError(f"Too many attachments: maximum is {MAX_FILES}")
        self._file, source = self._sink(file_name(filename))
        self._params.files.append(source)

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._size += end - start
            if self._size > MAX_FILE:
                raise UsageError(f"Attachment is larger than {MAX_FILE} bytes", hint=413)
            self._file.write(data[start:end])
        elif not self._skip:
            self._kept += end - start
            if self._kept > MAX_FORM:
                raise _too_large()
            self._text += data[start:end]

    def end(self) -> None:
        if self._file is not None:
            self.written.append(self._file)
            self._file = None
        elif not self._skip:
            self._params.add(self._name, self._text.decode("utf-8", "replace"))

    def close(self) -> None:
        for file in (*self.written, *([self._file] if self._file else [])):
            file.close()


def file_name(text: str) -> str:
    """A name that is safe as the last component of a path: no folders, no control characters, at most 200 bytes."""
    name = re.split(r"[/\\]", text)[-1]
    name = "".join(char for char in name if char.isprintable()).strip().strip(".").strip()
    stem, dot, extension = name.rpartition(".")
    raw = name.encode("utf-8", "replace")
    if len(raw) > 200 and dot and len(extension) <= 16:
        return stem.encode("utf-8", "replace")[:180].decode("utf-8", "ignore") + dot + extension
    return raw[:200].decode("utf-8", "ignore") or "attachment"


def _word(value: bool | int | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _too_many() -> UsageError:
    return UsageError("Too many request parameters", hint=413)


def _long_name() -> UsageError:
    return UsageError(f"Parameter name is longer than {MAX_NAME} characters")


def _too_large() -> UsageError:
    return UsageError("Request body is too large", hint=413)
