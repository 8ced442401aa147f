"""What the command line shows: errors as one sentence, and text from elsewhere that only prints."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from qmail_core.errors import QMailError
from qmail_server.client import ClientError


@contextmanager
def failures() -> Iterator[None]:
    """Turn what this project raises into a sentence on standard error and exit code 1."""
    try:
        yield
    except (ClientError, QMailError, OSError) as error:
        text = error.strerror if isinstance(error, OSError) and not error.filename else None
        typer.echo(f"qmail: {visible(text or str(error))}", err=True)
        raise typer.Exit(1) from None


def visible(text: str, *, lines: bool = False) -> str:
    """Text that only prints: everything that could steer a terminal or reorder a line is spelled out."""
    if lines:
        return "\n".join(visible(line) for line in text.replace("\r\n", "\n").split("\n"))
    return "".join(char if _prints(char) else char.encode("unicode_escape").decode() for char in text)


def _prints(char: str) -> bool:
    # joiners belong to words and emoji and move nothing
    return char.isprintable() or char in "\t\u200c\u200d" or unicodedata.category(char) == "Zs"
