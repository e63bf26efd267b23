"""Tasks that may run twice and still count once, and on_finish.

    procd -c config/procd.yaml start --foreground -s app=examples/tasks.py:server

Say `alice 500` on port 9000. An accepted task runs at least once: should its process die on the
way, it runs again, under the same task.id. So the effect and the id are written in one transaction.
"""

import os
import sqlite3
import time
from contextlib import closing

from procd import Connection, Server, Task

DATABASE = os.environ.get("CHARGES", "state/charges.sqlite")

server = Server()
waiting: dict[int, Connection] = {}  # who hears of which task; each worker has its own


@server.on_worker_start
def prepare() -> None:
    """In every process, before the first client: here a failure refuses the start or reload."""
    with closing(sqlite3.connect(DATABASE, timeout=30)) as db:
        db.execute("create table if not exists charges (task_id integer primary key, who, cents)")


@server.on_receive
def receive(conn: Connection, data: bytes) -> None:
    who, _, cents = data.decode(errors="replace").strip()[:80].partition(" ")
    if not cents.isdecimal():
        conn.send(b"say: NAME CENTS\n")
        return
    ref = server.task({"who": who, "cents": int(cents)})
    waiting[ref.id] = conn
    conn.send(f"accepted {ref.id}\n".encode())


@server.on_task
def charge(task: Task) -> str:
    """In a task worker. Nothing is charged twice, whatever dies between any two lines."""
    match task.data:
        case {"who": str(who), "cents": int(cents)}:
            pass
        case other:
            raise ValueError(f"no charge: {other!r}")
    with closing(sqlite3.connect(DATABASE, timeout=30)) as db, db:
        db.execute("insert or ignore into charges values (?, ?, ?)", (task.id, who, cents))
    time.sleep(0.02)  # the slow part: a mail, another service
    return f"charged {who} {cents}"


@server.on_finish
def finished(task_id: int, result: object) -> None:
    """In the worker that handed the task over. A task that failed does not come here."""
    conn = waiting.pop(task_id, None)
    if conn is not None:
        conn.send(f"{result}\n".encode())


@server.on_close
def closed(conn: Connection) -> None:
    for task_id in [task_id for task_id, who in waiting.items() if who is conn]:
        del waiting[task_id]
