"""DRD bodies: every published vector, every truncation of a valid body, and round trips."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import consts as c
from qmail_core.codec import directory as drd
from qmail_core.codec.directory import BadValue, Owned, Search
from qmail_core.errors import LocalProtocolError, RemoteProtocolError, UsageError
from qmail_core.model import Address, ListEntry, ListKind, UserProfile, UserRecord
from tests import published
from tests.published import FOLDER, consumed

Json = dict[str, Any]

FILES = published.names("drd")
CHALLENGE = bytes.fromhex("000102030405060708090a0b9270c965")
OWNER = Owned(Address(0, 42), bytes(range(0xA0, 0xB0)))
ALICE = UserProfile(fee=1_000_000_000, symbol1=5, symbol2=17, first_name="Alice", last_name="Smith")
RECORD = UserRecord(OWNER.address, ALICE, 1_700_000_000, 1_785_312_000)
ENTRIES = (ListEntry(Address(0, 100), ListKind.WHITE), ListEntry(Address(1, 200), ListKind.BLACK))
LISTED = tuple(entry.address for entry in ENTRIES)


def whole(payload: bytes) -> bytes:
    """The body as types 0 and 1 carry it and the vectors print it."""
    return CHALLENGE + payload + c.TRAILER


def cut(body: bytes) -> bytes:
    """The payload of such a body."""
    assert body[:16] == CHALLENGE
    assert body[-2:] == c.TRAILER
    return body[16:-2]


def load(name: str) -> Json:
    vector: Json = json.loads((FOLDER / "drd" / name).read_text())
    return vector


def check_fee(vector: Json) -> None:
    for case in vector["cases"]:
        fee = drd.fee_from_text(case["cc"])
        assert fee == case["units"]
        body = whole(drd.build_post_user(OWNER, UserProfile(fee=fee)))
        assert body[37:45] == bytes.fromhex(case["be_int64_hex"])
    with pytest.raises(UsageError, match="negative"):
        drd.fee_from_text(vector["rejected"]["cc"])
    assert vector["rejected"]["status"].startswith(str(c.STATUS_INVALID_PARAMETER))


def check_challenge(vector: Json) -> None:
    """Challenges are the packet layer's; tests/raida/test_directory.py sends this one to a node."""
    noise = bytes.fromhex(vector["random_12_hex"])
    assert bytes.fromhex(vector["bytes_hex"]) == noise + crc32(noise).to_bytes(4, "big") == CHALLENGE
    assert len(CHALLENGE) == vector["length_bytes"] == c.CHALLENGE_SIZE
    assert crc32(noise) == int(vector["crc32"], 16)


def check_get_user(vector: Json) -> None:
    body = bytes.fromhex(vector["request"]["bytes_hex"])
    assert whole(drd.build_get_user(OWNER.address)) == body
    assert drd.parse_get_user(cut(body)) == OWNER.address
    answer = bytes.fromhex(vector["response_user_record"]["bytes_hex"])
    assert drd.build_user_record(RECORD) == answer
    assert drd.parse_user_record(answer) == RECORD


def check_post_user(vector: Json) -> None:
    for part, profile in (("minimal_empty_names", UserProfile()), ("named_example", ALICE)):
        body = bytes.fromhex(vector[part]["bytes_hex"])
        assert whole(drd.build_post_user(OWNER, profile)) == body
        assert drd.parse_post_user(cut(body)) == (OWNER, profile)


def check_list_set_remove(vector: Json) -> None:
    types = {ListKind.WHITE: "0x00 whitelist", ListKind.BLACK: "0x01 blacklist"}
    for part in ("list_set", "list_remove"):
        assert len(bytes.fromhex(vector[part]["bytes_hex"])) == vector[part]["length_bytes"]
        for row, entry in zip(vector[part]["entries"], ENTRIES, strict=True):
            assert Address(row["listed_dn"], row["listed_sn"]) == entry.address
            assert row.get("type", types[ListKind(entry.kind)]) == types[ListKind(entry.kind)]
    body = bytes.fromhex(vector["list_set"]["bytes_hex"])
    assert whole(drd.build_list_set(OWNER, ENTRIES)) == body
    assert drd.parse_list_set(cut(body)) == (OWNER, ENTRIES)
    body = bytes.fromhex(vector["list_remove"]["bytes_hex"])
    assert whole(drd.build_list_remove(OWNER, LISTED)) == body
    assert drd.parse_list_remove(cut(body)) == (OWNER, LISTED)


