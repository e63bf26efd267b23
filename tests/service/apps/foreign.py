"""The app of the ingress's tests: notes each task, and returns what it is asked to."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from procd import Connection, Server, Task

server = Server()


@server.on_receive
def receive(conn: Connection, data: bytes) -> None:
    conn.send(data)


@server.on_task
def run(task: Task) -> Any:
    """Text may ask for something: hold FILE, fail TEXT, big BYTES, bytes."""
    data: Any = task.data
    words = data.split(" ", 1) if isinstance(data, str) else [""]
    if words[0] == "hold":
        while os.path.exists(words[1]):
            time.sleep(0.01)
    note(data, task)
    match words[0]:
        case "fail":
            raise ValueError(words[1])
        case "big":
            return "x" * int(words[1])
        case "bytes":
            return b"\xff\0"
    return data


def note(data: object, task: Task) -> None:
    """Write the task into the ledger; O_APPEND makes a line whole whoever else writes."""
    shown = data.hex() if isinstance(data, bytes) else data
    line = ["task", shown, type(data).__name__, server.worker_id, task.src_worker_id]
    fd = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, json.dumps(line, default=repr).encode() + b"\n")
    finally:
        os.close(fd)
