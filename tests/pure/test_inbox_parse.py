"""Datagrams: what the three kinds look like, and any bytes at all."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from procd.errors import MessageTooBig
from procd.ipc import inbox, wire
from procd.ipc.inbox import (
    MAX_MESSAGE_BYTES,
    Addressed,
    Follow,
    Hint,
    Inherited,
    Message,
    Outcome,
    Passed,
)
from procd.ipc.wire import Undecodable

tokens = st.integers(0, 2**63 - 1)


@given(tokens)
def test_a_hint_and_an_addressed_task_are_told_apart(token: int) -> None:
    assert inbox.parse(memoryview(inbox.hint(token))) == Hint(token)
    assert inbox.parse(memoryview(inbox.addressed(token))) == Addressed(token)
    assert type(inbox.parse(memoryview(inbox.hint(token)))) is Hint
    assert type(inbox.parse(memoryview(inbox.addressed(token)))) is Addressed


@given(
    st.integers(0, 1023),
    st.none() | st.text(st.characters(exclude_categories=["Cs"])) | st.binary(),
)
def test_a_message_keeps_its_sender_and_data(src: int, data: object) -> None:
    assert inbox.parse(memoryview(inbox.message(src, data))) == Message(src, data)


@given(tokens, st.integers(0, 4095), st.integers(0, 2**32), st.binary(), st.sampled_from(Passed))
def test_who_follows_a_task_and_how_it_ends_arrive_as_they_were_told(
    token: int, row: int, incarnation: int, packed: bytes, passed: Passed
) -> None:
    follow = inbox.follow(token, row, incarnation)
    assert inbox.parse(memoryview(follow)) == Follow(token, row, incarnation)
    told = inbox.outcome(token, passed, packed)
    assert inbox.parse(memoryview(told)) == Outcome(token, passed, packed)


def test_an_outcome_over_the_limit_says_only_that() -> None:
    told = inbox.outcome(7, Passed.RESULT, b"x" * (MAX_MESSAGE_BYTES + 1))
    assert inbox.parse(memoryview(told)) == Outcome(7, Passed.TOO_LARGE, b"")


@given(st.lists(tokens, max_size=200))
def test_inherited_results_are_told_by_their_tokens(several: list[int]) -> None:
    told = inbox.inherited(several)
    assert inbox.parse(memoryview(told)) == Inherited(tuple(several))


def test_a_message_over_the_limit_is_refused_at_the_sender() -> None:
    room = MAX_MESSAGE_BYTES - len(inbox.message(0, b"x" * 70_000)) + 70_000
    assert len(inbox.message(0, b"x" * room)) == MAX_MESSAGE_BYTES
    with pytest.raises(MessageTooBig, match="an inbox takes 200000"):
        inbox.message(0, b"x" * (room + 1))


def test_data_that_cannot_travel_is_refused_at_the_sender() -> None:
    with pytest.raises(TypeError, match="a set cannot be sent"):
        inbox.message(0, {1})


@given(st.binary(max_size=200))
@example(b"")
@example(b"H")
@example(b"H" + bytes(7))
@example(b"T" + bytes(9))
@example(b"M")
@example(b"M\xc1")
@example(b"M" + wire.pack([True, 1]))
@example(b"M" + wire.pack([1]))
@example(b"M" + wire.pack([1, 2, 3]))
@example(b"M" + wire.pack({"a": 1}))
@example(b"m" + wire.pack([1, 2]))
def test_random_datagrams_are_one_of_ours_or_undecodable(data: bytes) -> None:
    try:
        item = inbox.parse(memoryview(data))
    except Undecodable:
        return
    match item:
        case Hint(token):
            assert data == inbox.hint(token)
        case Addressed(token):
            assert data == inbox.addressed(token)
        case Message(src, _):
            assert type(src) is int
            assert data[:1] == inbox.MESSAGE


@given(st.sampled_from([b"H", b"T", b"M"]), st.binary(max_size=40))
def test_random_bytes_behind_a_right_first_byte(kind: bytes, data: bytes) -> None:
    with suppress(Undecodable):
        inbox.parse(memoryview(kind + data))


def test_a_bool_is_no_worker_id() -> None:
    with pytest.raises(Undecodable):
        inbox.parse(memoryview(b"M" + wire.pack([True, "x"])))
