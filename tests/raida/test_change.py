"""raida.change: serial numbers for sessions, break and join."""

from __future__ import annotations

import pytest

from qmail_core.codec import change
from qmail_core.codec import consts as c
from qmail_core.codec.change import Operation
from qmail_core.codec.mail import build_selector
from qmail_core.codec.packet import Reply
from qmail_core.model import Address, Coin

from .client import NOW, Net

S = 7  # a session, and so its page


@pytest.fixture
def net() -> Net:
    return Net(count=1)


def offered(net: Net, session: int, operation: Operation, denomination: int, now: float = NOW) -> list[int]:
    reply = net.ask(0, 9, 91, change.build_available(session, operation, denomination), now=now)
    assert reply.status == 250
    found, serials = change.parse_serials(reply.payload)
    assert found == denomination
    return serials


def parts(serials: list[int], denomination: int = 0) -> list[Coin]:
    return [Coin(Address(denomination, serial), bytes((i + 1,)) * 16) for i, serial in enumerate(serials[:10])]


def ask(net: Net, command: int, one: Coin, ten: list[Coin], session: int = S, now: float = NOW) -> Reply:
    return net.ask(0, 9, command, change.build_change(session, one, ten, 0), now=now)


def an(net: Net, coin: Coin) -> bytes | None:
    return net.nodes[0].state.an(build_selector(coin.address))


def worth(net: Net) -> int:
    """Value of all coins the node knows, in 10^-8 CC."""
    known = net.nodes[0].state._ans  # type: ignore[attr-defined]
    return sum(10 ** (int.from_bytes(s[:1], "big", signed=True) + 8) for s in known)


def test_a_session_is_led_to_a_page(net: Net) -> None:
    serials = offered(net, S, Operation.BREAK, 0)
    assert serials == list(range(S * 1024, S * 1024 + 64))
    assert offered(net, S, Operation.BREAK, 0) == serials
    assert offered(net, 2_000_000_007, Operation.BREAK, 0) == [sn + 1024 for sn in serials]  # the page is taken
    assert offered(net, S, Operation.JOIN, 1) == serials  # of another denomination
    assert offered(net, 2_000_000_007, Operation.BREAK, 0, NOW + 17) == serials


def test_serials_in_use_and_zero_are_not_offered(net: Net) -> None:
    assert offered(net, 0, Operation.BREAK, 0)[0] == 21  # the ones minted have 1 to 20
    assert offered(net, 0, Operation.JOIN, 4)[0] == 1


def test_a_full_page_leads_to_the_next(net: Net) -> None:
    state = net.nodes[0].state
    state.set_ans((build_selector(Address(0, serial)), b"x" * 16) for serial in range(S * 1024, (S + 1) * 1024 - 5))
    assert offered(net, S, Operation.BREAK, 0) == list(range((S + 1) * 1024 - 5, (S + 1) * 1024))
    state.set_ans((build_selector(Address(0, serial)), b"x" * 16) for serial in range(S * 1024, (S + 40) * 1024))
    answer = net.ask(0, 9, 91, change.build_available(S, Operation.BREAK, 0))
    assert answer.status == c.STATUS_SN_NOT_AVAILABLE


@pytest.mark.parametrize(("operation", "good", "bad"), [(1, range(-8, 6), (-9, 6, 7)), (2, range(-7, 7), (-8, 7, 11))])
def test_denominations_that_can_be_made(net: Net, operation: int, good: range, bad: tuple[int, ...]) -> None:
    body = {d: S.to_bytes(4, "big") + bytes((operation, d & 255)) for d in (*good, *bad)}
    assert {net.ask(0, 9, 91, body[d]).status for d in good} == {250}
    assert {net.ask(0, 9, 91, body[d]).status for d in bad} == {c.STATUS_INVALID_PARAMETER}


@pytest.mark.parametrize("operation", [0, 3, 255])
def test_unknown_operations(net: Net, operation: int) -> None:
    assert net.ask(0, 9, 91, bytes((0, 0, 0, 1, operation, 0))).status == c.STATUS_INVALID_PARAMETER


