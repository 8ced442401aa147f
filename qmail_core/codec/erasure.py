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

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core import _framing
from qmail_core._framing import crc32 as crc32  # for the engine as well, which imports no kernel
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
# Writers

_FUSED = 1024  # shard size from which leaves are hashed along with the text


class Writer:
    """Cuts one object into stripes, page row by page row.

    Use: `scan` once, then `row` for each page in any order. The object is read twice, because every record carries
    its path to a root over all digests; a source that changed between the passes is noticed and refused. Different
    pages may be scanned and made by different threads at the same time; nothing is shared but what each page owns.
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
        self._leaves: list[list[bytes]] = [[]] * self.layout.segments
        self._texts: list[bytes] = [b""] * self.layout.segments  # digests that the keys are hidden with
        self._crcs = [0] * self.pages
        self._top: list[list[bytes]] = []
        self._kept: list[memoryview] | None = None  # the only row of an object of one page: made by the scan

    @property
    def stripe_size(self) -> int:
        """Bytes of each stripe."""
        return self.layout.stripe_size

    def scan(self, read: Read) -> None:
        """First pass: digests of every shard, the root, and the object's CRC-32.

        cost     one encoding of the object; releases the GIL in all heavy steps
        """
        for page in range(self.pages):
            self.scan_page(page, read)
        self.finish_scan()

    def scan_page(self, page: int, read: Read) -> None:
        """One page row's part of the first pass; `finish_scan` follows when all pages are done."""
        layout, n = self.layout, self.striping.n
        if self.pages == 1:
            self._kept = self._buffers(page)
        scratch = _cut(layout.shard_size(layout.page_segments(page)[0]), n) if self._kept is None else []
        crc = 0
        for segment, start, end in self._records(page):
            plain = self._plain(segment, read)
            crc = crc32(plain, crc)
            shards = [buffer[start:end] for buffer in self._kept or ()] or [s[: end - start] for s in scratch]
            self._leaves[segment], self._texts[segment] = self._fill(segment, plain, shards)
        self._crcs[page] = crc

    def finish_scan(self) -> None:
        """The root and the CRC-32 from what the pages came to."""
        layout = self.layout
        self._top = merkle.levels([merkle.levels(leaves)[-1][0] for leaves in self._leaves])
        self.root = merkle.bind(layout.shape(), self._top[-1][0])
        for page, crc in enumerate(self._crcs):
            size = sum(layout.plain_size(segment) for segment in layout.page_segments(page))
            self.crc32 = _framing.crc32_combine(self.crc32, crc, size)

    def row(self, page: int, read: Read) -> list[memoryview]:
        """One page of every stripe.

        returns  n pages, data stripes first
        raises   ErasureError if the source no longer gives the bytes it gave to `scan`
        """
        layout = self.layout
        kept, self._kept = self._kept, None
        out = kept or self._buffers(page)
        if page == 0:
            for stripe, buffer in enumerate(out):
                buffer[:HEADER_SIZE] = layout.header(stripe, self.root)
        for segment, start, end in self._records(page):
            if kept is None:
                self._refill(segment, self._plain(segment, read), [buffer[start:end] for buffer in out])
            lower = merkle.levels(self._leaves[segment])
            upper = merkle.path(self._top, segment)
            for stripe, buffer in enumerate(out):
                buffer[start - layout.path_size : start] = merkle.path(lower, stripe) + upper
        return out

    def _buffers(self, page: int) -> list[memoryview]:
        """Room for one page row; every byte of it gets written."""
        return _cut(self.layout.page_size(page), self.striping.n)

    def _records(self, page: int) -> Iterator[tuple[int, int, int]]:
        """Segment, start and end of its shard, for each record of a page."""
        position = HEADER_SIZE if page == 0 else 0
        for segment in self.layout.page_segments(page):
            start = position + self.layout.path_size
            position = start + self.layout.shard_size(segment)
            yield segment, start, position

    def _plain(self, segment: int, read: Read) -> memoryview:
        size = self.layout.plain_size(segment)
        plain = memoryview(read(segment * self.layout.segment_size, size)).cast("B") if size else memoryview(b"")
        if len(plain) != size:
            raise ErasureError("the source is shorter than when it was accepted; send it again")
        return plain

    def _key(self, segment: int) -> bytes:
        return hmac.digest(self._seed, segment.to_bytes(8, "big"), "sha256")

    def _fill(self, segment: int, plain: memoryview, shards: list[memoryview]) -> tuple[list[bytes], bytes]:
        """Make all shards of a segment; gives their leaves and the digest of the text of a sealed one."""
        k, size = self.striping.k, len(shards[0])
        if self.striping.profile != Profile.SEALED:
            return self._fill_clear(plain, shards), b""
        key, text = self._key(segment), len(plain) + len(CANARY)
        _framing.seal_text(plain, key, CANARY, shards[:k])
        # The hidden key stands in the last k + 32 bytes of the last data shard and depends on the text. All columns
        # before are final: their parity is made first, so that their leaves can be hashed together with the text.
        settled = size - KEY_SIZE - k if size >= _FUSED else 0
        if settled:
            self._code.encode_into(shards)
        digest, state = _framing.text_digest(shards, k, text, settled)
        _framing.seal_key(shards[:k], text, key, digest)
        self._code.encode_into([shard[settled:] for shard in shards])
        return _framing.leaf_digests(shards, state), digest

    def _fill_clear(self, plain: memoryview, shards: list[memoryview]) -> list[bytes]:
        size = len(shards[0])
        for i, shard in enumerate(shards[: self.striping.k]):
            part = plain[i * size : (i + 1) * size]
            shard[: len(part)] = part
            shard[len(part) :] = bytes(size - len(part))
        if size:
            self._code.encode_into(shards)
        return _framing.leaf_digests(shards)

    def _refill(self, segment: int, plain: memoryview, shards: list[memoryview]) -> None:
        """Make the shards of a segment again: the digest of the text is known, so the text need not be hashed."""
        if self.striping.profile != Profile.SEALED:
            leaves = self._fill_clear(plain, shards)
        else:
            k, key, digest = self.striping.k, self._key(segment), self._texts[segment]
            _framing.seal_text(plain, key, CANARY, shards[:k])
            _framing.seal_key(shards[:k], len(plain) + len(CANARY), key, digest)
            self._code.encode_into(shards)
            leaves = _framing.leaf_digests(shards)
        if leaves != self._leaves[segment]:
            raise ErasureError("the source changed while it was being sent; send it again")


