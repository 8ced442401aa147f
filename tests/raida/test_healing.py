"""raida.healing: tickets, find, and fix by the word of the other nodes."""

from __future__ import annotations

import pytest

from qmail_core.codec import coins, healing
from qmail_core.codec import consts as c
from qmail_core.codec.healing import Held, healed_an
from qmail_core.codec.mail import build_selector
from qmail_core.codec.packet import Reply
from qmail_core.model import Address, Coin
from qmail_core.raida.node import Policy

from .client import NOW, Net, frame_of, opened, request

PG = bytes(range(16))
UNKNOWN = Address(1, 999)


@pytest.fixture
def net() -> Net:
    return Net()


def lose(net: Net, node: int, *lost: Coin) -> None:
    """Let a node hold other numbers."""
    net.nodes[node].state.set_ans((build_selector(coin.address), b"lost".ljust(16)) for coin in lost)
    net.nodes[node].state.commit()


def ticket(net: Net, node: int, listed: list[Coin], now: float = NOW) -> int:
    reply = net.ask(node, 2, 40, healing.build_get_ticket(listed, node), now=now)
    return healing.parse_ticket(reply, len(listed))[1]


def tickets(net: Net, listed: list[Coin], nodes: range | list[int]) -> list[int]:
    return [ticket(net, node, listed) if node in nodes else 0 for node in range(len(net.nodes))]


def fix(net: Net, node: int, listed: list[Coin], given: list[int]) -> Reply:
    return net.ask(node, 2, 80, healing.build_fix([coin.address for coin in listed], PG, given))


def holds(net: Net, node: int, coin: Coin, an: bytes) -> bool:
    return net.nodes[node].state.an(build_selector(coin.address)) == an


# ------------------------------------------------------------------------------------------------------- tickets


def test_tickets_for_all_some_and_none(net: Net) -> None:
    good, bad = net.tens[0], Coin(UNKNOWN, bytes(400))
    assert net.ask(3, 2, 40, healing.build_get_ticket([good], 3)).status == 241
    mixed = net.ask(3, 2, 40, healing.build_get_ticket([bad, good], 3))
    assert mixed.status == 243
    passed, number = healing.parse_ticket(mixed, 2)
    assert passed == [False, True]
    assert net.ask(3, 2, 40, healing.build_get_ticket([bad], 3)).status == 242
    answer = net.ask(3, 2, 50, healing.build_validate(7, number))
    assert (answer.status, coins.parse_coin_list(answer.payload)) == (250, (good.address,))


def test_a_ticket_serves_each_node_once(net: Net) -> None:
    number = ticket(net, 3, net.tens[:2])
    assert net.ask(3, 2, 50, healing.build_validate(7, number)).status == 250
    assert net.ask(3, 2, 50, healing.build_validate(7, number)).status == c.STATUS_TICKET_CLAIMED
    assert net.ask(3, 2, 50, healing.build_validate(8, number)).status == 250
    assert net.ask(3, 2, 50, healing.build_validate(25, number)).status == c.STATUS_WRONG_RAIDA
    assert net.ask(3, 2, 50, healing.build_validate(9, number ^ 1)).status == c.STATUS_TICKET_NOT_FOUND
    assert net.ask(3, 2, 50, healing.build_validate(9, 0)).status == c.STATUS_TICKET_NOT_FOUND


def test_tickets_end(net: Net) -> None:
    number = ticket(net, 3, net.tens[:2])
    assert net.ask(3, 2, 50, healing.build_validate(7, number), now=NOW + 59).status == 250
    assert net.ask(3, 2, 50, healing.build_validate(8, number), now=NOW + 60).status == c.STATUS_TICKET_NOT_FOUND


def test_slots_are_limited_and_become_free() -> None:
    net = Net(policy=Policy(ticket_slots=2))
    body = healing.build_get_ticket(net.tens[:1], 0)
    assert [net.ask(0, 2, 40, body, now=NOW + at).status for at in (0, 1, 2)] == [241, 241, 42]
    assert net.ask(0, 2, 40, body, now=NOW + 60).status == 241


def test_a_coin_that_changed_hands_is_not_vouched_for(net: Net) -> None:
    one, two = net.tens[:2]
    number, other = ticket(net, 3, [one, two]), ticket(net, 3, [one])
    lose(net, 3, one)
    answer = net.ask(3, 2, 50, healing.build_validate(7, number))
    assert coins.parse_coin_list(answer.payload) == (two.address,)
    assert net.ask(3, 2, 50, healing.build_validate(7, other)).status == c.STATUS_TICKET_NOT_FOUND


