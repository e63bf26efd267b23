"""As PID 1 of a container: strangers are reaped, a read-only root will do, TERM ends it all."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service import leftovers
from tests.service.client import Client
from tests.service.conftest import Serve
from tests.service.daemon import REPOSITORY, Done, Service

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
CONTAINER = REPOSITORY / "examples/container"
UID = 54321  # without an account

STRANGER = """
import os


def orphan() -> None:
    # A grandchild whose parent is gone: whoever is PID 1 inherits it.
    if (pid := os.fork()) == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)


"""
# Makes all that is mounted read-only but $1/run and $1/state, proves it, and becomes the command.
READ_ONLY = """
set -e
for folder in run state; do mount --bind "$1/$folder" "$1/$folder"; done
for point in $(cut -d' ' -f5 /proc/self/mountinfo | sort -u); do
    case "$point" in
        "$1"/*|/proc*|/dev|/dev/pts) ;;
        *) mount -o remount,bind,ro "$point" 2>/dev/null || true ;;
    esac
done
for folder in / /tmp /run /dev/shm "$HOME" "$1"; do
    ! touch "$folder/probe" 2>/dev/null || { echo "$folder can be written"; exit 1; }
done
touch "$1/run/probe" && rm "$1/run/probe"
root=$1; shift; cd "$root"
exec "$@"
"""


class Container:
    """A service as process 1 of namespaces of its own.

    *uid*: what it is started as; *rights*: the capabilities that root has in it, () = all.
    """

    def __init__(
        self,
        service: Service,
        *,
        read_only: bool = False,
        uid: int = 0,
        rights: tuple[str, ...] = (),
    ) -> None:
        self.service = service
        self._user = [] if uid == 0 else ["setpriv", "--reuid", str(uid), "--regid", str(uid)]
        self._user += ["--clear-groups"] if uid else []
        if rights:
            left = ",".join(["-all", *(f"+{right}" for right in rights)])
            self._user = ["setpriv", "--bounding-set", left, "--inh-caps", left]
        setup = ["sh", "-c", READ_ONLY, "sh", str(service.root)] if read_only else []
        unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        self.output = service.root / "foreground.out"
        with self.output.open("wb") as out:
            service.foreground = self.process = subprocess.Popen(
                [*unshare, *setup, *self._user, *service.argv("start", "--foreground")],
                env=service.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    @property
    def master(self) -> int:
        (master,) = leftovers.children(self.process.pid)
        return master

    def execute(self, *words: str) -> Done:
        """Run a command of procd inside, as `docker exec` does."""
        inside = ["nsenter", "--target", str(self.master), "--pid", "--mount"]
        return subprocess.run(
            [*inside, *self._user, *self.service.argv(*words)],
            env=self.service.environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def test_process_1_reaps_strangers_and_ends_on_term(make: Serve) -> None:
    service = make()
    path = service.root / "app.sock"
    service.configure(listen=[f"unix://{path}"])
    service.edit("def spin() -> int:", STRANGER + "def spin() -> int:")
    container = Container(service)
    service.wait_for(path.exists, 10)
    with service.connect(str(path)) as client:
        assert client.ask("os.getppid()", 10) == 1
        for _ in range(10):
            client.ask("orphan()")
        service.wait_for(lambda: not leftovers.zombies(container.master), 5)
    service.kill(container.master, 15)
    assert container.process.wait(8) == 0
    assert Client.address_of(f"unix://{path}") == str(path)


def as_in_the_image(service: Service) -> Path:
    """Give a service the config of examples/container, with its folders and socket below root."""
    shutil.copy(CONTAINER / "procd.yaml", service.config_path)
    path = service.root / "run/app.sock"
    changes = {
        "run_dir: /run/shop": "run_dir: run",
        "state_dir: /state": "state_dir: state",
        "tcp://0.0.0.0:9000": f"unix://{path}",
    }
    text = service.config_path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    service.config_path.write_text(text)
    service.root.chmod(0o755)
    for name in ("run", "state"):
        (service.root / name).mkdir()
    return path


def writable_for(service: Service, uid: int) -> None:
    service.ledger_path = service.root / "state/ledger"
    for name in ("run", "state"):
        os.chown(service.root / name, uid, uid)


@pytest.mark.parametrize("uid", [0, UID])
def test_read_only_root_is_enough_for_all_that_a_service_does(make: Serve, uid: int) -> None:
    service = make()
    path = as_in_the_image(service)
    writable_for(service, uid)
    container = Container(service, read_only=True, uid=uid)
    service.wait_for(path.exists, 10, "the socket")
    service.wait_for(lambda: "started" in container.output.read_text(), 10)
    address = str(path)

    def ask(expression: str) -> object:
        with service.connect(address) as client:
            return client.ask(expression)

    assert ask("[os.getuid(), os.getppid()]") == [uid, 1]
    assert ask("await server.task('6 * 7')") == 42
    assert ask("len(await server.task(\"'y' * 300_000\"))") == 300_000
    assert ask("attempt(open, '/tmp/probe', 'w')['error']") in ("OSError", "PermissionError")
    status = container.execute("status")
    assert (status.returncode, "running  pid 1 " in status.stdout) == (0, True), status.stderr
    reload = container.execute("reload")
    assert (reload.returncode, "generation 2" in reload.stdout) == (0, True), reload.stderr
    assert container.execute("stacks").stdout.count("most recent call first") >= 4
    ask("print('what the app prints')")
    service.wait_for(lambda: "what the app prints" in container.output.read_text(), 5)
    container.execute("stop")  # which ends with its namespace, whose process 1 has gone
    assert container.process.wait(10) == 0
    assert container.output.read_text().count("no record") == 1
    assert sorted(os.listdir(service.root / "run")) == []
    assert set(os.listdir(service.root / "state")) <= {"ids", "ledger"}


def test_user_of_the_config_takes_six_rights_and_no_account(make: Serve) -> None:
    service = make()
    path = as_in_the_image(service)
    with service.config_path.open("a") as config:
        config.write(f"user: {UID}\n")
    rights = ("chown", "dac_override", "fowner", "kill", "setgid", "setuid")
    container = Container(service, read_only=True, rights=rights)
    service.wait_for(path.exists, 10, "the socket")
    for _ in range(2):
        with service.connect(str(path)) as client:
            assert client.ask("[os.getuid(), await server.task('os.getuid()')]") == [UID, UID]
        done = container.execute("reload")
        assert done.returncode == 0, done.stderr
    service.kill(container.master, 15)
    assert container.process.wait(10) == 0
    assert "Permission" not in container.output.read_text()
    assert sorted(os.listdir(service.root / "run")) == []


def test_image_runs_what_is_tested_here() -> None:
    lines = (CONTAINER / "Dockerfile").read_text().splitlines()
    assert 'CMD ["procd", "start", "--foreground"]' in lines
    assert "COPY examples/container/procd.yaml /app/procd.yaml" in lines
    for line in lines:
        word, *paths = line.split()[:-1] or [""]
        if word == "COPY":
            assert all((REPOSITORY / path).exists() for path in paths)
