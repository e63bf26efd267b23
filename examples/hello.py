"""The first app: answers each message, and has a task worker double the length of it."""

from __future__ import annotations

from procd import Connection, Server, Task, task

server = Server()


@server.on_receive
async def receive(conn: Connection, data: bytes) -> None:
    """Answer at once, then with what the task worker has found out."""
    conn.send(b"hello world client\n")
    length = await server.task({"text": data})
    conn.send(f"task says: {length} bytes twice is {await double.send(len(data))}\n".encode())


@server.on_task
def run(task: Task) -> object:
    """Runs in a task worker."""
    assert isinstance(task.data, dict)  # noqa: S101
    return len(task.data["text"])


@task
def double(number: int) -> int:
    """A named task; `double(2)` runs here and now."""
    return number * 2
