"""Back-pressure: gives every byte back, to a client that reads slowly as well.

procd -c config/procd.yaml start --foreground -s app=examples/echo.py:server
"""

from procd import Connection, Server

server = Server()


@server.on_receive
async def receive(conn: Connection, data: bytes) -> None:
    """Send, then wait until the client has taken enough of it.

    While this waits, nothing more is read from this client, so that its own sends slow down too.
    Other clients notice nothing, and the worker holds at most `send_buffer_bytes` and one message.
    """
    conn.send(data)
    await conn.drain()
