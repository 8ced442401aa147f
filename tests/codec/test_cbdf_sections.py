"""Colours, resources, bounded decompression and content digests of CBDF documents."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import cbdf_sections as sections
from qmail_core.codec.cbdf_sections import Resource
from qmail_core.errors import LocalProtocolError, RemoteProtocolError

# ------------------------------------------------------------------------------------------------------------------
# Colours and resources


@given(st.integers(0, 0xFFFF).filter(lambda code: code not in sections.TRANSPARENT))
def test_opaque_colors_both_ways(code: int) -> None:
    assert sections.pack_color(sections.unpack_color(code)) == code


def test_colors_out_of_range() -> None:
    with pytest.raises(LocalProtocolError):
        sections.pack_color((0, 256, 0))
    with pytest.raises(RemoteProtocolError):
        sections.unpack_color(0x10000)


@given(st.lists(st.builds(Resource, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=20)), max_size=5))
def test_resources_both_ways(resources: list[Resource]) -> None:
    assert sections.parse_resources(sections.build_resources(resources)) == tuple(resources)


def test_resources_out_of_range() -> None:
    with pytest.raises(LocalProtocolError):
        sections.build_resources([Resource(256, 0, b"")])


# ------------------------------------------------------------------------------------------------------------------
# Compression and digests


@given(st.binary(max_size=2000))
def test_deflate_then_inflate(plain: bytes) -> None:
    packed = sections.deflate(plain)
    assert packed is None or sections.inflate(packed) == plain
    assert sections.inflate(zlib.compress(plain)) == plain


@pytest.mark.parametrize("size", [70_000, sections.MAX_INFLATED + 1, 64 << 20])
def test_bytes_that_open_to_far_more_are_refused(size: int) -> None:
    raw = zlib.compress(bytes(size), 9)
    assert sections.deflate(bytes(size)) is None
    with pytest.raises(RemoteProtocolError, match="hold more than"):
        sections.inflate(raw)


def test_every_truncation_and_extension_of_compressed_bytes_is_refused() -> None:
    raw = zlib.compress(b"An apple a day. " * 40)
    for end in range(len(raw)):
        with pytest.raises(RemoteProtocolError):
            sections.inflate(raw[:end])
    with pytest.raises(RemoteProtocolError, match="followed by other bytes"):
        sections.inflate(raw + b"x")


def test_content_hash_covers_lengths_and_sections() -> None:
    counted = b"\1\0\0\0a" + b"\x1c" + b"\2\0\0\0bc" + b"\0\0\0\0"
    for algorithm, name in ((1, "md5"), (2, "sha256")):
        digest = hashlib.new(name, counted, usedforsecurity=False).digest()
        assert sections.content_hash(algorithm, b"a", b"bc", b"") == bytes((algorithm,)) + digest
    with pytest.raises(RemoteProtocolError, match="unknown algorithm 3"):
        sections.content_hash(3, b"", b"", b"")
