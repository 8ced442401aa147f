"""Databases as earlier versions left them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources


@contextmanager
def of_schema(version: int, path: str = ":memory:") -> Iterator[sqlite3.Connection]:
    """An empty database after so many migrations."""
    folder = resources.files("qmail_core.store").joinpath("schema")
    scripts = sorted((entry for entry in folder.iterdir() if entry.name[0].isdigit()), key=lambda entry: entry.name)
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA foreign_keys=ON")
        for number, script in enumerate(scripts[:version], start=1):
            db.executescript(f"{script.read_text(encoding='utf-8')}\nPRAGMA user_version={number};")
        yield db
    finally:
        db.close()
