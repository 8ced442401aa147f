"""Copies of receipts: whole, the newest one wins, and a disk that refuses stops nobody."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from qmail_core.engine import mirror
from qmail_core.engine.mirror import Mirror


def test_the_newest_text_wins_and_all_are_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        files = Mirror(str(tmp_path / "Receipts"))
        await asyncio.gather(*(files.put(f"{n % 7}.json", b"%d" % n) for n in range(100)))
        await files.put("0.json", b"last")

    asyncio.run(story())
    found = {path.name: path.read_bytes() for path in (tmp_path / "Receipts").iterdir()}
    assert found == {"0.json": b"last", **{f"{n % 7}.json": b"%d" % n for n in range(93, 100) if n % 7}}


def test_what_comes_while_files_are_written_is_one_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, rounds = threading.Event(), []
    write = Mirror._write

    def held(self: Mirror, texts: dict[str, bytes]) -> None:
        assert go.wait(10)
        rounds.append(dict(texts))
        write(self, texts)

    monkeypatch.setattr(Mirror, "_write", held)

    async def story() -> None:
        files = Mirror(str(tmp_path))
        waiting = [files.put("a", b"1"), files.put("a", b"2"), files.put("b", b"1"), files.put("a", b"3")]
        go.set()
        await asyncio.gather(*waiting)

    asyncio.run(story())
    assert rounds == [{"a": b"1"}, {"a": b"3", "b": b"1"}]


def test_a_file_that_cannot_be_written_is_only_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: str, text: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mirror, "_replace", full)
    with caplog.at_level(logging.WARNING, "qmail.receipts"):
        asyncio.run(_put(tmp_path))
    assert "the copy a.json could not be written" in caplog.text
    assert list(tmp_path.iterdir()) == []


async def _put(folder: Path) -> None:
    await Mirror(str(folder)).put("a.json", b"text")
