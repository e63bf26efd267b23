"""What the master is told to do, by control requests and by signals."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from procd import logs
from procd.config.schema import KEYS
from procd.ipc.scoreboard import Role
from procd.master import status
from procd.master.asked import Outcome
from procd.master.control import Json, Reply
from procd.master.lifecycle import KILL_MARGIN
from procd.master.reload import Counts
from procd.master.service import Service
from procd.master.states import SEATED

TASKS_ONLY = (Role.TASK,)


@dataclass(slots=True)
class Scaling:
    """A scale that waits for its processes."""

    reply: Reply
    deadline: float


class Commands:
    """The master's ears."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stops: list[Reply] = []
        self.is_restart = False  # the next master is about to come
        self._scalings: list[Scaling] = []
        self._by_signal: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._graceful,
            signal.SIGINT: self._fast,
            signal.SIGQUIT: self._fast,
            signal.SIGHUP: lambda: self._reload(SEATED, "SIGHUP"),
            signal.SIGUSR1: lambda: self._reload(SEATED, "SIGUSR1"),
            signal.SIGUSR2: lambda: self._reload(TASKS_ONLY, "SIGUSR2"),
            signal.SIGTTIN: lambda: self._more(1),
            signal.SIGTTOU: lambda: self._more(-1),
            signal.SIGWINCH: self._service.loggers.reopen,
        }

    @property
    def signals(self) -> set[signal.Signals]:
        return {signal.SIGCHLD, *(signal.Signals(number) for number in self._by_signal)}

    def signal(self, signum: int) -> None:
        act = self._by_signal.get(signum)
        if act is not None:
            logs.info("signal", name=signal.Signals(signum).name)
            act()

    # Control requests

    def serve(self, request: Json, reply: Reply) -> None:
        """Answer a request, now or when it is done."""
        command = str(request["command"])
        serve = {
            "status": self._status,
            "reload": self._reload_asked,
            "stop": self._stop_asked,
            "scale": self._scale_asked,
            "reopen": self._reopen_asked,
            "rejected": self._rejected_asked,
            "task": self._service.ledgers.ask,
        }.get(command)
        if serve is None:
            reply({"ok": False, "exit": 2, "error": f"this master knows no command {command!r}"})
            return
        serve(request, reply)

    def _status(self, request: Json, reply: Reply) -> None:
        service = self._service
        state = "stopping" if service.stopping.is_asked else "running"
        if not service.generations.reload.serving:
            state = "starting"
        page = status.status(
            state=state,
            pid=os.getpid(),
            began=service.began,
            generations=service.generations,
            listeners=service.listening.serving,
            table=service.processes,
            scoreboard=service.scoreboard,
            recovery=service.recovery,
            bases=service.bases,
            ledgers=service.ledgers,
        )
        page["control"] = {"refused": service.count_refused()}
        page["ingress"] = service.ingresses.page()
        page["leftovers"] = service.strangers.page()
        page["log"] = service.loggers.page()
        reply({"ok": True, "status": page})

    def _reload_asked(self, request: Json, reply: Reply) -> None:
        if self._service.stopping.is_asked:
            reply({"ok": False, "exit": 1, "error": "the service is stopping"})
            return
        roles = TASKS_ONLY if request.get("tasks") is True else SEATED
        self._service.bases.forgive()
        self._service.generations.asked.ask(
            roles, ["procd reload"], lambda outcome: reply(answer(outcome))
        )

    def _stop_asked(self, request: Json, reply: Reply) -> None:
        seconds = request.get("timeout")
        if not isinstance(seconds, int | float) or not 0 <= seconds < 10**9:
            seconds = self._service.generations.config.max_wait_time
        self._stops.append(reply)
        self.is_restart = self.is_restart or request.get("restart") is True
        discard = request.get("discard") is True
        self._stop_within(seconds, discard=discard)

    def stopped(self, kept: int, unread: int) -> None:
        """Everything is gone: answer who asked for it. *unread*: messages in the public queue."""
        for reply in self._stops:
            reply({"ok": True, "kept": kept, "unread": unread})

    def _scale_asked(self, request: Json, reply: Reply) -> None:
        counts = self._service.generations.counts
        wanted = {"worker": counts.worker, "task": counts.task}
        for name in wanted:
            value = request.get(name)
            if value is None:
                continue
            key = KEYS["worker_num" if name == "worker" else "task_worker_num"]
            if type(value) is not int or not key.low <= value <= key.high:
                text = f"{name}={value!r}: allowed are {key.low} to {key.high}"
                reply({"ok": False, "exit": 2, "error": text})
                return
            wanted[name] = value
        if not self._scale(Counts(wanted["worker"], wanted["task"])):
            reply({"ok": False, "exit": 1, "error": "a reload is under way: try again after it"})
            return
        deadline = time.monotonic() + self._service.generations.config.boot_timeout
        self._scalings.append(Scaling(reply, deadline))

    def _scale(self, counts: Counts) -> bool:
        service = self._service
        generations = service.generations
        if service.stopping.is_asked or not generations.is_idle or not generations.reload.serving:
            return False
        generations.scale(counts)
        service.count()
        logs.info("scaled", worker=counts.worker, task=counts.task)
        return True

    def advance(self, now: float) -> None:
        """Answer scalings that are done."""
        waiting = []
        for scaling in self._scalings:
            missing = self._service.generations.missing()
            if not missing:
                counts = self._service.generations.counts
                text = f"{counts.worker} workers, {counts.task} task workers"
                scaling.reply({"ok": True, "message": text})
            elif now >= scaling.deadline:
                text = f"{missing} processes are not ready within boot_timeout: see the log"
                scaling.reply({"ok": False, "exit": 1, "error": text})
            else:
                waiting.append(scaling)
        self._scalings = waiting

    def due(self) -> float:
        return min((scaling.deadline for scaling in self._scalings), default=inf)

    def _reopen_asked(self, request: Json, reply: Reply) -> None:
        self._service.loggers.reopen()
        reply({"ok": True, "message": "log reopened"})

    def _rejected_asked(self, request: Json, reply: Reply) -> None:
        ingresses = self._service.ingresses
        reply({"ok": True, "ingress": ingresses.page(), "samples": ingresses.samples()})

    # Signals

    def _graceful(self) -> None:
        self._stop_within(self._service.generations.config.max_wait_time)

    def _stop_within(self, seconds: float, *, discard: bool = False) -> None:
        # What does not leave by itself is killed KILL_MARGIN after its deadline: by then.
        deadline = time.monotonic() + max(0.0, seconds - KILL_MARGIN)
        self._service.stop(deadline, discard=discard)

    def _fast(self) -> None:
        self._service.stop(time.monotonic())

    def _reload(self, roles: tuple[Role, ...], cause: str) -> None:
        if not self._service.stopping.is_asked:
            self._service.bases.forgive()
            self._service.generations.asked.ask(roles, [cause])

    def _more(self, step: int) -> None:
        counts = self._service.generations.counts
        key = KEYS["worker_num"]
        worker = min(max(counts.worker + step, key.low), key.high)
        if not self._scale(Counts(worker, counts.task)):
            logs.warning("not scaled: a reload is under way")


def answer(outcome: Outcome) -> Json:
    """Return a reload's outcome as a control answer."""
    ok = outcome.exit_status == 0
    return {"ok": ok, "exit": outcome.exit_status, "message" if ok else "error": outcome.text}
