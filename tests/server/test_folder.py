"""The folder of an engine: one process at a time, and nobody else's business."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from qmail_server.folder import claimed

from qmail_core.errors import ConfigError
from qmail_core.folders import make_private

_HOLD = "import sys; from pathlib import Path; from qmail_server.folder import claimed\n"
_HOLD += "with claimed(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_is_open_in_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "alice"
    words = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="alice: another process has it open"), claimed(folder):
            raise AssertionError("held twice")
        other.kill()
    with claimed(folder):  # kill -9 leaves no lock behind
        assert mode(folder) == 0o700
    with claimed(folder):
        pass


@pytest.mark.parametrize("wide", [0o755, 0o750, 0o701])
def test_a_folder_others_may_look_into_is_refused(tmp_path: Path, wide: int) -> None:
    tmp_path.chmod(wide)
    with pytest.raises(ConfigError, match="may be read by others; its mode must be 0700"), claimed(tmp_path):
        raise AssertionError("opened")
    tmp_path.chmod(0o700)


def test_every_missing_folder_is_made_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        make_private(str(tmp_path / "a" / "b" / "c"))
        make_private(str(tmp_path / "a" / "b" / "c"))
    finally:
        os.umask(before)
    assert [mode(tmp_path / part) for part in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_a_file_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make_private(str(tmp_path / "a"))
    with pytest.raises(NotADirectoryError):
        make_private(str(tmp_path / "a" / "b"))
