"""Runs the demo: set up, tour, serve, stop cleanly."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
import webbrowser
from pathlib import Path

import uvloop
from msgspec import Struct

from qmail_core.errors import QMailError
from qmail_server import logs
from qmail_server.connections import Limits, most_connections
from qmail_server.demo import control
from qmail_server.demo.tour import tour
from qmail_server.demo.world import NODE_PORTS, NODES, World
from qmail_server.http.app import EVENT_PORT, build_app
from qmail_server.http.guard import GuardSettings, hosts_for
from qmail_server.memory import collect_seldom, keep_freed
from qmail_server.wiring import HttpServer


class Options(Struct, frozen=True, kw_only=True):
    """What the command line chose."""

    port_base: int = 8080  # Alice listens here and one above, Bob two above
    data: Path | None = None  # None: a temporary folder
    tour: bool = True
    once: bool = False  # end after the tour
    open_page: bool = True  # show the page in a browser
    json: bool = False  # print the tour's figures instead of its lines


def run(options: Options) -> int:
    """Run the demo until Ctrl-C; returns the exit code."""
    keep_freed()
    with tempfile.TemporaryDirectory(prefix="qmail-demo-") as temporary:
        data = (options.data or Path(temporary)).resolve()
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            open(data / "main.log", "a", encoding="utf-8", opener=_private) as log_file,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            logs.configure(stream=log_file)
            try:
                return runner.run(_run(options, data))
            except QMailError as error:
                print(f"qmail demo: {error.message}", file=sys.stderr)
                return 1
            except OSError as error:
                print(f"qmail demo: {error.strerror or error}; another --port-base may help", file=sys.stderr)
                return 1


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


async def _run(options: Options, data: Path) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    begun = time.perf_counter()
    world = World(data, options.port_base)
    servers: list[HttpServer] = []
    try:
        await world.start()
        servers += _servers(world)
        for server in servers:
            await server.start()
        collect_seldom()
        if not options.json:
            print(_welcome(world, options, time.perf_counter() - begun), flush=True)
        if options.tour:
            await _show(world, options)
        if not options.once:
            _invite(world, options)
            await stop.wait()
    finally:
        world.drain()
        for server in servers:
            await server.stop()
        await world.stop()
    if not options.json and not options.once:
        print("\nstopped", flush=True)
    return 0


def _servers(world: World) -> list[HttpServer]:
    first, second, third = world.ports
    extra = control.routes(world)
    limits = Limits(connections=most_connections(2))

    def app(engine: object, *ports: int) -> HttpServer:
        ports += tuple(port + EVENT_PORT for port in ports)
        hosts = frozenset().union(*map(hosts_for, ports))
        # the demo is open on loopback, so that the documented calls run as they are; browsers of other origins are not
        guard = GuardSettings(hosts=hosts, compat_open=True)
        return HttpServer(build_app(engine, guard, extra_routes=extra), ports, limits)  # type: ignore[arg-type]

    return [app(world.alice, first, second), app(world.bob, third)]


async def _show(world: World, options: Options) -> None:
    say = (lambda text: None) if options.json else (lambda text: print(text, flush=True))
    figures = await tour(world, say)
    if options.json:
        print(json.dumps(figures), flush=True)


def _welcome(world: World, options: Options, seconds: float) -> str:
    first, second, third = world.ports
    nodes = options.port_base + NODE_PORTS
    return (
        f"qmail demo, ready in {seconds:.2f} s\n"
        f"  Alice   http://127.0.0.1:{first}/  (also :{second})   {world.alice.address_text}\n"
        f"  Bob     http://127.0.0.1:{third}/                 {world.bob.address_text}\n"
        f"  nodes   127.0.0.1:{nodes}-{nodes + NODES - 1}\n"
        f"  data    {world.data}{'' if options.data else '  (temporary)'}\n"
    )


def _invite(world: World, options: Options) -> None:
    first, second, third = world.ports
    if options.json:
        return
    command = "qmail" if shutil.which("qmail") else shlex.quote(sys.argv[0])  # its environment need not be the shell's
    print(
        f"\nTry it:\n"
        f'  curl "http://localhost:{second}/api/qmail/net/messages/upload_and_tell'
        f'?body=Hello&subject=First&to=%40chariot.harbor.byte"\n'
        f'  curl "http://localhost:{third}/api/qmail/net/beacon/peek"\n'
        f'  curl -X POST -d state=down "http://localhost:{first}/api/demo/nodes/7"\n'
        f"  {command} send --api http://127.0.0.1:{first} --to @chariot.harbor.byte --subject Hi --body Hello\n"
        f"  {command} inbox --api http://127.0.0.1:{third}\n"
        f"Ctrl-C stops.",
        flush=True,
    )
    if options.open_page and sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(f"http://127.0.0.1:{first}/")
