"""A chat room: what one client says, all of them hear, whichever worker serves them.

    procd -c config/procd.yaml start --foreground -s app=examples/chat.py:server

The app holds its connections, in a dict of each worker. procd would not move such a connection at a
reload, for the dict of the next worker would not know it; on_resume enters it there, and so they
move. What is said in the very moment of a move can miss the one that moves.
"""

from itertools import count

from procd import Connection, InboxFull, NoSuchWorker, SendBufferFull, Server

server = Server()
room: dict[int, Connection] = {}


@server.on_resume
def enter(conn: Connection) -> None:
    room[conn.id] = conn


@server.on_connect
def welcome(conn: Connection) -> None:
    enter(conn)
    conn.send(b"welcome\n")


@server.on_close
def leave(conn: Connection) -> None:
    room.pop(conn.id, None)


@server.on_receive
def say(conn: Connection, data: bytes) -> None:
    for worker_id in count():
        try:
            server.send_message(data[:1000], worker_id)
        except InboxFull:
            conn.send(b"not everybody has heard that\n")
        except NoSuchWorker:
            break


@server.on_pipe_message
def hear(_src_worker_id: int, data: bytes) -> None:
    for conn in list(room.values()):
        try:
            conn.send(data)
        except SendBufferFull:  # it does not listen
            conn.close()
