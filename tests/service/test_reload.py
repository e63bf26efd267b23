"""`procd reload`: new code serves, nobody is dropped, nothing grows."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.load import Load, Plan, Tally
from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import Service, pause, scaled


@pytest.mark.short
def test_reload_serves_the_new_code_everywhere_when_it_returns(service: Service) -> None:
    service.edit('VERSION = "1"', 'VERSION = "2"')
    service.reload()
    assert {service.ask("VERSION") for _ in range(20)} == {"2"}
    assert {service.task("VERSION") for _ in range(10)} == {"2"}
    status = service.status()
    assert status["generation"] == 2
    assert status["reload"]["state"] == "ok"
    assert status["reload"]["error"] is None
    assert 0 < status["reload"]["seconds"] < 10


def test_reload_without_a_change_is_a_new_generation_too(service: Service) -> None:
    before = set(service.seats())
    service.reload()
    assert service.ask("server.generation") == 2
    assert not before & set(service.seats())


def test_two_saves_of_the_same_size_within_a_second_serve_the_second(service: Service) -> None:
    # Bytecode is keyed on whole-second mtime and size: procd must not trust it.
    for version in "234567":
        service.edit(f'VERSION = "{int(version) - 1}"', f'VERSION = "{version}"')
        service.reload()
        assert service.ask("VERSION") == version
        assert service.task("VERSION") == version


def test_new_code_in_a_module_beside_the_app_is_served(make: Serve) -> None:
    service = make()
    module = service.root / "beside.py"
    module.write_text("NAME = 'one'\n")
    service.edit("import ast\n", "import ast\nimport beside\n")
    service.start()
    assert service.ask("beside.NAME") == "one"
    module.write_text("NAME = 'two'\n")
    service.reload()
    assert service.ask("beside.NAME") == "two"


def test_reload_of_tasks_leaves_the_workers_alone(service: Service) -> None:
    workers = service.pids("worker")
    service.edit('VERSION = "1"', 'VERSION = "2"')
    service.reload("--tasks")
    assert service.task("VERSION") == "2"
    assert service.ask("VERSION") == "1"
    assert service.pids("worker") == workers


def test_old_worker_finishes_its_request_after_the_reload(service: Service) -> None:
    with service.connect() as client:
        assert client.ask("VERSION") == "1"
        client.post("await slowly(1)")
        pause(0.1)
        service.edit('VERSION = "1"', 'VERSION = "2"')
        service.reload()
        assert service.ask("VERSION") == "2"
        assert client.read_answer()["version"] == "1"


def test_connection_that_was_accepted_but_not_read_is_served(service: Service) -> None:
    with service.connect() as client:
        service.reload()
        assert client.ask("VERSION") == "1"


def test_connection_that_drains_is_served_by_its_old_worker_until_the_deadline(
    serve: Serve,
) -> None:
    service = serve(max_wait_time=2, on_reload="drain")
    with service.connect() as client:
        assert client.ask("server.generation") == 1
        service.reload()
        assert client.ask("server.generation") == 1
        assert client.is_closed(2 + 1.5)
    service.wait_for(lambda: not draining(service), 3)


def test_queued_tasks_of_the_old_generation_run_on_the_new_one(service: Service) -> None:
    service.ask("flood('blocking(0.1) and ran({})', 0, 30)")
    service.reload()
    service.wait_for(lambda: len(service.runs()) == 30, 10)
    assert service.runs() == dict.fromkeys(range(30), 1)


def test_await_of_the_old_worker_gets_what_a_new_task_worker_found(service: Service) -> None:
    with service.connect() as early, service.connect() as late:
        early.post("await server.task('note(\"begun\") or blocking(1)', 2)")
        service.wait_for(lambda: service.ledger("begun"), 5)
        late.post("await server.task('who()')")
        service.reload()
        assert early.read_answer()["generation"] == 1
        assert late.read_answer()["generation"] in {1, 2}


def test_reloads_at_once_join(service: Service) -> None:
    service.edit('VERSION = "1"', 'VERSION = "2"')
    commands = [
        subprocess.Popen(
            service.argv("reload"), env=service.environment(), stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for command in commands:
        _, text = command.communicate(timeout=30)
        assert command.returncode == 0, text
    assert service.ask("VERSION") == "2"
    assert service.status()["generation"] < 2 + 6


def test_reload_takes_the_counts_from_an_edited_config(service: Service) -> None:
    service.configure(worker_num=3, task_worker_num=1)
    service.reload()
    assert len(service.pids("worker")) == 3
    assert len(service.pids("task")) == 1
    assert service.ask("VERSION") == "1"


def test_reload_into_a_bad_config_exits_2_and_changes_nothing(service: Service) -> None:
    before = service.seats()
    good = service.config_path.read_text()
    service.config_path.write_text(good + "worker_num: many\n")
    done = service.run("reload")
    assert done.returncode == 2
    assert f"{service.config_path}:" in done.stderr
    assert "worker_num" in done.stderr
    assert service.seats() == before
    assert service.ask("VERSION") == "1"
    service.config_path.write_text(good)
    service.reload()
    assert service.ask("server.generation") >= 2


def test_symlinked_release_switches(make: Serve) -> None:
    service = make(chdir="current", run_dir="../run", state_dir="../state")
    for version in "12":
        (service.root / version).mkdir()
        text = service.app_path.read_text()
        (service.root / version / "app.py").write_text(text.replace('"1"', f'"{version}"', 1))
    service.app_path.unlink()
    current = service.root / "current"
    current.symlink_to("1")
    service.configure(run_dir=str(service.run_dir), state_dir=str(service.root / "state"))
    service.configure(master_pid_file=str(service.run_dir / "master.pid"))
    service.configure(worker_pid_file=str(service.run_dir / "worker.pid"))
    service.configure(log_file=str(service.run_dir / "procd.log"))
    service.start()
    assert service.ask("VERSION") == "1"
    (service.root / "next").symlink_to("2")
    (service.root / "next").rename(current)
    service.reload()
    assert service.ask("VERSION") == "2"


def draining(service: Service) -> set[int]:
    """The old generations of which a process still drains."""
    processes = service.status()["processes"]
    return {p["generation"] for p in processes if p["state"] == "draining" and "id" in p}


@dataclass(frozen=True)
class Footprint:
    """What the master holds."""

    fds: int
    processes: int
    rss_bytes: int

    @classmethod
    def of(cls, service: Service, master: int) -> Footprint:
        statm = Path(f"/proc/{master}/statm").read_text().split()
        return cls(
            len(os.listdir(f"/proc/{master}/fd")),
            len(service.alive()),
            int(statm[1]) * os.sysconf("SC_PAGE_SIZE"),
        )


def reload_under_load(service: Service, count: int) -> Tally:
    """Reload *count* times; assert meanwhile that few generations drain."""
    with Load(service.address, Plan(new=14, kept=6)) as load:
        for _ in range(count):
            service.reload()
            assert len(draining(service)) <= 3
            assert load.tally.failures == []
    return load.tally


@pytest.mark.heavy
def test_no_request_fails_while_it_reloads(serve: Serve) -> None:
    service = serve(max_wait_time=3)
    tally = reload_under_load(service, max(8, scaled(100)))
    assert tally.failures == []
    assert tally.ok > 100


@pytest.mark.heavy
def test_master_is_as_large_after_many_reloads_as_before(serve: Serve) -> None:
    service = serve(max_wait_time=2)
    master = service.master
    for _ in range(5):
        service.reload()
    service.wait_for(lambda: not draining(service), 5)
    service.wait_for(lambda: service.pids("spare"), 5)  # forked once all is quiet
    before = Footprint.of(service, master)
    for _ in range(scaled(200)):
        service.reload()
    service.wait_for(lambda: not draining(service), 5)
    service.wait_for(lambda: service.pids("spare"), 5)
    service.wait_for(lambda: len(service.alive()) <= before.processes, 5)
    # The command that has just asked is one descriptor until the master has seen it go.
    service.wait_for(lambda: Footprint.of(service, master).fds <= before.fds, 5)
    after = Footprint.of(service, master)
    assert after.processes == before.processes
    assert after.rss_bytes < before.rss_bytes + 2_000_000
    assert leftovers.zombies(master) == set()


def test_load_sees_a_reload_of_an_edited_app_switch_once(service: Service) -> None:
    seen: list[bytes] = []
    lock = threading.Lock()

    def is_good(_number: int, line: bytes) -> bool:
        with lock:
            seen.append(line)
        return line in {b'"1"\n', b'"2"\n'}

    with Load(service.address, Plan(new=4, kept=0, is_good=is_good)) as load:
        service.edit('VERSION = "1"', 'VERSION = "2"')
        service.reload()
        mark = len(seen)
        service.wait_for(lambda: len(seen) > mark + 50, 10)
    assert load.tally.failures == []
    # Those four that were on their way when the reload returned may still be old.
    assert set(seen[mark + 4 :]) == {b'"2"\n'}
