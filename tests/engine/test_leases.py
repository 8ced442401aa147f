"""Single use: the bookkeeping against a slow oracle that knows every byte by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.engine.files.leases import Lease, Leases
from qmail_core.errors import Conflict

ID = b"d" * 16
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 9), st.integers(1, 10)),
        st.tuples(st.just("take"), st.integers(0, 3), st.integers(1, 5)),
        st.tuples(st.just("end"), st.integers(0, 3), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS)
def test_as_if_every_byte_were_counted(steps: list[tuple[str, int, int]]) -> None:
    leases, running = Leases(), list[Lease]()
    taken: set[int] = set()
    for what, first, second in steps:
        if what == "begin" and first < second:
            busy = {byte for lease in running for byte in range(lease.start, lease.stop)}
            if busy & set(range(first, second)):
                with pytest.raises(Conflict):
                    leases.begin(ID, 10, first, second, "me")
            else:
                running.append(leases.begin(ID, 10, first, second, "me"))
        elif what == "take" and first < len(running):
            lease = running[first]
            lease.take(min(second, lease.stop - lease.at))
        elif what == "end" and first < len(running):
            lease = running.pop(first)
            taken |= set(range(lease.start, lease.at))
            if lease.at == lease.stop:
                assert leases.finish(lease) is (taken == set(range(10)))
            leases.drop(lease)
            assert leases._usage[ID].complete() is (taken == set(range(10)))


def test_another_client_waits_until_it_is_over() -> None:
    leases = Leases()
    leases.drop(leases.begin(ID, 10, 0, 5, "me"))
    with pytest.raises(Conflict, match="Another client"):
        leases.begin(ID, 10, 0, 10, "you")
    assert leases.known() == [ID]
    leases.end(ID)
    leases.begin(ID, 10, 0, 10, "you")
    assert leases.known() == []


def test_an_empty_file_is_read_by_one_at_a_time() -> None:
    leases = Leases()
    one = leases.begin(ID, 0, 0, 0, "me")
    with pytest.raises(Conflict, match="under way"):
        leases.begin(ID, 0, 0, 0, "me")
    assert leases.finish(one)
