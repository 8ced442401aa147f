"""The composition root: which transport a configuration asks for."""

from __future__ import annotations

import asyncio

import pytest
from qmail_server import wiring

from qmail_core.config import EngineConfig
from qmail_core.transport.tcp import TcpTransport
from qmail_core.transport.udp import UdpTransport


@pytest.mark.parametrize(("udp", "kind"), [(False, TcpTransport), (True, UdpTransport)])
def test_datagrams_are_used_when_asked_for(udp: bool, kind: type) -> None:
    async def story() -> None:
        places = [("127.0.0.1", 5), ("127.0.0.1", 6)]
        transport = wiring.client(EngineConfig(data="x", udp=udp), places)
        assert type(transport) is kind
        assert [transport.location(node) for node in range(transport.nodes())] == places
        await transport.close()

    asyncio.run(story())
