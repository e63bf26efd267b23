"""Results whose dispatcher has died: its successor's on_finish hears of them, or they are counted.

With `orphan_results: deliver` a done slot of an orphaned chunk stays until a successor (who
serves in the same seat, in whichever generation) has called its on_finish. The master tells him
tokens, a batch at a time, and he says when he is through with them. If he dies first they are told
to the next one: on_finish hears of each once or more. Never an await: its process is gone.

Nobody hears of a failure (on_finish never does), of a task that no worker has sent, or of one whose
seat is scaled away.
"""

from __future__ import annotations

from typing import NamedTuple

from procd import logs
from procd.errors import InboxFull
from procd.ipc import inbox, words
from procd.ipc.arenafile import ArenaFile
from procd.ipc.inbox import Gone, Post
from procd.ipc.scoreboard import Scoreboard, Seat

BATCH = 200  # told at once to one successor
LOOKS = 1000  # in one sweep: the master has other things to do
TIMES = 3  # that a result is told whose successors die: it may be what ends them


class _Told(NamedTuple):
    row: int
    incarnation: int
    times: int


class Successors:
    """*is_on*: deliver; else all results that nobody reads are counted."""

    def __init__(self, arena: ArenaFile, scoreboard: Scoreboard, post: Post) -> None:
        self.is_on = False
        self._arena = arena
        self._scoreboard = scoreboard
        self._post = post
        self._told: dict[int, _Told] = {}  # by token: not heard of yet
        self._over: dict[int, bool] = {}  # through with: whether on_finish has heard of it
        self._batches: dict[Seat, list[int]] = {}  # to be told at the end of this sweep
        self._looks = 0

    def sweep(self, chunk: int) -> int:
        """Free the slots of an orphaned chunk that nobody is to hear of any more.

        Returns how many results had no reader.
        """
        heard = 0

        def keeps(token: int) -> bool:
            nonlocal heard
            if self.is_on and token not in self._over and self._is_wanted(token):
                return True
            self._told.pop(token, None)
            heard += self._over.pop(token, False)
            return False

        done, _ = self._arena.sweep(chunk, keeps)
        return done - heard

    def _is_wanted(self, token: int) -> bool:
        """Tell whether a result is to be heard of; its turn may come in a later sweep."""
        told = self._told.get(token)
        if told is not None and self._is_there(told):
            return True
        self._looks += 1
        if self._looks > LOOKS:
            return True
        number = words.slot_of(token)
        if self._arena.has_failed(number):
            return False
        if self._scoreboard.counts() == (0, 0):
            return True  # there is no generation yet
        address = self._scoreboard.address(self._arena.meta(number).src_worker_id)
        if address is None or (told is not None and told.times >= TIMES):
            if told is not None:
                logs.error("result given up: who hears of it dies", id=token, times=told.times)
            return False
        seat = self._scoreboard.find(*address, 0)
        batch = [] if seat is None else self._batches.setdefault(seat, [])
        if len(batch) < BATCH:
            batch.append(token)
        return True

    def _is_there(self, told: _Told) -> bool:
        seat = self._scoreboard.look(told.row)
        return seat is not None and seat.incarnation == told.incarnation

    def tell(self) -> None:
        """Tell successors what sweeps have found for them."""
        batches, self._batches, self._looks = self._batches, {}, 0
        for seat, tokens in batches.items():
            try:
                self._post.send(seat.row, seat.incarnation, inbox.inherited(tokens))
            except (InboxFull, Gone):
                continue  # the next sweep finds them again
            for token in tokens:
                times = self._told[token].times if token in self._told else 0
                self._told[token] = _Told(seat.row, seat.incarnation, times + 1)

    def through(self, tokens: object, *, heard: bool) -> None:
        """A successor is through with results; *heard*: it has an on_finish."""
        for token in tokens if isinstance(tokens, list) else []:
            if isinstance(token, int) and self._told.pop(token, None) is not None:
                self._over[token] = heard
