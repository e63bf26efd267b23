"""Tasks whose data or result is too large for a slot: they go through files in state_dir/spool."""

from __future__ import annotations

import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.forked import needs_root
from tests.service.conftest import Serve
from tests.service.daemon import Service, pause, scaled
from tests.service.test_master_killed import kill_master

LARGE = 300_000
# Spaces behind an expression mean nothing to Python, and make it a large task.
RAN = f"'(ran({{}}), \"y\" * {LARGE})'.ljust({LARGE})"


def spool(service: Service) -> list[Path]:
    return sorted((service.root / "state" / "spool").iterdir())


def all_ran(service: Service, count: int) -> None:
    """Wait until *count* tasks have run and nothing of them is left."""
    service.wait_for(lambda: set(service.runs()) >= set(range(count)), 30)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 10)
    service.wait_for(lambda: not spool(service), 10, "an empty spool")


# ---------------------------------------------------------------- whole, both ways


@pytest.mark.short
def test_large_data_and_a_large_result_arrive_whole(service: Service) -> None:
    for size in (1_000, 1_024, 1_025, LARGE, 5_000_000):
        assert service.ask(f"await server.task('6 * 7'.ljust({size}))", 20) == 42
        assert service.ask(f"len(await server.task(\"b'y' * {size}\"))", 20) == size
        assert service.ask(f"len((await add.send('x' * {size}, 'y'))['sum'])", 20) == size + 1
    assert spool(service) == []


def test_the_largest_that_is_allowed_by_default_arrives(service: Service) -> None:
    size = 64 * 1024**2 - 100  # and what MessagePack adds
    assert service.ask(f"len((await add.send(b'x' * {size}, b''))['sum'])", 60) == size


def test_on_finish_gets_a_large_result(service: Service) -> None:
    with service.connect() as client:
        client.ask(f"server.task(\"'y' * {LARGE}\").id")
        service.wait_for(lambda: client.ask("[len(r) for _, r in finished]") == [LARGE], 5)
    assert spool(service) == []


def test_data_over_the_limit_is_too_big_and_a_result_over_it_fails(serve: Serve) -> None:
    service = serve(task_max_bytes="100K")
    answer = service.ask("attempt(server.task, 'x' * 200_000)")
    assert answer["error"] == "MessageTooBig"
    assert "task_max_bytes" in answer["text"]
    answer = service.task("'x' * 200_000")
    assert answer["error"] == "TaskFailed"
    assert "MessageTooBig: its result" in answer["text"]
    assert service.task("attempt(task.finish, 'x' * 200_000)['error']") == "MessageTooBig"
    assert service.task("len('x' * 90_000) and 'x' * 90_000") == "x" * 90_000
    assert spool(service) == []


def test_another_limit_is_in_effect_after_a_reload(serve: Serve) -> None:
    service = serve(task_max_bytes="100K")
    service.configure(task_max_bytes="1M")
    service.reload()
    assert service.ask("await server.task('6 * 7'.ljust(200_000))") == 42


# ---------------------------------------------------------------- memory


def peak_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_what_is_queued_costs_no_process_memory(service: Service) -> None:
    # The spare, which is forked a moment after the start, has nothing to do with tasks.
    roles = ("worker", "task", "base", "template")
    pids = {service.master, *(pid for role in roles for pid in service.pids(role))}
    before = {pid: peak_kilobytes(pid) for pid in pids}
    held = service.occupy(2)
    with service.connect() as client:
        # on_finish shall not keep what it gets
        client.ask("GLOBALS.update(finished=type('', (), {'append': lambda *_: None})())")
        client.ask("len([add.send(b'x' * 10_000_000, b'').id for _ in range(20)])", 60)
    assert len(spool(service)) == 20
    held.unlink()
    service.wait_for(lambda: service.status()["tasks"]["done"] == 22 and not spool(service), 30)
    grown = {pid: peak_kilobytes(pid) - before[pid] for pid in pids}
    # add() holds its argument and its sum; packing and unpacking take one each for a moment.
    assert max(grown.values()) < 60_000, grown
    assert grown[service.master] < 5_000


# ---------------------------------------------------------------- deaths


@pytest.mark.heavy
def test_every_large_task_runs_while_processes_are_killed(serve: Serve) -> None:
    service = serve(task_max_attempts=20)
    rng = random.Random(7)
    accepted: list[int] = []
    for turn in range(scaled(200)):
        try:
            service.ask(f"flood({RAN}, {turn * 5}, 5)", 5)
            accepted += range(turn * 5, turn * 5 + 5)
        except (OSError, EOFError):
            pass  # its worker died before it could answer
        seats = service.wait_for(service.seats, 10)
        service.kill(rng.choice(seats), signal.SIGKILL)
        pause(rng.random() / 10)
    service.wait_for(lambda: set(service.runs()) >= set(accepted), 60)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 10)
    service.wait_for(lambda: not spool(service), 10, "an empty spool")


def test_large_tasks_of_a_killed_dispatcher_run_and_leave_nothing(service: Service) -> None:
    held = service.occupy(2)
    with service.connect() as client:
        victim = client.ask("os.getpid()")
        client.ask(f"flood({RAN}, 0, 20)")
        service.kill(victim)
    service.wait_for_end(victim, 2)
    held.unlink()
    all_ran(service, 20)
    assert service.runs() == dict.fromkeys(range(20), 1)


