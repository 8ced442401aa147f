"""Objects <-> stripes: the three striping profiles behind one pair of classes.

A Writer turns an object into n stripes page by page; a Reader turns pages back into the object. An object of any size
passes in bounded memory: one page row holds at most three segments (profiles `rs` and `sealed`) or one block
(`interop`). Nothing here does I/O: a Writer asks a callable for plaintext, randomness is the `seed` argument.

`rs`, `sealed`   a stripe is a 64-byte header and then one record per segment: digest path, shard. A page is up to
                 three whole records (page 0 with the header before them), so pages can be read and checked alone.
                 `sealed` puts each segment through an all-or-nothing transform first (Resch and Plank, FAST 2011):
                 fewer than k stripes reveal nothing.
`interop`        QMail wire part D: bit interleave over k data stripes and one XOR parity, no framing at all.

Wrong bytes never leave a Reader of `rs` or `sealed`: every shard is checked against the object's digest root, and
every sealed segment against its canary. docs/erasure.md gives the layout.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from zlib import crc32

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core import _framing
from qmail_core._framing import aes_ctr
from qmail_core._gf256 import ReedSolomon
from qmail_core.codec import consts as c
from qmail_core.codec import merkle
from qmail_core.errors import ErasureError, LocalProtocolError
from qmail_core.model import Profile, Striping

MAGIC = b"QMS1"
HEADER_SIZE = 64
SHARD_PLAIN = 65_536  # plaintext bytes per data shard of a full segment
PAGE_SEGMENTS = 3  # whole records per page, so that header and records stay below the wire's page size
CANARY = b"qmail-sealed-ok\n"
KEY_SIZE = 32
SEED_SIZE = 32
INTEROP_DATA = range(2, 32)  # data stripes of the `interop` profile; a tell lists at most 32 servers

Read = Callable[[int, int], Buffer]  # (offset, size) -> exactly size bytes of the object


@lru_cache(maxsize=64)
def _code(k: int, m: int) -> ReedSolomon:
    return ReedSolomon(k, m)


class Layout(Struct, frozen=True):
    """The shape of an `rs` or `sealed` object; everything follows from striping and length."""

    striping: Striping
    length: int

    @property
    def segment_size(self) -> int:
        """Plaintext bytes of a full segment."""
        return self.striping.k * SHARD_PLAIN

    @property
    def segments(self) -> int:
        """At least one, so that an empty object is stored and checked like any other."""
        return max(1, -(-self.length // self.segment_size))

    @property
    def pages(self) -> int:
        """Pages of each stripe."""
        return -(-self.segments // PAGE_SEGMENTS)

    @property
    def path_size(self) -> int:
        """Bytes of digest path before each shard."""
        return merkle.DIGEST_SIZE * (merkle.depth(self.striping.n) + merkle.depth(self.segments))

    def plain_size(self, segment: int) -> int:
        """Plaintext bytes of one segment."""
        return min(self.segment_size, self.length - segment * self.segment_size)

    def shard_size(self, segment: int) -> int:
        """Bytes of each of a segment's n shards."""
        size = self.plain_size(segment)
        if self.striping.profile == Profile.SEALED:
            size += len(CANARY) + KEY_SIZE
        return -(-size // self.striping.k)

    def page_segments(self, page: int) -> range:
        """The segments whose records a page holds."""
        return range(page * PAGE_SEGMENTS, min((page + 1) * PAGE_SEGMENTS, self.segments))

    def page_size(self, page: int) -> int:
        """Bytes of one page of a stripe."""
        records = sum(self.path_size + self.shard_size(s) for s in self.page_segments(page))
        return records + (HEADER_SIZE if page == 0 else 0)

    @property
    def stripe_size(self) -> int:
        """Bytes of a whole stripe."""
        last = self.segments - 1
        return HEADER_SIZE + self.segments * self.path_size + last * self.shard_size(0) + self.shard_size(last)

    def shape(self) -> bytes:
        """The fields the digest root binds."""
        s = self.striping
        return bytes((s.profile, s.k, s.m)) + self.segment_size.to_bytes(4, "big") + self.length.to_bytes(8, "big")

    def header(self, stripe: int, root: bytes) -> bytes:
        """The 64 bytes a stripe starts with."""
        s = self.striping
        head = MAGIC + bytes((1, s.profile, s.k, s.m, stripe, 0, 0, 0))
        return (head + self.segment_size.to_bytes(4, "big") + self.length.to_bytes(8, "big") + root).ljust(
            HEADER_SIZE, b"\0"
        )


def parse_header(stripe: Buffer) -> tuple[Layout, int, bytes]:
    """Read the header at the start of a stripe.

    returns  (layout, stripe index, digest root)
    raises   ErasureError if it is no header of a version and profile known here, or contradicts itself
    source   docs/erasure.md "Stripe header"
    """
    view = memoryview(stripe)
    if len(view) < HEADER_SIZE or bytes(view[:4]) != MAGIC or view[4] != 1:
        raise ErasureError("stripe does not start with a known header")
    profile, k, m, index = view[5], view[6], view[7], view[8]
    if profile not in (Profile.RS, Profile.SEALED) or not k or not m or k + m > 255 or index >= k + m:
        raise ErasureError("stripe header is out of range")
    layout = Layout(Striping(Profile(profile), k, m), int.from_bytes(view[16:24], "big"))
    if int.from_bytes(view[12:16], "big") != layout.segment_size:
        raise ErasureError("stripe header announces an unknown segment size")
    return layout, index, bytes(view[24:56])


# ------------------------------------------------------------------------------------------------------------------
# One segment


def seal(plain: Buffer, key: bytes, padded: int) -> bytearray:
    """Put one segment through the all-or-nothing transform.

    plain    the segment
    key      32 random bytes, used for this segment only
    padded   size of the result; zeros follow the transform
    returns  AES-256-CTR(key, plain || canary) || (key XOR SHA-256(ciphertext)) || zeros
    source   Resch and Plank, FAST 2011, section 4; docs/erasure.md "Sealing"
    """
    view = memoryview(plain).cast("B")
    size = len(view)
    end = size + len(CANARY)
    out = bytearray(padded)
    out[:size] = view
    out[size:end] = CANARY
    with memoryview(out)[:end] as text:
        aes_ctr(key, bytes(16), text, text)
        out[end : end + KEY_SIZE] = _xor(key, hashlib.sha256(text).digest())
    return out


def unseal(sealed: bytearray, size: int) -> memoryview:
    """Undo `seal` in place.

    sealed   at least size + 48 bytes
    returns  a view of the `size` plaintext bytes
    raises   ErasureError if the canary is not there: some byte of the segment was wrong
    """
    end = size + len(CANARY)
    view = memoryview(sealed)
    text = view[:end]
    key = _xor(bytes(view[end : end + KEY_SIZE]), hashlib.sha256(text).digest())
    aes_ctr(key, bytes(16), text, text)
    if not hmac.compare_digest(bytes(text[size:]), CANARY):
        raise ErasureError("a sealed segment does not open: its bytes are not what was stored")
    return text[:size]


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")


# ------------------------------------------------------------------------------------------------------------------
# Writers


class Writer:
    """Cuts one object into stripes, page row by page row.

    Use: `scan` once, then `row` for each page in any order. The object is read twice, because every record carries
    its path to a root over all digests; a source that changed between the passes is noticed and refused.
    """

    def __init__(self, striping: Striping, length: int, seed: bytes) -> None:
        if len(seed) != SEED_SIZE:
            raise LocalProtocolError(f"a seed has {SEED_SIZE} bytes")
        self.layout = Layout(striping, length)
        self.striping = striping
        self.pages = self.layout.pages
        self.crc32 = 0
        self.root = b""
        self._seed = seed
        self._code = _code(striping.k, striping.m)
        self._leaves: list[list[bytes]] = []
        self._top: list[list[bytes]] = []
        self._kept: dict[int, list[memoryview]] = {}

    @property
    def stripe_size(self) -> int:
        """Bytes of each stripe."""
        return self.layout.stripe_size

    def scan(self, read: Read) -> None:
        """First pass: digests of every shard, the root, and the object's CRC-32.

        cost     one encoding of the object; releases the GIL in all heavy steps
        """
        keep = self.layout.pages == 1
        for segment in range(self.layout.segments):
            plain = self._plain(segment, read)
            self.crc32 = crc32(plain, self.crc32)
            shards = self._shards(segment, plain)
            self._leaves.append([merkle.leaf(shard) for shard in shards])
            if keep:
                self._kept[segment] = shards
        self._top = merkle.levels([merkle.levels(leaves)[-1][0] for leaves in self._leaves])
        self.root = merkle.bind(self.layout.shape(), self._top[-1][0])

    def row(self, page: int, read: Read) -> list[bytearray]:
        """One page of every stripe.

        returns  n pages, data stripes first
        raises   ErasureError if the source no longer gives the bytes it gave to `scan`
        """
        layout, n = self.layout, self.striping.n
        out = [bytearray(layout.page_size(page)) for _ in range(n)]
        position = 0
        if page == 0:
            position = HEADER_SIZE
            for stripe in range(n):
                out[stripe][:HEADER_SIZE] = layout.header(stripe, self.root)
        for segment in layout.page_segments(page):
            shards = self._kept.pop(segment, None)
            if shards is None:
                shards = self._shards(segment, self._plain(segment, read))
                if [merkle.leaf(shard) for shard in shards] != self._leaves[segment]:
                    raise ErasureError("the source changed while it was being sent; send it again")
            lower = merkle.levels(self._leaves[segment])
            upper = merkle.path(self._top, segment)
            start, end = position + layout.path_size, position + layout.path_size + layout.shard_size(segment)
            for stripe, shard in enumerate(shards):
                out[stripe][position:start] = merkle.path(lower, stripe) + upper
                out[stripe][start:end] = shard
            position = end
        return out

    def _plain(self, segment: int, read: Read) -> memoryview:
        size = self.layout.plain_size(segment)
        plain = memoryview(read(segment * self.layout.segment_size, size)).cast("B") if size else memoryview(b"")
        if len(plain) != size:
            raise ErasureError("the source is shorter than when it was accepted; send it again")
        return plain

    def _shards(self, segment: int, plain: memoryview) -> list[memoryview]:
        k, n, size = self.striping.k, self.striping.n, self.layout.shard_size(segment)
        if self.striping.profile == Profile.SEALED:
            key = hmac.digest(self._seed, segment.to_bytes(8, "big"), "sha256")
            body = seal(plain, key, k * size)
        else:
            body = bytearray(k * size)
            body[: len(plain)] = plain
        view = memoryview(body)
        parity = memoryview(bytearray((n - k) * size))
        shards = [view[i * size : (i + 1) * size] for i in range(k)]
        shards += [parity[i * size : (i + 1) * size] for i in range(n - k)]
        if size:
            self._code.encode_into(shards)
        return shards


class InteropWriter:
    """The same interface for the `interop` profile. QMail wire D.2, D.3."""

    def __init__(self, striping: Striping, length: int, seed: bytes = b"") -> None:
        if striping.m != 1 or striping.k not in INTEROP_DATA:
            raise LocalProtocolError("the interop profile has 2 to 31 data stripes and exactly one parity stripe")
        self.striping = striping
        self.length = length
        self._block = interop_block(striping.k, length)
        self.pages = interop_pages(striping.k, length)
        self.crc32 = 0
        self.root = b""

    @property
    def stripe_size(self) -> int:
        """Bytes of each stripe."""
        last = self.length - (self.pages - 1) * self._block
        return (self.pages - 1) * c.PAGE_SIZE + interop_shard_size(self.striping.k, last)

    def scan(self, read: Read) -> None:
        """The CRC-32 of the object."""
        for page in range(self.pages):
            self.crc32 = crc32(self._read(page, read), self.crc32)

    def row(self, page: int, read: Read) -> list[bytes]:
        """One page of every stripe: the stripes of one block."""
        data = _framing.interleave(self._read(page, read), self.striping.k)
        parity = bytearray(len(data[0]))
        if parity:
            _code(self.striping.k, 1).encode_into([*data, parity])
        return [*data, bytes(parity)]

    def _read(self, page: int, read: Read) -> Buffer:
        offset = page * self._block
        size = min(self._block, self.length - offset)
        return read(offset, size) if size else b""


def interop_shard_size(d: int, length: int) -> int:
    """Bytes of each stripe of one interleaved block. Source D.2."""
    return (8 * length + 8 * d - 1) // (8 * d)


# what command 70's u16 body length leaves for data, after 88 bytes of body around it (C.3), and after the 32 bytes of
# HMAC of type 4 instead of nothing: one limit for both, so that a stripe's command does not depend on encryption
SMALL_STRIPE = c.MAX_SHORT_BODY - 88 - c.HMAC_SIZE


def interop_block(d: int, length: int) -> int:
    """Plaintext bytes per interleaved block: the whole object if its stripes fit command 70. Source D.3."""
    return max(length, 1) if interop_shard_size(d, length) <= SMALL_STRIPE else d * c.PAGE_SIZE


def interop_pages(d: int, length: int) -> int:
    """Blocks, and so pages, of an interop object."""
    return max(1, -(-length // interop_block(d, length)))


def writer(striping: Striping, length: int, seed: bytes) -> Writer | InteropWriter:
    """The writer of a striping's profile.

    length   of the object in bytes, 0 or more
    seed     32 random bytes kept with the send, so that a repeated send makes the same stripes
    """
    kind = InteropWriter if striping.profile == Profile.INTEROP else Writer
    return kind(striping, length, seed)


def split(data: Buffer, striping: Striping, seed: bytes) -> list[bytes]:
    """Cut a whole object into stripes at once.

    data     n bytes, n >= 0
    returns  k + m stripes, data first
    source   docs/erasure.md
    """
    view = memoryview(data).cast("B")
    cutter = writer(striping, len(view), seed)

    def read(offset: int, size: int) -> memoryview:
        return view[offset : offset + size]

    cutter.scan(read)
    rows = [cutter.row(page, read) for page in range(cutter.pages)]
    return [b"".join(pages) for pages in zip(*rows, strict=True)]


# ------------------------------------------------------------------------------------------------------------------
# Readers

Shards = list[memoryview]  # the checked shards of one page of one stripe, in segment order


class Reader:
    """Turns checked pages of an `rs` or `sealed` object back into plaintext, or into lost pages of other stripes."""

    def __init__(self, layout: Layout, root: bytes) -> None:
        self.layout = layout
        self.striping = layout.striping
        self.root = root
        self.pages = layout.pages
        self.length = layout.length
        self._code = _code(layout.striping.k, layout.striping.m)

    def check(self, stripe: int, page: int, data: Buffer) -> Shards:
        """Check one page of one stripe against the root.

        returns  its shards, as views into `data`
        raises   ErasureError if the page has a wrong size, header, or any byte that was not stored
        """
        layout = self.layout
        view = memoryview(data)
        if len(view) != layout.page_size(page):
            raise ErasureError(f"stripe {stripe} page {page} has {len(view)} bytes, not {layout.page_size(page)}")
        position = 0
        if page == 0:
            position = HEADER_SIZE
            if bytes(view[:HEADER_SIZE]) != layout.header(stripe, self.root):
                raise ErasureError(f"stripe {stripe} has a foreign header")
        shards = []
        for segment in layout.page_segments(page):
            start, end = position + layout.path_size, position + layout.path_size + layout.shard_size(segment)
            shard = view[start:end]
            if self._climb(shard, stripe, segment, view[position:start]) != self.root:
                raise ErasureError(f"stripe {stripe} segment {segment} does not match the object's digest root")
            shards.append(shard)
            position = end
        return shards

    def _climb(self, shard: memoryview, stripe: int, segment: int, path: memoryview) -> bytes:
        lower = merkle.depth(self.striping.n) * merkle.DIGEST_SIZE
        digest = merkle.climb(merkle.leaf(shard), stripe, path[:lower])
        return merkle.bind(self.layout.shape(), merkle.climb(digest, segment, path[lower:]))

    def join(self, page: int, shards: Mapping[int, Shards]) -> bytes:
        """The plaintext of one page row.

        shards   checked shards by stripe index; at least k stripes
        raises   ErasureError if there are too few
        """
        return b"".join(self._plain(segment, row) for segment, row in self._rows(page, shards))

    def rebuild(
        self, page: int, shards: Mapping[int, Shards], path_from: Buffer, stripes: Sequence[int]
    ) -> list[bytes]:
        """The pages of lost stripes, byte for byte as they were stored.

        path_from  any checked page of the same row: its upper path halves are shared by all stripes
        stripes    which stripes to rebuild
        """
        layout = self.layout
        donor = memoryview(path_from)
        position = HEADER_SIZE if page == 0 else 0
        out = [bytearray(layout.header(stripe, self.root) if page == 0 else b"") for stripe in stripes]
        lower_size = merkle.depth(self.striping.n) * merkle.DIGEST_SIZE
        for segment, row in self._rows(page, shards):
            whole = self._whole(row, segment)
            tree = merkle.levels([merkle.leaf(shard) for shard in whole])
            upper = donor[position + lower_size : position + layout.path_size]
            for page_out, stripe in zip(out, stripes, strict=True):
                page_out += merkle.path(tree, stripe)
                page_out += upper
                page_out += whole[stripe]
            position += layout.path_size + layout.shard_size(segment)
        return [bytes(page_out) for page_out in out]

    def _rows(self, page: int, shards: Mapping[int, Shards]) -> Iterator[tuple[int, dict[int, memoryview]]]:
        if len(shards) < self.striping.k:
            raise ErasureError(f"{len(shards)} good stripes, {self.striping.k} needed")
        for position, segment in enumerate(self.layout.page_segments(page)):
            yield segment, {stripe: row[position] for stripe, row in shards.items()}

    def _whole(self, row: Mapping[int, memoryview], segment: int) -> Sequence[Buffer]:
        if self.layout.shard_size(segment) == 0:
            return [b""] * self.striping.n
        return self._code.reconstruct([row.get(stripe) for stripe in range(self.striping.n)])

    def _plain(self, segment: int, row: Mapping[int, memoryview]) -> Buffer:
        k, size = self.striping.k, self.layout.plain_size(segment)
        if all(stripe in row for stripe in range(k)):
            data: Sequence[Buffer] = [row[stripe] for stripe in range(k)]
        else:
            data = self._whole(row, segment)[:k]
        body = bytearray().join(data)
        if self.striping.profile == Profile.SEALED:
            return unseal(body, size)
        return memoryview(body)[:size]


class InteropReader:
    """The same interface for the `interop` profile; nothing in it can be checked per stripe but its size."""

    def __init__(self, k: int, length: int) -> None:
        if k not in INTEROP_DATA:
            raise ErasureError(f"{k} data stripes announced, 2 to 31 are possible")
        self.striping = Striping(Profile.INTEROP, k, 1)
        self.length = length
        self.pages = interop_pages(k, length)
        self._block = interop_block(k, length)

    def check(self, stripe: int, page: int, data: Buffer) -> Shards:
        """Refuse a stripe whose size is wrong. Source D.5."""
        size = interop_shard_size(self.striping.k, self._length(page))
        view = memoryview(data)
        if len(view) < size or stripe > self.striping.k:
            raise ErasureError(f"stripe {stripe} page {page} has {len(view)} bytes, not {size}")
        return [view[:size]]

    def join(self, page: int, shards: Mapping[int, Shards]) -> bytes:
        """The plaintext of one block; at most one stripe may be missing."""
        k, length = self.striping.k, self._length(page)
        if len(shards) < k:
            raise ErasureError(f"{len(shards)} good stripes, {k} needed")
        if not length:
            return b""
        row = {stripe: found[0] for stripe, found in shards.items()}
        whole: Sequence[Buffer | None] = [row.get(stripe) for stripe in range(k + 1)]
        if any(shard is None for shard in whole[:k]):
            whole = _code(k, 1).reconstruct(whole)
        return _framing.deinterleave([shard for shard in whole[:k] if shard is not None], length)

    def rebuild(
        self, page: int, shards: Mapping[int, Shards], path_from: Buffer, stripes: Sequence[int]
    ) -> list[bytes]:
        """The lost stripes of one block."""
        k = self.striping.k
        if len(shards) < k:
            raise ErasureError(f"{len(shards)} good stripes, {k} needed")
        row = {stripe: found[0] for stripe, found in shards.items()}
        if not self._length(page):
            return [b""] * len(stripes)
        whole = _code(k, 1).reconstruct([row.get(stripe) for stripe in range(k + 1)])
        return [bytes(whole[stripe]) for stripe in stripes]

    def _length(self, page: int) -> int:
        return min(self._block, self.length - page * self._block)


def join(stripes: Mapping[int, Buffer], striping: Striping, length: int) -> bytes:
    """Rebuild a whole object from stripes; liars are outvoted by their digest root.

    stripes  by stripe index; any k good ones are enough
    length   used by `interop` only, which does not carry it
    raises   ErasureError if no root has k good stripes
    """
    if striping.profile == Profile.INTEROP:
        plain = InteropReader(striping.k, length)
        pages = range(plain.pages)
        sizes = [interop_shard_size(striping.k, plain._length(page)) for page in pages]
        return _join_pages(plain, stripes, sizes)
    groups: dict[bytes, list[int]] = {}
    for index, stripe in stripes.items():
        try:
            groups.setdefault(parse_header(stripe)[2], []).append(index)
        except ErasureError:
            continue
    for _, members in sorted(groups.items(), key=lambda group: -len(group[1])):
        layout, _, root = parse_header(stripes[members[0]])
        reader = Reader(layout, root)
        try:
            return _join_pages(
                reader, {i: stripes[i] for i in members}, [layout.page_size(page) for page in range(layout.pages)]
            )
        except ErasureError:
            continue
    raise ErasureError(f"{len(stripes)} stripes given, but no {striping.k} good ones belong together")


def _join_pages(reader: Reader | InteropReader, stripes: Mapping[int, Buffer], sizes: Sequence[int]) -> bytes:
    out, position = [], 0
    for page, size in enumerate(sizes):
        good: dict[int, Shards] = {}
        for index, stripe in stripes.items():
            try:
                good[index] = reader.check(index, page, memoryview(stripe)[position : position + size])
            except ErasureError:
                continue
        out.append(reader.join(page, good))
        position += size
    return b"".join(out)
