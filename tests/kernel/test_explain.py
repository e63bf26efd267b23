"""What a person reads of an app that did not come up: FILE:LINE: Error: message, and its frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from procd.errors import ProcdError
from procd.spawn.explain import FAILURE_BYTES, HEAD_CHARACTERS, explain

REPOSITORY = Path(__file__).parents[2]
LIBRARY = """\
def call(handler):
    return through(handler)
def through(handler):
    return handler()
def fail():
    raise KeyError("in the library")
"""
SCRIPT = """\
import sys
from pathlib import Path
from procd.spawn.explain import explain
from procd.spawn.loader import Loader
chdir = Path(sys.argv[1])
loader = Loader(chdir, None, lambda path, digest: None)
loader.install()
sys.path.append(sys.argv[2])
try:
    loader.load("app:server")
except BaseException as error:
    text = explain(error, chdir)
    sys.stdout.write(text)
"""


class Place:
    """An app, and a library in a virtual environment inside of its folder."""

    def __init__(self, folder: Path) -> None:
        self.app = folder / "app.py"
        self.library = folder / "venv" / "lib" / "site-packages"
        self.library.mkdir(parents=True)
        (folder / "venv" / "pyvenv.cfg").touch()
        (self.library / "library.py").write_text(LIBRARY)

    def told(self, source: str | bytes) -> list[str]:
        """Import the app in a process of its own; return the lines of why it failed."""
        self.app.write_bytes(source if isinstance(source, bytes) else source.encode())
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(self.app.parent), str(self.library)],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            check=True,
        )
        return [line.replace(f"{self.app.parent}/", "") for line in done.stdout.splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def frames(lines: list[str]) -> list[str]:
    """The files and lines of the traceback."""
    found = []
    for line in lines:
        if line.startswith('  File "'):
            file, _, rest = line.removeprefix('  File "').partition('", line ')
            found.append(f"{file}:{rest.partition(',')[0]}")
    return found


def test_syntax_error_is_where_python_stumbled(place: Place) -> None:
    assert place.told("x = 1\ndef (:\n") == [
        "app.py:2: SyntaxError: invalid syntax",
        '  File "app.py", line 2',
        "    def (:",
        "        ^",
        "SyntaxError: invalid syntax",
    ]


def test_syntax_error_of_another_module_names_that(place: Place) -> None:
    place.app.with_name("models.py").write_text("class User:\nname = 1\n")
    lines = place.told("import models\n")
    assert lines[0].startswith("models.py:2: IndentationError: expected an indented block")
    assert frames(lines) == ["app.py:1", "models.py:2"]


def test_zero_bytes_of_a_file_that_was_cut_off_name_it(place: Place) -> None:
    lines = place.told(b"x = 1\n" + bytes(100))
    assert lines[0].startswith("app.py:1: SyntaxError: source code string cannot contain null")


def test_error_of_a_library_is_where_the_app_called_it(place: Place) -> None:
    lines = place.told("import library\n\ndef use():\n    library.fail()\n\nuse()\n")
    assert lines[0] == "app.py:4: KeyError: 'in the library'"
    raised = "venv/lib/site-packages/library.py:6"
    assert frames(lines) == ["app.py:6", "app.py:4", raised]


def test_frames_of_a_library_on_the_way_are_left_out(place: Place) -> None:
    lines = place.told("import library\ndef handler():\n    1 / 0\nlibrary.call(handler)\n")
    assert lines[0] == "app.py:3: ZeroDivisionError: division by zero"
    assert frames(lines) == ["app.py:4", "app.py:3"]


def test_library_that_raises_one_error_for_another_of_the_app(place: Place) -> None:
    (place.library / "wraps.py").write_text(
        "def wrap(f):\n    try: f()\n    except OSError as e: raise LookupError('no') from e\n"
    )
    lines = place.told(
        "import wraps\ndef connect():\n    raise OSError('refused')\nwraps.wrap(connect)\n"
    )
    assert lines[0] == "app.py:4: LookupError: no"
    assert "OSError: refused" in lines
    assert frames(lines)[0] == "app.py:3", lines


def test_chain_is_told_whole_and_the_last_of_it_first(place: Place) -> None:
    lines = place.told(
        "try:\n    {}['port']\nexcept KeyError as e:\n    raise RuntimeError('no port') from e\n"
    )
    assert lines[0] == "app.py:4: RuntimeError: no port"
    assert "KeyError: 'port'" in lines
    assert "The above exception was the direct cause of the following exception:" in lines
    assert frames(lines) == ["app.py:2", "app.py:4"]


def test_sys_exit_is_told_with_its_line_and_what_it_came_of(place: Place) -> None:
    lines = place.told(
        "import sys\ntry:\n    open('no.db')\nexcept OSError:\n    sys.exit('no database')\n"
    )
    assert lines[0] == "app.py:5: SystemExit: the app called sys.exit('no database')"
    assert "FileNotFoundError: [Errno 2] No such file or directory: 'no.db'" in lines
    assert lines[-1] == "SystemExit: no database"


def test_message_of_several_lines_and_notes_do_not_hide_the_error(place: Place) -> None:
    lines = place.told("e = ValueError('1 field\\nurl: required')\ne.add_note('note')\nraise e\n")
    assert lines[0] == "app.py:3: ValueError: 1 field"
    assert lines[-3:] == ["ValueError: 1 field", "url: required", "note"]


def test_code_that_lies_in_no_file_is_where_the_app_ran_it(place: Place) -> None:
    assert place.told("x = 1\nexec('def (:')\n")[0] == "app.py:2: SyntaxError: invalid syntax"


def test_group_of_exceptions_shows_the_frames_of_the_app_alone(place: Place) -> None:
    lines = place.told(
        "import asyncio\n"
        "async def fails():\n    raise OSError('no database')\n"
        "async def main():\n"
        "    async with asyncio.TaskGroup() as group:\n"
        "        group.create_task(fails())\n"
        "asyncio.run(main())\n"
    )
    assert lines[0].startswith("app.py:5: ExceptionGroup: unhandled errors in a TaskGroup")
    assert any("OSError: no database" in line for line in lines)
    files = [line.strip(" |").split('"')[1] for line in lines if 'File "' in line]
    assert [file for file in files if file != "app.py"] in ([], [asyncio_taskgroups()])


def asyncio_taskgroups() -> str:
    import asyncio.taskgroups

    return str(asyncio.taskgroups.__file__)  # which raises


def test_app_that_is_no_server_is_told_without_a_traceback(place: Place) -> None:
    (line,) = place.told("x = 1\n")
    assert "'app:server'" in line or "server" in line


def test_error_of_procd_that_the_app_ran_into_names_the_line(place: Place) -> None:
    lines = place.told("from procd import MessageTooBig\n\nraise MessageTooBig('70 K of 64 K')\n")
    assert lines[0].startswith("app.py:3: ")
    assert lines[0].endswith("MessageTooBig: 70 K of 64 K")


def test_text_is_short_enough_to_be_sent_and_its_first_line_to_be_read(tmp_path: Path) -> None:
    for text in ("x" * 1_000_000, "\U0001f40d" * 100_000, "\udcff" * 100_000):
        told = explain(ValueError(text), tmp_path)
        assert len(told.encode(errors="backslashreplace")) <= FAILURE_BYTES
        assert len(told.partition("\n")[0]) <= HEAD_CHARACTERS


def test_error_that_names_no_line_is_told_with_where_to_look(tmp_path: Path) -> None:
    told = explain(ProcdError("no server"), tmp_path, elsewhere="procd.yaml:1:1")
    assert told == "procd.yaml:1:1: no server"
    assert explain(TypeError("no argument"), tmp_path).splitlines()[0] == "TypeError: no argument"


@pytest.mark.parametrize("error", [RuntimeError(), AssertionError(), KeyboardInterrupt()])
def test_error_without_a_text_has_its_name(error: BaseException, tmp_path: Path) -> None:
    assert explain(error, tmp_path) == type(error).__name__


def test_error_whose_text_raises_is_told_all_the_same(place: Place) -> None:
    lines = place.told(
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd\n"
    )
    assert lines[0] == "app.py:3: app.Odd: <exception str() failed>"