def check_list_get(vector: Json) -> None:
    answer = bytes.fromhex(vector["response_two_entries"]["bytes_hex"])
    assert drd.build_list_answer(reversed(ENTRIES)) == answer
    assert drd.parse_list_answer(answer) == ENTRIES
    empty = bytes.fromhex(vector["response_empty"]["bytes_hex"])
    assert drd.build_list_answer(()) == empty
    assert drd.parse_list_answer(empty) == ()


def check_class_rejection(vector: Json) -> None:
    for row in vector["table"]:
        profile = UserProfile(class_rejection=row["class_rejection_signed"])
        body = drd.build_post_user(OWNER, profile)
        assert whole(body)[47] == int(row["class_rejection_byte"], 16)
        rejection = drd.parse_post_user(body)[1].class_rejection
        for denomination in vector["sender_denominations"]:
            expected = row["results"][str(denomination)] == "accept"
            assert drd.accepts(rejection, denomination) is expected


CHECKS: dict[str, Callable[[Json], None]] = {
    "01-fee-encoding.json": check_fee,
    "02-challenge.json": check_challenge,
    "03-get-user.json": check_get_user,
    "04-post-user.json": check_post_user,
    "05-list-set-remove.json": check_list_set_remove,
    "06-list-get.json": check_list_get,
    "07-class-rejection.json": check_class_rejection,
}


@pytest.mark.parametrize("name", FILES)
def test_vector(name: str) -> None:
    with consumed("drd", name) as vector:
        CHECKS[name](vector)


def test_every_vector_file_has_a_check() -> None:
    assert sorted(CHECKS) == FILES


# ------------------------------------------------------------------------------------------------------------------
# Truncations

Reader = Callable[[bytes], object]
REQUESTS: list[tuple[Reader, bytes]] = [
    (drd.parse_get_user, drd.build_get_user(OWNER.address)),
    (drd.parse_post_user, drd.build_post_user(OWNER, ALICE)),
    (drd.parse_search_users, drd.build_search_users(Search("Al", "Sm", 7))),
    (drd.parse_owned, drd.build_owned(OWNER)),
    (drd.parse_list_set, drd.build_list_set(OWNER, ENTRIES)),
    (drd.parse_list_remove, drd.build_list_remove(OWNER, LISTED)),
]
ANSWERS: list[tuple[Reader, bytes]] = [
    (drd.parse_user_record, drd.build_user_record(RECORD)),
    (drd.parse_search_answer, drd.build_search_answer([drd.build_user_record(RECORD)] * 2)),
    (drd.parse_list_answer, drd.build_list_answer(ENTRIES)),
]


@pytest.mark.parametrize(("read", "body"), REQUESTS)
def test_every_shortened_request_is_a_protocol_error_or_a_shorter_list(read: Reader, body: bytes) -> None:
    for end in range(len(body)):
        try:
            read(body[:end])
        except RemoteProtocolError:
            continue
        # whole entries may be missing: the list length is only the body length
        assert read in (drd.parse_list_set, drd.parse_list_remove)
        assert end >= 21


@pytest.mark.parametrize(("read", "answer"), ANSWERS)
def test_every_truncated_answer_is_a_protocol_error(read: Reader, answer: bytes) -> None:
    for end in range(len(answer)):
        with pytest.raises(RemoteProtocolError):
            read(answer[:end])
    with pytest.raises(RemoteProtocolError):
        read(answer + b"\0")


@given(st.binary(max_size=90))
def test_any_bytes_are_read_or_a_protocol_error(data: bytes) -> None:
    for read, _ in REQUESTS + ANSWERS:
        with suppress(RemoteProtocolError):
            read(data)


