"""Purse files: an identity coin and starting coins on their way from the operator of a network to an engine.

Rule: whoever reads the file owns the mailbox and the money. It is made with mode 0600, and one that others may read is
refused. JSON, so that an operator can see what is in it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from qmail_core.errors import ConfigError
from qmail_core.folders import sync_folder
from qmail_core.model import AN_SIZE, Address, Coin

MAX_BYTES = 64 << 20


class Purse(Struct, frozen=True):
    """What a new engine starts with."""

    nodes: int  # of the network the coins are known to
    identity: Coin
    coins: tuple[Coin, ...]

    def __repr__(self) -> str:
        return f"Purse({self.identity}, {len(self.coins)} coins)"


class _Row(Struct, forbid_unknown_fields=True):
    denomination: int
    serial: int
    ans: str  # hex, 16 bytes per node


class _File(Struct, forbid_unknown_fields=True):
    qmail_purse: int  # version of this format
    nodes: int
    identity: _Row
    coins: list[_Row]


def save_purse(path: Path, purse: Purse) -> None:
    """Write a new file, durably; ConfigError if there is one or the folder cannot be used."""
    form = _File(1, purse.nodes, _row(purse.identity), [_row(coin) for coin in purse.coins])
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(form), indent=1))
            file.flush()
            os.fsync(descriptor)
        sync_folder(os.path.dirname(path))
    except OSError as error:
        raise ConfigError(f"purse file {path}: {error.strerror}") from error


def load_purse(path: Path) -> Purse:
    """Read a file back; ConfigError if it is not a purse, or others may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if os.fstat(descriptor).st_mode & 0o077:
                raise ConfigError(f"purse file {path} may be read by others; its mode must be 0600")
            raw = file.read(MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"purse file {path}: {error.strerror}") from error
    try:
        form = msgspec.json.decode(raw, type=_File)
        if form.qmail_purse != 1:
            raise ConfigError(f"purse file {path} has version {form.qmail_purse}, this program knows 1")
        return Purse(form.nodes, _coin(form.identity, form.nodes), tuple(_coin(row, form.nodes) for row in form.coins))
    except (msgspec.MsgspecError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        # not the cause: its text may quote what is in the file
        raise ConfigError(f"{path} is not a purse file") from None


def _row(coin: Coin) -> _Row:
    return _Row(coin.address.denomination, coin.address.serial, coin.ans.hex())


def _coin(row: _Row, nodes: int) -> Coin:
    ans = bytes.fromhex(row.ans)
    if len(ans) != nodes * AN_SIZE or not -128 <= row.denomination <= 127 or not 0 < row.serial < 1 << 32:
        raise ValueError
    return Coin(Address(row.denomination, row.serial), ans)