def test_master_killed_again_and_again_loses_no_large_task(service: Service) -> None:
    service.ask(f"flood({RAN}.replace('ran', 'blocking(0.02) and ran'), 0, 60)")
    for _ in range(3):
        pause(0.3)
        kill_master(service)
        service.start()
    all_ran(service, 60)
    assert sum(service.runs().values()) <= 60 + 3 * 2  # twice only what ran at a kill


def test_stop_keeps_large_tasks_and_the_next_start_runs_them(service: Service) -> None:
    service.occupy(2)
    service.ask(f"flood({RAN}, 0, 20)")
    assert "22 tasks kept" in service.stop("--timeout", "0.2").stdout
    assert len(spool(service)) == 20
    (service.root / "held").unlink()
    service.start()
    all_ran(service, 20)
    assert service.runs() == dict.fromkeys(range(20), 1)


def test_discarded_large_tasks_leave_no_spool(service: Service) -> None:
    service.occupy(2)
    service.ask(f"flood({RAN}, 0, 20)")
    service.stop("--timeout", "0.2", "--discard")
    assert not (service.root / "state" / "spool").exists()


# ---------------------------------------------------------------- somebody was at the files


def test_a_task_whose_file_is_gone_or_cut_fails_and_says_so(service: Service) -> None:
    held = service.occupy(2)
    with service.connect() as one, service.connect() as two:
        one.post(f"await server.task('1'.ljust({LARGE}))")
        service.wait_for(lambda: len(spool(service)) == 1, 5)
        (gone,) = spool(service)
        gone.unlink()
        two.post(f"await server.task('1'.ljust({LARGE}))")
        service.wait_for(lambda: len(spool(service)) == 1, 5)
        (cut,) = spool(service)
        with cut.open("r+b") as file:
            file.truncate(LARGE // 2)
        held.unlink()
        first, second = one.read_answer(), two.read_answer()
    assert first["error"] == second["error"] == "TaskFailed"
    assert f"{gone}: No such file" in first["text"]
    assert f"{cut} has {LARGE // 2} bytes instead of" in second["text"]
    assert Counter(p["restarts"] for p in service.status()["processes"]).keys() == {0}
    assert service.task("1") == 1
    assert spool(service) == []


def test_what_is_not_procds_is_left_alone_and_said_once(make: Serve) -> None:
    service = make()
    folder = service.root / "state" / "spool"
    (folder / "folder").mkdir(parents=True)
    (folder / f"{5:016x}.task").symlink_to("/etc/hostname")
    (folder / f"{6:016x}.task").touch()  # one of ours, of no task
    service.start()
    assert [path.name for path in spool(service)] == [f"{5:016x}.task", "folder"]
    assert service.ask(f"await server.task('1'.ljust({LARGE}))") == 1
    service.stop()
    service.wait_for(lambda: service.log().count("not procd's, left alone") == 1, 5)
    assert [path.name for path in spool(service)] == [f"{5:016x}.task", "folder"]
    service.keeps_tasks = True  # nor is the folder procd's to remove then


def test_files_of_a_damaged_arena_are_set_aside_with_it(service: Service) -> None:
    service.occupy(2)
    service.ask(f"flood({RAN}, 0, 3)")
    kill_master(service)
    with (service.root / "state" / "arena").open("r+b") as file:
        file.write(b"\xff" * 64)
    service.start()
    assert service.ask(f"await server.task('1'.ljust({LARGE}))") == 1
    (aside,) = (service.root / "state").glob("spool.damaged-*")
    assert len(list(aside.iterdir())) == 3
    service.keeps_tasks = True  # what was set aside


# ---------------------------------------------------------------- no room


def test_a_limit_of_file_sizes_refuses_the_call_and_nothing_else(service: Service) -> None:
    limit = "__import__('resource').setrlimit(1, ({}, -1))"
    with service.connect() as client:
        client.ask(limit.format(100_000))
        answer = client.ask(f"attempt(server.task, 'x' * {LARGE})")
        assert answer["error"] == "TaskRejected"
        assert "File too large: raise the limit" in answer["text"]
        assert spool(service) == []
        client.ask(limit.format(-1))
        assert client.ask(f"await server.task('1'.ljust({LARGE}))") == 1


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 1 MB on *folder*, which is gone afterwards."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "procd", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


@needs_root
def test_a_full_disk_refuses_calls_and_results_until_there_is_room(make: Serve) -> None:
    service = make()
    with small_disk(service.root / "state" / "spool"):
        service.start()
        held = service.occupy(2)
        answer = service.ask(f"fill('6 * 7'.ljust({LARGE}), 100)")
        assert answer["error"] == "TaskRejected"
        assert "No space left on device: free some space" in answer["text"]
        assert answer["accepted"] == 3
        assert len(spool(service)) == 3
        assert service.status()["tasks"]["refused"] == 1
        held.unlink()
        service.wait_for(lambda: not spool(service), 5)  # they ran, and there is room again
        assert service.ask(f"await server.task('6 * 7'.ljust({LARGE}))") == 42
        answer = service.task("'y' * 2_000_000")
        assert answer["error"] == "TaskFailed"
        assert "TaskRejected: its result: a result of 20000" in answer["text"]
        assert spool(service) == []
        assert Counter(p["restarts"] for p in service.status()["processes"]).keys() == {0}
        service.stop()
