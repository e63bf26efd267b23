"""The arena as a file: made, adopted, set aside, kept; and ids that are never given twice."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from procd.errors import StartFailed
from procd.ipc import layout, wire, words
from procd.ipc.arenafile import ArenaFile
from procd.ipc.layout import Damaged, Layout
from procd.ipc.scoreboard import Role
from procd.ipc.words import IllegalChange, SlotState
from procd.linux.sysv import MessageQueue, QueueGone
from procd.master import inheritance
from tests.kernel.arenas import Service, serving
from tests.kernel.forked import as_nobody, needs_root, outcome

SMALL = Layout.of(64, 256, 1000)


@pytest.fixture(name="path")
def path_of_arena(tmp_path: Path) -> Path:
    return tmp_path / "arena"


def made(path: Path, shape: Layout = SMALL) -> None:
    ArenaFile.create(path, shape).close()


def damage(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def opened(folder: Path, now_ms: int, slots: int = 64) -> ArenaFile:
    return inheritance.open_arena(folder / "arena", folder / "ids", slots, 256, now_ms)


# ---------------------------------------------------------------- making


def test_an_arena_is_whole_private_and_not_sparse(path: Path) -> None:
    made(path)
    found = path.stat()
    assert found.st_size == SMALL.size
    assert found.st_mode & 0o777 == 0o600
    assert found.st_blocks * 512 >= SMALL.size


def test_a_new_arena_is_empty_and_begins_with_its_epoch(path: Path) -> None:
    arena = ArenaFile.create(path, SMALL)
    assert list(arena.in_use()) == []
    assert arena.count() == (0, 0)
    assert arena.last_epoch() == 1000
    assert {arena.slot(number).epoch for number in range(64)} == {1000}
    arena.close()


def test_an_arena_that_is_there_is_not_made_again(path: Path) -> None:
    made(path)
    with pytest.raises(StartFailed, match="File exists"):
        ArenaFile.create(path, SMALL)
    assert path.stat().st_size == SMALL.size


def test_a_full_disk_leaves_no_arena_and_says_what_to_do(path: Path) -> None:
    def create() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL.size // 2,) * 2)
        return ArenaFile.create(path, SMALL)

    said = outcome(create)
    assert said.startswith("StartFailed")
    assert f"cannot make the task arena {path}: File too large" in said
    assert not path.exists()


@needs_root
def test_a_folder_without_permission_is_said(tmp_path: Path, path: Path) -> None:
    tmp_path.chmod(0o755)
    assert "Permission denied" in outcome(as_nobody(lambda: ArenaFile.create(path, SMALL)))


# ---------------------------------------------------------------- adopting


def test_an_arena_is_adopted_as_it_was(path: Path) -> None:
    made(path)
    after = ArenaFile.adopt(path)
    assert after is not None
    assert after.layout == SMALL
    assert not os.get_inheritable(after.fd)
    after.close()


def test_where_there_is_none_none_is_adopted(path: Path) -> None:
    assert ArenaFile.adopt(path) is None


@pytest.mark.parametrize("size", [0, 10, layout.PAGE, SMALL.size - 1, SMALL.size + 1])
def test_a_file_of_another_size_is_damage(path: Path, size: int) -> None:
    made(path)
    os.truncate(path, size)
    with pytest.raises(Damaged):
        ArenaFile.adopt(path)


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    made(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartFailed, match="cannot open the task arena"):
        ArenaFile.adopt(path)


def test_a_folder_in_its_place_is_said(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StartFailed, match="Is a directory"):
        ArenaFile.adopt(path)


def test_a_pipe_in_its_place_is_said(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(Damaged, match="it is no regular file"):
        ArenaFile.adopt(path)


# ---------------------------------------------------------------- damage, set aside


@pytest.mark.parametrize("at", [0, 8, 12, 32])
def test_a_damaged_arena_is_set_aside_whole_and_a_new_one_made(tmp_path: Path, at: int) -> None:
    path = tmp_path / "arena"
    made(path)
    damage(path, at, b"\xff")
    before = path.read_bytes()
    arena = opened(tmp_path, 5_000)
    (aside,) = tmp_path.glob("arena.damaged-*")
    assert aside.read_bytes() == before
    assert list(arena.in_use()) == []
    assert arena.layout.first_epoch == 5_000
    arena.close()


def test_the_name_of_what_is_set_aside_says_when(path: Path) -> None:
    made(path)
    aside = inheritance.set_aside(path, 0.0)
    assert aside.name == f"arena.damaged-19700101-000000-{os.getpid()}"
    assert not path.exists()


# ---------------------------------------------------------------- another size


def test_an_empty_arena_of_another_size_is_made_anew(tmp_path: Path) -> None:
    opened(tmp_path, 5_000).close()
    large = opened(tmp_path, 1_000, slots=128)
    assert large.layout.slots == 128
    assert large.layout.first_epoch == 5_001  # though the clock went back
    large.close()


def test_an_arena_with_tasks_in_it_keeps_its_size(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        accept(service)
        service.stop()
    arena = opened(tmp_path, 5_000, slots=128)
    assert arena.layout.slots == 64
    assert arena.count() == (1, 0)
    arena.close()


# ---------------------------------------------------------------- changing


def accept(service: Service, count: int = 1) -> list[int]:
    worker = service.someone(Role.WORKER)
    return [worker.dispatcher.dispatch(wire.pack("work")).id for _ in range(count)]


def test_the_master_writes_only_what_is_the_masters_to_write(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        (token,) = accept(service)
        slot = service.slot(token)
        for state in (SlotState.RUNNING, SlotState.DELAYED, SlotState.ADDRESSED, SlotState.QUEUED):
            with pytest.raises(IllegalChange, match="MASTER: QUEUED -> "):
                service.file.move(slot, state)
        service.file.move(slot, SlotState.FREE)
        assert service.state(token) is SlotState.FREE


def test_tasks_are_counted_by_state(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        tokens = accept(service, 4)
        tasker = service.someone(Role.TASK)
        for token in tokens[:2]:
            assert tasker.arena.claim(token) is not None
        tasker.arena.finish(tokens[0], b"", failed=False)
        assert service.file.count() == (2, 1)


def test_a_sweep_frees_results_and_keeps_tasks(tmp_path: Path) -> None:
    with serving(tmp_path, slots=1024) as service:
        tokens = accept(service, 3)  # of one chunk of four
        tasker = service.someone(Role.TASK)
        for token in tokens[:2]:
            assert tasker.arena.claim(token) is not None
            tasker.arena.finish(token, b"", failed=False)
        chunk = words.slot_of(tokens[0]) // service.file.layout.chunk_slots
        assert service.file.sweep(chunk) == (2, True)
        assert service.file.owners()[chunk] == layout.ORPHAN
        assert tasker.arena.claim(tokens[2]) is not None
        tasker.arena.finish(tokens[2], b"", failed=False)
        assert service.file.sweep(chunk) == (1, False)
        assert service.file.owners()[chunk] == layout.NOBODY


def test_discarding_drops_every_task_and_the_file(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        tokens = accept(service, 3)
        tasker = service.someone(Role.TASK)
        assert tasker.arena.claim(tokens[0]) is not None  # killed while it ran
        assert service.stop(discard=True) == 0
        assert not service.path.exists()
        with pytest.raises(QueueGone):
            MessageQueue.open(service.queue.key)


# ---------------------------------------------------------------- ids


@pytest.mark.parametrize("kept", [0, 2])
def test_ids_never_repeat_over_restarts_even_if_the_clock_stands_still(
    tmp_path: Path, kept: int
) -> None:
    """Each round takes all slots at once; the floor of ids or the kept arena carries on."""
    seen: set[int] = set()
    for _ in range(4):
        opened(tmp_path, 7_000).close()
        with serving(tmp_path) as service:
            left = service.recovery.adopt(0.0)
            tokens = set(accept(service, 64 - left))
            assert not tokens & seen
            seen |= tokens
            slots = sorted(service.file.in_use(), key=lambda slot: slot.token)
            for slot in slots[kept:]:
                service.file.move(slot, SlotState.FREE)
            assert service.stop() == kept


@pytest.mark.parametrize("text", ["", "x", "-5\n", "9" * 60, "\xe9"])
def test_a_damaged_floor_of_ids_is_replaced_by_the_clock(tmp_path: Path, text: str) -> None:
    (tmp_path / "ids").write_text(text, encoding="latin-1")
    arena = opened(tmp_path, 7_000)
    assert 7_000 <= arena.layout.first_epoch < words.MAX_EPOCH
    arena.close()
