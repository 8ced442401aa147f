"""The page of a mailbox in a real browser: tokens are made, shown once, used and revoked, within the page's policy.

Chromium is told what to do over a pipe, as its own tools do it: messages of JSON that end with a zero byte.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings, hosts_for

from tests.flows.test_browser import CHROMIUM, late, serving
from tests.server.scenes import new_world

TOKEN = "p" * 43
NAME = "Backup <img src=x onerror=alert(1)>"


class Tab:
    """One page of a browser."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}
        self.said: list[dict[str, Any]] = []  # what happened in the page

    async def open(self, url: str) -> None:
        target = (await self.ask("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            await self.ask(f"{domain}.enable")
        await self.ask("Page.navigate", url=url)

    async def ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **self._session}
        self._writer.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.said.append(answer)

    async def value(self, script: str) -> Any:
        found = await self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str) -> Any:
        """The first value that is true."""
        async with asyncio.timeout(30):
            while not (found := await self.value(script)):  # noqa: ASYNC110 - it is asked of another process
                await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Tab]:
    """Chromium with its pipes on the descriptors it expects them on."""
    assert CHROMIUM is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    options = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --no-proxy-server"
    command = f'exec "$0" {options} --remote-debugging-pipe --user-data-dir="$1" 3<&{theirs_in} 4>&{theirs_out}'
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, CHROMIUM, str(folder), pass_fds=(theirs_in, theirs_out), stdout=quiet, stderr=quiet
    )
    os.close(theirs_in)
    os.close(theirs_out)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=16 << 20)
    incoming, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours_in, "rb", buffering=0)
    )
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(ours_out, "wb", buffering=0)
    )
    try:
        yield Tab(reader, asyncio.StreamWriter(transport, protocol, None, loop))
    finally:
        process.terminate()
        await process.wait()
        transport.close()
        incoming.close()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.skipif("QMAIL_TEST_BROWSER" not in os.environ, reason="needs a while; scripts/long-tests runs it")
@pytest.mark.timeout(120)
def test_tokens_are_made_shown_once_and_revoked(tmp_path: Path) -> None:
    asyncio.run(story(tmp_path))


async def story(folder: Path) -> None:
    hosts: set[str] = set()
    async with new_world() as world:
        app = late(lambda: build_app(world.bob, GuardSettings(hosts=frozenset(hosts), token=TOKEN)))
        async with serving(app) as port, browser(folder) as tab, httpx.AsyncClient(trust_env=False) as http:
            hosts |= hosts_for(port)
            home = f"http://127.0.0.1:{port}"

            async def status(token: str) -> int:
                return (await http.get(f"{home}/api/pin", headers={"Authorization": f"Bearer {token}"})).status_code

            await tab.open(f"{home}/#token={TOKEN}")
            known = len(world.bob.transfer.tokens.listed())
            await tab.until(f"document.querySelectorAll('#tokens li').length === {max(known, 1)}")
            await tab.value(
                f"document.querySelector('#new-token input').value = {json.dumps(NAME)};"
                "document.querySelector('#new-token').requestSubmit()"
            )
            made = await tab.until("document.querySelector('#made-text').textContent")
            assert len(made) == 60
            assert await status(made) == 200
            # the name is text, whatever it says
            last = "[...document.querySelectorAll('#tokens li')].find(li => li.textContent.startsWith('Backup'))"
            assert NAME in await tab.until(f"{last}?.textContent")
            assert await tab.value("document.querySelectorAll('img').length") == 0
            assert made not in await tab.value("document.querySelector('#tokens').textContent")
            await tab.value(f"window.confirm = () => true; {last}.querySelector('button').click()")
            await tab.until(f"!{last}")
            assert await status(made) == 401
            assert await tab.value("document.body.textContent.includes(" + json.dumps(made) + ")") is False
            assert [one for one in tab.said if is_trouble(one)] == []


def is_trouble(said: dict[str, Any]) -> bool:
    """Whether a page failed or was refused something; a missing icon, and routes of the demo alone, are no trouble."""
    if said.get("method") == "Log.entryAdded":
        return not said["params"]["entry"].get("url", "").endswith(("/favicon.ico", "/api/demo/nodes"))
    return said.get("method") == "Runtime.exceptionThrown"
