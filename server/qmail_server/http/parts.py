"""What every reader of multipart bodies does alike: wire the parser, gather the headers of a part, notice the end."""

from __future__ import annotations

from abc import ABC, abstractmethod

from python_multipart.multipart import MultipartParser, parse_options_header

from qmail_core.errors import UsageError


class Parts(ABC):
    """Callbacks of the parser, which bounds the headers of a part; a reader adds what it does with names, texts, files.

    finished  the last boundary has come
    """

    def __init__(self) -> None:
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self.finished = False

    def parser(self, boundary: bytes) -> MultipartParser:
        """A parser that calls back here."""
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self.begin,
                "on_part_data": self.data,
                "on_part_end": self.end,
                "on_header_field": self.header_field,
                "on_header_value": self.header_value,
                "on_header_end": self.header_end,
                "on_headers_finished": self.headers_finished,
                "on_end": self.finish,
            },
        )

    def begin(self) -> None:
        self._headers = {}

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    @abstractmethod
    def headers_finished(self) -> None:
        """A part begins, and what it is is known."""

    @abstractmethod
    def data(self, data: bytes, start: int, end: int) -> None:
        """Some bytes of the part."""

    @abstractmethod
    def end(self) -> None:
        """The part is over."""

    def finish(self) -> None:
        self.finished = True

    def header(self, name: bytes) -> tuple[bytes, dict[bytes, bytes]]:
        """The value of a header of this part, and its options."""
        return parse_options_header(self._headers.get(name))

    def options(self, unnamed: str) -> dict[bytes, bytes]:
        """The options of Content-Disposition; UsageError, in these words, if the part has no name."""
        kind, options = self.header(b"content-disposition")
        if kind != b"form-data" or b"name" not in options:
            raise UsageError(unnamed)
        return options
