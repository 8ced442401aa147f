"""What the engine needs of the world beside the RAIDA network: somebody who takes mail, somewhere to post news to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct


class Refusal(Struct, frozen=True):
    """Why a relay did not take a message for somebody."""

    code: int  # of SMTP
    text: str

    @property
    def permanent(self) -> bool:
        """Whether asking again is of no use."""
        return self.code >= 500


class MailRelay(Protocol):
    """Takes mail for addresses that are nobody's here."""

    async def submit(self, sender: str, recipients: Sequence[str], raw: bytes) -> Mapping[str, Refusal]:
        """Hand over a message; returns those it was not taken for.

        sender  of the envelope; empty: none, nobody is told of failures
        raises  TransportError if nothing is known of anybody
        """
        ...


class Poster(Protocol):
    """Posts documents to URLs that users chose, and to no machine they may not reach."""

    def check(self, url: str) -> None:
        """UsageError for a text that is no URL one may post to."""
        ...

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The status of the answer; Forbidden for a place that is not allowed, TransportError."""
        ...
