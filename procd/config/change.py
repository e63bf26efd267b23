"""What an edit of the config means for a service that runs: pure, two Configs in, words out.

Each key stands in exactly one of three rows; a test holds that none is forgotten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from procd.config import limits
from procd.config.schema import Config, Listen

# Only the master looks at these, or the ingress, which is replaced: an edit of nothing else is in
# effect at once.
LIVE = (
    *("worker_num", "task_worker_num", "max_wait_time", "boot_timeout", "max_draining"),
    *("backlog", "preload", "watch_file", "watch_extra", "watch_poll", "on_reload"),
    *("task_max_attempts", "orphan_results", "log_rate", "log_level"),
    *("message_queue_strings", "message_queue_codec", "message_queue_reply_type", "task_tmpdir"),
)
# These live in workers and task workers, or in what the app's import saw: a new generation.
GENERATION = (
    *("app", "chdir", "listen", "env", "hang_timeout", "max_request", "task_max_request"),
    "task_max_rss",
    *("max_memory", "max_conn", "send_buffer_bytes"),
    *("task_max_bytes", "task_timeout"),
    *("nice", "cpu_affinity", "rlimits", "umask"),
)
# What the running master has built on: a new value waits for a restart.
RESTART = (
    *("run_dir", "state_dir", "master_pid_file", "worker_pid_file", "log_file"),
    "log_format",
    *("user", "group", "task_slots", "task_slot_bytes"),
    *("message_queue_key", "message_queue_mode", "message_queue_group"),
)
# What a reload of the task workers alone leaves to the next reload of all.
OF_WORKERS = ("worker_num", "listen", "backlog")

_DEFAULT_MODE = 0o660


@dataclass(frozen=True, slots=True)
class Edit:
    """What differs between the config that is in effect and the one on disk."""

    old: Config
    new: Config  # what can be applied: keys that wait for a restart have their old values
    waits: tuple[str, ...]  # those keys
    live: tuple[str, ...]
    generation: tuple[str, ...]

    @property
    def parts(self) -> list[tuple[str, str]]:
        """What is applied, as (key, how): ("worker_num", "2 -> 3"), ("listen", "+ tcp://...")."""
        names = [name for name in _names() if name in self.live + self.generation]
        return [(name, how) for name in names for how in _how(name, self.old, self.new)]

    def takes_generation(self, refused: Config | None) -> bool:
        """Tell whether it changes what runs, or what a generation was *refused* with."""
        tried = () if refused is None else compare(refused, self.new).generation
        return bool(self.generation or tried)

    def __str__(self) -> str:
        """Return it in one line for a person; empty if nothing differs."""
        text = ", ".join(f"{name} {how}" for name, how in self.parts)
        waits = f"needs a restart: {', '.join(self.waits)}" if self.waits else ""
        return "; ".join(filter(None, (text, waits)))

    @property
    def fields(self) -> dict[str, str]:
        """What is applied, for a line of the log: one text a key."""
        found: dict[str, str] = {}
        for name, how in self.parts:
            found[name] = f"{found[name]}, {how}" if name in found else how
        return found


def compare(old: Config, new: Config) -> Edit:
    """Return what an edit from *old* to *new* changes, and when."""
    differ = [name for name in _names() if _differs(name, old, new)]
    waits, live, generation = (
        tuple(name for name in differ if name in row) for row in (RESTART, LIVE, GENERATION)
    )
    return Edit(old, keeping(old, new, RESTART), waits, live, generation)


def keeping(old: Config, new: Config, names: Sequence[str]) -> Config:
    """Return *new* with these keys as in *old*."""
    return dataclasses.replace(new, **{name: getattr(old, name) for name in names})


def _names() -> Iterator[str]:
    return (f.name for f in dataclasses.fields(Config) if f.metadata)


def _differs(name: str, old: Config, new: Config) -> bool:
    if name == "listen":  # neither the order nor the spelling matters to anybody who connects
        return bool(list(_listen(old.listen, new.listen)))
    return bool(getattr(old, name) != getattr(new, name))


# ---------------------------------------------------------------- listeners


def identity(listen: Listen) -> tuple[str, str, int, str, str]:
    """Return by what a listener stays the same one: its socket is kept over an edit."""
    return listen.scheme, listen.host, listen.port, listen.path, listen.name


def mode(listen: Listen) -> int:
    """Return the permissions of a Unix socket."""
    return _DEFAULT_MODE if listen.mode is None else listen.mode


def paired(old: Sequence[Listen], new: Sequence[Listen]) -> list[int | None]:
    """Return for each of *new* the index of the one of *old* that it is, None = added.

    What no index names is removed. Of several alike (port 0) the first ones stay.
    """
    left = list(range(len(old)))
    found: list[int | None] = []
    for listen in new:
        same = next((i for i in left if identity(old[i]) == identity(listen)), None)
        if same is not None:
            left.remove(same)
        found.append(same)
    return found


def _listen(old: Sequence[Listen], new: Sequence[Listen]) -> Iterator[str]:
    pairs = paired(old, new)
    for listen, index in zip(new, pairs, strict=True):
        if index is None:
            yield f"+ {listen.text}"
        elif mode(listen) != mode(old[index]):
            yield f"unix://{listen.path} mode {mode(old[index]):04o} -> {mode(listen):04o}"
    for index, listen in enumerate(old):
        if index not in pairs:
            yield f"- {listen.text}"


# ---------------------------------------------------------------- words


def _how(name: str, old: Config, new: Config) -> Iterator[str]:
    if name == "listen":
        yield from _listen(old.listen, new.listen)
    elif name == "env":  # a value may be a secret: it is in no log
        for variable in sorted(old.env.keys() | new.env.keys()):
            if old.env.get(variable) != new.env.get(variable):
                sign = "+" if variable not in old.env else "-" if variable not in new.env else "~"
                yield f"{sign} {variable}"
    else:
        yield f"{_word(name, getattr(old, name))} -> {_word(name, getattr(new, name))}"


def _word(name: str, value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, dict):
        return limits.words(value)
    if isinstance(value, int) and name.endswith(("_mode", "umask")):
        return f"{value:04o}"
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else "''"
