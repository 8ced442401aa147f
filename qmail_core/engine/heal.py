"""Healing: coins that more than half of the nodes accept are mended at the nodes that do not.

The nodes that accept a coin give tickets; the others are handed these and take the word of those who gave them. The
new numbers are in the store before they are asked to; a number a node refused is worth nothing, so nothing can be lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from qmail_core.codec import coins as codec
from qmail_core.codec import consts as c
from qmail_core.codec import healing
from qmail_core.codec.packet import Reply
from qmail_core.engine.context import Context
from qmail_core.model import AN_SIZE, Coin, CoinHealth

log = logging.getLogger("qmail.wallet")

AT_ONCE = 200  # coins looked at under one hold of the purse's lock

Passes = Mapping[int, Sequence[bool]]  # by node and position of the coin; a node that did not say is left out


class Healer:
    """Looks after the coins of wallets."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def heal(self, listed: Sequence[Coin]) -> list[CoinHealth]:
        """Mend some coins of a wallet; those that did not pass everywhere are in the answer."""
        passes = await self._detect(listed)
        words = [self._word(passes, position) for position in range(len(listed))]
        fracked = [at for at, word in enumerate(words) if "f" in word and word.count("p") >= self._ctx.quorum]
        after = dict(enumerate(words))
        if fracked:
            part = [listed[at] for at in fracked]
            fixed = await self._fix(part, [words[at] for at in fracked])
            after |= {at: _mended(words[at], fixed, row) for row, at in enumerate(fracked)}
        return [
            CoinHealth(coin.address, words[at], after[at]) for at, coin in enumerate(listed) if set(words[at]) != {"p"}
        ]

    def _word(self, passes: Passes, position: int) -> str:
        nodes = range(self._ctx.nodes)
        return "".join("u" if node not in passes else "p" if passes[node][position] else "f" for node in nodes)

    async def _detect(self, listed: Sequence[Coin]) -> Passes:
        bodies = {node: codec.build_detect(listed, node) for node in range(self._ctx.nodes)}
        found, _ = await self._ctx.poll(
            c.GROUP_AUTH, c.CMD_DETECT, bodies, lambda reply: codec.parse_verdict(reply, len(listed))
        )
        return found

    async def _fix(self, part: Sequence[Coin], words: Sequence[str]) -> dict[int, dict[int, bool]]:
        """Have coins fixed where they failed: by node and row, whether it worked."""
        tickets = await self._tickets(part, words)
        failed = {
            node: rows
            for node in range(self._ctx.nodes)
            if (rows := [row for row, word in enumerate(words) if word[node] == "f"])
        }
        seeds = {node: self._ctx.entropy(c.SEED_SIZE) for node in failed}
        await self._ctx.store.wallet.renew((coin, _renewed(coin, row, failed, seeds)) for row, coin in enumerate(part))
        bodies = {
            node: healing.build_fix([part[row].address for row in rows], seeds[node], tickets)
            for node, rows in failed.items()
        }

        def judge(reply: Reply) -> list[bool]:
            return codec.parse_verdict(reply, len(failed[reply.node]))

        found, _ = await self._ctx.poll(c.GROUP_HEALING, c.CMD_FIX, bodies, judge)
        return {node: dict(zip(failed[node], passed, strict=True)) for node, passed in found.items()}

    async def _tickets(self, part: Sequence[Coin], words: Sequence[str]) -> list[int]:
        """A ticket of each node that vouches for any of the coins."""
        places = range(min(self._ctx.nodes, c.MAX_TICKETS))
        good = {node: [coin for coin, word in zip(part, words, strict=True) if word[node] == "p"] for node in places}
        bodies = {node: healing.build_get_ticket(coins, node) for node, coins in good.items() if coins}

        def judge(reply: Reply) -> int:
            return healing.parse_ticket(reply, len(good[reply.node]))[1]

        found, _ = await self._ctx.poll(c.GROUP_HEALING, c.CMD_GET_TICKET, bodies, judge)
        return [found.get(node, healing.NO_TICKET) for node in places]


def _renewed(coin: Coin, row: int, failed: Mapping[int, Sequence[int]], seeds: Mapping[int, bytes]) -> Coin:
    """The coin with the numbers it gets where it failed."""
    ans = bytearray(coin.ans)
    for node, rows in failed.items():
        if row in rows:
            ans[node * AN_SIZE : (node + 1) * AN_SIZE] = healing.healed_an(node, coin.address, seeds[node])
    return Coin(coin.address, bytes(ans))


def _mended(word: str, fixed: Mapping[int, Mapping[int, bool]], row: int) -> str:
    return "".join("p" if fixed.get(node, {}).get(row) else letter for node, letter in enumerate(word))
