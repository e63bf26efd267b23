"""What a task costs, and what a reload: procd beside the same done barely, in plain processes.

Each side carries PAYLOAD out and back, from one dispatcher to two task processes, with at most
WINDOW tasks under way. The bare side keeps none of procd's promises: a blocking sysv_ipc queue
takes the payload out and a SEQPACKET pair brings it back; a killed process loses what it holds.

A reload is timed from the rename that saves the app to the first answer of the new code. The bare
side forks from a process that has procd imported, imports the app and answers: no watching, no
second process, no check of what changed.

Every measurement lasts a given time, not a given count: a slow machine ends as soon.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import sysv_ipc

from tests.service.daemon import Service, serving

PAYLOAD = bytes(100)
WINDOW = 128  # a queue of 16 KiB, the kernel's default, holds 163 such messages
TASK_PROCESSES = 2
PATIENCE = 20.0  # seconds for one answer, then the bench fails

# One app for all of it: the tasks' own loop, and an answer that tells the version.
APP = f"""\
import json
import time
from collections import deque

from procd import Server

VERSION = 0
PAYLOAD = bytes({len(PAYLOAD)})
server = Server()


@server.on_receive
async def receive(conn, data):
    what, _, seconds = data.decode().partition(" ")
    if what == "version":
        answer = VERSION
    else:
        answer = await {{"rate": rate, "trips": trips}}[what](float(seconds))
    conn.send(json.dumps(answer).encode() + b"\\n")


@server.on_task
def run(task):
    return task.data


async def rate(seconds):
    refs, done, began = deque(), 0, time.monotonic()
    while time.monotonic() < began + seconds:
        refs.append(server.task(PAYLOAD))
        if len(refs) == {WINDOW}:
            await refs.popleft()
            done += 1
    for ref in refs:
        await ref
    return (done + len(refs)) / (time.monotonic() - began)


async def trips(seconds):
    took, until = [], time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        await server.task(PAYLOAD)
        took.append(time.monotonic() - began)
    return took
"""


@dataclass(frozen=True, slots=True)
class Tasks:
    """One round: tasks a second with WINDOW under way, and one at a time, in seconds."""

    per_second: float
    p50: float
    p99: float


def tasks_of(per_second: float, trips: list[float]) -> Tasks:
    ordered = sorted(trips)
    return Tasks(per_second, ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100])


# ---------------------------------------------------------------- procd


@contextmanager
def procd() -> Iterator[Service]:
    """A service of APP: one worker, two task workers, everything else by default."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "app.py")
        path.write_text(APP)
        settings = {"worker_num": 1, "task_worker_num": TASK_PROCESSES, "watch_file": True}
        with serving(str(path), **settings, task_slots=32768) as service:
            yield service


def procd_tasks(service: Service, seconds: float) -> Tasks:
    with service.connect() as client:
        return tasks_of(client.ask(f"rate {seconds}"), client.ask(f"trips {seconds}"))


def procd_reload(service: Service, version: int) -> float:
    """Save the app as *version*; return the seconds until it answers. A new connection each."""
    address = ("127.0.0.1", service.port)
    return save_to_answer(
        service.app_path, version, lambda: ask_version(address), save_done=lambda: None
    )


# ---------------------------------------------------------------- bare


@contextmanager
def bare_processes() -> Iterator[tuple[sysv_ipc.MessageQueue, socket.socket]]:
    """Two task processes behind a queue; its removal ends them."""
    queue = sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE)
    pids = [fork(lambda: bare_task_process(queue, theirs)) for _ in range(TASK_PROCESSES)]
    theirs.close()
    try:
        yield queue, ours
    finally:
        queue.remove()
        for pid in pids:
            os.waitpid(pid, 0)
        ours.close()


def bare_task_process(queue: sysv_ipc.MessageQueue, back: socket.socket) -> None:
    with suppress(sysv_ipc.ExistentialError):
        while True:
            payload, _ = queue.receive()
            back.send(payload)


def bare_tasks(seconds: float) -> Tasks:
    with bare_processes() as (queue, back):
        under_way, done, began = 0, 0, time.monotonic()
        while time.monotonic() < began + seconds:
            queue.send(PAYLOAD)
            under_way += 1
            if under_way == WINDOW:
                back.recv(4096)
                under_way -= 1
                done += 1
        for _ in range(under_way):
            back.recv(4096)
        per_second = (done + under_way) / (time.monotonic() - began)
        trips, until = [], time.monotonic() + seconds
        while (since := time.monotonic()) < until:
            queue.send(PAYLOAD)
            back.recv(4096)
            trips.append(time.monotonic() - since)
    return tasks_of(per_second, trips)


def bare_reload(path: Path, version: int) -> float:
    """Save the app as *version*, fork, import, answer; return the seconds until the answer."""
    importlib.import_module("procd.app")  # as a template has it
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = listener.getsockname()
        pids: list[int] = []
        try:
            return save_to_answer(
                path,
                version,
                lambda: ask_version(address),
                save_done=lambda: pids.append(fork(lambda: bare_worker(path, listener))),
            )
        finally:
            for pid in pids:
                os.waitpid(pid, 0)


def bare_worker(path: Path, listener: socket.socket) -> None:
    """Import the app from its source and answer one client."""
    spec = importlib.util.spec_from_file_location("bare_app", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    client, _ = listener.accept()
    client.recv(100)
    client.sendall(json.dumps(app.VERSION).encode() + b"\n")
    client.close()


def fork(body: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        body()
        status = 0
    finally:
        os._exit(status)


# ---------------------------------------------------------------- a save


def save_to_answer(
    path: Path, version: int, ask: Callable[[], object], save_done: Callable[[], None]
) -> float:
    text = APP.replace("VERSION = 0", f"VERSION = {version}")
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    began = time.monotonic()
    fresh.rename(path)
    save_done()
    while ask() != version:
        if time.monotonic() > began + PATIENCE:
            raise TimeoutError(f"version {version} does not answer within {PATIENCE} s")
    return time.monotonic() - began


def ask_version(address: tuple[str, int]) -> object:
    with socket.create_connection(address, PATIENCE) as sock:
        sock.sendall(b"version")
        return json.loads(sock.recv(100))
