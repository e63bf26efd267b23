"""`procd start`: what the shell gets, what serves, and what a start that fails leaves: nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import Service


def assert_one_clear_line(done: subprocess.CompletedProcess[str], word: str) -> None:
    """A person's mistake: said in a line that names it, without a Python traceback."""
    assert "Traceback" not in done.stderr
    assert word in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr


@pytest.mark.short
def test_start_returns_when_the_first_generation_serves(service: Service) -> None:
    assert service.ask("VERSION") == "1"
    status = service.status()
    assert status["state"] == "running"
    assert status["generation"] == 1
    assert status["config"]["path"] == str(service.config_path)
    assert status["config"]["error"] is None
    assert {p["role"] for p in status["processes"]} >= {"worker", "task"}
    assert [p["id"] for p in status["processes"] if "id" in p] == [0, 1, 2, 3]


def test_port_zero_is_reported_as_the_port_that_listens(service: Service) -> None:
    (listener,) = service.status()["listeners"]
    assert listener.startswith("tcp://127.0.0.1:")
    assert service.port > 0


def test_background_service_belongs_to_no_terminal(service: Service) -> None:
    assert os.getsid(service.master) != os.getsid(0)
    assert os.readlink(f"/proc/{service.master}/fd/0") == "/dev/null"


@pytest.mark.short
def test_second_start_names_the_running_pid(service: Service) -> None:
    done = service.run("start")
    assert done.returncode == 1
    assert_one_clear_line(done, str(service.master))
    assert service.ask("VERSION") == "1"


def test_second_start_in_the_foreground_names_the_running_pid(service: Service) -> None:
    done = service.run("start", "--foreground")
    assert done.returncode == 1
    assert str(service.master) in done.stderr
    assert service.ask("VERSION") == "1"


@pytest.mark.short
def test_foreground_service_ends_with_status_0_on_term(make: Serve) -> None:
    service = make()
    process = service.start_foreground()
    assert service.status()["pid"] == process.pid
    assert service.ask("VERSION") == "1"
    process.terminate()
    assert process.wait(8) == 0


@pytest.mark.short
def test_ctrl_c_ends_the_foreground_within_a_second(make: Serve) -> None:
    service = make()
    process = service.start_foreground()
    assert service.ask("VERSION") == "1"
    os.killpg(process.pid, signal.SIGINT)  # the terminal signals the whole group
    process.wait(1.5)
    leftovers.prove_nothing_left(service)
    assert "Traceback" not in (service.root / "foreground.out").read_text()


RAISES_AT_WORKER_START = """
from procd import Server
server = Server()
@server.on_worker_start
def opened(): raise ValueError("no database")
"""
BROKEN_APPS = {
    "syntax error": ("def (:\n", "SyntaxError"),
    "import error": ("import no_such_module_here\n", "no_such_module_here"),
    "no such attribute": ("x = 1\n", "server"),
    "not a server": ("server = 7\n", "server"),
    "exit at import": ("import os\nos._exit(3)\n", "3"),
    "sys.exit at import": ("import sys\nsys.exit()\n", "exit"),
    "segfault at import": ("import ctypes\nctypes.string_at(0)\n", "SIGSEGV"),
    "hang at import": ("while True: pass\n", "boot_timeout"),
    "exception in on_worker_start": (RAISES_AT_WORKER_START, "no database"),
}


@pytest.mark.parametrize("fault", BROKEN_APPS)
def test_start_of_a_broken_app_says_why_and_leaves_nothing(make: Serve, fault: str) -> None:
    source, reason = BROKEN_APPS[fault]
    service = make(boot_timeout=1.5)
    service.app_path.write_text(source)
    done = service.run("start")
    assert done.returncode == 1
    assert reason in done.stderr, done.stderr
    leftovers.prove_nothing_left(service)


def test_missing_app_module_is_named(make: Serve) -> None:
    service = make(app="repl.py")
    service.configure(app="nowhere:server")
    done = service.run("start")
    assert done.returncode in {1, 2}
    assert "nowhere" in done.stderr
    leftovers.prove_nothing_left(service)


