"""Types of the native module `qmail_core._framing`; the full descriptions are its docstrings."""

import sys
from collections.abc import Sequence

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
else:
    from typing_extensions import Buffer

has_aes: bool
_PATHS: dict[str, dict[str, int]]

def _select(kernel: str, path: str) -> bool: ...
def aes_ctr(key: Buffer, iv: Buffer, data: Buffer, out: Buffer) -> None: ...
def sha256(data: Buffer) -> bytes: ...
def hmac_sha256(key: Buffer, data: Buffer) -> bytes: ...
def crc32(data: Buffer, value: int = 0) -> int: ...
def interleave(block: Buffer, d: int) -> list[bytes]: ...
def deinterleave(stripes: Sequence[Buffer], length: int) -> bytes: ...
def pack_many(
    group: int,
    command: int,
    enc: int,
    raidas: Sequence[int],
    keys: Sequence[Buffer],
    selectors: Sequence[Buffer],
    heads: Sequence[Buffer],
    tails: Sequence[Buffer],
    entropy: Buffer,
    page: int = 0,
) -> list[bytearray]: ...
def unpack(frame: memoryview, node: int, enc: int, key: Buffer, draw: Buffer) -> tuple[int, int, memoryview | bytes]: ...
