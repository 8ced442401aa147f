"""engine.durable: what it is asked to keep stands on the medium."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmail_core.engine import receive
from qmail_core.engine.durable import put_in_place
from tests.syncs import Syncs


def test_a_name_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part").write_bytes(b"bytes")
    syncs = Syncs(monkeypatch)
    put_in_place(str(tmp_path / "part"), str(tmp_path / "name"))
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    assert syncs.names == [str(tmp_path)]


def test_a_name_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("part").write_bytes(b"bytes")
    put_in_place("part", "name")
    assert Path("name").read_bytes() == b"bytes"


def test_a_fetched_attachment_is_durable_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "below" / "0")
    syncs = Syncs(monkeypatch)
    with receive.create(f"{path}.part") as file:
        file.write(b"bytes")
        receive.finish(file, path)
    assert syncs.names == [f"{path}.part", str(tmp_path / "below")]