@pytest.mark.parametrize(("command", "least", "step"), [(40, 21, 21), (60, 37, 37), (80, 121, 5)])
def test_lists_that_do_not_divide(net: Net, command: int, least: int, step: int) -> None:
    for size in (0, least - 1):
        assert net.ask(0, 2, command, bytes(size)).status == c.STATUS_PACKET_LENGTH
    for extra in range(1, step):
        assert net.ask(0, 2, command, bytes(least + extra)).status == c.STATUS_NOT_DIVISIBLE


def test_questions_of_a_wrong_length(net: Net) -> None:
    for size in (0, 4, 6):
        assert net.ask(0, 2, 50, bytes(size)).status == c.STATUS_PACKET_LENGTH


# ---------------------------------------------------------------------------------------------------------- find


@pytest.mark.parametrize(
    ("held", "status"),
    [
        ([Held.AN, Held.AN], 209),
        ([Held.PAN, Held.PAN], 210),
        ([Held.NEITHER, Held.NEITHER], 208),
        ([Held.PAN, Held.NEITHER, Held.AN], 211),
    ],
)
def test_find(net: Net, held: list[Held], status: int) -> None:
    other = [Coin(coin.address, b"o" * 400) for coin in net.tens]
    an = [coin if kind == Held.AN else no for coin, no, kind in zip(net.tens, other, held, strict=False)]
    pan = [coin if kind == Held.PAN else no for coin, no, kind in zip(net.tens, other, held, strict=False)]
    reply = net.ask(5, 2, 60, healing.build_find(an, pan, 5))
    assert reply.status == status
    assert healing.parse_found(reply, len(held)) == held


# ----------------------------------------------------------------------------------------------------------- fix


def test_a_lost_coin_is_fixed_by_13_others(net: Net) -> None:
    coin = net.tens[0]
    lose(net, 11, coin)
    assert fix(net, 11, [coin], tickets(net, [coin], range(13))).status == 242  # 12: node 11 does not vouch for itself
    assert holds(net, 11, coin, b"lost".ljust(16))
    assert fix(net, 11, [coin], tickets(net, [coin], [*range(11), 12, 13])).status == 241
    assert holds(net, 11, coin, healed_an(11, coin.address, PG))


def test_too_few_tickets_ask_nobody(net: Net) -> None:
    coin = net.tens[0]
    assert fix(net, 24, [coin], [1] * 12).status == 242
    assert fix(net, 0, [coin], [1] * 13).status == 242
    assert net.questions == 0


def test_nodes_that_are_away_do_not_vouch(net: Net) -> None:
    coin = net.tens[0]
    given = tickets(net, [coin], range(25))
    lose(net, 24, coin)
    net.away = set(range(12))
    assert fix(net, 24, [coin], given).status == 242
    net.away.clear()
    # tickets were claimed by node 24 where it reached them: 12 nodes refuse, 12 vouch
    assert fix(net, 24, [coin], given).status == 242
    assert fix(net, 24, [coin], tickets(net, [coin], range(24))).status == 241


def test_some_coins_are_fixed(net: Net) -> None:
    known, never = net.tens[0], Coin(UNKNOWN, bytes(400))
    reply = fix(net, 2, [never, known], tickets(net, [known], range(25)))
    assert reply.status == 243
    assert coins.parse_bitmap(reply.payload, 2) == [False, True]
    assert not holds(net, 2, never, healed_an(2, never.address, PG))


def test_a_node_learns_of_a_coin_it_never_knew(net: Net) -> None:
    coin = Coin(UNKNOWN, b"n" * 400)
    for node in range(20):
        net.nodes[node].state.set_ans([(build_selector(coin.address), coin.an(node))])
        net.nodes[node].state.commit()
    assert fix(net, 22, [coin], tickets(net, [coin], range(20))).status == 241
    assert holds(net, 22, coin, healed_an(22, coin.address, PG))


@pytest.mark.parametrize(("count", "needed"), [(2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_smaller_networks_need_more_than_half(count: int, needed: int) -> None:
    net = Net(count=count)
    coin, last = net.tens[0], count - 1
    for have in range(count):
        lose(net, last, coin)
        reply = fix(net, last, [coin], tickets(net, [coin], range(have)))
        assert reply.status == (241 if have >= needed else 242)


def test_nonsense_is_no_vote(net: Net) -> None:
    coin = net.tens[0]
    body = healing.build_fix([coin.address], PG, tickets(net, [coin], range(24)))
    sent = request(24, 2, 80, body)
    outcome = net.nodes[24].handle(frame_of(sent), NOW)
    assert outcome.ask is not None
    replies = {node: Reply(node, 250, b"odd") for node in range(24)}
    assert opened(sent, net.nodes[24].answered(outcome.ask, replies, NOW)).status == 242


def test_a_failing_state_is_a_status(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    coin = net.tens[0]
    given = tickets(net, [coin], range(24))

    def broken(_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(net.nodes[24].state, "set_ans", broken)
    assert fix(net, 24, [coin], given).status == c.STATUS_INTERNAL
