"""The published vectors, read so that nothing in them goes unused.

`consumed` gives a vector whose every value notices that it is looked at. Values nobody looked at fail the test, unless
they are prose. Sizes and annotated fields are compared with `bytes_hex` here, once for all files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "vectors"
# what explains a vector to a reader, and says nothing a program could get wrong
PROSE = """vector spec_ref description note encoding envelope formula name field meaning why actor target step role
    suffix cbdf_ref example_object reason"""
DONE = {*PROSE.split(), "annotated", "length_bytes"}  # the last two are compared with the bytes below


class _Watched(dict[str, Any]):
    """An object that remembers which of its values were asked for."""

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__({key: _watch(value) for key, value in raw.items()})
        self.seen: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        self.seen |= set(self.keys())
        return super().__iter__()

    def items(self) -> Any:
        self.seen |= set(self.keys())
        return super().items()

    def values(self) -> Any:
        self.seen |= set(self.keys())
        return super().values()


class _WatchedList(list[Any]):
    """A list that remembers which of its places were looked at."""

    def __init__(self, raw: list[Any]) -> None:
        super().__init__(map(_watch, raw))
        self.seen: set[int] = set()

    def __getitem__(self, place: Any) -> Any:
        self.seen |= set(range(len(self))[place] if isinstance(place, slice) else [range(len(self))[place]])
        return super().__getitem__(place)

    def __iter__(self) -> Iterator[Any]:
        for place, value in enumerate(super().__iter__()):
            self.seen.add(place)
            yield value


def _watch(value: Any) -> Any:
    if isinstance(value, dict):
        return _Watched(value)
    return _WatchedList(value) if isinstance(value, list) else value


def names(suite: str) -> list[str]:
    """The vector files of a suite."""
    return sorted(path.name for path in (FOLDER / suite).iterdir())


@contextmanager
def consumed(suite: str, name: str) -> Iterator[Any]:
    """A vector whose every value the block must look at."""
    raw = json.loads((FOLDER / suite / name).read_text(encoding="utf-8"))
    compare_bytes(raw)
    vector = _watch(raw)
    yield vector
    left = list(_unseen(vector, name))
    assert not left, f"nothing checks {left}"


def linked(reference: str) -> Any:
    """The vector that another one names as `../SUITE/vectors/NAME`; a test of its own looks at all of it."""
    _, suite, _, name = reference.split("/")
    return json.loads((FOLDER / suite / name).read_text(encoding="utf-8"))


def _unseen(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Watched):
        for key, inner in dict.items(value):
            if key not in DONE:
                yield from _unseen(inner, f"{path}.{key}") if key in value.seen else [f"{path}.{key}"]
    elif isinstance(value, _WatchedList):
        for place, inner in enumerate(list.__iter__(value)):
            yield from _unseen(inner, f"{path}[{place}]") if place in value.seen else [f"{path}[{place}]"]


def compare_bytes(raw: Any) -> None:
    """What is said about bytes is true of them: their number, and the fields they are made of."""
    if isinstance(raw, dict):
        if "bytes_hex" in raw:
            whole = bytes.fromhex(raw["bytes_hex"])
            assert len(whole) == raw.get("length_bytes", len(whole))
            assert b"".join(bytes.fromhex(row["hex"]) for row in raw.get("annotated", ())) in (whole, b"")
        raw = list(raw.values())
    if isinstance(raw, list):
        for inner in raw:
            compare_bytes(inner)
