"""The hosts file: line n is RAIDA n, and nothing in it may shift the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qmail_server.hosts import load_hosts, parse_hosts, render_hosts

from qmail_core.errors import ConfigError

hosts = st.lists(st.tuples(st.ip_addresses(v=4).map(str), st.integers(1, 65535)), min_size=1, max_size=255, unique=True)


@given(hosts)
def test_hosts_both_ways(rows: list[tuple[str, int]]) -> None:
    assert parse_hosts(render_hosts(rows)) == tuple(rows)


def test_line_ends_and_blanks_do_not_matter() -> None:
    assert parse_hosts(" 127.0.0.1:1 \r\n127.0.0.1:2\r\n\n\n") == (("127.0.0.1", 1), ("127.0.0.1", 2))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 lines"),
        ("127.0.0.1:1\n\n127.0.0.1:2", "line 2 is not IP:PORT"),
        ("# nodes\n127.0.0.1:1", "line 1 is not IP:PORT"),
        ("127.0.0.1", "line 1 is not IP:PORT"),
        ("localhost:1", "line 1 is not IP:PORT"),
        ("::1:1", "line 1 is not IP:PORT"),
        ("127.0.0.1:", "line 1 has no port"),
        ("127.0.0.1:0", "line 1 has no port"),
        ("127.0.0.1:65536", "line 1 has no port"),
        ("127.0.0.1:\N{SUPERSCRIPT TWO}", "line 1 has no port"),
        ("127.0.0.1:" + "1" * 5000, "line 1 has no port"),
        ("127.0.0.1:1\n127.0.0.1:1", "two lines are the same"),
        ("\n".join(f"127.0.0.1:{port}" for port in range(1, 257)), "256 lines"),
        ("1" * 70_000, "larger than"),
    ],
)
def test_wrong_files_name_the_line(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_hosts(text)


def test_a_file_is_named_in_its_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none: No such file"):
        load_hosts(tmp_path / "none")
    path = tmp_path / "hosts"
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"hosts is not ASCII"):
        load_hosts(path)
    path.write_text("x")
    with pytest.raises(ConfigError, match=r"hosts: line 1"):
        load_hosts(path)
    path.write_text("127.0.0.1:50000\n")
    assert load_hosts(path) == (("127.0.0.1", 50000),)
