"""completion and man: what a shell and a manual reader get, both made from the commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from procd.cli.examples import EXAMPLES
from procd.cli.root import walk

_EXIT = {
    "0": "done",
    "1": "failed, refused, or running already",
    "2": "wrong usage, or a fault in the config",
    "3": "no procd runs for this config",
}
_FILES = {
    "./config/procd.yaml, ./procd.yaml, /etc/procd/procd.yaml": "the config, without -c",
    "/run/procd, $XDG_RUNTIME_DIR/procd, /tmp/procd-UID": "records of running services",
}
_ENVIRONMENT = {
    "PROCD_CONFIG": "the config, without -c",
    "PROCD_KEY": "overrides the key of that name, as PROCD_WORKER_NUM=4",
    "NO_COLOR": "no colours, whatever the terminal",
}
_SIGNALS = {
    "TERM": "graceful stop",
    "INT, QUIT": "fast stop; tasks are kept",
    "HUP, USR1": "reload",
    "USR2": "reload of the task workers only",
    "TTIN, TTOU": "one worker more, one less",
    "WINCH": "reopen the log",
}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script by which a shell completes procd's commands and options."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - the choice above names click's own
    click.echo(found(ctx.find_root().command, {}, "procd", "_PROCD_COMPLETE").source())


@click.command()
@click.pass_context
def man(ctx: click.Context) -> None:
    """Print the man page, in roff."""
    click.echo(page(ctx.find_root().command))


def page(root: click.Command) -> str:
    """Return the man page of all commands."""
    context = click.Context(root, info_name="procd")
    lines = [
        '.TH PROCD 1 "" "procd" "User Commands"',
        *(".SH NAME", _text("procd - a hot-reloading multi-process server daemon")),
        *(".SH SYNOPSIS", "\\fBprocd\\fR [\\fB\\-c\\fR \\fIFILE\\fR] \\fICOMMAND\\fR [options]"),
        ".SH DESCRIPTION",
        *_paragraphs(root.help or ""),
        ".SH COMMANDS",
    ]
    for words, command in walk(root):
        lines += _command(words, command, context)
    tables = {
        "SIGNALS TO THE MASTER": _SIGNALS,
        "EXIT STATUS": _EXIT,
        "ENVIRONMENT": _ENVIRONMENT,
        "FILES": _FILES,
    }
    for title, table in tables.items():
        lines.append(f".SH {title}")
        for term, what in table.items():
            lines += [".TP", f"\\fB{_text(term)}\\fR", _text(what)]
    lines += [".SH SEE ALSO", _text("systemctl(1), journalctl(1), ipcs(1)")]
    return "\n".join(lines)


def _command(words: str, command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=words, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SS \\fBprocd {_text(words)}\\fR {_text(usage)}"
    yield from _paragraphs(command.help or "")
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None and record[1] and param.name != "help":
            yield from (".TP", f"\\fB{_text(record[0])}\\fR", _text(record[1]))
    if words in EXAMPLES:
        yield from (".PP", ".nf", *(_text(f"    {line}") for line in EXAMPLES[words]), ".fi")


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        yield from (".PP", _text(" ".join(paragraph.split())))


def _text(text: str) -> str:
    """Write text so that roff takes none of it for its own."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
