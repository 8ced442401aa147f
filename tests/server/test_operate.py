"""What the operator's verbs make of their command lines, and what they refuse. The programs themselves: tests/flows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from qmail_server import service
from qmail_server.cli import app
from qmail_server.service import RaidaOptions, ServeOptions
from typer.testing import CliRunner, Result

from qmail_core.errors import ConfigError
from qmail_core.model import Profile, Striping


class Caught:
    """The options a program would have run with."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.options: Any = None
        patch.setattr(service, "run_raida", self._take)
        patch.setattr(service, "run_engine", self._take)
        patch.setattr("qmail_server.operate.logs.configure", lambda *_, **__: None)

    def _take(self, options: Any) -> None:
        self.options = options


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> Caught:
    return Caught(monkeypatch)


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text("".join(f"127.0.0.1:{50000 + node}\n" for node in range(5)))
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})


def test_a_network_without_hosts_file_is_on_loopback(caught: Caught, tmp_path: Path) -> None:
    assert run("raida", "--data", tmp_path).exit_code == 0
    options: RaidaOptions = caught.options
    assert options.nodes == tuple(range(25))
    assert options.hosts[24] == ("127.0.0.1", 50024)
    assert options.listen is None


def test_some_nodes_with_a_policy(caught: Caught, hosts: Path) -> None:
    words = ("--node", 3, "--node", 1, "--node", 3, "--host", "127.0.0.2", "--storage-fee", 0, "--inbox-fee", 2)
    assert run("raida", "--data", hosts.parent, "--hosts", hosts, *words, "--poll-limit", 5).exit_code == 0
    options: RaidaOptions = caught.options
    assert (options.nodes, options.listen) == ((3, 1), "127.0.0.2")
    policy = options.policy
    assert (policy.storage_fee, policy.inbox_fee, policy.poll_limit) == (0, 2, 5.0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), Striping(Profile.SEALED, 4, 1)),
        (("--profile", "interop"), Striping(Profile.INTEROP, 4, 1)),
        (("--striping", "3+2", "--profile", "rs"), Striping(Profile.RS, 3, 2)),
    ],
)
def test_striping_follows_from_the_nodes(
    caught: Caught, hosts: Path, words: tuple[str, ...], expected: Striping
) -> None:
    assert run("serve", "--data", hosts.parent, "--hosts", hosts, *words, "--beacons", "1,2").exit_code == 0
    options: ServeOptions = caught.options
    assert options.config.striping == expected
    assert options.config.beacons == (1, 2)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("raida", "--base-port", "65520"), "pass port 65535"),
        (("raida", "--node", "25"), "node 25 does not exist in a network of 25"),
        (("raida", "--log-level", "LOUD"), "unknown log level"),
        (("serve", "--striping", "20-5"), "--striping 20-5 is not of the form 20+5"),
        (("serve", "--beacons", "1"), "is not of the form 11,14"),
        (("serve", "--profile", "best"), "none of interop, rs, sealed"),
        (("mint", "--address", "51"), "Missing denomination"),
        (("mint", "--again"), "No such file"),
    ],
)
def test_refused_options_say_why(caught: Caught, hosts: Path, words: tuple[str, ...], reason: str) -> None:
    more: dict[str, tuple[object, ...]] = {"serve": ("--hosts", hosts), "mint": ("--out", hosts.parent / "purse")}
    done = run(*words, "--data", hosts.parent, *more.get(words[0], ()))
    assert done.exit_code == 1
    assert reason in done.output
    assert caught.options is None


def test_mint_wants_an_address_or_a_file_to_finish(tmp_path: Path) -> None:
    words = ("mint", "--data", tmp_path, "--out", tmp_path / "purse")
    assert run(*words).exit_code == 2
    assert run(*words, "--again", "--address", "51.254@bit").exit_code == 2


def test_nodes_on_several_addresses_need_a_choice(tmp_path: Path) -> None:
    options = RaidaOptions(data=tmp_path, hosts=(("127.0.0.1", 1), ("127.0.0.2", 1)), nodes=(0, 1))
    with pytest.raises(ConfigError, match="different addresses"):
        service.run_raida(options)


def test_a_ready_line_that_cannot_be_written_is_an_error() -> None:
    source, sink = os.pipe()
    os.close(source)
    os.close(sink)
    with pytest.raises(ConfigError, match=f"--ready-fd {sink}"):
        service.announce(sink, {})
