"""Start here: a client is answered at once, and then with what a task worker found out.

    procd -c config/procd.yaml start --foreground

Then, from a second terminal, say something on port 9000; change a text below, save, say it again.
"""

from procd import Connection, Server, task

server = Server()


@server.on_receive
async def receive(conn: Connection, data: bytes) -> None:
    """In a worker. Its loop serves many clients: wait with `await` only."""
    conn.send(b"hello world client\n")
    words = await count_words.send(data[:500])
    conn.send(f"a task worker counted {words} words\n".encode())


@task
def count_words(text: bytes) -> int:
    """In a task worker, which may take its time: it runs one task after the other."""
    return len(text.split())