def _cut(size: int, count: int) -> list[memoryview]:
    """`count` buffers of `size` undefined bytes, in one allocation: small ones would each be mapped and unmapped."""
    whole = memoryview(_framing.raw_buffer(size * count))
    return [whole[i * size : (i + 1) * size] for i in range(count)]


class InteropWriter:
    """The same interface for the `interop` profile. QMail wire D.2, D.3."""

    def __init__(self, striping: Striping, length: int, seed: bytes = b"") -> None:
        if striping.m != 1 or striping.k not in INTEROP_DATA:
            raise LocalProtocolError("the interop profile has 2 to 31 data stripes and exactly one parity stripe")
        self.striping = striping
        self.length = length
        self._block = interop_block(striping.k, length)
        self.pages = interop_pages(striping.k, length)
        self._crcs = [0] * self.pages
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
            self.scan_page(page, read)
        self.finish_scan()

    def scan_page(self, page: int, read: Read) -> None:
        """One block's part of `scan`; blocks may be taken by different threads."""
        self._crcs[page] = crc32(self._read(page, read))

    def finish_scan(self) -> None:
        """The CRC-32 from what the blocks came to."""
        for page, crc in enumerate(self._crcs):
            size = min(self._block, self.length - page * self._block)
            self.crc32 = _framing.crc32_combine(self.crc32, crc, size)

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


class Shards(list[memoryview]):
    """The checked shards of one page of one stripe, in segment order."""

    def __init__(self, shards: Iterable[memoryview] = (), texts: list[bytes] | None = None) -> None:
        super().__init__(shards)
        self.texts = texts  # digests of the sealed texts, the same list for all stripes they were computed from


Outcome = dict[int, Shards | ErasureError]  # by stripe index


