"""More work than there is room for: answer "busy" at once, or wait for a while.

    procd -c config/procd.yaml start --foreground -s app=examples/busy.py:server -s task_slots=64

Say `now` or `wait` on port 9000, from many clients.
"""

import time

from procd import Connection, Server, Task, TaskError, TaskQueueFull, TaskTimeout

server = Server()


@server.on_receive
async def receive(conn: Connection, data: bytes) -> None:
    answer = await (wait() if data.startswith(b"wait") else now())
    conn.send(f"{answer}\n".encode())


async def now() -> object:
    """Do it, or say so at once: nothing piles up, and the client may ask elsewhere."""
    try:
        ref = server.task("a report")
    except TaskQueueFull:
        return "busy"
    try:
        return await ref
    except TaskError as error:  # its handler raised, or its process died too often
        return f"failed: {error}"


async def wait() -> object:
    """Wait for room as well as for the result, for a second in all.

    A task that was accepted in that time runs all the same: only its result goes unread.
    """
    try:
        return await server.task_wait("a report", timeout=1)
    except TaskTimeout:
        return "not in time"


@server.on_task
def report(task: Task) -> str:
    time.sleep(0.05)
    return f"done: {task.data}"
