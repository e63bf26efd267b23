"""The listeners of one service over its reloads: each generation has its own list.

A listener whose address stays in the config keeps its very socket. An added one is there
before its generation boots, so that a taken port refuses the edit; a removed one goes when
the new generation has taken over, and loses nobody on its way, by this order:

1. the kernel takes no new client on it (shut);
2. each old worker accepts to the last what the kernel had taken, and only then closes its
   own descriptor: whoever closes last resets what is still in the backlog, and by then
   nothing is;
3. when they have said so, or have not in time, the master closes it; if somebody still waits
   (an old worker died or is stuck) a new worker is given it for that moment.

An added one may want the port of a removed one (tcp://0.0.0.0:80 in the place of
tcp://127.0.0.1:80). The two share it, and the added one listens only at the switch: until
then the kernel would hand it clients that nobody serves.
"""

from __future__ import annotations

import select
from collections.abc import Mapping, Sequence

from procd import logs
from procd.config import change
from procd.config.schema import Config, Listen
from procd.errors import StartFailed
from procd.ipc.channel import MAX_FDS
from procd.master import listeners
from procd.master.fdstore import FdStore
from procd.master.listeners import Listener, Owner


class Listening:
    """Owns every listening socket of the service; Unix paths are *owner*'s, None = the master's."""

    def __init__(self, owner: Owner | None = None) -> None:
        self._owner = owner
        self.serving: list[Listener] = []
        self._is_closed = False
        self._store = FdStore()
        self._of: dict[int, list[Listener]] = {}  # generation → its listeners, in its order
        self._added: list[Listener] = []
        self._silent: list[Listener] = []  # those of them that share a port
        self._leaving: list[Listener] = []

    def open(self, listens: Sequence[Listen], backlog: int) -> None:
        """Bind all of a start; raises StartFailed, and then close() closes the first of them."""
        _check_number(listens)
        for listen in listens:
            kept = self._store.take(listen, backlog)
            self.serving.append(kept or listeners.bind(listen, backlog, owner=self._owner))
        self._store.keep(self.serving)

    def prepare(self, generation: int, config: Config, hosts: Mapping[str, str]) -> None:
        """Have what a coming generation listens on; *hosts* are addresses of names, looked up.

        Raises StartFailed, and nothing has changed.
        """
        if self._is_closed:
            raise StartFailed("the service is stopping")
        _check_number(config.listen)
        found: list[Listener] = []
        pairs = change.paired([one.listen for one in self.serving], config.listen)
        going = [one for index, one in enumerate(self.serving) if index not in pairs]
        try:
            for listen, index in zip(config.listen, pairs, strict=True):
                if index is None:
                    self._add(listen, going, config.backlog, hosts)
                found.append(self._added[-1] if index is None else self.serving[index])
        except StartFailed:
            self._drop_added()
            raise
        self._of[generation] = found

    def _add(
        self, listen: Listen, going: list[Listener], backlog: int, hosts: Mapping[str, str]
    ) -> None:
        rivals = [one for one in going if listen.port and one.port == listen.port]
        for rival in rivals:
            rival.share_port(is_shared=True)
        self._added.append(
            listeners.bind(*(listen, backlog, hosts), shares_port=bool(rivals), owner=self._owner)
        )
        if rivals:
            self._silent.append(self._added[-1])

    def switch(self, backlog: int) -> None:
        """The coming generation is about to serve."""
        for listener in self._silent:
            try:
                listener.set_backlog(backlog)
                listener.share_port(is_shared=False)
            except OSError as error:
                logs.error("does not listen", address=listener.address, why=error.strerror)
        self._silent = []

    def refuse(self, generation: int) -> None:
        """That generation did not come up: its own go again."""
        self._of.pop(generation, None)
        self._drop_added()

    def _drop_added(self) -> None:
        for listener in self._added:
            listener.close()
        self._added, self._silent = [], []
        for listener in self.serving:
            if listener.port:
                listener.share_port(is_shared=False)

    def take_over(self, generation: int, config: Config) -> None:
        """That generation serves: what it does not have takes no new client from now on.

        Of task workers alone, it changes nothing.
        """
        if generation not in self._of:
            return
        kept = {listener.socket for listener in self._of[generation]}
        self._leaving += [one for one in self.serving if one.socket not in kept]
        self.serving, self._added = self._of[generation], []
        for listener in self._leaving:
            logs.info("listener removed", address=listener.address)
            listener.shut()
        self._adapt(config)
        self._store.keep(self.serving)

    def _adapt(self, config: Config) -> None:
        """Give those that stay the permissions that the config has now."""
        pairs = change.paired([one.listen for one in self.serving], config.listen)
        for listen, index in zip(config.listen, pairs, strict=True):
            if index is not None:
                self.serving[index] = self.serving[index].adapted(listen)

    def set_backlog(self, backlog: int) -> None:
        for listener in self.serving:
            listener.set_backlog(backlog)

    def of(self, generation: int) -> list[Listener]:
        """Return what a worker of that generation accepts on."""
        return self._of.get(generation, [])

    def leaving(self, generation: int) -> list[int]:
        """Return which of that generation's listeners, by index, are to be emptied now."""
        mine = self.of(generation)
        return [index for index, listener in enumerate(mine) if listener in self._leaving]

    def waiting(self) -> list[int]:
        """Return the descriptors of removed ones in whose backlog somebody waits."""
        poll = select.poll()
        for listener in self._leaving:
            poll.register(listener.socket, select.POLLIN)
        return [fd for fd, _ in poll.poll(0)]

    def close_leaving(self, generation: int) -> None:
        """No worker accepts on the removed ones any more; only *generation* has listeners."""
        for listener in self._leaving:
            listener.close()
        self._leaving = []
        self._of = {number: found for number, found in self._of.items() if number >= generation}

    def close(self) -> None:
        """Close all, for good."""
        if not self._is_closed:
            self._store.close(self.serving)
        self._is_closed = True
        for listener in (*self.serving, *self._added, *self._leaving):
            listener.close()
        self.serving, self._added, self._leaving, self._of = [], [], [], {}


def _check_number(listens: Sequence[Listen]) -> None:
    limit = MAX_FDS - 1  # a worker gets them in one message, with its channel
    if len(listens) > limit:
        raise StartFailed(f"cannot listen on {len(listens)} addresses: {limit} at most")
