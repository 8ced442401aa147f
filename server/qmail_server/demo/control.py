"""Routes that exist in the demo only: look at the nodes, and play with them."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

from qmail_core.errors import UsageError
from qmail_server.demo.world import ALICE_TEXT, BOB_TEXT, World
from qmail_server.http.respond import Call, Route
from qmail_server.raida import Mode


def routes(world: World) -> list[Route]:
    """`GET /api/demo/nodes`, and `POST /api/demo/nodes/{n}` with `state=up|down|slow|corrupt` for each node."""

    async def show(call: Call) -> dict[str, Any]:
        nodes = await asyncio.to_thread(describe, world)
        return {"success": True, "status": "success", "nodes": nodes, "engines": people(world)}

    def setter(node: int) -> Route:
        async def change(call: Call) -> dict[str, Any]:
            modes: tuple[Mode, ...] = get_args(Mode)
            state = next((mode for mode in modes if mode == call.params.text("state")), None)
            if state is None:
                raise UsageError(f"state must be one of {', '.join(modes)}")
            await asyncio.to_thread(world.network.thread.set_mode, node, state)
            return {"success": True, "status": "success", "node": node, "state": state}

        return Route(f"/api/demo/nodes/{node}", change)

    return [Route("/api/demo/nodes", show, effects=False), *map(setter, range(len(world.network.stores)))]


def people(world: World) -> list[dict[str, str]]:
    """Whose node API listens where."""
    first, _, third = world.ports
    rows = (("Alice", world.alice, ALICE_TEXT, first), ("Bob", world.bob, BOB_TEXT, third))
    return [
        {"name": name, "address": text, "dotted": engine.address_text, "url": f"http://127.0.0.1:{port}/"}
        for name, engine, text, port in rows
    ]


def describe(world: World) -> list[dict[str, Any]]:
    """Every node: how it behaves, what it holds, how busy it was."""
    thread = world.network.thread
    counts = thread.call(lambda: [store.page_count() for store in world.network.stores])
    rows = zip(thread.modes(), counts, world.network.host.requests(), thread.ports(), strict=True)
    return [
        {"node": node, "state": mode, "stripes": stripes, "requests": requests, "port": port}
        for node, (mode, stripes, requests, port) in enumerate(rows)
    ]
