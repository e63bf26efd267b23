"""Messages between any two processes, by worker id.

    procd -c config/procd.yaml start --foreground -s app=examples/pipe_message.py:server

Each message of a client becomes a task; its task worker greets every worker and task worker, by
ids 0 .. worker_num + task_worker_num - 1 (itself as well, which comes when the task is over).
"""

from itertools import count

from procd import Connection, NoSuchWorker, Server, Task

server = Server()


@server.on_receive
async def receive(conn: Connection, data: bytes) -> None:
    reached = await server.task(data[:100])
    conn.send(f"{reached}\n".encode())


@server.on_task
def greet(task: Task) -> None:
    reached = 0
    for worker_id in count():
        try:
            server.send_message("data of a task", worker_id)
        except NoSuchWorker:  # there is no such id, or its process is just being replaced
            break
        reached += 1
    task.finish(f"{reached} processes reached")


@server.on_pipe_message
def message(src_worker_id: int, data: object) -> None:
    print(f"worker {server.worker_id} got from {src_worker_id}: {data}", flush=True)
