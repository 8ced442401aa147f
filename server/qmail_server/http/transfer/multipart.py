"""The files of a form, sealed as they come: no part of the body is ever held as a whole."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from qmail_core.engine.files.tokens import Owner
from qmail_core.engine.files.uploads import Incoming
from qmail_core.errors import UsageError
from qmail_core.model import StoredFile
from qmail_server.http.params import chunks, file_name
from qmail_server.http.parts import Parts
from qmail_server.http.respond import Call
from qmail_server.http.transfer.given import header, invalid, wrong

NAMES = frozenset(("file", "file[]", "files", "files[]"))
MAX_FILES = 100
_MOST_TEXT = 64 * 1024  # bytes of all parts that are no files


class _Parts(Parts):
    """Callbacks of the parser; what they saw waits in `seen` until it has been written."""

    def __init__(self) -> None:
        super().__init__()
        self._is_file = False
        self._text = 0
        self.seen: list[tuple[str, bytes | memoryview, str]] = []  # begin: name and type; data; end

    def begin(self) -> None:
        super().begin()
        self._is_file = False

    def headers_finished(self) -> None:
        options = self.options("Invalid multipart body: a part without a name.")
        filename = options.get(b"filename")
        if not filename:
            return  # a text, or a file field nobody chose a file for
        name = options[b"name"].decode("utf-8", "replace")
        if name not in NAMES:
            raise wrong({name[:64]: "No file is expected here."})
        declared = self.header(b"content-type")[0].decode("latin-1")
        self._is_file = True
        self.seen.append(("begin", filename, declared if declared.isprintable() and len(declared) < 128 else ""))

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.seen.append(("data", memoryview(data)[start:end], ""))
            return
        self._text += end - start
        if self._text > _MOST_TEXT:
            raise UsageError("The body is too large.", hint=413)

    def end(self) -> None:
        if self._is_file:
            self.seen.append(("end", b"", ""))


class _Sealing:
    """Writes what the parser saw."""

    def __init__(self, call: Call, owner: Owner) -> None:
        self._owner = owner
        self._uploads = call.engine.transfer.uploads
        self.files: list[Incoming] = []

    async def take(self, what: str, data: bytes | memoryview, kind: str) -> None:
        """One thing the parser saw."""
        if what == "begin":
            if len(self.files) >= MAX_FILES:
                raise UsageError(f"At most {MAX_FILES} files go into one request.", hint=413)
            name = file_name(bytes(data).decode("utf-8", "replace"))
            # what senders say when they do not know
            kind = "" if kind == "application/octet-stream" else kind
            beside = sum(file.size for file in self.files)
            self.files.append(self._uploads.begin(self._owner, name, kind, beside))
        elif what == "data":
            await self.files[-1].write(data)
        else:
            await self.files[-1].finish()


async def receive(call: Call, owner: Owner) -> list[StoredFile]:
    """Take in the files of a request, all or none; they are on disk when this returns.

    raises   Failed 422 without a file, UsageError for a body that is no form, ClientGone
    """
    kind, options = parse_options_header(header(call, b"content-type").encode("latin-1"))
    if kind != b"multipart/form-data":
        raise invalid(file="The file field is required.")
    if not options.get(b"boundary"):
        raise UsageError("Invalid multipart body: no boundary.")
    sealing = _Sealing(call, owner)
    try:
        await _parse(call, options[b"boundary"], sealing)
        if not sealing.files:
            raise invalid(file="The file field is required.")
        return await call.engine.transfer.uploads.commit(owner, sealing.files)
    except BaseException:
        await call.engine.transfer.uploads.discard(sealing.files)
        raise


async def _parse(call: Call, boundary: bytes, sealing: _Sealing) -> None:
    parts = _Parts()
    try:
        parser = parts.parser(boundary)
        async for chunk in chunks(call.receive):
            parser.write(chunk)
            for seen in parts.seen:
                await sealing.take(*seen)
            parts.seen.clear()
    except FormParserError:
        raise UsageError("Invalid multipart body.") from None
    if not parts.finished:
        raise UsageError("Invalid multipart body: it ends early.")
