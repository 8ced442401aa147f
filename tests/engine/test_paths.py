"""Files by path: what lies below an allowed folder is opened, and nothing else, by whatever trick it is named."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest

from qmail_core.engine.paths import Paths
from qmail_core.errors import Conflict, PathRefused, UsageError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (home / "a.txt").write_bytes(b"inside")
    (home / "sub" / "b.txt").write_bytes(b"deeper")
    (tmp_path / "home2").mkdir()
    (tmp_path / "home2" / "twin.txt").write_bytes(b"outside")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    return home


def read(paths: Paths, text: str) -> bytes:
    return paths.read(text, 1000)


def refusal(paths: Paths, text: str) -> str:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PathRefused) as refused:
        paths.open(text)
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"
    return refused.value.message


def test_relative_and_absolute_paths_below_the_home_are_read(home: Path) -> None:
    paths = Paths(str(home))
    assert read(paths, "a.txt") == read(paths, str(home / "a.txt")) == b"inside"
    assert read(paths, "sub/b.txt") == read(paths, "./sub//b.txt") == b"deeper"


def test_everything_refused_is_refused_in_the_same_words(home: Path, tmp_path: Path) -> None:
    paths = Paths(str(home))
    os.mkfifo(home / "fifo")
    (home / "unreadable").write_bytes(b"x")
    texts = [
        "",
        ".",
        "sub",
        "missing.txt",
        "a.txt/b",
        "../secret.txt",
        "sub/../../secret.txt",
        "sub/../a.txt",
        str(tmp_path / "secret.txt"),
        str(tmp_path / "home2" / "twin.txt"),
        str(home),
        str(tmp_path),
        "/",
        "/etc/passwd",
        "a.txt\0",
        "\0",
        "fifo",
        "//host/share/a.txt",
        "\\\\host\\share\\a.txt",
        "C:\\a.txt",
        "C:/a.txt",
        "c:a.txt",
        "sub\\b.txt",
        "a.txt:stream",
        "x" * 5000,
        "x" * 300,
        "\ud800",
        "/dev/null",
        "/proc/self/mem",
    ]
    assert {refusal(paths, text) for text in texts} == {"not found or not readable"}


@pytest.mark.timeout(10)
def test_a_fifo_does_not_hang(home: Path) -> None:
    os.mkfifo(home / "fifo")
    refusal(Paths(str(home)), "fifo")


def test_links_are_not_followed_wherever_they_are(home: Path, tmp_path: Path) -> None:
    paths = Paths(str(home))
    (home / "link.txt").symlink_to(tmp_path / "secret.txt")
    (home / "inner.txt").symlink_to(home / "a.txt")
    (home / "way").symlink_to(tmp_path)
    (home / "loop").symlink_to(home / "loop")
    for text in ("link.txt", "inner.txt", "way/secret.txt", "way/home/a.txt", "loop", "loop/a.txt"):
        refusal(paths, text)


def test_a_file_or_folder_swapped_for_a_link_meanwhile_leads_nowhere(home: Path, tmp_path: Path) -> None:
    paths = Paths(str(home))
    (home / "file").symlink_to(tmp_path / "secret.txt")
    (home / "folder").symlink_to(tmp_path)
    (home / "way").mkdir()
    (home / "way" / "secret.txt").write_bytes(b"inside")
    stop = threading.Event()

    def swap() -> None:
        pairs = ((home / "a.txt", home / "file"), (home / "way", home / "folder"))
        while not stop.is_set():
            for good, link in pairs:
                aside = home / "aside"
                for source, target in ((good, aside), (link, good), (good, link), (aside, good)):
                    os.rename(source, target)

    swapper = threading.Thread(target=swap)
    opened = len(os.listdir("/proc/self/fd"))
    seen: Counter[bytes] = Counter()
    swapper.start()
    try:
        for text in ("a.txt", "way/secret.txt") * 1500:
            with contextlib.suppress(PathRefused):
                seen[read(paths, text)] += 1
    finally:
        stop.set()
        swapper.join()
    assert set(seen) <= {b"inside"}
    assert len(os.listdir("/proc/self/fd")) == opened


def test_what_is_no_regular_file_is_refused_even_below_a_root(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(home / "socket"))
        refusal(Paths(str(home)), "socket")
    for text in ("/dev/null", "/dev/zero", "/dev/fd/0", "/dev/stdin", "/proc/self/fd/0", "/proc/self/root/etc/passwd"):
        refusal(Paths(str(home), ["/dev", "/proc"]), text)


def test_a_root_may_itself_be_a_link(home: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(home)
    paths = Paths(str(link))
    assert read(paths, "a.txt") == read(paths, str(link / "a.txt")) == read(paths, str(home / "a.txt")) == b"inside"


def test_a_root_that_is_a_link_below_another_root_is_allowed(home: Path, tmp_path: Path) -> None:
    link = home / "shared"
    link.symlink_to(tmp_path / "home2")
    assert read(Paths(str(home), [str(link)]), "shared/twin.txt") == b"outside"
    refusal(Paths(str(home)), "shared/twin.txt")


def test_further_roots_are_allowed_and_their_twins_are_not(home: Path, tmp_path: Path) -> None:
    paths = Paths(str(tmp_path / "elsewhere"), [str(home)])
    assert read(paths, str(home / "a.txt")) == b"inside"
    refusal(paths, str(tmp_path / "home2" / "twin.txt"))
    refusal(paths, "a.txt")


def test_drive_rules_map_windows_prefixes(home: Path) -> None:
    paths = Paths(str(home / "sub"), drives=[("E:\\Client1", str(home)), ("F:", str(home / "sub"))])
    for text in ("E:\\Client1\\a.txt", "e:/CLIENT1/a.txt", "E:\\client1\\\\a.txt"):
        assert read(paths, text) == b"inside"
    assert read(paths, "F:\\b.txt") == b"deeper"
    for text in ("E:\\Client1", "E:\\Client10\\a.txt", "E:\\a.txt", "E:\\Client1\\..\\secret.txt", "G:\\a.txt"):
        refusal(paths, text)


def test_a_file_is_read_up_to_a_limit(home: Path) -> None:
    paths = Paths(str(home))
    assert paths.read("a.txt", 6) == b"inside"
    with pytest.raises(UsageError, match="larger than 5 bytes"):
        paths.read("a.txt", 5)


def test_checking_tells_path_and_state(home: Path) -> None:
    path, state = Paths(str(home)).check("sub/b.txt")
    assert (path, state.st_size) == (str(home / "sub" / "b.txt"), 6)


def test_names_beyond_ascii_are_names(home: Path) -> None:
    (home / "Überraschung 文.txt").write_bytes(b"x")
    (home / os.fsdecode(b"\xff.txt")).write_bytes(b"y")
    paths = Paths(str(home))
    assert read(paths, "Überraschung 文.txt") == b"x"
    assert read(paths, os.fsdecode(b"\xff.txt")) == b"y"


# ------------------------------------------------------------------------------------------------------------------
# New files


def made(tmp_path: Path) -> str:
    source = tmp_path / "made"
    source.write_bytes(b"whole")
    return str(source)


@pytest.mark.parametrize("reason", [0, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP])
def test_a_finished_file_appears_under_its_name(
    home: Path, tmp_path: Path, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason:  # another medium, or one without links

        def refuse(*_: object, **__: object) -> None:
            raise OSError(reason, "no link")

        monkeypatch.setattr(os, "link", refuse)
    paths = Paths(str(home))
    assert paths.check_new("sub/new.bin") == str(home / "sub" / "new.bin")
    paths.put_new(made(tmp_path), "sub/new.bin")
    assert (home / "sub" / "new.bin").read_bytes() == b"whole"
    assert sorted(os.listdir(home / "sub")) == ["b.txt", "new.bin"]
    assert not (tmp_path / "made").exists()
    with pytest.raises(Conflict):
        paths.check_new("sub/new.bin")
    with pytest.raises(Conflict):
        paths.put_new(made(tmp_path), "sub/new.bin")
    assert (tmp_path / "made").exists()


def test_a_copy_that_fails_leaves_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another medium")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="full"):
        Paths(str(home)).put_new(made(tmp_path), "new.bin")
    assert sorted(os.listdir(home)) == ["a.txt", "sub"]
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("text", ["", ".", "../new", "none/new", "a.txt/new", "out/new", "/etc/new", "C:\\new", "a\0b"])
def test_new_files_are_made_below_the_home_only(home: Path, tmp_path: Path, text: str) -> None:
    (home / "out").symlink_to(tmp_path / "home2")
    paths = Paths(str(home))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PathRefused):
        paths.check_new(text)
    with pytest.raises(PathRefused):
        paths.put_new(made(tmp_path), text)
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path / "home2") == ["twin.txt"]


def test_a_link_is_a_name_that_is_taken(home: Path, tmp_path: Path) -> None:
    (home / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Conflict):
        Paths(str(home)).check_new("dangling")
    with pytest.raises(Conflict):
        Paths(str(home)).put_new(made(tmp_path), "dangling")
    assert not (tmp_path / "nowhere").exists()