@pytest.mark.parametrize(("command", "size"), [(91, 5), (91, 7), (92, 234), (92, 236), (93, 0), (93, 236)])
def test_wrong_lengths(net: Net, command: int, size: int) -> None:
    assert net.ask(0, 9, command, bytes(size)).status == c.STATUS_PACKET_LENGTH


def test_break_and_join_again(net: Net) -> None:
    one, total = net.tens[0], worth(net)
    ten = parts(offered(net, S, Operation.BREAK, 0))
    assert ask(net, 92, one, ten).status == 250
    assert an(net, one) is None
    assert [an(net, coin) for coin in ten] == [coin.an(0) for coin in ten]
    assert worth(net) == total
    whole = Coin(Address(1, offered(net, S, Operation.JOIN, 1)[3]), b"w" * 16)
    assert ask(net, 93, whole, ten).status == 250
    assert [an(net, coin) for coin in ten] == [None] * 10
    assert an(net, whole) == b"w" * 16
    assert worth(net) == total
    assert ask(net, 93, whole, ten).status == c.STATUS_SN_NOT_AVAILABLE


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ("no session", 41),
        ("another session", 41),
        ("too late", 41),
        ("serial not offered", 41),
        ("serial taken meanwhile", 215),
        ("unknown coin", 40),
        ("wrong number", 200),
        ("serial twice", 198),
        ("wrong denomination", 198),
        ("mixed denominations", 198),
    ],
)
def test_a_break_that_is_refused_changes_nothing(net: Net, case: str, status: int) -> None:
    one = net.tens[0]
    serials = list(range(S * 1024, S * 1024 + 64)) if case == "no session" else offered(net, S, Operation.BREAK, 0)
    ten, session, now = parts(serials), S, NOW
    match case:
        case "another session":
            session = S + 1000
        case "too late":
            now += 16
        case "serial not offered":
            ten[9] = Coin(Address(0, S * 1024 + 64), b"p" * 16)
        case "serial taken meanwhile":
            net.nodes[0].state.set_ans([(build_selector(ten[4].address), b"x" * 16)])
        case "unknown coin":
            one = Coin(Address(1, 999), bytes(16))
        case "wrong number":
            one = Coin(one.address, bytes(16))
        case "serial twice":
            ten[9] = ten[0]
        case "wrong denomination":
            ten = [Coin(Address(1, coin.address.serial), coin.ans) for coin in ten]
        case "mixed denominations":
            ten[9] = Coin(Address(-1, ten[9].address.serial), ten[9].ans)
    before = dict(net.nodes[0].state._ans)  # type: ignore[attr-defined]
    assert ask(net, 92, one, ten, session, now).status == status
    assert net.nodes[0].state._ans == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(("case", "status"), [("unknown coin", 40), ("wrong number", 200), ("coin twice", 198)])
def test_a_join_needs_ten_good_coins(net: Net, case: str, status: int) -> None:
    ten = net.ones[:10]
    whole = Coin(Address(1, offered(net, S, Operation.JOIN, 1)[0]), b"w" * 16)
    ten[9] = {
        "unknown coin": Coin(Address(0, 999), bytes(16)),
        "wrong number": Coin(ten[9].address, bytes(16)),
        "coin twice": ten[0],
    }[case]
    total = worth(net)
    assert ask(net, 93, whole, ten).status == status
    assert worth(net) == total
    assert an(net, whole) is None


def test_two_sessions_never_make_the_same_coin(net: Net) -> None:
    first = parts(offered(net, S, Operation.BREAK, 0))
    assert ask(net, 92, net.tens[1], first, S + 1000).status == c.STATUS_PAGE_NOT_RESERVED
    other = parts(offered(net, S + 1000, Operation.BREAK, 0))
    assert not {coin.address for coin in first} & {coin.address for coin in other}
    assert ask(net, 92, net.tens[0], first).status == 250
    assert ask(net, 92, net.tens[1], other, S + 1000).status == 250
