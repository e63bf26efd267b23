"""The status page for a person: what is wrong first, then who runs; 80 columns do.

Colours follow the terminal: none into a pipe, none with NO_COLOR, always with FORCE_COLOR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from procd.master.steps import named

_WIDTH = 80
_TASKS = ("queued", "running", "done", "failed", "retried", "dead", "refused")
_MORE_TASKS = ("delayed", "expired", "cancelled")  # shown where there are any
_BAD_TASKS = ("dead", "refused")
_STATES = {"ready": "green", "backoff": "bold red", "booting": "yellow", "draining": "dim"}
_COLUMNS = ("id", "role", "pid", "gen", "state", "conn", "reqs", "died", "rss", "pss")
_WORDS = ("role", "state")  # the columns that are no numbers

Page = Mapping[str, Any]


def show(page: Page, console: Console | None = None) -> None:
    """Print the page."""
    console = console or Console(highlight=False)
    about = (*_base(page["base"]), *_tasks(page["tasks"]), *_ingress(page["ingress"]))
    for line in (*_wrong(page), *_service(page), *about):
        console.print(line, soft_wrap=True)
    console.print(_table(page["processes"]))


def _wrong(page: Page) -> Iterator[Text]:
    """What somebody should do something about."""
    reload, config, processes = page["reload"], page["config"], page["processes"]
    if config["error"]:
        yield Text("config refused:", "bold red")
        yield Text(config["error"])
    if reload["error"] and reload["state"] == "refused":
        yield Text(f"reload refused: {named(tuple(reload['cause']))}", "bold red")
        yield Text(reload["error"])
    waiting = [process for process in processes if process["state"] == "backoff"]
    for process in waiting:
        again = f" again in {process['retry_in']:.1f} s" if "retry_in" in process else ""
        text = f"{_title(process)} has died {process['restarts']} times, starts{again}: see the log"
        yield Text(text, "bold red")
    for stranger in page.get("leftovers", ()):
        of = f" by {stranger['of']}" if stranger["of"] else ""
        text = f"left behind{of}: pid {stranger['pid']}  {stranger['command']}"
        yield Text(text[:_WIDTH], "yellow")
    if page["ingress"] and page["ingress"]["error"]:
        yield Text(f"public queue: {page['ingress']['error']}", "bold red")
    if config["needs_restart"]:
        yield Text(f"needs a restart: {', '.join(config['needs_restart'])}", "yellow")


def _service(page: Page) -> Iterator[Text]:
    style = {"running": "bold green", "starting": "bold yellow"}.get(page["state"], "bold red")
    head = Text(page["state"], style)
    head.append(f"  pid {page['pid']}  generation {page['generation']}", "default")
    head.append(f"  up {_seconds(page['uptime'])}", "default")
    listeners: Sequence[str] = page["listeners"] or ["no listener"]
    if len(head) + len(", ".join(listeners)) + 2 <= _WIDTH:
        head.append("  " + ", ".join(listeners), "default")
        listeners = ()
    yield head
    yield from (Text(f"  {listener}") for listener in listeners)
    reload = page["reload"]
    if reload["state"] == "ok" and reload["seconds"] is not None:
        cause = named(tuple(reload["cause"]))
        yield Text(f"last reload {reload['seconds'] * 1000:.0f} ms: {cause}")
        if reload["steps"]:  # an edit that takes no new generation has none
            steps = "  ".join(f"{name} {_ms(took)}" for name, took in reload["steps"].items())
            yield Text(f"  {steps}", "dim")
    if reload["refusal"] and reload["state"] != "refused":
        why = (reload["refusal"]["error"] or "").splitlines()[:1]
        yield Text(f"last refusal: {''.join(why)}")


def _base(base: Page) -> Iterator[Text]:
    """What a new generation finds imported, and what cannot be shared by a fork."""
    if not base["is_warm"]:
        yield Text("base: not warm yet, a reload imports all", "dim")
    for package, why in base["left_out"].items():
        yield Text(f"not preloaded: {package}: {why}", "yellow")
    if base["unfit"]:
        yield Text(f"each process imports the app for itself: {base['unfit']}", "yellow")


def _tasks(tasks: Page) -> Iterator[Text]:
    line = Text("tasks")
    for name in (*_TASKS, *(more for more in _MORE_TASKS if tasks.get(more))):
        style = "bold red" if name in _BAD_TASKS and tasks[name] else "default"
        part = f"  {name} {_count(tasks[name])}"
        if len(line) + len(part) > _WIDTH:
            yield line
            line = Text("     ")
        line.append(part, style)
    yield line


def _ingress(ingress: Page | None) -> Iterator[Text]:
    """What foreign programs handed in, if anything."""
    if ingress is None:
        return
    counts = {name: ingress[name] for name in ("taken", "answers")}
    counts["expired"], counts["dropped"] = ingress["answers_expired"], ingress["answers_dropped"]
    counts |= {f"rejected ({why})": count for why, count in ingress["rejected"].items()}
    if told := "  ".join(f"{name} {_count(count)}" for name, count in counts.items() if count):
        yield Text(f"foreign programs  {told}")


def _table(processes: Sequence[Page]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in _WORDS else "right", no_wrap=True)
    for process in processes:
        state = process["state"]
        died = _count(process["restarts"])
        table.add_row(
            _count(process.get("id")),
            process["role"],
            "" if process["pid"] is None else str(process["pid"]),
            _count(process["generation"]),
            Text(state, _STATES.get(state, "default")),
            _count(process.get("connections")),
            _count(process.get("requests")),
            Text(died, "yellow" if process["restarts"] else "dim"),
            _size(process["rss_bytes"]),
            _size(process["pss_bytes"]),
            style="dim" if state == "draining" else None,
        )
    return table


def _title(process: Page) -> str:
    number = process.get("id")
    return str(process["role"]) if number is None else f"{process['role']} {number}"


def _count(value: int | None) -> str:
    """Write a number in five characters at most."""
    if value is None:
        return ""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= 100 * size or (unit != "k" and value >= size):
            short = value / size
            return f"{short:.1f}{unit}" if short < 100 else f"{short:.0f}{unit}"
    return str(value)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _size(size: int | None) -> str:
    if size is None:
        return ""
    mib = size / (1 << 20)
    return f"{mib:.1f}M" if mib < 1000 else f"{mib / 1024:.1f}G"


def _seconds(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"
