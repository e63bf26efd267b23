"""Options and what becomes of them: terms in a slot, pauses, verdicts, the order of tokens."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from math import inf, isclose, nan

from hypothesis import given
from hypothesis import strategies as st

from procd.errors import TaskCancelled, TaskFailed, TaskTimeout
from procd.ipc import layout, terms
from procd.ipc.layout import Meta
from procd.ipc.terms import Terms
from procd.master.endings import after_crash
from procd.tasks import failure, options
from procd.tasks.options import PLAIN, Options
from procd.tasks.unsent import OLDEST_EACH, Unsent

NOW = 1_000_000.0
TOKEN = 77

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
seconds = st.floats(0, 2**40, width=32)
some_terms = st.builds(
    Terms, seconds, u32, u32, seconds, seconds, seconds, seconds, u32, u32, u64, u64
)


def terms_of(these: Options, timeout: float | None = None) -> tuple[int, float, Terms]:
    flags, due, packed = these.pack(NOW, timeout)
    return flags, due, Terms.unpack(bytes(terms.AT) + packed)


# ---------------------------------------------------------------- terms


@given(some_terms)
def test_terms_come_back_and_stand_behind_the_meta(these: Terms) -> None:
    packed = these.pack()
    assert len(packed) == terms.BYTES
    assert Terms.unpack(bytes(terms.AT) + packed) == these
    assert layout.RESULT_AT + 8 <= terms.AT
    assert terms.AT + terms.BYTES == layout.META_BYTES


@given(some_terms)
def test_what_changes_later_is_a_word_of_its_own(these: Terms) -> None:
    body = bytes(terms.AT) + these.pack()
    for at, word in ((terms.TRIES_AT, these.tries), (terms.CANCELLED_AT, these.cancelled)):
        assert at % 8 == 0
        assert layout.WORD.unpack_from(body, at)[0] == word


def test_counts_that_are_damaged_still_fit_their_word() -> None:
    assert Terms(crashes=2**32, failures=2**40).tries == 2**64 - 1


def test_what_is_no_time_is_due_at_once() -> None:
    for due in (nan, -1.0, -inf):
        assert Terms.unpack(bytes(terms.AT) + Terms(due=due).pack()).due == 0.0


def test_a_task_without_options_has_no_terms() -> None:
    assert PLAIN.pack(NOW, None) == (0, 0.0, b"")


def test_options_become_terms() -> None:
    given_ = PLAIN.but({"retries": 3, "ttl": 10, "delay": 5, "max_attempts": 7, "timeout": 2})
    flags, due, these = terms_of(given_, timeout=9)
    assert flags == terms.TERMS
    assert due == these.due == NOW + 5
    assert (these.retries, these.expires, these.max_attempts) == (3, NOW + 10, 7)
    assert these.timeout == 2
    assert terms_of(PLAIN, timeout=9)[2].timeout == 9
    assert terms_of(PLAIN.but({"timeout": inf}), timeout=9)[2].timeout == 0
    once = terms_of(PLAIN.but({"delivery": "at_most_once"}))
    assert once[0] == terms.TERMS | terms.AT_MOST_ONCE


def test_a_time_is_a_number_or_a_datetime_and_of_the_past_it_is_now() -> None:
    moment = datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=5)
    assert PLAIN.but({"at": moment}).due(NOW) == NOW + 5
    assert PLAIN.but({"at": NOW + 5}).due(NOW) == NOW + 5
    assert PLAIN.but({"at": NOW - 5}).due(NOW) == 0
    assert PLAIN.but({"delay": 0}).due(NOW) == 0


def test_of_delay_and_at_that_of_the_call_counts() -> None:
    assert PLAIN.but({"delay": 5}).but({"at": NOW + 1}).due(NOW) == NOW + 1
    assert PLAIN.but({"at": NOW + 1}).but({"delay": 5}).due(NOW) == NOW + 5


def test_pauses_double_up_to_a_limit_less_up_to_a_half() -> None:
    these = Terms(retries=2000, retry_delay=1, retry_max_delay=100)
    for failures in range(1100):
        again = options.retried(these, NOW)
        whole = min(100.0, 2.0 ** min(failures, 60))
        assert NOW + whole / 2 <= again.due <= NOW + whole
        assert again.failures == failures + 1
        these = again


def test_the_grace_after_a_timeout_is_a_second_or_a_tenth() -> None:
    assert [terms.grace(timeout) for timeout in (0.1, 10, 60)] == [1, 1, 6]


# ---------------------------------------------------------------- after a crash


def verdict(these: Terms, *, flags: int = 0, was_overdue: bool = False, most: int = 3) -> str:
    meta = Meta(1, 1, 0, -1, flags, 5, 0, NOW)
    how = "SIGKILL" if was_overdue else "SIGSEGV"
    end = after_crash(TOKEN, meta, these, how, was_overdue=was_overdue, most=most)
    return "" if end is None else f"{end.kind}: {end.text}"


def test_a_task_is_run_again_until_it_has_cost_its_processes() -> None:
    assert verdict(Terms(crashes=1)) == ""
    why = ": given up after 3 attempts (task_max_attempts), the last: SIGSEGV"
    assert verdict(Terms(crashes=2)) == why
    assert verdict(Terms(crashes=2, max_attempts=9)) == ""
    assert "after 1 attempts (max_attempts)" in verdict(Terms(max_attempts=1))
    # A stop is not its fault.
    assert verdict(Terms(crashes=60), most=0) == ""


def test_failures_of_its_handler_cost_no_attempt() -> None:
    assert verdict(Terms(crashes=0, failures=50)) == ""


def test_a_task_that_is_cancelled_or_may_run_once_is_not_run_again() -> None:
    assert verdict(Terms(cancelled=TOKEN)).startswith("cancelled: cancelled while it ran")
    assert verdict(Terms(cancelled=TOKEN + 1)) == ""  # of an earlier task in that slot
    assert "not run again" in verdict(Terms(), flags=terms.AT_MOST_ONCE)
    assert "not run again" in verdict(Terms(), flags=terms.AT_MOST_ONCE, most=0)


def test_a_task_that_was_killed_for_its_timeout_fails_as_such() -> None:
    told = verdict(Terms(timeout=2, crashes=2), was_overdue=True)
    assert told.startswith("timeout: given up after 3 attempts")
    assert "longer than its timeout of 2 s" in told


# ---------------------------------------------------------------- failures


@given(st.text(), st.text(), st.integers(64, 2048), st.sampled_from(["", "timeout", "cancelled"]))
def test_a_failure_fits_and_comes_back_as_its_kind(
    text: str, trace: str, limit: int, kind: str
) -> None:
    packed = failure.pack(text, trace, limit, kind)
    assert len(packed) <= limit
    _, error = failure.outcome(packed, failed=True)
    kinds = {"": TaskFailed, "timeout": TaskTimeout, "cancelled": TaskCancelled}
    assert type(error) is kinds[kind]
    assert isinstance(error, TaskFailed)


# ---------------------------------------------------------------- tokens


@given(st.lists(st.integers(1, 9)), st.integers(0, 50))
def test_tokens_leave_by_priority_and_equals_in_their_order(given_: list[int], room: int) -> None:
    unsent = Unsent()
    sent: list[tuple[int, int]] = []

    def try_send(token: int, priority: int) -> bool:
        if len(sent) == room:
            return False
        sent.append((priority, token))
        return True

    for token, priority in enumerate(given_):
        unsent.add(token, priority)
    assert unsent.holds_up(9) is bool(given_)
    unsent.send(try_send)
    expected: list[tuple[int, int]] = []
    left = sorted((priority, token) for token, priority in enumerate(given_))
    while left:
        oldest_is_due = (len(expected) + 1) % OLDEST_EACH == 0
        expected.append(min(left, key=lambda pair: pair[1]) if oldest_is_due else left[0])
        left.remove(expected[-1])
    assert sent == expected[:room]
    assert len(unsent) == len(given_) - len(sent)
    if unsent:
        most_urgent = min(priority for priority, _ in expected[room:])
        assert unsent.holds_up(most_urgent)
        assert not unsent.holds_up(most_urgent - 1)


def test_pauses_are_not_all_the_same() -> None:
    these = Terms(retries=9, retry_delay=1, retry_max_delay=100)
    dues = Counter(options.retried(these, NOW).due for _ in range(50))
    assert len(dues) > 40
    assert not isclose(min(dues), max(dues), abs_tol=0.1)
