"""What every MailStore owes, whatever it is made of: one coroutine per promise of `store/base.py`.

A test file hands `SUITE` a factory of empty stores; see test_sqlite.py.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from qmail_core.errors import Conflict, NotFound, StoreUnavailable, UsageError
from qmail_core.model import (
    Address,
    Coin,
    Contact,
    DraftCopy,
    Folder,
    Kind,
    Message,
    PaymentStatus,
    Receipt,
    ReceiptRecipient,
    ReceiptSender,
    ReceiptTell,
    Recipient,
    RequestKey,
)
from qmail_core.store.base import (
    Claim,
    Incoming,
    Locker,
    LockerKind,
    LockerState,
    MailStore,
    SendRow,
    Work,
    WorkKind,
)
from qmail_core.store.mailbox import HOME
from qmail_core.store.post import Autoreply, Filter, Queued, Webhook

Promise = Callable[[MailStore], Awaitable[None]]
SUITE: list[Promise] = []
_OIDS = itertools.count(1)

GUID = bytes(range(16))
OTHER = bytes(16)
ALICE, BOB = Address(1, 42), Address(4, 0xFFFFFFFF)
UPLOAD, INBOX = LockerKind.UPLOAD, LockerKind.INBOX


def oid() -> bytes:
    return next(_OIDS).to_bytes(12, "big")


def promise(check: Promise) -> Promise:
    SUITE.append(check)
    return check


def coin(serial: int, denomination: int = 0, fill: int = 1) -> Coin:
    return Coin(Address(denomination, serial), bytes((fill,)) * 400)


async def fund(store: MailStore, codes: str, kind: LockerKind = UPLOAD, nodes: frozenset[int] | None = None) -> None:
    """One AVAILABLE locker per letter."""
    plan = {}
    for code in codes:
        paid = coin(1000 + ord(code))
        await store.wallet.add_coins("Default", [paid])
        plan[code] = (Locker(code=code, kind=kind, value=1, state=LockerState.FUNDING, wallet="Default"), [paid])
    await store.wallet.begin_funding(plan, 1)
    confirmed = frozenset(range(25)) if nodes is None else nodes
    await store.wallet.end_funding(dict.fromkeys(codes, confirmed), (), LockerState.AVAILABLE)


def uploads(*nodes: int, unit: int = 0) -> list[tuple[LockerKind, Claim, int]]:
    return [(UPLOAD, Claim(unit, node), 1) for node in nodes]


def receipt(guid: bytes = GUID, created: int = 5) -> Receipt:
    row = ReceiptRecipient(address="ü@x", kind="to", serial_number=1, denomination=0, beacon_raida=11)
    return Receipt(
        file_guid=guid.hex(),
        request_id="r",
        created_at=created,
        updated_at=created,
        wallet_path="/w",
        sender=ReceiptSender(serial_number=42, denomination=1, email="a"),
        tell=ReceiptTell(recipients=[row]),
    )


def incoming(guid: bytes = GUID, *, outgoing: bool = False, folder: Folder = Folder.INBOX, at: int = 100) -> Incoming:
    return Incoming(
        guid=guid,
        outgoing=outgoing,
        folder=folder,
        subject="Grüße ✉",
        body="text",
        sender=BOB,
        sender_text="bob",
        recipients=msgspec.json.encode((Recipient(Kind.CC, "alice", ALICE),)),
        received_at=at,
        sent_at=at - 1,
        attachments=(("a.bin", 0), ("文.pdf", 7 << 32)),
    )


# ------------------------------------------------------------------------------------------------------------------
# Coins and lockers


@promise
async def coins_lie_in_their_wallet_and_are_never_doubled(store: MailStore) -> None:
    await store.wallet.add_coins("Default", [coin(1), coin(2, 1), coin(3, 4)])
    await store.wallet.add_coins("Other", [coin(4, -8), coin(5)])
    assert store.wallet.balance("Default") == 10_011
    assert store.wallet.balance("Other") == 1
    assert store.wallet.balance("None") == 0
    assert store.wallet.wallets() == ["Default", "Other"]
    assert store.wallet.coins("Default") == [coin(1), coin(2, 1), coin(3, 4)]
    assert len(store.wallet.coins("Default", 2)) == 2
    await store.wallet.add_coins("Default", [coin(1, fill=9)])
    assert store.wallet.coins("Default")[0] == coin(1, fill=9)
    await store.wallet.add_coins("Other", [coin(1)])
    assert (store.wallet.balance("Default"), store.wallet.balance("Other")) == (10_010, 2)


@promise
async def funding_moves_coins_into_lockers(store: MailStore) -> None:
    await store.wallet.add_coins("Default", [coin(1), coin(2)])
    locker = Locker(code="A", kind=INBOX, value=2, state=LockerState.FUNDING, wallet="Default")
    await store.wallet.begin_funding({"A": (locker, [coin(1), coin(2)])}, 7)
    assert store.wallet.balance("Default") == 0
    assert store.wallet.locker_coins("A") == [coin(1), coin(2)]
    assert store.wallet.lockers(state=LockerState.FUNDING) == [msgspec.structs.replace(locker, created_at=7)]
    assert store.wallet.available("Default", INBOX, 2) == 0
    await store.wallet.end_funding({"A": frozenset({0, 24})}, (), LockerState.AVAILABLE)
    (found,) = store.wallet.lockers(state=LockerState.AVAILABLE)
    assert found.funded == {0, 24}
    ready = [store.wallet.available("Default", *sort) for sort in ((INBOX, 2), (INBOX, 1), (UPLOAD, 2))]
    assert ready == [1, 0, 0]
    await store.wallet.add_funded("A", 11)
    await store.wallet.add_funded("A", 11)
    assert store.wallet.lockers()[0].funded == {0, 11, 24}


@promise
async def a_coin_in_an_unspent_locker_is_not_doubled(store: MailStore) -> None:
    await fund(store, "A")
    (inside,) = store.wallet.locker_coins("A")
    await store.wallet.add_coins("Default", [inside, coin(1)])
    assert store.wallet.coins("Default") == [coin(1)]
    await store.wallet.reserve(GUID, "Default", uploads(0))
    await store.wallet.settle({"A": LockerState.CONSUMED}, 1, expected=LockerState.RESERVED)
    await store.wallet.add_coins("Default", [inside])  # it came back from somebody it was paid to
    assert store.wallet.balance("Default") == 2


@promise
async def coins_of_spent_lockers_are_forgotten_when_others_are_filled(store: MailStore) -> None:
    await fund(store, "AB")
    await store.wallet.settle({"A": LockerState.CONSUMED}, 1, expected=LockerState.AVAILABLE)
    await fund(store, "C")
    assert [len(store.wallet.locker_coins(code)) for code in "ABC"] == [0, 1, 1]


@promise
async def what_is_spent_stays_spent(store: MailStore) -> None:
    await fund(store, "A")
    await store.wallet.reserve(GUID, "Default", uploads(3))
    await store.wallet.settle({"A": LockerState.CONSUMED}, 7, expected=LockerState.RESERVED)
    for state in (LockerState.LIMBO, LockerState.AVAILABLE):  # somebody who looked at it before
        await store.wallet.settle({"A": state}, 9, expected=LockerState.RESERVED)
    (found,) = store.wallet.lockers(guid=GUID)
    assert (found.state, found.consumed_at, found.node) == (LockerState.CONSUMED, 7, 3)


@promise
async def works_hold_both_sides_until_they_end(store: MailStore) -> None:
    wallet = store.wallet
    await wallet.add_coins("Default", [coin(1, 1), coin(2)])
    split = Work(
        id=b"w", kind=WorkKind.BREAK, wallet="Default", given=(coin(1, 1),), taken=(coin(8), coin(9)), session=7
    )
    pown = Work(id=b"p", kind=WorkKind.POWN, wallet="Other", given=(coin(5),), taken=(coin(5, fill=2),))
    await wallet.begin_work([split, pown], 3)
    assert [(work.id, work.given, work.taken) for work in wallet.works()] == [
        (b"p", (coin(5),), (coin(5, fill=2),)),
        (b"w", (coin(1, 1),), (coin(8), coin(9))),
    ]
    assert [(work.kind, work.wallet, work.session, work.created_at) for work in wallet.works()] == [
        (WorkKind.POWN, "Other", 0, 3),
        (WorkKind.BREAK, "Default", 7, 3),
    ]
    await wallet.add_coins("Default", [coin(1, 1), coin(5), coin(8)])
    assert wallet.coins("Default") == [coin(2)]
    await wallet.end_work({b"w": ("Default", (coin(8), coin(9))), b"p": ("Other", (coin(5, fill=2),))})
    assert wallet.works() == []
    assert (wallet.coins("Default"), wallet.coins("Other")) == ([coin(2), coin(8), coin(9)], [coin(5, fill=2)])
    await wallet.end_work({b"w": ("Default", (coin(1, 1),))})
    assert coin(1, 1) not in wallet.coins("Default")


@promise
async def a_work_ends_together_with_its_payment(store: MailStore) -> None:
    await store.mail.add_tells([(GUID, b"a"), (OTHER, b"b")], 1)
    taken = (coin(5, fill=2),)
    work = Work(id=b"p", kind=WorkKind.POWN, wallet="Default", given=(coin(5),), taken=taken, payment=GUID)
    await store.wallet.begin_work([work], 3)
    assert [work.payment for work in store.wallet.works()] == [GUID]
    await store.wallet.end_work({b"p": ("Default", taken)}, {GUID: PaymentStatus.CLAIMED})
    assert (store.wallet.works(), store.wallet.balance("Default")) == ([], 1)
    statuses = [store.mail.tell(guid).payment for guid in (GUID, OTHER)]
    assert statuses == [PaymentStatus.CLAIMED, PaymentStatus.UNCLAIMED]


@promise
async def a_work_that_cannot_begin_changes_nothing(store: MailStore) -> None:
    wallet = store.wallet
    await wallet.add_coins("Default", [coin(1), coin(2)])
    await fund(store, "A")
    gone = Work(id=b"w", kind=WorkKind.JOIN, wallet="Default", given=(coin(1), coin(3)), taken=(coin(4, 1),))
    changed = Work(id=b"w", kind=WorkKind.JOIN, wallet="Default", given=(coin(1, fill=7),), taken=(coin(4, 1),))
    other = Work(id=b"w", kind=WorkKind.JOIN, wallet="Other", given=(coin(1),), taken=(coin(4, 1),))
    known = [
        Work(id=b"w", kind=WorkKind.POWN, wallet="Default", given=(each,), taken=(coin(1),))
        for each in (coin(1, fill=9), *store.wallet.locker_coins("A"))
    ]
    for work in (gone, changed, other, *known):
        with pytest.raises(Conflict):
            await wallet.begin_work([work], 1)
        assert (wallet.works(), wallet.coins("Default")) == ([], [coin(1), coin(2)])


@promise
async def numbers_are_renewed_where_they_are_still_the_old_ones(store: MailStore) -> None:
    await store.wallet.add_coins("Default", [coin(1), coin(2)])
    await store.wallet.renew([(coin(1), coin(1, fill=5)), (coin(2, fill=3), coin(2, fill=5)), (coin(3), coin(3))])
    assert store.wallet.coins("Default") == [coin(1, fill=5), coin(2)]


@promise
async def funding_is_all_or_nothing(store: MailStore) -> None:
    await store.wallet.add_coins("Default", [coin(1)])
    lockers = {
        code: (Locker(code=code, kind=UPLOAD, value=1, state=LockerState.FUNDING, wallet="Default"), [paid])
        for code, paid in (("A", coin(1)), ("B", coin(2)))
    }
    with pytest.raises(Conflict):
        await store.wallet.begin_funding(lockers, 1)
    assert store.wallet.balance("Default") == 1
    assert store.wallet.lockers() == []
    assert store.wallet.locker_coins("A") == []


@promise
async def a_funding_that_failed_gives_the_coins_back(store: MailStore) -> None:
    await store.wallet.add_coins("Savings", [coin(1), coin(2)])
    plan = {
        code: (Locker(code=code, kind=UPLOAD, value=1, state=LockerState.FUNDING, wallet="Savings"), [paid])
        for code, paid in (("A", coin(1)), ("B", coin(2)))
    }
    await store.wallet.begin_funding(plan, 1)
    await store.wallet.end_funding({"A": frozenset({3})}, ["B"], LockerState.LIMBO)
    assert store.wallet.coins("Savings") == [coin(2)]
    (left,) = store.wallet.lockers()
    assert (left.code, left.state, set(left.funded)) == ("A", LockerState.LIMBO, {3})
    assert store.wallet.locker_coins("B") == []


@promise
async def only_a_locker_that_is_being_funded_can_be_given_back(store: MailStore) -> None:
    await fund(store, "A")
    await store.wallet.end_funding({}, ["A"], LockerState.AVAILABLE)
    assert store.wallet.balance("Default") == 0
    assert store.wallet.available("Default", UPLOAD, 1) == 1
    await store.wallet.end_funding({"A": frozenset()}, (), LockerState.LIMBO)
    assert store.wallet.available("Default", UPLOAD, 1) == 1


@promise
async def reserving_is_all_or_nothing(store: MailStore) -> None:
    await fund(store, "AB")
    with pytest.raises(NotFound):
        await store.wallet.reserve(GUID, "Default", uploads(0, 1, 2))
    with pytest.raises(NotFound):
        await store.wallet.reserve(GUID, "Default", [*uploads(0), (INBOX, Claim(0), 1)])
    assert store.wallet.available("Default", UPLOAD, 1) == 2
    assert store.wallet.lockers(guid=GUID) == []
    with pytest.raises(NotFound):
        await store.wallet.reserve(GUID, "Elsewhere", uploads(0))


@promise
async def reserving_again_returns_the_same_lockers(store: MailStore) -> None:
    await fund(store, "ABCD")
    first = await store.wallet.reserve(GUID, "Default", uploads(3, 4))
    assert [(x.state, x.guid, x.unit, x.node) for x in first] == [(LockerState.RESERVED, GUID, 0, n) for n in (3, 4)]
    assert await store.wallet.reserve(GUID, "Default", uploads(3, 4)) == first
    more = await store.wallet.reserve(GUID, "Default", uploads(4, 3, 5))
    assert [x.code for x in more[:2]] == [first[1].code, first[0].code]
    changes = {first[0].code: LockerState.CONSUMED, first[1].code: LockerState.LIMBO}
    await store.wallet.settle(changes, 9, expected=LockerState.RESERVED)
    again = await store.wallet.reserve(GUID, "Default", uploads(3, 4))
    assert [x.code for x in again] == [x.code for x in first]
    # what is shown to nodes again must not be freed by somebody who asked them before
    assert [x.state for x in again] == [LockerState.CONSUMED, LockerState.RESERVED]
    assert {x.code: x.state for x in store.wallet.lockers(guid=GUID)} == {x.code: x.state for x in [*again, more[2]]}
    assert store.wallet.available("Default", UPLOAD, 1) == 1


@promise
async def two_sends_never_share_a_locker(store: MailStore) -> None:
    await fund(store, "ABCDEF")
    guids = [bytes((i,)) * 16 for i in range(6)]
    claims = [(UPLOAD, Claim(0, 1), 1), (UPLOAD, Claim(1, 1), 1)]
    found = await asyncio.gather(*(store.wallet.reserve(g, "Default", claims) for g in guids), return_exceptions=True)
    won = [lockers for lockers in found if not isinstance(lockers, BaseException)]
    assert len(won) == 3
    assert sum(isinstance(lockers, NotFound) for lockers in found) == 3
    codes = [locker.code for lockers in won for locker in lockers]
    assert len(set(codes)) == 6


@promise
async def a_node_gets_a_locker_it_confirmed_where_there_is_one(store: MailStore) -> None:
    await fund(store, "A", nodes=frozenset({1}))
    await fund(store, "B", nodes=frozenset({2}))
    two, one = await store.wallet.reserve(GUID, "Default", uploads(2, 1))
    assert (two.code, one.code) == ("B", "A")


@promise
async def a_claim_gets_a_locker_of_its_worth(store: MailStore) -> None:
    await fund(store, "A")
    with pytest.raises(NotFound):
        await store.wallet.reserve(GUID, "Default", [(UPLOAD, Claim(0, 1), 2)])
    (one,) = await store.wallet.reserve(GUID, "Default", uploads(1))
    assert await store.wallet.reserve(GUID, "Default", [(UPLOAD, Claim(0, 1), 2)]) == [one]


@promise
async def settling_frees_or_spends(store: MailStore) -> None:
    await fund(store, "AB")
    one, two = await store.wallet.reserve(GUID, "Default", uploads(0, 1))
    changes = {one.code: LockerState.AVAILABLE, two.code: LockerState.CONSUMED}
    await store.wallet.settle(changes, 9, expected=LockerState.RESERVED)
    assert store.wallet.available("Default", UPLOAD, 1) == 1
    (free,) = store.wallet.lockers(state=LockerState.AVAILABLE)
    assert (free.code, free.guid, free.unit, free.node) == (one.code, None, None, None)
    assert [x.code for x in store.wallet.lockers(guid=GUID)] == [two.code]
    await store.wallet.settle({}, 9, expected=LockerState.RESERVED)


@promise
async def settling_leaves_what_has_changed_meanwhile(store: MailStore) -> None:
    await fund(store, "AB")
    one, two = await store.wallet.reserve(GUID, "Default", uploads(0, 1))
    await store.wallet.settle({one.code: LockerState.CONSUMED}, 9, expected=LockerState.RESERVED)
    changes = {one.code: LockerState.AVAILABLE, two.code: LockerState.AVAILABLE}
    await store.wallet.settle(changes, 10, expected=LockerState.LIMBO)
    found = {x.code: (x.state, x.guid, x.consumed_at) for x in store.wallet.lockers()}
    assert found == {
        one.code: (LockerState.CONSUMED, GUID, 9),
        two.code: (LockerState.RESERVED, GUID, 0),
    }


@promise
async def a_locker_nobody_was_shown_can_be_dissolved(store: MailStore) -> None:
    await fund(store, "ABC")
    (inside,) = store.wallet.locker_coins("A")
    await store.wallet.dissolve("A", {"Default": [inside]})
    assert store.wallet.balance("Default") == 0  # it is filled
    one, two = await store.wallet.reserve(GUID, "Default", uploads(0, 1))
    await store.wallet.settle({one.code: LockerState.LIMBO}, 9, expected=LockerState.RESERVED)
    await store.wallet.dissolve(one.code, {"Default": store.wallet.locker_coins(one.code)})
    assert store.wallet.balance("Default") == 0  # somebody may have taken it
    await store.wallet.settle({two.code: LockerState.AVAILABLE}, 9, expected=LockerState.RESERVED)
    await store.wallet.settle({two.code: LockerState.LIMBO}, 9, expected=LockerState.AVAILABLE)
    (paid,) = store.wallet.locker_coins(two.code)
    other = Coin(paid.address, bytes((7,)) * len(paid.ans))
    await store.wallet.dissolve(two.code, {"Default": [], "Fracked": [other]})
    assert store.wallet.coins("Fracked") == [other]
    assert two.code not in {x.code for x in store.wallet.lockers()}
    assert store.wallet.locker_coins(two.code) == []
    await store.wallet.dissolve(two.code, {"Default": [paid]})
    assert store.wallet.balance("Default") == 0


@promise
async def what_a_wallet_paid_for_is_known_newest_first(store: MailStore) -> None:
    await fund(store, "ABCD")
    other = bytes(16)
    for guid, count, when in ((GUID, 2, 5), (other, 1, 9)):
        lockers = await store.wallet.reserve(guid, "Default", uploads(*range(count)))
        assert guid not in store.wallet.paid("Default", 10, 0)
        spent = dict.fromkeys((locker.code for locker in lockers), LockerState.CONSUMED)
        await store.wallet.settle(spent, when, expected=LockerState.RESERVED)
    assert store.wallet.paid("Default", 10, 0) == [other, GUID]
    assert store.wallet.paid("Default", 10, 1) == [GUID]
    assert store.wallet.paid("Default", 1, 0) == [other]
    assert store.wallet.paid("Elsewhere", 10, 0) == []


# ------------------------------------------------------------------------------------------------------------------
# Sends


@promise
async def an_intent_is_accepted_once(store: MailStore) -> None:
    with pytest.raises(NotFound):
        store.sends.receipt(GUID)
    with pytest.raises(NotFound):
        store.sends.job(GUID)
    await store.sends.accept(receipt(), b"job", {0: b"meta", 10: b""}, "upload")
    with pytest.raises(Conflict):
        await store.sends.accept(receipt(), b"other", {0: b"other"}, "tell")
    assert store.sends.job(GUID) == (b"job", "upload")
    assert store.sends.receipt(GUID) == receipt()
    assert (store.sends.object(GUID, 0), store.sends.object(GUID, 10)) == (b"meta", b"")
    with pytest.raises(NotFound):
        store.sends.object(GUID, 1)
    assert store.sends.has_receipt(GUID)
    assert not store.sends.has_receipt(OTHER)


@promise
async def a_key_stands_for_one_request_of_the_last_day(store: MailStore) -> None:
    key, other = RequestKey("k", b"1" * 32), RequestKey("k", b"2" * 32)
    assert store.sends.send_of(key, 5) is None
    await store.sends.accept(receipt(), b"job", {}, "upload", key)
    assert store.sends.send_of(key, 5 + 86_399) == GUID
    assert store.sends.send_of(key, 5 + 86_400) is None
    with pytest.raises(Conflict):
        store.sends.send_of(other, 6)
    with pytest.raises(Conflict):
        await store.sends.accept(receipt(OTHER), b"job", {}, "upload", other)
    assert not store.sends.has_receipt(OTHER)
    await store.sends.accept(receipt(OTHER, created=5 + 86_400), b"job", {}, "upload", other)
    assert store.sends.send_of(other, 5 + 86_400) == OTHER


@promise
async def receipts_are_listed_newest_first_by_what_became_of_them(store: MailStore) -> None:
    for number in range(4):
        told = receipt(bytes((number,)) * 16, created=number)
        told.upload.status = "failed" if number == 0 else "success"
        told.tell.status = "partial" if number == 1 else "success"
        await store.sends.accept(told, b"", {}, "done")

    def numbers(status: str | None, limit: int = 10, offset: int = 0) -> list[int]:
        return [found.created_at for found in store.sends.receipts(status, limit, offset)]

    assert (numbers(None), numbers(None, 2, 1)) == ([3, 2, 1, 0], [2, 1])
    assert (numbers("success"), numbers("partial"), numbers("failed"), numbers("lost")) == ([3, 2], [1], [0], [])
    assert [store.sends.count_receipts(word) for word in (None, "success", "lost")] == [4, 2, 0]


@promise
async def of_two_intents_at_once_one_is_accepted(store: MailStore) -> None:
    tries = [store.sends.accept(receipt(), bytes((i,)), {0: bytes((i,))}, "upload") for i in range(5)]
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, Conflict) for outcome in found) == 4
    assert store.sends.job(GUID)[0] == store.sends.object(GUID, 0)


@promise
async def a_change_keeps_what_it_does_not_touch(store: MailStore) -> None:
    await store.sends.accept(receipt(), b"job", {}, "upload")

    def stored(row: SendRow) -> None:
        row.receipt.upload.status = "success"

    def told(row: SendRow) -> None:
        row.job, row.stage = row.job + b" and more", "tell"
        row.receipt.tell.status = "in_progress"

    assert (await store.sends.change(GUID, stored)).receipt == store.sends.receipt(GUID)
    assert store.sends.job(GUID) == (b"job", "upload")
    await store.sends.change(GUID, told)
    assert store.sends.job(GUID) == (b"job and more", "tell")
    kept = store.sends.receipt(GUID)
    assert (kept.upload.status, kept.tell.status) == ("success", "in_progress")
    assert store.sends.count_receipts("in_progress") == 1


@promise
async def of_changes_at_once_none_is_lost(store: MailStore) -> None:
    await store.sends.accept(receipt(), b"", {}, "upload")

    def one_more(row: SendRow) -> None:
        row.receipt.tell.recipients[0].attempts += 1
        row.job += b"x"

    await asyncio.gather(*(store.sends.change(GUID, one_more) for _ in range(50)))
    assert store.sends.receipt(GUID).tell.recipients[0].attempts == len(store.sends.job(GUID)[0]) == 50


@promise
async def a_change_that_is_refused_changes_nothing(store: MailStore) -> None:
    await store.sends.accept(receipt(), b"job", {}, "upload")

    def refused(row: SendRow) -> None:
        row.receipt.upload.status = row.stage = "failed"
        raise Conflict("not now")

    with pytest.raises(Conflict, match="not now"):
        await store.sends.change(GUID, refused)
    assert (store.sends.receipt(GUID), store.sends.job(GUID)) == (receipt(), (b"job", "upload"))
    with pytest.raises(NotFound):
        await store.sends.change(OTHER, refused)


@promise
async def objects_are_kept_until_their_upload_has_ended(store: MailStore) -> None:
    for guid in (GUID, OTHER):
        await store.sends.accept(receipt(guid), b"", {0: b"meta", 1: b"body"}, "upload")
    await store.sends.change(GUID, lambda row: None)
    assert store.sends.object(GUID, 1) == b"body"
    await store.sends.change(GUID, lambda row: setattr(row, "stage", "tell"))
    for file_type in (0, 1):
        with pytest.raises(NotFound):
            store.sends.object(GUID, file_type)
    assert store.sends.object(OTHER, 1) == b"body"


@promise
async def open_sends_are_those_not_done_oldest_first(store: MailStore) -> None:
    stages = ["upload", "tell", "uploaded", "done", "failed"]
    guids = [bytes((9 - i,)) * 16 for i in range(5)]
    for number, (guid, stage) in enumerate(zip(guids, stages, strict=True)):
        await store.sends.accept(receipt(guid, created=10 - number), b"", {}, stage)
    assert store.sends.open_sends() == [guids[1], guids[0]]


@promise
async def a_queued_tell_counts_its_retries(store: MailStore) -> None:
    await store.sends.queue_tell(GUID, 3, 11, "first", 100, 160)
    assert store.sends.due_tells(159) == []
    (row,) = store.sends.due_tells(160)
    assert (row.guid, row.position, row.beacon, row.status) == (GUID, 3, 11, "pending")
    assert (row.retry_count, row.last_error, row.created_at, row.last_attempt) == (0, "first", 100, 100)
    await store.sends.queue_tell(GUID, 3, 14, "second", 200, 300)
    assert store.sends.due_tells(299) == []
    (again,) = store.sends.due_tells(300)
    assert (again.id, again.retry_count, again.beacon, again.last_error) == (row.id, 1, 14, "second")
    assert (again.created_at, again.last_attempt, again.next_attempt) == (100, 200, 300)
    await store.sends.queue_tell(GUID, 4, 11, "earlier", 200, 250)
    assert [row.position for row in store.sends.due_tells(400)] == [4, 3]
    await store.sends.finish_tell(GUID, 3, "sent", "", 500)
    await store.sends.finish_tell(OTHER, 0, "sent", "", 500)
    assert [row.position for row in store.sends.due_tells(10**9)] == [4]


@promise
async def what_a_clock_put_off_that_was_set_back_is_due(store: MailStore) -> None:
    await store.sends.queue_tell(GUID, 3, 11, "first", 100_000, 100_060)
    await store.sends.schedule_repair(GUID, 100_060)
    for now, longest, due in ((100, 3600, True), (100_000, 60, False), (100_000, 59, True), (100_060, 0, True)):
        assert len(store.sends.due_tells(now, longest)) == due
        assert len(store.sends.due_repairs(now, longest)) == due
    assert store.sends.due_tells(100) == []
    assert store.sends.due_repairs(100) == []


@promise
async def a_repair_waits_for_its_time_and_counts_its_tries(store: MailStore) -> None:
    await store.sends.schedule_repair(GUID, 100)
    assert store.sends.due_repairs(99) == []
    assert store.sends.due_repairs(100) == [(GUID, 0)]
    await store.sends.schedule_repair(GUID, 200)
    assert store.sends.due_repairs(199) == []
    assert store.sends.due_repairs(200) == [(GUID, 1)]
    await store.sends.schedule_repair(OTHER, 150)
    assert store.sends.due_repairs(300) == [(OTHER, 0), (GUID, 1)]
    await store.sends.drop_repair(GUID)
    await store.sends.drop_repair(GUID)
    assert store.sends.due_repairs(300) == [(OTHER, 0)]


# ------------------------------------------------------------------------------------------------------------------
# Messages


@promise
async def a_tell_is_kept_once(store: MailStore) -> None:
    assert await store.mail.add_tells([], 1) == []
    assert await store.mail.add_tells([(GUID, b"one"), (OTHER, b"two"), (GUID, b"three")], 10) == [GUID, OTHER]
    assert await store.mail.add_tells([(GUID, b"four")], 20) == []
    assert store.mail.tell(GUID).record == b"one"
    assert [tell.guid for tell in store.mail.pending_tells(0)] == [GUID, OTHER]
    assert store.mail.pending_tells(10) == []
    with pytest.raises(NotFound):
        store.mail.tell(b"?" * 16)


@promise
async def a_delivery_marks_its_tell(store: MailStore) -> None:
    await store.mail.add_tells([(GUID, b"one")], 10)
    await store.mail.deliver(incoming(), oid())
    assert store.mail.pending_tells(0) == []
    assert store.mail.tell(GUID).downloaded


@promise
async def a_sent_copy_leaves_the_tell_alone(store: MailStore) -> None:
    await store.mail.add_tells([(GUID, b"one")], 10)
    await store.mail.deliver(incoming(outgoing=True, folder=Folder.SENT), oid())
    assert len(store.mail.pending_tells(0)) == 1
    assert store.mail.received(GUID) is None


@promise
async def a_message_is_delivered_once(store: MailStore) -> None:
    first, *others = await asyncio.gather(*(store.mail.deliver(incoming(), oid()) for _ in range(4)))
    assert all(other == first for other in others)
    assert store.mail.received(GUID) == first == store.mail.message_of(first.id)
    page = store.mail.messages(Folder.INBOX, 10, 0, "newest")
    assert (page.messages, page.total, page.unread) == ((first,), 1, 1)
    assert (first.id, first.guid, first.outgoing, first.folder) == (GUID, GUID, False, Folder.INBOX)
    assert (first.subject, first.sender, first.attachments) == ("Grüße ✉", BOB, 2)
    assert first.recipients == (Recipient(Kind.CC, "alice", ALICE),)
    assert [(a.name, a.size, a.mode, a.position) for a in store.mail.attachments(first.id)] == [
        ("a.bin", 0, 2, 0),
        ("文.pdf", 7 << 32, 2, 1),
    ]


@promise
async def a_mail_to_oneself_is_there_twice(store: MailStore) -> None:
    sent = await store.mail.deliver(incoming(outgoing=True, folder=Folder.SENT), oid())
    got = await store.mail.deliver(incoming(), oid())
    assert sent.id != got.id
    assert sent.guid == got.guid == GUID
    assert store.mail.received(GUID) == got
    assert await store.mail.deliver(incoming(), oid()) == got
    assert await store.mail.deliver(incoming(outgoing=True, folder=Folder.SENT), oid()) == sent
    assert len(store.mail.attachments(got.id)) == len(store.mail.attachments(sent.id)) == 2


@promise
async def uids_and_modseqs_only_grow(store: MailStore) -> None:
    mails = [await store.mail.deliver(incoming(bytes((i,)) * 16, at=100 - i), oid()) for i in range(4)]
    assert [mail.uid for mail in mails] == [1, 2, 3, 4]
    assert [mail.modseq for mail in mails] == sorted({mail.modseq for mail in mails})
    read = await store.mail.set_read(mails[0].id, True, 1)
    assert read.is_read
    assert read.uid == 1
    assert read.modseq > mails[3].modseq
    assert await store.mail.set_read(mails[0].id, True, 1) == read
    assert (await store.mail.set_read(mails[0].id, False, 1)).modseq > read.modseq
    assert (await store.mail.deliver(incoming(OTHER, outgoing=True, folder=Folder.SENT), oid())).uid == 1


@promise
async def folders_are_listed_page_by_page(store: MailStore) -> None:
    for i in range(5):
        await store.mail.deliver(incoming(bytes((i,)) * 16, at=100 + i), oid())
    await store.mail.set_read(bytes((4,)) * 16, True, 1)

    def listed(sort: str, limit: int = 10, offset: int = 0) -> list[int]:
        return [mail.id[0] for mail in store.mail.messages(Folder.INBOX, limit, offset, sort).messages]

    assert listed("newest") == listed("nonsense") == listed("fee") == listed("starred") == [4, 3, 2, 1, 0]
    assert listed("unread") == [3, 2, 1, 0, 4]
    assert listed("newest", 2, 1) == [3, 2]
    assert listed("newest", 2, 9) == []
    page = store.mail.messages(Folder.SENT, 10, 0, "newest")
    assert (page.messages, page.total, page.unread) == ((), 0, 4)


@promise
async def what_is_not_there_is_not_found(store: MailStore) -> None:
    with pytest.raises(NotFound):
        store.mail.message_of(GUID)
    with pytest.raises(NotFound):
        store.mail.attachments(GUID)
    with pytest.raises(NotFound):
        store.mail.attachment(1)
    with pytest.raises(NotFound):
        await store.mail.set_read(GUID, True, 1)
    with pytest.raises(NotFound):
        await store.mail.attachment_fetched(1, "/x")


@promise
async def a_fetched_attachment_has_a_path(store: MailStore) -> None:
    message: Message = await store.mail.deliver(incoming(), oid())
    first = store.mail.attachments(message.id)[0]
    fetched = await store.mail.attachment_fetched(first.id, "/x/0")
    assert (fetched.mode, fetched.path) == (1, "/x/0")
    assert store.mail.attachment(first.id) == fetched


@promise
async def a_mail_moves_between_folders_and_leaves_by_the_trash(store: MailStore) -> None:
    got = await store.mail.deliver(incoming(), oid())
    assert (await store.mail.move_mail(got.id, Folder.ARCHIVE, 2)).folder == Folder.ARCHIVE
    starred = await store.mail.move_mail(got.id, Folder.STARRED, 3)
    assert (starred.folder, starred.is_starred) == (Folder.ARCHIVE, True)
    assert store.mail.messages(Folder.STARRED, 10, 0, "newest").total == 1
    with pytest.raises(UsageError, match="must be in trash"):
        await store.mail.delete_mail(got.id, 4)
    await store.mail.move_mail(got.id, Folder.TRASH, 5)
    counts = store.mail.folder_counts()
    assert (counts[Folder.TRASH], counts[Folder.STARRED], counts[Folder.INBOX]) == ((1, 1), (0, 0), (0, 0))
    assert store.mail.messages(Folder.STARRED, 10, 0, "newest").messages == ()
    await store.mail.delete_mail(got.id, 6)
    with pytest.raises(NotFound):
        await store.mail.delete_mail(got.id, 7)


@promise
async def words_find_mail_outside_the_trash(store: MailStore) -> None:
    got = await store.mail.deliver(incoming(), oid())
    (found,) = store.mail.find_mail(got.subject, 5)
    assert (found.id, found.body) == (got.id, got.body[:200])
    await store.mail.move_mail(got.id, Folder.TRASH, 5)
    assert store.mail.find_mail(got.subject, 5) == []


@promise
async def a_draft_keeps_its_id_while_it_is_written(store: MailStore) -> None:
    first = DraftCopy(id=GUID, subject="Plan", body="First", to="a@b, 42")
    saved = await store.mail.save_draft(first, oid(), 1)
    assert (saved.id, saved.folder, saved.is_read) == (GUID, Folder.DRAFTS, True)
    assert store.mail.draft(GUID) == first
    second = msgspec.structs.replace(first, body="Second", cc="c@d")
    await store.mail.save_draft(second, oid(), 2)
    assert store.mail.draft(GUID) == second
    assert store.mail.messages(Folder.DRAFTS, 10, 0, "newest").total == 1
    assert [message.body for message in store.mail.find_mail("second", 5)] == ["Second"]
    with pytest.raises(NotFound):
        store.mail.draft(OTHER)


@promise
async def dismissed_tells_are_not_shown(store: MailStore) -> None:
    await store.mail.add_tells([(GUID, b"a"), (OTHER, b"b")], 1)
    await store.mail.deliver(incoming(OTHER), oid())
    assert [tell.guid for tell in store.mail.shown_tells(10, downloaded=False)] == [GUID]
    assert len(store.mail.shown_tells(10, downloaded=True)) == 2
    number = await store.mail.dismiss_tell(guid=GUID)
    with pytest.raises(NotFound):
        await store.mail.dismiss_tell(tell_id=number)
    assert store.mail.shown_tells(10, downloaded=False) == []
    assert [tell.guid for tell in store.mail.pending_tells(0)] == [GUID]


@promise
async def a_payment_that_was_claimed_does_not_fail(store: MailStore) -> None:
    await store.mail.add_tells([(GUID, b"a")], 1)
    for status, found in (
        (PaymentStatus.FAILED, PaymentStatus.FAILED),
        (PaymentStatus.CLAIMED, PaymentStatus.CLAIMED),
        (PaymentStatus.FAILED, PaymentStatus.CLAIMED),
        (PaymentStatus.REFUNDED, PaymentStatus.REFUNDED),
        (PaymentStatus.CLAIMED, PaymentStatus.REFUNDED),
    ):
        await store.mail.set_payment(GUID, status)
        assert store.mail.tell(GUID).payment is found


@promise
async def a_failed_tell_is_retried_with_a_fresh_count(store: MailStore) -> None:
    await store.sends.queue_tell(GUID, 0, 11, "down", 1, 100)
    (row,) = store.sends.outgoing_tells(None, 10)
    with pytest.raises(NotFound):
        await store.sends.retry_tell(row.id, 5)
    await store.sends.finish_tell(GUID, 0, "failed", "no", 2)
    assert store.sends.outgoing_tells("pending", 10) == []
    await store.sends.retry_tell(row.id, 5)
    assert [due.id for due in store.sends.due_tells(5)] == [row.id]
    await store.sends.finish_tell(GUID, 0, "sent", "", 6)
    assert await store.sends.clear_sent_tells() == 1
    assert store.sends.outgoing_tells(None, 10) == []


# ------------------------------------------------------------------------------------------------------------------
# Contacts


@promise
async def contacts_are_listed_favoured_and_removed(store: MailStore) -> None:
    await store.contacts.add(Contact(address=ALICE, text="alice", first_name="Al", last_name="Percent%"), 1)
    await store.contacts.add(Contact(address=BOB, text="bob"), 2)
    await store.contacts.bump([(BOB, "bob")], 3)
    assert [c.text for c in store.contacts.listed(10)] == ["alice", "bob"]
    assert [c.text for c in store.contacts.listed(10, words="percent%")] == ["alice"]
    assert store.contacts.listed(10, words="_") == store.contacts.listed(0) == []
    assert [c.text for c in store.contacts.popular(10)] == ["bob", "alice"]
    assert (await store.contacts.favor(42, True, 4)).favorite
    assert [c.text for c in store.contacts.popular(10)] == ["alice", "bob"]
    await store.contacts.remove(42)
    assert store.contacts.count() == 1
    for call in (store.contacts.remove(42), store.contacts.favor(42, True, 5)):
        with pytest.raises(NotFound):
            await call


@promise
async def contacts_are_found_without_regard_to_case(store: MailStore) -> None:
    contact = Contact(address=ALICE, text="Alice@Example#42.Kilo", beacon=3, second=4, inbox_fee=7, created_at=1)
    await store.contacts.add(contact, 1)
    for text in (contact.text, contact.text.lower(), contact.text.upper()):
        assert store.contacts.find(text) == contact
    assert store.contacts.find("alice") is None
    assert store.contacts.by_serial(42) == store.contacts.by_address(ALICE) == contact
    assert store.contacts.by_serial(43) is None
    assert store.contacts.by_address(Address(2, 42)) is None
    renamed = Contact(address=ALICE, text="al", created_at=1)
    await store.contacts.add(renamed, 2)
    assert store.contacts.find("AL") == renamed
    assert store.contacts.find(contact.text) is None


@promise
async def one_text_never_means_two_people(store: MailStore) -> None:
    await store.contacts.add(Contact(address=ALICE, text="friend"), 1)
    with pytest.raises(Conflict):
        await store.contacts.add(Contact(address=BOB, text="FRIEND"), 2)
    found = store.contacts.find("friend")
    assert found is not None
    assert found.address == ALICE


@promise
async def a_send_makes_contacts_but_never_fails_for_them(store: MailStore) -> None:
    await store.contacts.add(Contact(address=ALICE, text="friend", beacon=3), 1)
    await store.contacts.bump([(ALICE, "other words"), (BOB, "Friend"), (Address(0, 7), "new")], 5)
    kept = store.contacts.by_address(ALICE)
    assert kept is not None
    assert (kept.text, kept.beacon) == ("friend", 3)
    new = store.contacts.find("NEW")
    assert new is not None
    assert (new.address, new.beacon, new.second) == (Address(0, 7), 11, 14)
    await store.contacts.bump([(Address(0, 7), "new")] * 3, 6)


@promise
async def a_serial_means_whoever_is_written_to_most(store: MailStore) -> None:
    await store.contacts.bump([(Address(0, 9), "zero"), (Address(1, 9), "one"), (Address(1, 9), "one")], 5)
    found = store.contacts.by_serial(9)
    assert found is not None
    assert found.text == "one"


# ------------------------------------------------------------------------------------------------------------------
# Mail that leaves, filters, webhooks


@promise
async def mail_for_the_relay_waits_until_it_is_due(store: MailStore) -> None:
    post = store.post
    items = [
        Queued(oid=oid(), user=HOME, sender="a@b.example", recipients=("c@d.example",), raw=b"x\0", next_attempt=at,
               created_at=1)
        for at in (20, 10)
    ]  # fmt: skip
    for item in items:
        await post.enqueue(item)
    assert post.due(9, 5) == []
    assert post.due(20, 5) == [items[1], items[0]]
    assert post.due(20, 1) == [items[1]]
    assert post.due(-100, 5, 90) == [items[1], items[0]]
    await post.release(items[0].oid, 5)
    assert [item.oid for item in post.due(9, 5)] == [items[0].oid]
    await post.release(items[0].oid, items[0].next_attempt)
    await post.attempt(items[1].oid, 30)
    await post.settle(items[1].oid, ["e@f.example"])
    (left,) = (item for item in post.queued(HOME) if item.oid == items[1].oid)
    assert (left.recipients, left.attempts, left.next_attempt) == (("e@f.example",), 1, 30)
    await post.settle(items[1].oid, [])
    assert post.queued(HOME) == [items[0]]
    assert post.queued(HOME + 1) == []


@promise
async def an_allowance_is_never_exceeded_and_comes_back(store: MailStore) -> None:
    post = store.post
    taken = await asyncio.gather(*(post.take(HOME, "recipients", 3, 10, 100, 50) for _ in range(5)))
    assert sorted(taken) == [False, False, True, True, True]
    assert (post.usage(HOME, "recipients").used, post.usage(HOME, "recipients").until) == (9, 150)
    assert post.usage(HOME, "forwards").used == 0
    await post.give_back(HOME, "forwards", 1)
    await post.give_back(HOME, "recipients", 10)
    assert (post.usage(HOME, "recipients").used, post.usage(HOME, "forwards").used) == (0, 0)
    assert await post.take(HOME, "recipients", 10, 10, 101, 50)
    await post.give_back(HOME, "recipients", 1)
    assert await post.take(HOME, "recipients", 1, 10, 149, 50)
    assert not await post.take(HOME, "recipients", 1, 10, 149, 50)
    assert await post.take(HOME, "recipients", 10, 10, 150, 50)
    assert not await post.take(HOME, "recipients", 1, 10, 149, 50)
    assert await post.take(HOME, "recipients", 1, 10, 99, 50)  # the clock was ahead
    assert post.usage(HOME, "recipients").until == 149


@promise
async def filters_are_kept_per_user(store: MailStore) -> None:
    post = store.post
    item = Filter(oid=oid(), name="n", query={"ha": True}, action={"forward": ["ä@b.example"]}, created_at=5)
    await post.put_filter(HOME, item)
    assert post.filters(HOME) == [item]
    changed = msgspec.structs.replace(item, name="m", disabled=True)
    await post.put_filter(HOME, changed)
    assert post.filters(HOME) == [changed]
    assert not await post.remove_filter(HOME + 1, item.oid)
    assert await post.remove_filter(HOME, item.oid)
    assert post.filters(HOME) == []


@promise
async def nobody_is_answered_twice_within_a_span(store: MailStore) -> None:
    post = store.post
    item = Autoreply(status=True, text="away", start=1, end=None)
    await post.put_autoreply(HOME, item)
    assert post.autoreply(HOME) == item
    asked = await asyncio.gather(*(post.may_answer(HOME, "a@b.example", 10, 5) for _ in range(3)))
    assert sorted(asked) == [False, False, True]
    assert await post.may_answer(HOME, "c@d.example", 10, 5)
    assert not await post.may_answer(HOME, "a@b.example", 14, 5)
    assert await post.may_answer(HOME, "a@b.example", 15, 5)
    assert not await post.may_answer(HOME, "a@b.example", 14, 5)
    assert await post.may_answer(HOME, "a@b.example", 9, 5)  # the clock was ahead
    await post.put_autoreply(HOME, item)
    assert await post.may_answer(HOME, "a@b.example", 15, 5)
    await post.put_autoreply(HOME, None)
    assert post.autoreply(HOME) is None


@promise
async def webhooks_remember_how_far_they_were_told(store: MailStore) -> None:
    post = store.post
    hooks = [
        Webhook(oid=oid(), user=user, url="https://hook.example/", sealed=b"s", told=3, created_at=9)
        for user in (None, HOME)
    ]
    for hook in hooks:
        await post.add_webhook(hook)
    assert post.webhooks() == hooks
    await post.webhook_told(hooks[0].oid, 7, 1, 60)
    told = post.webhooks()[0]
    assert (told.told, told.attempts, told.next_attempt) == (7, 1, 60)
    assert await post.remove_webhook(hooks[0].oid)
    assert not await post.remove_webhook(hooks[0].oid)
    assert post.webhooks() == hooks[1:]


# ------------------------------------------------------------------------------------------------------------------
# The whole


@promise
async def a_closed_store_says_so(store: MailStore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        store.wallet.balance("Default")
    with pytest.raises(StoreUnavailable):
        await store.wallet.add_coins("Default", [coin(1)])


@promise
async def what_was_queued_before_closing_is_written(store: MailStore) -> None:
    writing = [asyncio.ensure_future(store.mail.deliver(incoming(bytes((i,)) * 16), oid())) for i in range(20)]
    await asyncio.sleep(0)
    await store.close()
    assert sorted(message.uid for message in await asyncio.gather(*writing)) == list(range(1, 21))
