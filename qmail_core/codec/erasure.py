"""Objects <-> stripes: the profiles `rs` and `sealed`, and the choice between all three.

A Writer turns an object into n stripes page by page; a Reader turns pages back into the object. An object of any size
passes in bounded memory: one page row holds at most three segments. Nothing here does I/O: a Writer asks a callable for
plaintext, randomness is the `seed` argument. The profile `interop` has the same interface in codec/interop.py.

`rs`, `sealed`   a stripe is a 64-byte header and then one record per segment: digest path, shard. A page is up to
                 three whole records (page 0 with the header before them), so pages can be read and checked alone.
                 `sealed` puts each segment through an all-or-nothing transform first (Resch and Plank, FAST 2011):
                 fewer than k stripes reveal nothing.

Wrong bytes never leave a Reader of `rs` or `sealed`: every shard is checked against the object's digest root, and
every sealed segment against its canary. docs/erasure.md gives the layout.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core import _framing
from qmail_core.codec import merkle
from qmail_core.codec.interop import InteropReader, InteropWriter
from qmail_core.codec.stripes import Outcome, Read, Shards, code, crc32, cut
from qmail_core.errors import ErasureError, LocalProtocolError
from qmail_core.model import Profile, Striping

MAGIC = b"QMS1"
HEADER_SIZE = 64
HEADER_INDEX = 8  # where the header has the stripe's number, all in which the headers of an object differ
SHARD_PLAIN = 65_536  # plaintext bytes per data shard of a full segment
PAGE_SEGMENTS = 3  # whole records per page, so that header and records stay below the wire's page size
CANARY = b"qmail-sealed-ok\n"
KEY_SIZE = 32
SEED_SIZE = 32


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
        self._code = code(striping.k, striping.m)
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
        out = self._buffers(page)  # in one piece: what is freed in pieces goes back to the system, to be mapped again
        if self.pages == 1:
            self._kept = out
        crc, rows = 0, {}
        for segment, start, end in self._records(page):
            plain = self._plain(segment, read)
            crc = crc32(plain, crc)
            row = [buffer[start:end] for buffer in out]
            if self.striping.profile == Profile.SEALED:
                rows[segment] = row
                self._seal(segment, plain, row)
            else:
                self._leaves[segment] = self._fill_clear(plain, row)
        if rows:
            self._finish_seals(rows)
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
            header = layout.header(0, self.root)
            for stripe, buffer in enumerate(out):
                buffer[:HEADER_SIZE] = header
                buffer[HEADER_INDEX] = stripe
        for segment, start, end in self._records(page):
            if kept is None:
                self._refill(segment, self._plain(segment, read), [buffer[start:end] for buffer in out])
            lower = merkle.levels(self._leaves[segment])
            upper, position = merkle.path(self._top, segment), start - layout.path_size
            for stripe, buffer in enumerate(out):
                buffer[position:start] = merkle.path(lower, stripe) + upper
        return out

    def _buffers(self, page: int) -> list[memoryview]:
        """Room for one page row; every byte of it gets written."""
        return cut(self.layout.page_size(page), self.striping.n)

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

    def _seal(self, segment: int, plain: memoryview, shards: list[memoryview]) -> None:
        """Encrypt a segment into its shards, and make the parity of what is final by that."""
        _framing.seal_text(plain, self._key(segment), CANARY, shards[: self.striping.k])
        if self._settled(shards):
            self._code.encode_into(shards)

    def _finish_seals(self, rows: dict[int, list[memoryview]]) -> None:
        """Digests, hidden keys and the rest of the parity, of all segments of a page at once."""
        k = self.striping.k
        texts = [self.layout.plain_size(segment) + len(CANARY) for segment in rows]
        columns = [self._settled(shards) for shards in rows.values()]
        found = _framing.text_digests(list(rows.values()), k, texts, columns)
        for (segment, shards), text, settled, (digest, state) in zip(rows.items(), texts, columns, found, strict=True):
            _framing.seal_key(shards[:k], text, self._key(segment), digest)
            self._code.encode_into([shard[settled:] for shard in shards] if settled else shards)
            self._leaves[segment] = _framing.leaf_digests(shards, state)
            self._texts[segment] = digest

    def _settled(self, shards: list[memoryview]) -> int:
        """Columns that the hidden key does not reach: it stands in the last k + 32 bytes of the last data shard.

        Their parity can be made before the text is hashed, and so their leaves be hashed together with it.
        """
        size = len(shards[0])
        return size - KEY_SIZE - self.striping.k if size >= _FUSED else 0

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


class Reader:
    """Turns checked pages of an `rs` or `sealed` object back into plaintext, or into lost pages of other stripes."""

    def __init__(self, layout: Layout, root: bytes) -> None:
        self.layout = layout
        self.striping = layout.striping
        self.root = root
        self.pages = layout.pages
        self.length = layout.length
        self._code = code(layout.striping.k, layout.striping.m)

    def check_row(self, page: int, found: Mapping[int, Buffer]) -> Outcome:
        """Check pages of one row against the root.

        found    by stripe index; the more at a time, the less each costs
        returns  for each its shards, as views into the page, or an ErasureError if the page has a wrong size, header,
                 or any byte that was not stored
        """
        layout, k = self.layout, self.striping.k
        outcome: Outcome = {}
        views: dict[int, memoryview] = {}
        size, header = layout.page_size(page), bytearray(layout.header(0, self.root) if page == 0 else b"")
        for stripe in sorted(found):
            view = memoryview(found[stripe])
            if header:
                header[HEADER_INDEX] = stripe
            if len(view) != size:
                outcome[stripe] = ErasureError(f"stripe {stripe} page {page} has {len(view)} bytes, not {size}")
            elif view[: len(header)] != header:
                outcome[stripe] = ErasureError(f"stripe {stripe} has a foreign header")
            else:
                views[stripe] = view
        shards: dict[int, Shards] = {stripe: Shards() for stripe in views}
        position, spans = HEADER_SIZE if page == 0 else 0, []
        for segment in layout.page_segments(page) if views else ():
            start, end = position + layout.path_size, position + layout.path_size + layout.shard_size(segment)
            spans.append((segment, position, start, end))
            position = end
        rows = [[view[start:end] for view in views.values()] for _, _, start, end in spans]
        texts, leaves = self._digests(layout.page_segments(page), rows, all(stripe in views for stripe in range(k)))
        for (segment, position, start, _), row, row_leaves in zip(spans, rows, leaves, strict=True):
            roots: dict[bytes, bool] = {}
            for (stripe, view), shard, leaf in zip(views.items(), row, row_leaves, strict=True):
                shards[stripe].append(shard)
                top = self._climb(leaf, stripe, segment, view[position:start])
                if top not in roots:
                    roots[top] = merkle.bind(layout.shape(), top) == self.root
                if not roots[top]:
                    text = f"stripe {stripe} segment {segment} does not match the object's digest root"
                    outcome[stripe] = ErasureError(text)
        for stripe, good in shards.items():
            good.texts = texts
            outcome.setdefault(stripe, good)
        return outcome

    def _digests(
        self, segments: Sequence[int], rows: Sequence[list[memoryview]], whole: bool
    ) -> tuple[list[bytes] | None, list[list[bytes]]]:
        """Leaf digests of the shards of each segment, and those of sealed texts if all data shards are there.

        The texts are hashed before anybody knows that their shards are good: it costs little here, and whoever unseals
        later uses them only if all shards they came from were.
        """
        if self.striping.profile != Profile.SEALED or not whole or not rows:
            return None, [_framing.leaf_digests(row) for row in rows]
        found = _framing.text_digests(rows, self.striping.k, self._text_sizes(segments), [len(row[0]) for row in rows])
        return [text for text, _ in found], [
            _framing.leaf_digests(row, state) for row, (_, state) in zip(rows, found, strict=True)
        ]

    def _text_sizes(self, segments: Sequence[int]) -> list[int]:
        return [self.layout.plain_size(segment) + len(CANARY) for segment in segments]

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
        texts = self._texts(shards)
        if texts is None:
            found = _framing.text_digests(
                data, self.striping.k, self._text_sizes([segment for segment, _ in rows]), [0] * len(rows)
            )
            texts = [text for text, _ in found]
        try:
            return _framing.unseal(data, sizes, texts, CANARY)
        except ValueError as error:
            raise ErasureError(str(error)) from None

    def _texts(self, shards: Mapping[int, Shards]) -> list[bytes] | None:
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


def join(stripes: Mapping[int, Buffer], striping: Striping, length: int) -> bytes:
    """Rebuild a whole object from stripes; liars are outvoted by their digest root.

    stripes  by stripe index; any k good ones are enough
    length   used by `interop` only, which does not carry it
    raises   ErasureError if no root has k good stripes
    """
    if striping.profile == Profile.INTEROP:
        plain = InteropReader(striping.k, length)
        return _join_pages(plain, stripes, [plain.page_size(page) for page in range(plain.pages)])
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
