"""Policy.redeem: a locker that paid one node, and what it is worth at the others."""

from __future__ import annotations

import pytest

from qmail_core.codec import cipher, lockers
from qmail_core.codec.mail import build_selector
from qmail_core.codec.packet import Reply
from qmail_core.errors import StoreUnavailable
from qmail_core.model import Coin
from qmail_core.raida.node import Policy

from .client import GUID, NOW, Net, code

PAY = code("PAY")
OTHER_GUID = bytes(16)


def fund(net: Net, coins: list[Coin], *, skip: tuple[int, ...] = ()) -> None:
    for node in range(len(net.nodes)):
        if node not in skip:
            body = lockers.build_put(coins, cipher.locker_key(PAY, node), node)
            assert net.ask(node, 8, 82, body).status == 241


def pay(net: Net, node: int, guid: bytes = GUID) -> int:
    return net.peer(net.tens[0], node).upload(b"x", PAY, guid=guid)


def network(count: int = 5, **policy: float) -> Net:
    return Net(policy=Policy(redeem="network", **policy), count=count)  # type: ignore[arg-type]


def owned(net: Net, node: int) -> dict[int, list[Coin]]:
    """What a node says it has at other nodes; each coin with the number it has there."""
    found: dict[int, list[Coin]] = {}
    for where, pairs in net.nodes[node].state.claimed():
        for at in range(0, len(pairs), 21):
            assert net.nodes[where].state.an(pairs[at : at + 5]) == pairs[at + 5 : at + 21]
            found.setdefault(where, []).append(Coin(net.ones[0].address, pairs[at + 5 : at + 21]))
    return found


def test_by_default_a_locker_can_be_shown_to_several_nodes() -> None:
    net = Net(count=3)
    fund(net, net.ones[:1])
    assert [pay(net, node) for node in range(3)] == [250, 250, 250]
    assert net.errands(0) == 0


def test_a_locker_that_paid_is_worth_nothing_elsewhere() -> None:
    net = network()
    fund(net, net.ones[:2])
    assert pay(net, 1) == 250
    assert net.errands(1) == 1
    assert [pay(net, node, OTHER_GUID) for node in (0, 2, 3, 4)] == [169] * 4
    assert {node: len(coins) for node, coins in owned(net, 1).items()} == {0: 2, 2: 2, 3: 2, 4: 2}
    assert net.errands(1) == 0
    assert pay(net, 1) == 250  # what was paid for stays paid


def test_what_is_under_way_is_not_asked_twice() -> None:
    net = network()
    fund(net, net.ones[:1])
    pay(net, 1)
    (ask,) = net.nodes[1].errands(NOW)
    assert net.nodes[1].errands(NOW) == []
    net.nodes[1].forget_errands()
    assert len(net.nodes[1].errands(NOW)) == 1
    assert repr(net.nodes[1].state.claims_due(NOW, 1)[0]) == "Claim(node 0)"
    assert "PAY" not in repr(ask.inquiry.keys)


def test_nodes_that_are_away_are_asked_later() -> None:
    net = network()
    fund(net, net.ones[:1])
    pay(net, 1)
    net.away = {0, 2}
    assert net.errands(1) == 1
    assert set(owned(net, 1)) == {3, 4}
    assert net.errands(1, NOW + 599) == 0
    net.away.clear()
    assert net.errands(1, NOW + 600) == 1
    assert set(owned(net, 1)) == {0, 2, 3, 4}


def test_a_node_that_never_heard_of_a_locker_or_took_it_has_the_last_word() -> None:
    net = network()
    fund(net, net.ones[:1], skip=(3,))
    assert pay(net, 1) == 250
    assert pay(net, 2) == 250  # before node 1 could empty it there
    assert net.errands(1) == 1
    assert set(owned(net, 1)) == {0, 4}
    assert net.errands(2) == 1
    assert owned(net, 2) == {}
    assert net.errands(1, NOW + 10_000) == net.errands(2, NOW + 10_000) == 0


def test_a_locker_a_node_holds_in_part() -> None:
    net = network(count=3)
    fund(net, net.ones[:2])
    net.nodes[0].state.set_ans([(build_selector(net.ones[1].address), b"elsewhere".ljust(16))])
    net.nodes[0].state.commit()
    assert pay(net, 1) == 250
    assert net.errands(1) == 1
    assert {node: len(coins) for node, coins in owned(net, 1).items()} == {0: 1, 2: 2}


@pytest.mark.parametrize("reply", [(252, b""), (160, b""), (243, b"")])
def test_an_answer_that_says_nothing_is_asked_for_again(reply: tuple[int, bytes]) -> None:
    net = network(count=2)
    fund(net, net.ones[:1])
    pay(net, 1)
    (ask,) = net.nodes[1].errands(NOW)
    net.nodes[1].answered(ask, {0: Reply(0, *reply)}, NOW)
    assert net.errands(1, NOW + 599) == 0
    assert net.errands(1, NOW + 600) == 1


def test_numbers_for_other_nodes_are_committed_with_the_payment() -> None:
    net = network(count=3)
    fund(net, net.ones[:1])
    node = net.nodes[1]
    assert pay(net, 1) == 250
    node.state.rollback()  # a crash before anything was asked
    node.forget_errands()
    assert net.errands(1) == 1
    assert len(owned(net, 1)) == 2


def test_a_failing_state_puts_claims_off(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(count=2)
    fund(net, net.ones[:1])
    pay(net, 1)

    def broken(*_: object) -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(net.nodes[1].state, "claims_due", broken)
        assert net.errands(1) == 0
    assert net.errands(1) == 1
