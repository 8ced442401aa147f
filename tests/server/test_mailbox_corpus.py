"""A thousand messages as the world sends them, through the API and back: no byte is lost, and no answer is a 5xx."""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from qmail_core.codec.mime import decode_part, scan
from tests.codec import mime_corpus, mime_odd
from tests.server.mailbox_client import Client, over
from tests.server.test_mailbox_users import new

SPEC = importlib.util.find_spec("test.test_email")
LIBRARY = sorted((Path(SPEC.origin or "").parent / "data").glob("*")) if SPEC else []
EML = {"content-type": "message/rfc822"}


def check(samples: Iterable[tuple[str, bytes]], *, found: bool = True) -> None:
    """Store every message, with the word a search must find it by, and look at it in every way there is."""

    async def story(api: Client) -> None:
        user = await new(api, "cy")
        box = (await api.ask("GET", f"/users/{user}/mailboxes"))["results"][0]["id"]
        inbox = f"/users/{user}/mailboxes/{box}/messages"
        sizes = 0
        for word, raw in samples:
            stored = (await api.ask("POST", inbox, content=raw, headers=EML))["message"]
            path = f"{inbox}/{stored['name']}"
            assert (await api.http.get(f"{path}/message.eml")).content == raw
            shown = await api.ask("GET", f"{path}?replaceCidLinks=true")
            parts = scan(raw).attachments
            assert [part["id"] for part in shown["attachments"]] == [part.id for part in parts]
            for part in parts:
                answer = await api.http.get(f"{path}/attachments/{part.id}")
                assert answer.status_code == 200
                assert all(value.isprintable() for value in answer.headers.values())
                assert answer.content == decode_part(
                    raw[part.offset : part.offset + part.length], part.transfer_encoding
                )
            if word and found:
                hits = (await api.ask("GET", f"/users/{user}/search", params={"query": word}))["results"]
                assert stored["name"] in [row["id"] for row in hits], (word, raw[:300])
            (row,) = (await api.ask("GET", f"{inbox}?limit=1"))["results"]
            assert (row["id"], row["size"]) == (stored["name"], len(raw))
            sizes += len(raw)
        assert (await api.ask("POST", f"/users/{user}/quota/reset", json={}))["storageUsed"] == sizes

    over(story)


def subject_word(raw: bytes) -> str:
    """A word of the subject that stands there as it is, if there is one."""
    words = re.findall(r"[A-Za-z]{4,}", scan(raw).subject)
    return words[0] if words else ""


@pytest.mark.skipif(not LIBRARY, reason="this interpreter comes without its tests")
def test_messages_of_the_standard_library() -> None:
    raws = [path.read_bytes() for path in LIBRARY if path.is_file()]
    check((subject_word(raw), raw) for raw in raws if raw)


def test_messages_that_are_well_formed() -> None:
    def numbered() -> Iterable[tuple[str, bytes]]:
        for number, raw in enumerate(mime_corpus.messages(250, 7)):
            at = raw.index(b"Subject: ") + 9
            yield f"well{number}", raw[:at] + b"well%d " % number + raw[at:]

    check(numbered())


def test_messages_that_were_broken() -> None:
    draw = random.Random(8)
    check((("", mime_corpus.broken(raw, draw) or b"x") for raw in mime_corpus.messages(250, 8)), found=False)


@pytest.mark.parametrize("seed", [1, 2])
def test_messages_no_library_would_write(seed: int) -> None:
    check(mime_odd.odd(250, seed))
