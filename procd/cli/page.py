"""The status page for a person: what is wrong first, then who runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from procd.master.steps import named

_TASKS = ("queued", "running", "done", "failed", "retried", "dead", "refused")


def show(page: Mapping[str, Any]) -> None:
    """Print the page."""
    console = Console(highlight=False)
    reload = page["reload"]
    if page["config"]["error"]:
        console.print("config refused:", style="bold red")
        console.print(page["config"]["error"], markup=False, soft_wrap=True)
    if reload["error"] and reload["state"] == "refused":
        console.print(f"reload refused: {named(tuple(reload['cause']))}", style="bold red")
        console.print(reload["error"], markup=False, soft_wrap=True)
    where = ", ".join(page["listeners"]) or "no listener"
    console.print(
        f"{page['state']}  pid {page['pid']}  generation {page['generation']}  "
        f"up {_seconds(page['uptime'])}  {where}",
        markup=False,
    )
    if reload["state"] == "ok" and reload["seconds"] is not None:
        cause = named(tuple(reload["cause"]))
        console.print(f"last reload {reload['seconds'] * 1000:.0f} ms: {cause}", markup=False)
        if reload["steps"]:  # an edit that takes no new generation has none
            steps = "  ".join(f"{name} {_ms(took)}" for name, took in reload["steps"].items())
            console.print(f"  {steps}", style="dim", markup=False)
    if reload["refusal"] and reload["state"] != "refused":
        why = (reload["refusal"]["error"] or "").splitlines()[:1]
        console.print(f"last refusal: {''.join(why)}", markup=False, soft_wrap=True)
    _show_base(console, page["base"])
    if page["config"]["needs_restart"]:
        keys = ", ".join(page["config"]["needs_restart"])
        console.print(f"needs a restart: {keys}", style="yellow", markup=False, soft_wrap=True)
    tasks = page["tasks"]
    told = "  ".join(f"{name} {tasks[name]}" for name in _TASKS)
    console.print(f"tasks  {told}", markup=False)
    _show_ingress(console, page["ingress"])
    console.print(_table(page["processes"]))


def _show_base(console: Console, base: Mapping[str, Any]) -> None:
    """Say what a new generation finds imported, and what cannot be shared by a fork."""
    if not base["is_warm"]:
        console.print("base: not warm yet, a reload imports all", style="dim")
    for package, why in base["left_out"].items():
        console.print(f"not preloaded: {package}: {why}", style="yellow", markup=False)
    if base["unfit"]:
        text = f"each process imports the app for itself: {base['unfit']}"
        console.print(text, style="yellow", markup=False, soft_wrap=True)


def _show_ingress(console: Console, ingress: Mapping[str, Any] | None) -> None:
    """Say what foreign programs handed in, if anything."""
    if ingress is None:
        return
    if ingress["error"]:
        console.print(
            f"public queue: {ingress['error']}", style="red", markup=False, soft_wrap=True
        )
    counts = {name: ingress[name] for name in ("taken", "answers")}
    counts["expired"], counts["dropped"] = ingress["answers_expired"], ingress["answers_dropped"]
    counts |= {f"rejected ({why})": count for why, count in ingress["rejected"].items()}
    if told := "  ".join(f"{name} {count}" for name, count in counts.items() if count):
        console.print(f"foreign programs  {told}", markup=False, soft_wrap=True)


def _table(processes: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in (
        "id",
        "role",
        "pid",
        "gen",
        "state",
        "conns",
        "requests",
        "restarts",
        "rss",
        "pss",
    ):
        table.add_column(name, justify="left" if name in ("role", "state") else "right")
    for process in processes:
        style = {"backoff": "red", "booting": "yellow", "draining": "dim"}.get(process["state"], "")
        table.add_row(
            _text(process.get("id")),
            process["role"],
            _text(process["pid"]),
            _text(process["generation"]),
            process["state"],
            _text(process.get("connections")),
            _text(process.get("requests")),
            _text(process["restarts"]),
            _mib(process["rss_bytes"]),
            _mib(process["pss_bytes"]),
            style=style,
        )
    return table


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _mib(size: int | None) -> str:
    return "" if size is None else f"{size / (1 << 20):.1f}M"


def _seconds(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"
