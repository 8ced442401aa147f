"""raida.mail.gate: the published scenarios, one by one, and the order between them."""

from __future__ import annotations

from typing import Any

import pytest

from qmail_core.model import ListKind, UserProfile
from qmail_core.raida.mail import Decision, Lookup, gate, tell_status

CC = 10**8
FEE = UserProfile(fee=5 * CC)

# what each published case means in numbers: profile, list, sender denomination, locker value -> taken, status
CASES: dict[str, tuple[tuple[Any, Any, int, Any], Decision]] = {
    "whitelisted sender": ((UserProfile(fee=5 * CC, class_rejection=5), ListKind.WHITE, 0, None), Decision(250)),
    "blacklisted sender": ((FEE, ListKind.BLACK, 0, 100), Decision(236)),
    "class-rejected (sender denom below recipient CR)": (
        (UserProfile(class_rejection=2), None, 1, 100),
        Decision(237),
    ),
    "fee owed, no locker supplied": ((FEE, None, 0, None), Decision(169)),
    "fee owed, locker below fee": ((FEE, None, 0, 4), Decision(168)),
    "fee owed, funded locker": ((FEE, None, 0, 5), Decision(250, consume=True)),
    "recipient has NO DRD record": ((None, None, 0, 10), Decision(250, consume=True)),
    "fee lookup dependency failed": ((Lookup.FAILED, None, 0, 10), Decision(167)),
}


def decide(args: tuple[Any, Any, int, Any]) -> Decision:
    profile, listed, denomination, value = args
    return gate(profile, listed, denomination, 10, value)


@pytest.mark.parametrize("case", CASES)
def test_published_scenario(case: str) -> None:
    args, decision = CASES[case]
    assert decide(args) == decision


def check_vector(vector: Any) -> None:
    """Called with the vector by the test of all files of its suite."""
    assert {scenario["case"] for scenario in vector["scenarios"]} == set(CASES)
    for scenario in vector["scenarios"]:
        (_, entry, _, _), decision = CASES[scenario["case"]]
        listed = entry.name.lower() if isinstance(entry, ListKind) else "none"
        assert listed in scenario["list"] or scenario["list"] == "n/a"
        assert str(decision.status) in scenario["status"]
        assert (decision.status == 250) is ("DELIVER" in scenario["outcome"] or "default" in scenario["outcome"])
    check_precedence([int(word.split()[0]) for word in vector["zero_delivered_precedence"]])
    check_order(vector["evaluation_order"])


def check_precedence(order: list[int]) -> None:
    for position, status in enumerate(order[:-1]):
        assert tell_status(order[position:]) == status
    assert tell_status([]) == order[-1]


def check_order(order: list[str]) -> None:
    """With every reason at once the first wins; take it away and the next does. Nobody is on both lists."""
    rule = UserProfile(fee=5 * CC, class_rejection=2)
    decisions = {
        "blacklist": decide((rule, ListKind.BLACK, 1, None)),
        "whitelist": decide((rule, ListKind.WHITE, 1, None)),
        "class_rejection": decide((rule, None, 1, None)),
        "inbox_fee": decide((rule, None, 2, None)),
    }
    assert [decisions[step] for step in order] == [Decision(236), Decision(250), Decision(237), Decision(169)]


def test_default_fee_applies_without_a_record() -> None:
    assert decide((None, None, 0, None)) == Decision(169)
    assert decide((None, None, 0, 9)) == Decision(168)


@pytest.mark.parametrize(
    ("rejection", "denomination", "refused"),
    [(0, -8, False), (-1, -2, True), (-1, -1, False), (-8, -8, False), (1, 0, True), (1, 1, False)],
)
def test_class_rejection_compares_signed(rejection: int, denomination: int, refused: bool) -> None:
    decision = decide((UserProfile(fee=0, class_rejection=rejection), None, denomination, None))
    assert decision == Decision(237 if refused else 250)


def test_fees_count_fractions() -> None:
    assert decide((UserProfile(fee=CC + 1), None, 0, 1)) == Decision(168)
    assert decide((UserProfile(fee=-5), None, 0, None)) == Decision(250)


def test_failed_lookups_ask_to_retry() -> None:
    assert decide((None, Lookup.FAILED, 0, 10)) == Decision(167)
    assert decide((None, None, 0, Lookup.FAILED)) == Decision(167)
    assert decide((FEE, ListKind.BLACK, 0, Lookup.FAILED)) == Decision(236)
    # what stands earlier in the order decides, whatever cannot be looked up behind it
    assert decide((Lookup.FAILED, ListKind.BLACK, 0, None)) == Decision(236)
    assert decide((Lookup.FAILED, ListKind.WHITE, 0, None)) == Decision(250)


def test_one_delivery_is_success_and_strangers_alone_are_40() -> None:
    assert tell_status([236, 250, 40]) == 250
    assert tell_status([40, 40]) == 40
    assert tell_status([40, 168]) == 168
    assert tell_status([167, 160]) == 167
    assert tell_status([160, 40]) == 160