class Reader:
    """Turns checked pages of an `rs` or `sealed` object back into plaintext, or into lost pages of other stripes."""

    def __init__(self, layout: Layout, root: bytes) -> None:
        self.layout = layout
        self.striping = layout.striping
        self.root = root
        self.pages = layout.pages
        self.length = layout.length
        self._code = _code(layout.striping.k, layout.striping.m)

    def check_row(self, page: int, found: Mapping[int, Buffer]) -> Outcome:
        """Check pages of one row against the root.

        found    by stripe index; the more at a time, the less each costs
        returns  for each its shards, as views into the page, or an ErasureError if the page has a wrong size, header,
                 or any byte that was not stored
        """
        layout, k = self.layout, self.striping.k
        outcome: Outcome = {}
        views: dict[int, memoryview] = {}
        for stripe in sorted(found):
            try:
                views[stripe] = self._framed(stripe, page, found[stripe])
            except ErasureError as error:
                outcome[stripe] = error
        shards: dict[int, Shards] = {stripe: Shards() for stripe in views}
        texts: list[bytes] | None = None
        if self.striping.profile == Profile.SEALED and all(stripe in views for stripe in range(k)):
            texts = []
        position = HEADER_SIZE if page == 0 else 0
        for segment in layout.page_segments(page) if views else ():
            start, end = position + layout.path_size, position + layout.path_size + layout.shard_size(segment)
            leaves = self._leaves(segment, [view[start:end] for view in views.values()], texts)
            roots: dict[bytes, bool] = {}
            for (stripe, view), leaf in zip(views.items(), leaves, strict=True):
                shards[stripe].append(view[start:end])
                top = self._climb(leaf, stripe, segment, view[position:start])
                if top not in roots:
                    roots[top] = merkle.bind(layout.shape(), top) == self.root
                if not roots[top]:
                    text = f"stripe {stripe} segment {segment} does not match the object's digest root"
                    outcome[stripe] = ErasureError(text)
            position = end
        for stripe, good in shards.items():
            good.texts = texts
            outcome.setdefault(stripe, good)
        return outcome

    def _framed(self, stripe: int, page: int, data: Buffer) -> memoryview:
        """A page whose size and header are right; ErasureError otherwise."""
        layout, view = self.layout, memoryview(data)
        if len(view) != layout.page_size(page):
            raise ErasureError(f"stripe {stripe} page {page} has {len(view)} bytes, not {layout.page_size(page)}")
        if page == 0 and bytes(view[:HEADER_SIZE]) != layout.header(stripe, self.root):
            raise ErasureError(f"stripe {stripe} has a foreign header")
        return view

    def _leaves(self, segment: int, shards: list[memoryview], texts: list[bytes] | None) -> list[bytes]:
        """Leaf digests of the shards; if `texts` is given, all data shards are there, and the text's digest joins it.

        The text is hashed before anybody knows that its shards are good: it costs next to nothing here, and whoever
        unseals later uses it only if all shards it came from were.
        """
        if texts is None:
            return _framing.leaf_digests(shards)
        text = self.layout.plain_size(segment) + len(CANARY)
        digest, state = _framing.text_digest(shards, self.striping.k, text, len(shards[0]))
        texts.append(digest)
        return _framing.leaf_digests(shards, state)

    def _climb(self, leaf: bytes, stripe: int, segment: int, path: memoryview) -> bytes:
        lower = merkle.depth(self.striping.n) * merkle.DIGEST_SIZE
        return _framing.climb(_framing.climb(leaf, stripe, path[:lower]), segment, path[lower:])

    def join(self, page: int, shards: Mapping[int, Shards]) -> bytes:
        """The plaintext of one page row.

        shards   checked shards by stripe index; at least k stripes
        raises   ErasureError if there are too few
        """
        rows = list(self._rows(page, shards))
        sizes = [self.layout.plain_size(segment) for segment, _ in rows]
        data = [self._data(segment, row) for segment, row in rows]
        if self.striping.profile != Profile.SEALED:
            return b"".join([part for row, size in zip(data, sizes, strict=True) for part in _trimmed(row, size)])
        texts = self._texts(shards) or [None] * len(rows)
        try:
            return _framing.unseal(data, sizes, texts, CANARY)
        except ValueError as error:
            raise ErasureError(str(error)) from None

    def _texts(self, shards: Mapping[int, Shards]) -> Sequence[bytes | None] | None:
        """The digests that `check_row` made on the way, if it made them from just these data stripes."""
        lists = [shards[stripe].texts if stripe in shards else None for stripe in range(self.striping.k)]
        return lists[0] if all(texts is lists[0] for texts in lists) else None

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
            tree = merkle.levels(_framing.leaf_digests(whole))
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

    def _data(self, segment: int, row: Mapping[int, memoryview]) -> Sequence[Buffer]:
        """The data shards of a segment, computed where they are missing."""
        k = self.striping.k
        if all(stripe in row for stripe in range(k)):
            return [row[stripe] for stripe in range(k)]
        return self._whole(row, segment)[:k]


def _trimmed(shards: Sequence[Buffer], size: int) -> Iterator[memoryview]:
    """The first `size` bytes of shards that follow one another."""
    for shard in shards:
        part = memoryview(shard)[:size]
        size -= len(part)
        yield part


class InteropReader:
    """The same interface for the `interop` profile; nothing in it can be checked per stripe but its size."""

    def __init__(self, k: int, length: int) -> None:
        if k not in INTEROP_DATA:
            raise ErasureError(f"{k} data stripes announced, 2 to 31 are possible")
        self.striping = Striping(Profile.INTEROP, k, 1)
        self.length = length
        self.pages = interop_pages(k, length)
        self._block = interop_block(k, length)

    def check_row(self, page: int, found: Mapping[int, Buffer]) -> Outcome:
        """Refuse stripes whose size is wrong. Source D.5."""
        size = interop_shard_size(self.striping.k, self._length(page))
        outcome: Outcome = {}
        for stripe, data in found.items():
            view = memoryview(data)
            if len(view) < size or stripe > self.striping.k:
                outcome[stripe] = ErasureError(f"stripe {stripe} page {page} has {len(view)} bytes, not {size}")
            else:
                outcome[stripe] = Shards([view[:size]])
        return outcome

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
        found = {index: memoryview(stripe)[position : position + size] for index, stripe in stripes.items()}
        outcome = reader.check_row(page, found)
        out.append(
            reader.join(page, {index: shards for index, shards in outcome.items() if isinstance(shards, Shards)})
        )
        position += size
    return out[0] if len(out) == 1 else b"".join(out)
