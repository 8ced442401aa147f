"""Files that are there whole or not at all, also after the power has failed."""

from __future__ import annotations

import os

from qmail_core.folders import sync_folder


def put_in_place(part: str, path: str) -> None:
    """Give a complete file, whose bytes were brought down to the medium, its name; durable when this returns."""
    os.replace(part, path)
    sync_folder(os.path.dirname(path))
