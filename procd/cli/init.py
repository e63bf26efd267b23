"""procd init: the files of a new service, which starts at once. Asks nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from procd.cli import systemd
from procd.config.load import load
from procd.config.schema import Config
from procd.errors import ProcdError
from procd.service.unit import name_of

_FIRST_PORT, _PORTS = 9000, 100

_APP = '''\
"""A client is answered at once, and then with what a task worker found out.

Change a text below and save: the next client gets the new one.
"""

from procd import Connection, Server, task

server = Server()


@server.on_receive
async def receive(conn: Connection, data: bytes) -> None:
    """In a worker. Its loop serves many clients: wait with `await` only."""
    conn.send(b"hello world client\\n")
    words = await count_words.send(data[:500])
    conn.send(f"a task worker counted {words} words\\n".encode())


@task
def count_words(text: bytes) -> int:
    """In a task worker, which may take its time: it runs one task after the other."""
    return len(text.split())
'''

_CONFIG = """\
# procd: what runs here. `procd check` tells what is wrong with it, `procd doctor` with the
# machine. An edit is applied while the service runs. Every other key has a default: they all
# stand in procd's own config/procd.yaml.

app: app:server                   # module:attribute of your Server
chdir: ..                         # every relative path begins at the project's folder
listen: [tcp://127.0.0.1:{port}]    # 0.0.0.0 to be reached from elsewhere
worker_num: 2                     # processes that answer connections; auto = one for each CPU
task_worker_num: 2                # processes that run tasks, one at a time each
max_wait_time: 30                 # seconds that what runs may take to end, at a stop or reload
watch_file: true                  # a save of your source reloads; off in the systemd unit
run_dir: run                      # sockets, pid files, the log
state_dir: state                  # tasks that were accepted and have not run yet
"""

_GITIGNORE = """\
run/
state/
__pycache__/
.venv/
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".", metavar="[DIR]")
def init(folder: Path) -> None:
    """Write a new service into DIR (or here): app, config, .gitignore and a systemd unit.

    It asks nothing, overwrites nothing, and what it has written can be started at once.
    """
    root = Path(os.path.abspath(folder))
    port = _free_port()
    files = {
        root / "app.py": _APP,
        root / "config/procd.yaml": _CONFIG.format(port=port),
        root / ".gitignore": _GITIGNORE,
    }
    unit_folder = root / "systemd"
    there = [path for path in (*files, unit_folder) if os.path.lexists(path)]
    if there:
        names = ", ".join(str(path.relative_to(root)) for path in there)
        raise ProcdError(f"{root} has {names} already: nothing was written")
    config = _write(root, files, unit_folder)
    _say(root, config, [*files, unit_folder / f"{name_of(config)}.service"], port)


def _write(root: Path, files: dict[Path, str], unit_folder: Path) -> Config:
    """Write all or nothing; return the config as it is loaded."""
    made: list[Path] = []
    try:
        for path, text in files.items():
            _make(path, text, made)
        config = load(root / "config/procd.yaml", environ={})
        unit = systemd.text(config, None)
        _make(unit_folder / f"{name_of(config)}.service", unit, made)
    except BaseException as error:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()
        if isinstance(error, OSError):
            raise ProcdError(f"cannot write {error.filename}: {error.strerror}") from None
        raise
    return config


def _make(path: Path, text: str, made: list[Path]) -> None:
    for folder in reversed(path.parents):
        if not folder.exists():
            folder.mkdir()
            made.append(folder)
    with open(path, "x", encoding="utf-8") as file:
        made.append(path)
        file.write(text)


def _free_port() -> int:
    """Return the first port from 9000 on that nobody here listens on."""
    for port in range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return _FIRST_PORT


def _say(root: Path, config: Config, written: list[Path], port: int) -> None:
    click.echo(f"written in {root}:")
    for path in written:
        click.echo(f"    {path.relative_to(root)}")
    ask = f"exec 3<>/dev/tcp/127.0.0.1/{port}; printf hello >&3; timeout 1 cat <&3"
    steps = {
        "procd start": "",
        f"bash -c '{ask}'": "says hello",
        "$EDITOR app.py": "change a text, save, ask again",
        "procd status": "what runs, and why a save was refused",
        "procd stop": "",
    }
    click.echo("\nNext:\n")
    if root != Path.cwd():
        click.echo(f"    cd {root}")
    for command, what in steps.items():
        click.echo(f"    {command}" + (f"    # {what}" if what else ""))
    click.echo(f"\nIn production, as root: procd -c {config.path} systemd install")
