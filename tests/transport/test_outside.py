"""Where posts may go, and what a relay is told."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from pathlib import Path

import pytest

from qmail_core.config import EngineConfig
from qmail_core.errors import ConfigError, ConnectError, Forbidden, TransportError
from qmail_core.transport.smtp import SmtpRelay, relay_of
from qmail_core.transport.web import WebPoster, is_public, poster_of
from tests.server.smtp_sink import Sink

FORBIDDEN = [
    "0.0.0.0", "127.0.0.1", "127.255.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    str(ipaddress.ip_address(0xE0000001)), "255.255.255.255", "240.0.0.1",
    "::", "::1", "fe80::1", "fc00::1", "fec0::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:1.2.3.4", "2002:7f00:1::", "2001:0:1::", "64:ff9b::7f00:1", "64:ff9b:1::1",
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_no_address_of_a_network_behind_this_machine_is_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.2.3.4", "2606:4700::1"])
def test_others_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_the_switch_opens_loopback_and_nothing_else() -> None:
    public = [address for address in FORBIDDEN if is_public(ipaddress.ip_address(address), loopback=True)]
    assert public == ["127.0.0.1", "127.255.0.1", "::1"]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/", "http://localhost:9/", "http://[::1]:9/", "http://2130706433:9/", "http://0x7f.1:9/",
     "http://[::ffff:127.0.0.1]:9/", "http://10.0.0.1/"],
)  # fmt: skip
def test_nothing_is_connected_to_inside(url: str) -> None:
    with pytest.raises((Forbidden, ConnectError)):
        asyncio.run(WebPoster().post(url, b"", {}))


def test_the_address_that_was_looked_at_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> tuple[int, list[str], list[bytes]]:
        heads: list[bytes] = []
        asked: list[str] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while True:  # an answer without an end
                    writer.write(b"1000\r\n%s\r\n" % (b"x" * 4096))
                    await writer.drain()
            except ConnectionError:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def lookup(host: str, port: int, **_: object) -> list[object]:
            asked.append(host)
            return [(2, 1, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup, raising=False)
        status = await WebPoster(loopback=True).post(f"http://hook.example:{port}/a", b"{}", {})
        server.close()
        return status, asked, [head for head in heads if b"hook.example" in head]

    status, asked, heads = asyncio.run(story())
    assert status == 200
    assert asked.count("hook.example") == 1
    assert len(heads) == 1


def test_one_inner_address_among_others_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async def lookup(*_: object, **__: object) -> list[object]:
            return [(2, 1, 6, "", (host, 80)) for host in ("1.2.3.4", "10.0.0.1")]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup, raising=False)
        await WebPoster(loopback=True).post("http://hook.example/", b"", {})

    with pytest.raises(Forbidden):
        asyncio.run(story())


def test_a_poster_is_there_only_when_switched_on() -> None:
    assert poster_of(EngineConfig(data="x")) is None
    assert poster_of(EngineConfig(data="x", webhooks=True)) is not None


def test_settings_of_the_relay(tmp_path: Path) -> None:
    assert relay_of(EngineConfig(data="x")) is None
    for bad in ("relay.example", "relay.example:x", ":25", "relay.example:99999"):
        with pytest.raises(ConfigError):
            relay_of(EngineConfig(data="x", smtp_relay=bad))
    login = tmp_path / "login"
    login.write_text("me:se:cret\n")
    config = EngineConfig(data="x", smtp_relay="relay.example:587", smtp_login=str(login))
    login.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod"):
        relay_of(config)
    os.chmod(login, 0o600)
    relay = relay_of(config)
    assert relay is not None
    assert relay._login == ("me", "se:cret")
    assert "cret" not in repr(relay)
    login.write_text("nonsense\n")
    with pytest.raises(ConfigError):
        relay_of(config)
    with pytest.raises(ConfigError):
        relay_of(EngineConfig(data="x", smtp_relay="relay.example:587", smtp_login=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="TLS"):
        SmtpRelay("relay.example", 25, name="x", login=("a", "b"), starttls=False)


def test_a_relay_without_tls_is_not_spoken_to_unless_allowed() -> None:
    async def story() -> None:
        async with Sink() as sink:
            host, _, port = sink.place.partition(":")
            with pytest.raises(TransportError):
                await SmtpRelay(host, int(port), name="x").submit("a@b.example", ["c@d.example"], b"x\r\n")
            assert sink.mails == []

    asyncio.run(story())


def test_line_ends_are_made_one_kind_and_each_recipient_has_an_answer() -> None:
    async def story() -> None:
        async with Sink(utf8=False) as sink:
            host, _, port = sink.place.partition(":")
            relay = SmtpRelay(host, int(port), name="x", starttls=False)
            sink.refuse = {"no@d.example": "550 5.1.1 nobody"}
            to = ["ok@d.example", "no@d.example", "jö@d.example"]
            refused = await relay.submit("a@b.example", to, b"A: b\n\n.\r.\n\r\nMAIL FROM:<x>\r\n")
            assert {who: (found.code, found.permanent) for who, found in refused.items()} == {
                "no@d.example": (550, True), "jö@d.example": (553, True),
            }  # fmt: skip
            (mail,) = sink.mails
            assert mail.recipients == ["ok@d.example"]
            assert mail.raw == b"A: b\r\n\r\n..\r\n..\r\n\r\nMAIL FROM:<x>\r\n"
            sink.answer = "452 full"
            refused = await relay.submit("a@b.example", ["ok@d.example"], b"x\r\n")
            assert not refused["ok@d.example"].permanent

    asyncio.run(story())
