"""A cluster in memory and its engines."""

from __future__ import annotations

import asyncio

from qmail_core.embed import Cluster

NAMES = ("ada", "bob", "cy")


def test_engines_that_start_at_the_same_time_share_nothing_and_know_each_other() -> None:
    async def story() -> None:
        async with Cluster(5) as cluster:
            engines = await asyncio.gather(*(cluster.engine(name) for name in NAMES))
            assert len({engine.config.data for engine in engines}) == len(NAMES)
            assert len({engine.address for engine in engines}) == len(NAMES)
            for engine in engines:
                assert {engine.people.resolve(name) for name in NAMES} == {one.address for one in engines}

    asyncio.run(story())
