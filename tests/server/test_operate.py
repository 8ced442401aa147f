"""What the operator's verbs make of their command lines, and what they refuse. The programs themselves: tests/flows."""

from __future__ import annotations

import io
import logging
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from qmail_server import service, wiring
from qmail_server.cli import app
from qmail_server.hosts import load_hosts
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


def test_what_is_off_unless_asked_for(caught: Caught, hosts: Path) -> None:
    for words, on in ((), False), (("--legacy-commands",), True):
        assert run("raida", "--data", hosts.parent, *words).exit_code == 0
        assert caught.options.policy.legacy_commands is on
    for words, on in ((), False), (("--udp",), True):
        assert run("serve", "--data", hosts.parent, "--hosts", hosts, *words).exit_code == 0
        assert caught.options.config.udp is on


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


@pytest.mark.parametrize("domain", ["localhost", "mail.example", "b\u00fccher.example", "xn--bcher-kva.example"])
def test_a_domain_and_a_relay_are_handed_on(caught: Caught, hosts: Path, domain: str) -> None:
    words = ("--domain", domain, "--smtp-relay", "[::1]:25", "--smtp-login", "login", "--smtp-plain")
    assert run("serve", "--data", hosts.parent, "--hosts", hosts, *words).exit_code == 0
    config = caught.options.config
    assert (config.domain, config.smtp_relay, config.smtp_login) == (domain, "[::1]:25", "login")


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
        (("raida", "--host", "nonsense"), "--host nonsense is not an IPv4 address"),
        (("serve", "--allow-path", "/nowhere/at/all"), "does not exist"),
        (("serve", "--allow-origin", "localhost"), "is not of the form http://localhost:5173"),
        (("serve", "--allow-origin", "http://localhost/"), "is not of the form http://localhost:5173"),
        (("serve", "--smtp-login", "login"), "--smtp-login is for a relay; name it with --smtp-relay"),
        (("serve", "--smtp-relay", "relay"), "--smtp-relay relay is not of the form HOST:PORT"),
        (("serve", "--smtp-relay", ":25"), "--smtp-relay :25 is not of the form HOST:PORT"),
        (("serve", "--smtp-relay", "relay:70000"), "--smtp-relay relay:70000 is not of the form HOST:PORT"),
        (
            ("serve", "--smtp-relay", "relay.example:25", "--smtp-login", "login", "--smtp-plain"),
            "--smtp-plain: a password is not sent to another machine without TLS",
        ),
        (("serve", "--domain", ""), "--domain '' is no host name, such as mail.example"),
        (("serve", "--domain", "a b"), "--domain 'a b' is no host name"),
        (("serve", "--domain", "me@mail.example"), "--domain 'me@mail.example' is no host name"),
        (("serve", "--domain", "mail..example"), "--domain 'mail..example' is no host name"),
        (("serve", "--domain", "byte"), "--domain byte means mailboxes of the network"),
        *(
            (("serve", "--allow-origin", origin), "is not of the form http://localhost:5173")
            for origin in (
                "null",
                "http://a b",
                "http://a@b",
                "http://é",
                "http://a:70000",
                "http://",
                "ftp://a",
                "http://a:",
            )
        ),
        (("serve", "--port", "65436"), "65435"),
    ],
)
def test_refused_options_say_why(caught: Caught, hosts: Path, words: tuple[str, ...], reason: str) -> None:
    more: dict[str, tuple[object, ...]] = {"serve": ("--hosts", hosts), "mint": ("--out", hosts.parent / "purse")}
    done = run(*words, "--data", hosts.parent, *more.get(words[0], ()))
    assert done.exit_code == 2
    assert reason in done.output
    assert caught.options is None


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("http://localhost:5173", "http://localhost:5173"),
        ("HTTP://Localhost:5173", "http://localhost:5173"),
        ("http://localhost:80", "http://localhost"),
        ("https://mail.example:443", "https://mail.example"),
        ("https://mail.example:80", "https://mail.example:80"),
        ("http://[::1]:0080", "http://[::1]"),
    ],
)
def test_origins_are_kept_as_browsers_send_them(caught: Caught, hosts: Path, given: str, sent: str) -> None:
    assert run("serve", "--data", hosts.parent, "--hosts", hosts, "--allow-origin", given).exit_code == 0
    assert caught.options.origins == (sent,)


@pytest.mark.parametrize("seen", [True, False])
def test_the_first_lines_are_for_a_terminal_only(tmp_path: Path, seen: bool) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return seen

    stream, path = Stream(), tmp_path / "a token"
    token = service.load_token(path)
    service.invite("http://127.0.0.1:8080", path, stream)
    if not seen:
        assert stream.getvalue() == ""
        return
    page, curl = stream.getvalue().splitlines()
    assert page == f"http://127.0.0.1:8080/#token={token}"
    assert token not in curl  # it would be an argument, for all to see
    config = subprocess.run(["sh", "-c", curl.rpartition(" | ")[0]], capture_output=True, text=True, check=True).stdout
    assert config == f'header = "Authorization: Bearer {token}"'


def test_mint_wants_an_address_or_a_file_to_finish(tmp_path: Path) -> None:
    words = ("mint", "--data", tmp_path, "--out", tmp_path / "purse")
    assert run(*words).exit_code == 2
    assert run(*words, "--again", "--address", "51.254@bit").exit_code == 2


def test_a_file_to_finish_a_mint_from_must_be_there(tmp_path: Path) -> None:
    done = run("mint", "--data", tmp_path, "--out", tmp_path / "purse", "--again")
    assert done.exit_code == 1
    assert "No such file" in done.output


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_mint_for_another_number_of_nodes_is_refused(tmp_path: Path, nodes: int) -> None:
    words = ("mint", "--data", tmp_path / "raida", "--ones", 1, "--tens", 0)
    assert run(*words, "--nodes", 2, "--address", "1.1@bit", "--out", tmp_path / "one").exit_code == 0
    done = run(*words, "--nodes", nodes, "--address", "1.2@bit", "--out", tmp_path / "two")
    assert done.exit_code == 1
    assert f"holds 2 nodes, not those of a network of {nodes}" in done.output
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir() and path.name.isdecimal()) == ["00", "01"]
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("raw", [b"short\n", bytes(range(128, 192))])
def test_a_token_file_that_holds_none_says_what_to_do(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(raw)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no token; remove it"):
        service.load_token(path)


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


@pytest.mark.parametrize(("there", "warned"), [((), "5 nodes are new"), ((0, 1, 2), "2 nodes are new"), (range(5), "")])
def test_nodes_that_start_empty_are_warned_of(
    hosts: Path,
    there: tuple[int, ...],
    warned: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Unstarted(SimpleNamespace):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(start=self.fail, stop=lambda: None)

        def fail(self) -> None:
            raise ConfigError("enough")

    for node in there:
        (hosts.parent / f"{node:02}").mkdir()
    monkeypatch.setattr(wiring, "Network", Unstarted)
    monkeypatch.setattr(logging.getLogger("qmail"), "propagate", True)
    options = RaidaOptions(data=hosts.parent, hosts=load_hosts(hosts), nodes=tuple(range(5)))
    with pytest.raises(ConfigError, match="enough"):
        service.run_raida(options)
    assert (warned in caplog.text) if warned else not caplog.text
