"""Servers of the transfer bench, each a process of its own: `python -m bench.transfer_site WHAT PORT FOLDER`.

qmail      one engine with every layer on: tokens, limits, the access line, sealed files below FOLDER; its nodes are in
           memory and never asked
starlette  a bare application: a body goes to a file below FOLDER as it comes, and comes back from it; nothing is sealed
           or summed, no thread is asked, no path has a token
Both run under the same uvicorn (httptools, uvloop, no access log of its own).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
import uvloop
from qmail_server import logs, wiring
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings, hosts_for
from qmail_server.memory import keep_freed
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from bench.api_site import TOKEN, Opened
from qmail_core.store.mailbox import HOME

PIN = "1234"
CHUNK = 512 * 1024  # what the bare application reads at a time: the best of 64 KiB to 4 MiB


async def _qmail(port: int, folder: Path) -> None:
    opened = Opened(folder)
    logs.configure("INFO", stream=open(folder / "log", "w", encoding="utf-8"))  # noqa: SIM115, ASYNC230
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with opened.engine as engine:
        await engine.transfer.pins.set(HOME, PIN)
        _, token = await engine.transfer.tokens.create("bench")
        server = wiring.HttpServer(build_app(engine, GuardSettings(hosts=hosts_for(port), token=TOKEN)), [port])
        await server.start()
        print(json.dumps({"token": token}), flush=True)
        await stop.wait()
        await server.stop()


def _starlette(folder: Path) -> Starlette:
    place = folder / "plain"

    async def upload(request: Request) -> JSONResponse:
        with open(place, "wb", buffering=0) as file:  # noqa: ASYNC230
            async for chunk in request.stream():
                file.write(chunk)
            os.fsync(file.fileno())
        return JSONResponse({"size": place.stat().st_size})

    async def parts() -> AsyncIterator[bytes]:
        with open(place, "rb", buffering=0) as file:  # noqa: ASYNC230
            while part := file.read(CHUNK):
                yield part

    async def download(request: Request) -> StreamingResponse:
        return StreamingResponse(parts(), headers={"content-length": str(place.stat().st_size)})

    return Starlette(routes=[Route("/", upload, methods=["POST"]), Route("/", download)])


async def _bare(port: int, folder: Path) -> None:
    config = uvicorn.Config(
        _starlette(folder), port=port, http="httptools", loop="none", lifespan="off", log_config=None,
        access_log=False, server_header=False,
    )  # fmt: skip
    print("{}", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await uvicorn.Server(config).serve()


def main() -> None:
    what, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if what == "qmail":
        keep_freed()  # as `qmail serve` does
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run((_qmail if what == "qmail" else _bare)(port, folder))


if __name__ == "__main__":
    main()