# ------------------------------------------------------------------------------------------------------------------
# Round trips and ranges

addresses = st.builds(Address, st.integers(-128, 127), st.integers(0, 0xFFFF_FFFF))
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=15)
owners = st.builds(Owned, addresses, st.binary(min_size=16, max_size=16))
profiles = st.builds(
    UserProfile,
    fee=st.integers(-(1 << 63), (1 << 63) - 1),
    symbol1=st.integers(0, 255),
    symbol2=st.integers(0, 255),
    class_rejection=st.integers(-128, 127),
    first_name=names,
    last_name=names,
)
times = st.integers(0, (1 << 64) - 1)
records = st.lists(st.builds(UserRecord, addresses, profiles, times, times), max_size=4)
entries = st.lists(st.builds(ListEntry, addresses, st.integers(0, 1)), max_size=6)


@given(owners, profiles)
def test_post_user_both_ways(owner: Owned, profile: UserProfile) -> None:
    assert drd.parse_post_user(drd.build_post_user(owner, profile)) == (owner, profile)


@given(records)
def test_search_answer_both_ways(found: list[UserRecord]) -> None:
    assert drd.parse_search_answer(drd.build_search_answer([*map(drd.build_user_record, found)])) == tuple(found)


@given(owners, entries)
def test_lists_both_ways(owner: Owned, listed: list[ListEntry]) -> None:
    assert drd.parse_list_set(drd.build_list_set(owner, listed)) == (owner, tuple(listed))
    plain = [entry.address for entry in listed]
    assert drd.parse_list_remove(drd.build_list_remove(owner, plain)) == (owner, tuple(plain))


@pytest.mark.parametrize("search", [Search("Al", None, 50), Search(None, "Sm"), Search("", "Sm", 255)])
def test_search_both_ways(search: Search) -> None:
    assert drd.parse_search_users(drd.build_search_users(search)) == search


def test_search_for_nothing_is_readable_but_not_writable() -> None:
    assert drd.parse_search_users(b"\0\0") == Search()
    with pytest.raises(LocalProtocolError):
        drd.build_search_users(Search())


def test_owner_request_both_ways_and_without_secret_in_print() -> None:
    body = drd.build_owned(OWNER)
    assert len(whole(body)) == 39
    assert drd.parse_owned(body) == OWNER
    assert "xa0" not in repr(OWNER)


@given(st.integers(0, drd.MAX_FEE))
def test_fee_text_is_exact(units: int) -> None:
    assert drd.fee_from_text(f"{units // 10**8}.{units % 10**8:08d}") == units


@pytest.mark.parametrize("text", ["", "-0", "1.", ".5", "1e3", "1,5", "0.000000001", "92233720368.54775808", "9" * 12])
def test_fee_refused(text: str) -> None:
    with pytest.raises(UsageError):
        drd.fee_from_text(text)


def test_fee_with_few_decimals() -> None:
    assert drd.fee_from_text(" 10.5 ") == 1_050_000_000


@pytest.mark.parametrize(
    "build",
    [
        lambda: drd.build_get_user(Address(0, 1 << 32)),
        lambda: drd.build_owned(Owned(OWNER.address, b"short")),
        lambda: drd.build_post_user(OWNER, UserProfile(first_name="é" * 32)),
        lambda: drd.build_post_user(OWNER, UserProfile(fee=1 << 63)),
        lambda: drd.build_list_answer([ENTRIES[0]] * 1001),
        lambda: drd.build_search_answer([b""] * 51),
    ],
)
def test_out_of_range_is_our_error(build: Callable[[], bytes]) -> None:
    with pytest.raises(LocalProtocolError):
        build()


@pytest.mark.parametrize("name", [b"\x40" + b"x" * 64, b"\x01\xff"])
def test_malformed_names(name: bytes) -> None:
    with pytest.raises(BadValue, match="name"):
        drd.parse_search_users(b"\x01\0" + name)