def test_taken_port_is_named_and_nothing_is_left(make: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = make(listen=[f"tcp://127.0.0.1:{port}"])
        done = service.run("start")
    assert done.returncode == 1
    assert_one_clear_line(done, str(port))
    leftovers.prove_nothing_left(service)


def test_socket_path_that_is_too_long_is_named(make: Serve) -> None:
    service = make()
    path = service.root / ("x" * (120 - len(str(service.root))))
    service.configure(listen=[f"unix://{path}"])
    done = service.run("start")
    assert done.returncode in {1, 2}
    assert_one_clear_line(done, "x" * 20)
    leftovers.prove_nothing_left(service)


def test_run_dir_too_long_for_its_sockets_is_named(make: Serve) -> None:
    service = make(run_dir="r" * 110)
    done = service.run("start")
    assert done.returncode in {1, 2}
    assert_one_clear_line(done, "run_dir")
    leftovers.prove_nothing_left(service)


def test_run_dir_that_cannot_be_made_is_named(make: Serve) -> None:
    service = make()
    (service.root / "file").write_text("no folder")
    service.configure(run_dir="file/run")
    done = service.run("start")
    assert done.returncode in {1, 2}
    assert_one_clear_line(done, "file/run")
    leftovers.prove_nothing_left(service)


def test_start_with_closed_standard_streams(make: Serve) -> None:
    service = make()
    closed = 'exec 0<&- 1>&- 2>&-; exec "$@"'
    argv = ["sh", "-c", closed, "sh", *service.argv("start")]
    done = subprocess.run(argv, env=service.environment(), timeout=20, check=False)
    assert done.returncode == 0
    assert service.ask("VERSION") == "1"


def test_layers_are_options_over_environment_over_file(make: Serve) -> None:
    service = make(worker_num=1, task_worker_num=1)
    service.extra_environment = {"PROCD_WORKER_NUM": "2", "PROCD_TASK_WORKER_NUM": "3"}
    service.start("-s", "worker_num=4")
    assert len(service.pids("worker")) == 4
    assert len(service.pids("task")) == 3


def test_run_dir_cannot_be_overridden(make: Serve) -> None:
    service = make()
    done = service.run("start", "-s", f"run_dir={service.root}/elsewhere")
    assert done.returncode == 2
    assert_one_clear_line(done, "run_dir")
    service.extra_environment = {"PROCD_RUN_DIR": f"{service.root}/elsewhere"}
    done = service.run("start")
    assert done.returncode == 2
    assert_one_clear_line(done, "PROCD_RUN_DIR")
    leftovers.prove_nothing_left(service)


def test_env_reaches_workers_and_task_workers(serve: Serve) -> None:
    service = serve(env={"COLOUR": "green"})
    assert service.ask("os.environ['COLOUR']") == "green"
    assert service.task("os.environ['COLOUR']") == "green"


def test_chdir_is_working_directory_and_first_on_the_path(make: Serve) -> None:
    service = make()
    site = service.root / "site"
    site.mkdir()
    (site / "beside.py").write_text("NAME = 'beside the app'\n")
    service.app_path.rename(site / "app.py")
    service.configure(chdir="site", run_dir=str(service.run_dir))
    service.start()
    assert service.ask("os.getcwd()") == str(site)
    assert service.ask("__import__('beside').NAME") == "beside the app"
    assert service.task("os.getcwd()") == str(site)
    assert service.ask("__import__('sys').path[0]") in {str(site), ""}
    service.stop()


def test_app_named_by_its_file(make: Serve) -> None:
    service = make()
    folder = service.root / "deep"
    folder.mkdir()
    service.app_path.rename(folder / "named.py")
    service.configure(app="deep/named.py:server")
    service.start()
    assert service.ask("VERSION") == "1"


def test_config_is_found_through_the_environment_and_the_working_directory(make: Serve) -> None:
    service = make()
    words = [sys.executable, "-m", "procd"]
    by_name = service.environment() | {"PROCD_CONFIG": str(service.config_path)}
    subprocess.run([*words, "start"], env=by_name, cwd="/", timeout=30, check=True)
    in_folder = subprocess.run(
        [*words, "status"], env=service.environment(), cwd=service.root, timeout=30, check=False
    )
    assert in_folder.returncode == 0
    assert Path(f"/proc/{service.master}").exists()


def test_app_prints_nothing_to_the_shell_of_start(make: Serve) -> None:
    service = make()
    service.edit('VERSION = "1"', 'VERSION = "1"\nprint("noise of the app", flush=True)')
    done = service.ok("start")
    assert "noise" not in done.stdout + done.stderr


def test_app_is_never_imported_by_the_master(make: Serve) -> None:
    service = make()
    service.edit("def spin(", 'note("imported", os.getpid(), os.getppid())\n\n\ndef spin(')
    service.start()
    assert service.ledger("imported")
    assert service.master not in [pid for pid, _parent in service.ledger("imported")]
