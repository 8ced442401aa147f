"""Workers of the post: turns when woken and now and then, and an end whatever happens at that moment."""

from __future__ import annotations

import asyncio

from qmail_core.engine.post.worker import Worker
from tests.conftest import skip, virtual


def test_a_worker_that_is_woken_while_it_is_stopped_ends() -> None:
    async def story() -> None:
        async def turn() -> None:
            pass

        worker = Worker("test", turn)
        worker.start()
        await asyncio.sleep(0.1)
        worker.wake()
        async with asyncio.timeout(60):
            await worker.stop()

    virtual(story())


def test_turns_are_taken_when_woken_and_now_and_then() -> None:
    async def story() -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            turns += 1
            if turns == 2:
                raise ValueError("is logged, and no end of it")

        worker = Worker("test", turn)
        worker.start()
        await asyncio.sleep(0.1)
        worker.wake()
        await asyncio.sleep(0.1)
        assert turns == 2
        skip(10)
        await asyncio.sleep(3)
        assert turns >= 3
        await worker.stop()

    virtual(story())
