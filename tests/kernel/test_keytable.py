"""The key table among processes that race, stop and die with a bucket in hand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.errors import TaskQueueFull
from procd.ipc import layout, terms, wire, words
from procd.ipc.inbox import Follow, Outcome, Passed
from procd.ipc.keytable import KeyTaken, hashed
from procd.ipc.scoreboard import Role
from procd.ipc.terms import Terms
from procd.ipc.words import SlotState
from procd.tasks.following import FollowedRef
from procd.tasks.options import PLAIN
from procd.tasks.ref import TaskRef
from tests.kernel.arenas import Service, Someone, claim, serving
from tests.kernel.forked import Say, forked, wait_for_ever

DATA = wire.pack("work")
KEY = hashed(None, "one")


@pytest.fixture(name="service")
def service_in_tmp(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path, slots=1024) as service:
        yield service


@pytest.fixture(name="worker")
def a_worker(service: Service) -> Someone:
    return service.someone(Role.WORKER)


def send(who: Someone, key: str = "one") -> TaskRef:
    return who.dispatcher.dispatch(DATA, options=PLAIN.but({"key": key}))


def accept(who: Someone, slot: int, key: int) -> int:
    """Write a task with any 64 bits for its key."""
    me = who.arena.row, who.arena.incarnation
    meta = (*me, 0, -1, terms.TERMS, 5, len(DATA), time.time(), 0)
    packed = Terms(key=key).pack()
    return who.arena.accept(slot, DATA, meta, SlotState.QUEUED, packed, key)


def test_processes_that_race_for_keys_agree_on_one_task_each(service: Service) -> None:
    go, start = os.pipe()
    racers = [service.someone(Role.WORKER, number) for number in range(3)]

    def race(who: Someone, say: Say) -> None:
        os.close(start)
        os.read(go, 1)  # EOF: all stand
        say([send(who, str(number)).id for number in range(300)])
        wait_for_ever(say)

    with (
        forked(lambda say: race(racers[0], say)) as first,
        forked(lambda say: race(racers[1], say)) as second,
        forked(lambda say: race(racers[2], say)) as third,
    ):
        os.close(start)
        assert len({child.line() for child in (first, second, third)}) == 1
    os.close(go)
    assert len(service.file.tokens(SlotState.QUEUED)) == 300


def test_a_death_between_entry_and_word_leaves_the_key_free(
    service: Service, worker: Someone
) -> None:
    other = service.someone(Role.WORKER, 1)
    (slot, *_) = worker.arena.lease()
    token = words.token(slot, words.epoch_of(worker.arena.word(slot)) + 1)

    def die(say: Say) -> None:
        with worker.arena.keys.entering(KEY, token):
            say("entered")
            wait_for_ever(say)

    with forked(die) as child:
        assert child.line() == "entered"
        child.kill()
    assert worker.arena.keys.find(KEY) == 0
    # Its slot is given to a task with another key, under that token.
    assert accept(worker, slot, KEY + 1) == token
    assert worker.arena.keys.find(KEY) == 0
    assert worker.arena.keys.find(KEY + 1) == token
    assert send(other).id != token


def test_nobody_waits_for_one_who_is_stopped_with_a_bucket(
    service: Service, worker: Someone
) -> None:
    def stand(say: Say) -> None:
        with worker.arena.keys.entering(KEY, 1):
            say("entered")
            wait_for_ever(say)

    with forked(stand) as child:
        assert child.line() == "entered"
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(TaskQueueFull, match=f"process {child.pid} does not let go"):
            send(worker)
        os.kill(child.pid, signal.SIGKILL)
    assert send(worker).id == worker.arena.keys.find(KEY)
    assert len(service.file.tokens(SlotState.QUEUED)) == 1


def test_a_bucket_that_is_full_is_said_and_has_room_when_a_task_is_over(
    service: Service, worker: Someone
) -> None:
    tasker = service.someone(Role.TASK)
    slots = [slot for _ in range(40) for slot in worker.arena.lease()]
    buckets = service.file.layout.key_buckets
    keys = [1 + buckets * number for number in range(layout.BUCKET_ENTRIES)]
    tokens = [accept(worker, slot, key) for slot, key in zip(slots, keys, strict=False)]
    left = slots[len(keys)]
    with pytest.raises(TaskQueueFull, match="too many tasks with keys like this one"):
        accept(worker, left, 1 + buckets * 1000)
    with pytest.raises(KeyTaken) as taken:
        accept(worker, left, keys[7])
    assert taken.value.token == tokens[7]
    claim(tasker, tokens[7])
    tasker.arena.finish(tokens[7], wire.pack(0), failed=False)
    assert accept(worker, left, keys[7]) != tokens[7]


def test_a_result_is_passed_on_to_whoever_asks_in_time_or_a_little_late(
    service: Service, worker: Someone
) -> None:
    first, late = service.someone(Role.WORKER, 1), service.someone(Role.WORKER, 2)
    tasker = service.someone(Role.TASK)
    token = send(worker).id
    ref, later = send(first), send(late)
    assert isinstance(ref, FollowedRef)
    assert ref.id == later.id == token
    asks = [item for item in worker.mail() if isinstance(item, Follow)]
    assert [ask.row for ask in asks] == [first.seat.row, late.seat.row]
    worker.dispatcher.take_note(asks[0])
    claim(tasker, token)
    tasker.arena.finish(token, wire.pack("result"), failed=False)
    worker.dispatcher.take_hint(token)
    worker.dispatcher.take_note(asks[1])
    for who, theirs in ((first, ref), (late, later)):
        (told,) = who.mail()
        assert told == Outcome(token, Passed.RESULT, wire.pack("result"))
        who.dispatcher.take_note(told)
        assert theirs.is_done
        assert who.results == []  # on_finish is its sender's
    assert not first.dispatcher.follows.tasks


def test_who_follows_a_task_of_one_that_dies_is_told_at_his_next_look_but_one(
    service: Service, worker: Someone
) -> None:
    follower = service.someone(Role.WORKER, 1)
    send(worker)
    ref = send(follower)
    service.bury(worker)
    follower.dispatcher.follows.look()
    assert not ref.is_done  # what it sent before may still lie in the inbox
    follower.dispatcher.follows.look()
    assert ref.is_done
