"""Archives, read back by the standard library; sizes of more than 4 GiB with members that are nothing but holes."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import zip as archive
from qmail_core.codec.zip import Member

NAMES = st.text(st.characters(exclude_characters="/\\\0:", exclude_categories=["Cs"]), min_size=1, max_size=20)


def packed(files: list[tuple[str, bytes]]) -> bytes:
    members = [Member(name, len(data), zlib.crc32(data)) for name, data in files]
    parts = [archive.local_header(member) + data for member, (_, data) in zip(members, files, strict=True)]
    return b"".join(parts) + archive.directory(members)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=100)), max_size=8))
def test_any_files_come_back(files: list[tuple[str, bytes]]) -> None:
    names = archive.unique([name for name, _ in files])
    files = [(name, data) for name, (_, data) in zip(names, files, strict=True)]
    found = zipfile.ZipFile(io.BytesIO(packed(files)))
    assert found.testzip() is None
    assert [(info.filename, found.read(info)) for info in found.infolist()] == files


class Holes(io.RawIOBase):
    """An archive whose members are zeros that nobody stores."""

    def __init__(self, pieces: list[tuple[int, bytes]], size: int) -> None:
        self._pieces, self._size, self._at = pieces, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._at)
        buffer[:count] = bytes(count)
        for place, data in self._pieces:
            low, high = max(place, self._at), min(place + len(data), self._at + count)
            if low < high:
                buffer[low - self._at : high - self._at] = data[low - place : high - place]
        self._at += count
        return count


@pytest.mark.parametrize("sizes", [[(1 << 32) - 2, 3], [(1 << 32) - 1, 3], [5 << 30, 5 << 30, 0], [1, 6 << 30, 1]])
def test_beyond_four_gigabytes(sizes: list[int]) -> None:
    members = [Member(f"m{number}", size, 7 * number) for number, size in enumerate(sizes)]
    pieces, at = [], 0
    for member in members:
        pieces.append((at, archive.local_header(member)))
        at += len(pieces[-1][1]) + member.size
    pieces.append((at, archive.directory(members)))
    whole = Holes(pieces, at + len(pieces[-1][1]))
    found = zipfile.ZipFile(io.BufferedReader(whole))
    assert [(info.filename, info.file_size, info.CRC) for info in found.infolist()] == [
        (member.name, member.size, member.crc32) for member in members
    ]
    for info, (place, _) in zip(found.infolist(), pieces, strict=False):
        assert info.header_offset == place
        found.open(info).close()  # checks the local header


def test_more_members_than_the_old_format_counts() -> None:
    found = zipfile.ZipFile(io.BytesIO(packed([(str(number), b"") for number in range(65_536)])))
    assert len(found.namelist()) == 65_536


def test_equal_names_are_numbered() -> None:
    assert archive.unique(["a.b", "a.b", "a (2).b", "x", "x", ".c", ".c"]) == [
        "a.b", "a (2).b", "a (2) (2).b", "x", "x (2)", ".c", ".c (2)",
    ]  # fmt: skip
