"""Whatever is asked of the nodes, in whatever order and by whomever: value is neither made nor lost, and nobody loses
a coin without having shown its number."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core.codec import change, cipher, coins, lockers
from qmail_core.codec.change import Operation
from qmail_core.codec.mail import build_selector
from qmail_core.model import Address, Coin

from .client import Net, code, entropy

NODES = 25
Held = dict[Address, Coin]


def worth(addresses: list[Address]) -> int:
    """In 10^-8 CC."""
    return sum(10 ** (address.denomination + 8) for address in addresses)


class Story:
    """An owner who changes its coins, some nodes missing each change; a thief who knows only what is public."""

    def __init__(self) -> None:
        self.net = Net(count=NODES)
        self.total = [self.worth(node) for node in range(NODES)]
        # what the owner holds, node by node: a request that a node missed leaves its old coins there
        self.held: list[Held] = [{coin.address: coin for coin in self.net.tens} for _ in range(NODES)]
        self.drawn = 0
        self.session = 0

    def worth(self, node: int) -> int:
        selectors = self.net.nodes[node].state._ans  # type: ignore[attr-defined]
        return worth([coins.parse_coin_list(selector)[0] for selector in selectors])

    def fresh(self, addresses: list[Address]) -> list[Coin]:
        self.drawn += 1
        return [Coin(address, entropy(16) * NODES) for address in addresses]

    def pown(self, node: int, size: int) -> None:
        old = list(self.held[node].values())[:size]
        new = self.fresh([coin.address for coin in old])
        if old:
            assert self.net.ask(node, 1, 20, coins.build_pown(old, new, node)).status == 241
            self.renew(node, new)

    def renew(self, node: int, new: list[Coin]) -> None:
        self.held[node] |= {coin.address: coin for coin in new}

    def locker(self, node: int, size: int) -> None:
        """Into a locker and out again."""
        listed = list(self.held[node].values())[:size]
        if len({coin.an(node) for coin in listed}) < max(len(listed), 1):
            return
        key = cipher.locker_key(code(f"L{self.drawn}"), node)
        assert self.net.ask(node, 8, 82, lockers.build_put(listed, key, node)).status == 241
        new = self.fresh([coin.address for coin in listed])
        if size % 2:
            seed = bytes((self.drawn & 255,)) * 16
            assert self.net.ask(node, 8, 8, lockers.build_download(key, seed)).status == 241
            new = [Coin(coin.address, lockers.seeded_an(coin.address, seed) * NODES) for coin in listed]
        else:
            assert self.net.ask(node, 8, 84, lockers.build_remove(key, new, node)).status == 241
        self.renew(node, new)

    def offer(self, node: int, operation: Operation, denomination: int) -> list[int]:
        reply = self.net.ask(node, 9, 91, change.build_available(self.session, operation, denomination))
        return change.parse_serials(reply.payload)[1] if reply.status == 250 else []

    def split(self, node: int, size: int) -> None:
        large = [coin for coin in self.held[node].values() if coin.address.denomination > -8]
        if large:
            one = large[size % len(large)]
            below = one.address.denomination - 1
            serials = self.offer(node, Operation.BREAK, below)[size:]
            self.swap(node, 92, one, self.fresh([Address(below, serial) for serial in serials[:10]]))

    def join(self, node: int, size: int) -> None:
        for denomination in range(-8, 6):
            ten = [coin for coin in self.held[node].values() if coin.address.denomination == denomination][:10]
            if len(ten) == 10:
                serials = self.offer(node, Operation.JOIN, denomination + 1)
                (one,) = self.fresh([Address(denomination + 1, serials[size])])
                self.swap(node, 93, one, ten)
                return

    def swap(self, node: int, command: int, one: Coin, ten: list[Coin]) -> None:
        status = self.net.ask(node, 9, command, change.build_change(self.session, one, ten, node)).status
        assert status == 250
        given, taken = ([one], ten) if command == 92 else (ten, [one])
        for coin in given:
            del self.held[node][coin.address]
        self.held[node] |= {coin.address: coin for coin in taken}

    def steal(self, node: int, size: int) -> None:
        """Everything that could be tried without a secret."""
        listed = [Coin(address, bytes(400)) for address in list(self.held[node])[: size + 1]]
        mine = self.fresh([coin.address for coin in listed])
        key = cipher.locker_key(code("THIEF"), node)
        self.net.ask(node, 1, 20, coins.build_pown(listed, mine, node))
        self.net.ask(node, 1, 21, coins.build_pown_sum(listed, b"d" * 16, node))
        self.net.ask(node, 8, 82, lockers.build_put(listed, key, node))
        self.net.ask(node, 8, 84, lockers.build_remove(key, mine, node))
        one = listed[0]
        serials = self.offer(node, Operation.BREAK, one.address.denomination - 1)
        ten = self.fresh([Address(one.address.denomination - 1, serial) for serial in serials[:10]])
        if len(ten) == 10:
            self.net.ask(node, 9, 92, change.build_change(self.session, one, ten, node))
        if len(listed) >= 10:
            (whole,) = self.fresh([Address(one.address.denomination + 1, 5)])
            self.net.ask(node, 9, 93, change.build_change(self.session, whole, listed[:10], node))

    def check(self, node: int) -> None:
        assert self.worth(node) == self.total[node]
        state = self.net.nodes[node].state
        for coin in self.held[node].values():
            assert state.an(build_selector(coin.address)) == coin.an(node)


steps = st.tuples(
    st.sampled_from(["pown", "locker", "split", "join", "steal"]),
    st.sets(st.integers(0, NODES - 1), max_size=4),  # nodes that miss it
    st.integers(0, 12),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(steps, min_size=1, max_size=8))
def test_value_is_neither_made_nor_lost(story: list[tuple[str, set[int], int]]) -> None:
    world = Story()
    for name, missing, size in story:
        step: Callable[[int, int], None] = getattr(world, name)
        world.session += 1
        for node in set(range(NODES)) - missing:
            step(node, size)
            world.check(node)
