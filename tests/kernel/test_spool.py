"""What is too large for a slot: stored whole or not at all, read whole or said to be damaged."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.errors import MessageTooBig, StartFailed, TaskRejected
from procd.ipc import wire
from procd.ipc.layout import Damaged
from procd.ipc.scoreboard import Cell, Role
from procd.ipc.spool import RESULT, TASK, Spool
from procd.ipc.words import SlotState
from tests.kernel.arenas import MAX_BYTES, Service, Someone, claim, serving
from tests.kernel.forked import NOBODY, as_nobody, needs_root, outcome

TOKEN = 4711
LARGE = "x" * 5_000  # a slot has 256 bytes


@pytest.fixture(name="spool")
def a_spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    spool.max_bytes = 1_000_000
    yield spool
    spool.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- one file


def test_the_folder_and_its_files_are_private(spool: Spool) -> None:
    spool.write(TOKEN, TASK, b"data")
    (file,) = spool.path.iterdir()
    assert spool.path.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("data", [b"x", os.urandom(1_000_000)], ids=len)
def test_what_is_stored_is_read_whole(spool: Spool, data: bytes) -> None:
    spool.write(TOKEN, RESULT, data)
    assert spool.read(TOKEN, RESULT, len(data)) == data


def test_more_than_is_allowed_is_too_big(spool: Spool) -> None:
    with pytest.raises(MessageTooBig, match=r"1000001 bytes; 1000000 are allowed .task_max_bytes"):
        spool.write(TOKEN, TASK, bytes(1_000_001))
    assert names(spool.path) == []


def test_what_lies_under_the_name_is_replaced_and_never_written_over(spool: Spool) -> None:
    spool.write(TOKEN, TASK, b"of one who died")
    (file,) = spool.path.iterdir()
    with file.open("rb") as reader:
        spool.write(TOKEN, TASK, b"new")
        assert reader.read() == b"of one who died"
    assert spool.read(TOKEN, TASK, 3) == b"new"


def test_a_link_under_the_name_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    for token in (1, 2):
        (spool.path / f"{token:016x}.task").symlink_to(elsewhere)
    spool.write(1, TASK, b"mine")
    assert elsewhere.read_bytes() == b"precious"
    with pytest.raises(Damaged):
        spool.read(2, TASK, 8)


def test_a_file_that_is_gone_or_of_another_length_is_damage(spool: Spool) -> None:
    with pytest.raises(Damaged, match="No such file"):
        spool.read(TOKEN, TASK, 4)
    spool.write(TOKEN, TASK, b"data")
    for size in (3, 5):
        with pytest.raises(Damaged, match=f"has 4 bytes instead of {size}"):
            spool.read(TOKEN, TASK, size)


def test_a_file_that_does_not_fit_leaves_nothing_and_names_file_and_cure(spool: Spool) -> None:
    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        spool.write(TOKEN, TASK, bytes(100_000))

    said = outcome(write)

    assert said.startswith(TaskRejected.__name__)
    assert f"{spool.path}/{TOKEN:016x}.task: File too large: raise the limit" in said
    assert names(spool.path) == []


def test_a_folder_that_is_gone_is_said(spool: Spool) -> None:
    spool.path.rmdir()
    with pytest.raises(TaskRejected, match="somebody removed the folder"):
        spool.write(TOKEN, TASK, b"data")


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    with pytest.raises(StartFailed, match="cannot make the folder"):
        Spool(tmp_path / "spool")


def test_a_sweep_removes_what_nobody_needs_and_leaves_what_is_not_ours(spool: Spool) -> None:
    for token in (1, 2):
        spool.write(token, TASK, b"data")
        spool.write(token, RESULT, b"data")
    (spool.path / "notes.txt").touch()
    (spool.path / f"{3:016x}.task").symlink_to("/etc/hostname")
    (spool.path / f"{3:016x}.result").mkdir()

    strange = spool.sweep(lambda token: token == 1)

    assert sorted(strange) == [f"{3:016x}.result", f"{3:016x}.task", "notes.txt"]
    assert names(spool.path) == sorted([*strange, f"{1:016x}.task", f"{1:016x}.result"])


@needs_root
def test_processes_of_a_user_who_cannot_walk_there_use_it(spool: Spool, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    spool.write(1, TASK, b"kept from when it was root's")
    spool.write(2, TASK, b"with a second name")
    (tmp_path / "name").hardlink_to(spool.path / f"{2:016x}.task")
    spool.give_to(NOBODY, NOBODY)

    def use() -> object:
        spool.write(3, RESULT, b"data")
        read = spool.read(3, RESULT, 4), spool.read(1, TASK, 28)
        spool.remove(3)
        return read

    assert outcome(as_nobody(use)) == repr((b"data", b"kept from when it was root's"))
    assert names(spool.path) == [f"{1:016x}.task", f"{2:016x}.task"]
    assert (tmp_path / "name").stat().st_uid == 0


# ---------------------------------------------------------------- its files and their slots


@pytest.fixture(name="service")
def a_service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path) as service:
        yield service


def spooled(service: Service) -> list[str]:
    return names(service.folder / "spool")


def large_task(worker: Someone) -> int:
    return worker.dispatcher.dispatch(wire.pack(LARGE)).id


def test_a_task_and_its_result_go_through_files_that_go_with_the_slot(service: Service) -> None:
    worker, tasker = service.someone(Role.WORKER), service.someone(Role.TASK)
    token = large_task(worker)
    assert spooled(service) == [f"{token:016x}.task"]
    claimed = tasker.arena.claim(token)
    assert claimed is not None
    assert wire.unpack(claimed[2]) == LARGE
    tasker.arena.finish(token, wire.pack([LARGE]), failed=False)
    worker.dispatcher.take_hint(token)
    assert worker.results == [(token, [LARGE], None)]
    assert spooled(service) == []


def test_a_task_that_cannot_be_stored_takes_no_slot(service: Service) -> None:
    worker = service.someone(Role.WORKER)
    for _ in range(200):  # there are 64
        with pytest.raises(MessageTooBig):
            worker.dispatcher.dispatch(bytes(MAX_BYTES + 1))
    (service.folder / "spool").rmdir()
    for _ in range(200):
        with pytest.raises(TaskRejected):
            large_task(worker)
    assert worker.cells[Cell.REFUSED] == 200
    assert service.file.count() == (0, 0)
    assert worker.dispatcher.dispatch(b"small").id


def test_half_a_payload_of_a_dead_dispatcher_is_removed(service: Service) -> None:
    worker, other = service.someone(Role.WORKER), service.someone(Role.WORKER, 1)
    accepted, of_another = large_task(worker), large_task(other)
    slot = worker.arena.lease()[0]
    half = service.file.slot(slot).token + (1 << 20)  # of the next epoch: not accepted
    service.file.spool.write(half, TASK, b"half")
    elsewhere = service.file.slot(other.arena.lease()[0]).token + (1 << 20)
    service.file.spool.write(elsewhere, TASK, b"about to be accepted by the other")

    service.bury(worker)

    tokens = [accepted, of_another, elsewhere]
    assert spooled(service) == sorted(f"{token:016x}.task" for token in tokens)


def test_half_a_result_of_a_dead_task_worker_is_removed(service: Service) -> None:
    worker, tasker = service.someone(Role.WORKER), service.someone(Role.TASK)
    token = large_task(worker)
    claim(tasker, token)
    service.file.spool.write(token, RESULT, b"half")

    service.bury(tasker)

    assert service.state(token) is SlotState.QUEUED
    assert spooled(service) == [f"{token:016x}.task"]


def test_files_of_a_result_without_a_reader_go_with_its_slot(service: Service) -> None:
    worker, tasker = service.someone(Role.WORKER), service.someone(Role.TASK)
    token = large_task(worker)
    claim(tasker, token)
    service.bury(worker)
    tasker.arena.finish(token, wire.pack(LARGE), failed=False)
    assert len(spooled(service)) == 2

    service.recovery.sweep(0.0)

    assert service.state(token) is SlotState.FREE
    assert spooled(service) == []


def test_a_task_that_is_given_up_leaves_no_file(service: Service) -> None:
    worker = service.someone(Role.WORKER)
    token = large_task(worker)
    for number in range(3):
        tasker = service.someone(Role.TASK, number)
        claim(tasker, token)
        service.bury(tasker)
    ((entry, _),) = service.lay_down()
    assert entry.data == wire.pack(LARGE)
    worker.dispatcher.take_hint(token)
    ((_, _, error),) = worker.results
    assert "given up" in str(error)
    assert spooled(service) == []


def test_the_next_master_keeps_what_is_queued_and_removes_the_rest(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        worker, tasker = service.someone(Role.WORKER), service.someone(Role.TASK)
        queued, running, done = (large_task(worker) for _ in range(3))
        for token in (running, done):
            claim(tasker, token)
            service.file.spool.write(token, RESULT, b"half")
        tasker.arena.finish(done, wire.pack(LARGE), failed=False)
        service.file.spool.write(queued + (1 << 20), TASK, b"half")
        service.die()
    with serving(tmp_path) as service:
        assert service.recovery.adopt(0.0) == 2
        assert spooled(service) == sorted(f"{token:016x}.task" for token in (queued, running))
        assert service.stop(discard=True) == 0
        assert spooled(service) == []


def test_a_stop_keeps_the_files_of_kept_tasks(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        worker, tasker = service.someone(Role.WORKER), service.someone(Role.TASK)
        queued, running = (large_task(worker) for _ in range(2))
        claim(tasker, running)
        service.file.spool.write(running, RESULT, b"half")
        assert service.stop() == 2
        assert spooled(service) == sorted(f"{token:016x}.task" for token in (queued, running))
