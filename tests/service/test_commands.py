"""The command line as a whole: what it imports, and what each command says of itself."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from procd.cli import manual
from procd.cli.examples import EXAMPLES
from procd.cli.main import procd
from procd.cli.root import walk

# What a command alone needs would be in the master, and so in every process of every service.
HEAVY = {
    *("csv", "email", "importlib.metadata", "rich.table", "shutil", "zipfile"),
    *("procd.doctor.machine", "click.shell_completion"),
}
COMMANDS = dict(walk(procd))
README = (Path(__file__).parents[2] / "README.md").read_text()


def words_of(example: str) -> list[str]:
    """Return what procd itself is given in the first command of an example."""
    words = shlex.split(example, comments=True)
    if "$(procd" in example:
        words = shlex.split(words[1].removeprefix("$(").removesuffix(")"))
    start = words.index("procd") + 1
    ends = [index for index, word in enumerate(words) if word in {"|", "&&", "<", ">"}]
    return words[start : next((end for end in ends if end > start), len(words))]


def test_a_master_does_not_begin_with_what_other_commands_need() -> None:
    program = "import sys, procd.cli.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert HEAVY & set(done.stdout.split()) == set()


def test_every_command_has_examples_and_every_example_a_command() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()


@pytest.mark.parametrize(
    ("command", "example"), [(name, one) for name, many in EXAMPLES.items() for one in many]
)
def test_example_is_one_that_the_command_takes(command: str, example: str) -> None:
    given = words_of(example)
    assert command in " ".join(given)
    done = CliRunner().invoke(procd, [*given, "--help"], prog_name="procd")
    assert done.exit_code == 0, done.output
    assert f"  {example}\n" in done.output, "its help shows it, unwrapped"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_the_command_does_and_what_each_option_means(command: str) -> None:
    found = COMMANDS[command]
    assert found.help
    for option in found.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, f"{command} {option.opts}"


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_names_the_command(command: str) -> None:
    group, _, name = command.rpartition(" ")
    assert f"`{group or name}" in README
    assert f"`{name}" in README or f"{command}" in README


def test_man_page_names_every_command_and_option() -> None:
    said = manual.page(procd).replace("\\-", "-")
    for words, command in COMMANDS.items():
        assert f"procd {words}" in said
        options = (option for option in command.params if isinstance(option, click.Option))
        assert all(option.opts[-1] in said for option in options if not option.hidden), words


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff to read it with")
def test_man_page_is_roff_without_a_fault() -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8"],
        input=manual.page(procd),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "procd queue send" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_asks_procd_itself(shell: str) -> None:
    done = CliRunner().invoke(procd, ["completion", shell], prog_name="procd")
    assert done.exit_code == 0, done.output
    assert f"_PROCD_COMPLETE={shell}_complete" in done.output


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    program = tmp_path / "procd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m procd "$@"\n')
    program.chmod(0o755)
    script = """
        PATH=$1:$PATH
        eval "$(procd completion bash)"
        complete() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _procd_completion procd
            echo "${COMPREPLY[@]}"
        }
        complete procd sta
        complete procd stop --d
        complete procd queue re
    """
    done = subprocess.run(
        ["bash", "-c", script, "bash", tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["start status stacks", "--discard", "receive rejected"]
