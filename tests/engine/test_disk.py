"""Sealed files on disk: written in any pieces, gone on with, read at any offset; also those of an older layout."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmail_core.codec import vault
from qmail_core.codec.vault import HEADER, KEY, SEGMENT, Segments
from qmail_core.engine.files import disk
from qmail_core.engine.files.disk import Folder, Reader, Sealing, Writer
from qmail_core.errors import NotFound, StoreUnavailable, Tampered

OWN, ID = bytes(KEY), b"i" * 16
DATA = hashlib.shake_256(b"a file").digest(5 * SEGMENT + 100)
FIXED = b"QMF1\2\0\0\0"  # nonces that are the same when a segment is sealed again, with a cipher that forgives none
OLD = [head for head in vault._LAYOUTS if head != vault.NEW]


def written(path: Path, *pieces: bytes) -> Writer:
    writer = Writer(str(path), OWN, ID, os.urandom)
    for piece in pieces:
        writer.write(piece)
    writer.finish()
    writer.close()
    return writer


def whole(path: Path, size: int) -> bytes:
    reader = Reader(str(path), OWN, ID, size)
    try:
        return reader.read(0, size)
    finally:
        reader.close()


@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=6), size=st.integers(0, len(DATA)), spot=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_in_any_pieces_is_read_at_any_offset(
    tmp_path: Path, cuts: list[int], size: int, spot: st.DataObject
) -> None:
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    edges = sorted({0, size, *(cut for cut in cuts if cut < size)})
    writer = written(path, *(DATA[low:high] for low, high in itertools.pairwise(edges)))
    assert writer.sha256 == hashlib.sha256(DATA[:size]).digest()
    assert path.stat().st_size == writer.stored(size)
    assert whole(path, size) == DATA[:size]
    offset, count = spot.draw(st.integers(0, size)), spot.draw(st.integers(0, size))
    reader = Reader(str(path), OWN, ID, size)
    assert reader.read(offset, count) == DATA[:size][offset : offset + count]
    reader.close()


@pytest.mark.parametrize("head", OLD)
def test_files_of_before_are_read(tmp_path: Path, head: bytes) -> None:
    path, sealer = tmp_path / "file", Segments(head, OWN, ID)
    parts = [DATA[at : at + SEGMENT] for at in range(0, len(DATA), SEGMENT)]
    sealed = [sealer.seal(n, part, b"", last=n == len(parts) - 1)[1] for n, part in enumerate(parts)]
    path.write_bytes(head + b"".join(sealed))
    assert whole(path, len(DATA)) == DATA


@pytest.mark.parametrize("head", [head for head in (*OLD, vault.NEW) if head != FIXED])
def test_uploads_go_on_in_the_layout_they_began_with(tmp_path: Path, head: bytes) -> None:
    path, sealer = tmp_path / "file", Segments(head, OWN, ID)
    first = b"".join(sealer.seal(0, DATA[:SEGMENT], b"1234567", last=False))
    path.write_bytes(head + first + b"of no later use")
    writer = Writer(str(path), OWN, ID, os.urandom, new=False)
    writer.resume(1, DATA[SEGMENT : SEGMENT + 9])
    writer.write(DATA[SEGMENT + 9 :])
    writer.finish()
    writer.close()
    assert writer.sha256 == hashlib.sha256(DATA).digest()
    assert whole(path, len(DATA)) == DATA


def test_a_segment_that_is_written_again_is_sealed_with_another_nonce(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writer = Writer(str(path), OWN, ID, os.urandom)
    mark, nonces = writer.mark(), set()
    for _ in range(3):
        writer.write(DATA)
        nonces.add(path.read_bytes()[HEADER : HEADER + vault.FRESH])
        writer.back(mark)
    writer.close()
    assert len(nonces) == 3


@pytest.mark.parametrize("change", ["cut", "longer", "swapped", "earlier end"])
def test_a_file_somebody_has_changed_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "file"
    written(path, DATA)
    raw, step = path.read_bytes(), Segments(vault.NEW, OWN, ID).step
    size = len(DATA)
    if change == "cut":
        raw = raw[:-1]
    elif change == "longer":
        raw += b"x"
    elif change == "swapped":
        one, two = (slice(HEADER + n * step, HEADER + (n + 1) * step) for n in (1, 2))
        raw = raw[: one.start] + raw[two] + raw[one] + raw[two.stop :]
    else:
        raw, size = raw[: HEADER + 3 * step], 3 * SEGMENT
    path.write_bytes(raw)
    with pytest.raises(Tampered):
        whole(path, size)


def test_a_system_that_writes_less_than_asked_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, pwrite = os.pwritev, os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda file, parts, at: asked(file, [b"".join(parts)[:1000]], at))
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:100_000], at))
    path = tmp_path / "file"
    written(path, DATA)
    assert whole(path, len(DATA)) == DATA


def test_a_full_disk_is_told_by_the_write_after_it_at_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async def twice(sealing: Sealing) -> None:
        for _ in range(2):
            await sealing.write(DATA)

    async def story() -> None:
        writer = Writer(str(tmp_path / "file"), OWN, ID, os.urandom)
        sealing = Sealing(writer)
        monkeypatch.setattr(os, "pwritev", full)
        with pytest.raises(StoreUnavailable):
            await twice(sealing)
        await sealing.drop()
        writer.close()

    monkeypatch.setattr(disk, "BATCH", 2 * SEGMENT)
    asyncio.run(story())


def test_files_are_not_closed_before_a_thread_has_ended_however_often_that_is_cancelled() -> None:
    async def story() -> None:
        go, ended = threading.Event(), []

        async def wait() -> None:
            try:
                await disk.in_thread(lambda: ended.append(go.wait(30)))
            finally:
                assert ended == [True]

        task = asyncio.ensure_future(wait())
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())


def test_what_is_dropped_is_never_written_behind_it(tmp_path: Path) -> None:
    async def story() -> None:
        writer = Writer(str(tmp_path / "file"), OWN, ID, os.urandom)
        mark, sealing = writer.mark(), Sealing(writer)
        await sealing.write(DATA * 2)  # a batch is with the thread now
        await sealing.drop()
        writer.back(mark)
        assert (tmp_path / "file").stat().st_size == HEADER
        writer.close()

    asyncio.run(story())


def test_an_upload_whose_nonces_would_come_again_does_not_go_on(tmp_path: Path) -> None:
    path, sealer = tmp_path / "file", Segments(FIXED, OWN, ID)
    path.write_bytes(FIXED + b"".join(sealer.seal(0, DATA[:SEGMENT], b"", last=False)))
    with pytest.raises(NotFound, match="begin it anew"):
        Writer(str(path), OWN, ID, os.urandom, new=False)
    assert path.exists()


def test_a_folder_among_the_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "00ff").write_bytes(b"left behind")
    Folder(str(tmp_path)).sweep([])
    assert [path.name for path in tmp_path.iterdir()] == ["lost+found"]
