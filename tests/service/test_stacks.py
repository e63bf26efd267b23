"""`procd stacks`: where every process stands, a stuck one too."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service


def titles(said: str) -> list[str]:
    return [line.partition("  ")[0] for line in said.splitlines() if line and line[0] != " "]


WRITERS = 1  # threads: the logger's, which writes the file


def stack_files(service: Service) -> set[str]:
    return {path.name for path in (service.run_dir / "ipc").glob("*.stack")}


@pytest.mark.short
def test_every_process_tells_where_it_stands(service: Service) -> None:
    service.wait_for(lambda: service.pids("spare"), 10)  # which is forked a moment after the start
    said = service.ok("stacks").stdout
    found = titles(said)
    assert found[:5] == ["master", "worker 0", "worker 1", "task 2", "task 3"]
    assert {"base", "template"} <= set(found)
    assert said.count("most recent call first") == len(found) + WRITERS
    master = said.split("\n\n")[0]
    assert "master/master.py" in master  # in its wait, or on its way around


def test_one_process_can_be_asked_for_by_id_or_pid(service: Service) -> None:
    assert titles(service.ok("stacks", "1").stdout) == ["worker 1"]
    assert titles(service.ok("stacks", str(service.master)).stdout) == ["master"]
    assert service.run("stacks", "99").returncode == 2


def test_line_of_the_app_is_named_also_where_the_loop_stands_still(service: Service) -> None:
    held = service.occupy(1)  # a task that runs
    said = service.ok("stacks").stdout
    assert f'File "{service.app_path}"' in said
    held.unlink()


def test_process_that_holds_the_gil_in_c_answers(make: Serve) -> None:
    service = make(task_worker_num=1)
    service.edit("def spin() -> int:", f"{STUCK}\n\ndef spin() -> int:")
    service.start()
    service.ask("flood('stuck()', 0, 1) and 0")
    service.wait_for(lambda: service.status()["tasks"]["running"] == 1, 5)
    task = service.wait_for(lambda: "in stuck" in service.ok("stacks", "2").stdout, 5)
    assert task
    service.kill(service.seats()[2])


STUCK = """
def stuck() -> object:
    import re

    return re.match(r"(a+)+b", "a" * 60)


"""


def test_asking_again_and_again_disturbs_nobody(service: Service) -> None:
    service.wait_for(lambda: service.pids("spare"), 10)  # which is forked a moment after the start
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: service.ok("stacks").stdout, range(8)))
    assert len({tuple(titles(one)) for one in said}) == 1
    count = len(titles(said[0])) + WRITERS
    assert {one.count("most recent call first") for one in said} == {count}
    assert {p["restarts"] for p in service.status()["processes"]} == {0}
    assert service.ask("2 + 2") == 4


def test_master_that_stands_still_is_said_to_and_the_others_are_shown(service: Service) -> None:
    service.kill(service.master, signal.SIGSTOP)
    done = service.run("stacks")
    service.kill(service.master, signal.SIGCONT)
    assert done.returncode == 1
    assert "does not answer: state T (stopped)" in done.stdout
    assert done.stdout.count("most recent call first") >= 5


def test_no_file_of_a_process_that_is_gone_is_kept(service: Service) -> None:
    for _ in range(3):
        service.reload()
    service.kill(service.seats()[0])
    service.wait_for(lambda: len(service.seats()) == 4, 10)
    service.wait_for(
        lambda: (
            stack_files(service)
            == {f"{p['pid']}.stack" for p in service.status()["processes"]}
            | {f"{service.master}.stack"}
        ),
        10,
    )


def test_processes_hold_one_file_each(service: Service) -> None:
    service.wait_for(lambda: service.pids("spare"), 10)  # which is forked a moment after the start
    for entry in service.status()["processes"]:
        links = (os.readlink(fd.path) for fd in os.scandir(f"/proc/{entry['pid']}/fd"))
        assert [os.path.basename(link) for link in links if link.endswith(".stack")] == [
            f"{entry['pid']}.stack"
        ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change users")
def test_roots_service_with_workers_of_another_user_tells_too(make: Serve) -> None:
    service = make(user="65534")
    service.root.chmod(0o755)
    service.start()
    assert "worker 0" in titles(service.ok("stacks").stdout)
