"""The slot word: who may change it to what, and that nothing of it is lost in 64 bits."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.ipc import words
from procd.ipc.words import CHANGES, IllegalChange, SlotState, Word, Writer

EVERY_CHANGE = list(itertools.product(SlotState, SlotState, Writer))
LEGAL = {(old, new, writer) for (old, new), writers in CHANGES.items() for writer in writers}

some_words = st.builds(
    Word,
    st.sampled_from(SlotState),
    st.integers(0, words.MAX_ATTEMPTS),
    st.integers(0, words.MAX_ROWS - 1),
    st.integers(0, words.MAX_EPOCH),
)


def change(old: SlotState, new: SlotState, epochs: tuple[int, int]) -> tuple[int, int]:
    return words.pack(old, 1, 2, epochs[0]), words.pack(new, 1, 2, epochs[1])


def refusal(old: SlotState, new: SlotState, writer: Writer, epochs: tuple[int, int]) -> str:
    """What check() says against a change; "" = nothing."""
    try:
        words.check(*change(old, new, epochs), writer)
    except IllegalChange as error:
        return str(error)
    return ""


def test_every_change_is_allowed_or_refused_by_name() -> None:
    assert len(EVERY_CHANGE) == len(SlotState) ** 2 * len(Writer) == 256
    for old, new, writer in EVERY_CHANGE:
        epochs = (7, 8) if old is SlotState.FREE else (7, 7)
        said = refusal(old, new, writer, epochs)
        if (old, new, writer) in LEGAL:
            assert said == ""
        else:
            assert said == f"{writer.name}: {old.name} -> {new.name}"


def test_a_use_of_a_slot_begins_with_a_new_epoch_and_keeps_it() -> None:
    for old, new, writer in LEGAL:
        for epochs in ((7, 6), (7, 7), (7, 8), (7, 9)):
            is_right = epochs == ((7, 8) if old is SlotState.FREE else (7, 7))
            assert (refusal(old, new, writer, epochs) == "") is is_right


def test_each_state_can_be_reached_and_left() -> None:
    assert {old for old, _ in CHANGES} == {new for _, new in CHANGES} == set(SlotState)


def test_only_the_dispatcher_accepts_and_only_a_task_worker_claims() -> None:
    for old, new, writer in LEGAL:
        assert (old is SlotState.FREE) is (writer is Writer.DISPATCHER and new.name != "FREE")
        if new is SlotState.RUNNING:
            assert writer is Writer.TASK_WORKER


def test_a_finished_task_never_runs_again() -> None:
    assert {new for old, new in CHANGES if old is SlotState.DONE} == {SlotState.FREE}
    assert {new for old, new in CHANGES if old is SlotState.DEAD} == {SlotState.DONE}


def test_a_held_task_runs_only_when_the_ledger_says_so() -> None:
    changes = {(new, writer) for old, new, writer in LEGAL if old is SlotState.HELD}
    assert {writer for new, writer in changes if new is not SlotState.FREE} == {Writer.LEDGER}


@given(some_words)
def test_a_word_is_what_was_packed(word: Word) -> None:
    packed = words.pack(*word)
    assert 0 <= packed < 2**64
    assert words.unpack(packed) == word
    assert words.state_of(packed) == word.state
    assert words.epoch_of(packed) == word.epoch


@given(st.integers(0, 2**64 - 1))
def test_any_word_is_read_or_refused_as_damaged(word: int) -> None:
    if word & words.STATE_MASK > max(SlotState):
        with pytest.raises(ValueError, match="is not a valid SlotState"):
            words.unpack(word)
    else:
        assert words.pack(*words.unpack(word)) == word


@given(st.integers(0, words.MAX_SLOTS - 1), st.integers(0, words.MAX_EPOCH))
def test_a_token_names_one_slot_and_one_use_of_it(slot: int, epoch: int) -> None:
    token = words.token(slot, epoch)
    assert 0 <= token < 2**63  # a task id
    assert (words.slot_of(token), words.token_epoch(token)) == (slot, epoch)


def test_ids_last_until_the_year_2200_and_beyond() -> None:
    """An epoch begins as the time in milliseconds."""
    assert words.MAX_EPOCH > (2200 - 1970) * 366 * 86_400_000


def test_the_fields_fill_the_word() -> None:
    bits = words.STATE_BITS + words.ATTEMPT_BITS + words.ROW_BITS + words.EPOCH_BITS
    assert bits == 64
    assert words.EPOCH_BITS + words.SLOT_BITS == 63
    assert max(SlotState) <= words.STATE_MASK


@given(some_words, some_words, st.integers(0, words.MAX_SLOTS - 1))
def test_a_word_is_that_of_one_token_in_one_state(word: Word, other: Word, slot: int) -> None:
    token = words.token(slot, word.epoch)
    is_same = (other.state, other.epoch) == (word.state, word.epoch)
    assert words.is_of(words.pack(*word), token, word.state)
    assert words.is_of(words.pack(*other), token, word.state) is is_same
    assert words.unpack(words.freed(token)) == Word(SlotState.FREE, 0, 0, word.epoch)
