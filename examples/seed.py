"""The smallest server with tasks: answer the client, leave the work to three task workers.

procd -c config/procd.yaml start --foreground -s app=examples/seed.py:server -s task_worker_num=3
"""

from procd import Connection, Server, Task

server = Server()


@server.on_receive
def receive(conn: Connection, data: bytes) -> None:  # noqa: ARG001 - any message will do
    server.task("hello worker task")
    conn.send(b"hello world client \n")


@server.on_task
def run(task: Task) -> None:
    print(f"task worker {server.worker_id} got: {task.data}", flush=True)
