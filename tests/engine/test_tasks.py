"""Tasks: one outcome each, progress that never falls, and nothing left when the engine goes."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

import pytest

from qmail_core.engine import tasks as module
from qmail_core.engine.tasks import Report, Tasks, persevere
from qmail_core.errors import NotFound, QMailError, StoreUnavailable
from tests.conftest import virtual
from tests.engine import clock


def make() -> Tasks:
    numbers = itertools.count()
    return Tasks(clock, lambda size: (next(numbers) // 2).to_bytes(size, "big"))


def test_a_story_that_ends_well() -> None:
    async def main() -> None:
        tasks, seen = make(), []

        async def story(report: Report) -> tuple[str, dict[str, Any]]:
            for progress in (10, 50, 20, 100, 300):
                report(progress, f"at {progress}")
                seen.append(tasks.get("t").progress)
                await asyncio.sleep(1)
            return "done", {"a": 1}

        tasks.start("t", story, "begun")
        assert (tasks.get("t").status, tasks.get("t").message) == ("running", "begun")
        state = await tasks.wait("t")
        assert seen == [10, 50, 50, 99, 99]
        assert (state.status, state.progress, state.message, state.data) == ("success", 100, "done", {"a": 1})
        assert state.finished_at - state.started_at == pytest.approx(5)
        assert await tasks.wait("t") is state

    virtual(main())


@pytest.mark.parametrize(("error", "words"), [(QMailError("no"), "no"), (KeyError("bug"), "Internal error")])
def test_a_story_that_fails(error: Exception, words: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        tasks = make()

        async def story(report: Report) -> tuple[str, dict[str, Any]]:
            report(40, "half")
            raise error

        tasks.start("t", story, "begun")
        state = await tasks.wait("t")
        assert (state.status, state.progress, state.message, state.data) == ("failed", 40, words, None)
        assert state.finished_at

    with caplog.at_level(logging.ERROR):
        virtual(main())
    assert bool(caplog.records) == isinstance(error, KeyError)


def test_ids_are_never_given_twice() -> None:
    async def main() -> None:
        tasks = make()  # its entropy repeats itself

        async def story(report: Report) -> tuple[str, dict[str, Any]]:
            return "", {}

        ids = []
        for _ in range(5):
            ids.append(tasks.new_id())
            tasks.start(ids[-1], story, "")
        assert len(set(ids)) == 5
        await tasks.close()

    virtual(main())


def test_an_unknown_task_is_not_found() -> None:
    async def main() -> None:
        with pytest.raises(NotFound):
            make().get("t")
        with pytest.raises(NotFound):
            await make().wait("t")

    virtual(main())


def test_closing_stops_what_runs() -> None:
    async def main() -> None:
        tasks = make()
        ended = []

        async def story(report: Report) -> tuple[str, dict[str, Any]]:
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append(True)
            return "", {}

        tasks.start("t", story, "")
        await asyncio.sleep(0)
        await tasks.close()
        assert ended == [True]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual(main())


def test_old_tasks_are_forgotten_but_running_ones_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEEP", 3)

    async def main() -> None:
        tasks, gate = make(), asyncio.Event()

        async def story(report: Report) -> tuple[str, dict[str, Any]]:
            await gate.wait()
            return "", {}

        async def quick(report: Report) -> tuple[str, dict[str, Any]]:
            return "", {}

        for number in range(5):
            tasks.start(f"long{number}", story, "")
        for number in range(5):
            tasks.start(f"quick{number}", quick, "")
            await tasks.wait(f"quick{number}")
            await asyncio.sleep(0)
        assert all(tasks.get(f"long{number}").status == "running" for number in range(5))
        with pytest.raises(NotFound):
            tasks.get("quick0")
        gate.set()
        await tasks.close()

    virtual(main())


def test_a_story_whose_end_cannot_be_recorded_is_told_again_after_growing_pauses() -> None:
    async def main() -> None:
        seen: list[tuple[bool, float]] = []
        said: list[str] = []

        async def story(again: bool) -> str:
            seen.append((again, asyncio.get_running_loop().time()))
            if len(seen) < 10:
                raise StoreUnavailable("the disk is full")
            return "told"

        assert await persevere(story, lambda _, text: said.append(text)) == "told"
        assert [again for again, _ in seen] == [False] + [True] * 9
        pauses = [round(after - before) for (_, before), (_, after) in itertools.pairwise(seen)]
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert said == ["Interrupted, and goes on when the store can be written: the disk is full"] * 9

    virtual(main())
