"""What `app:` may say, and what is answered when it says something that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.interpreter import load


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text("class Server:\n    name = 'one'\n\nserver = Server()\n")
    (tmp_path / "shop" / "web").mkdir(parents=True)
    (tmp_path / "shop" / "web" / "__init__.py").write_text("server = 'two'\n")
    (tmp_path / "shop" / "main.py").write_text("import app\nserver = app.server.name * 2\n")
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("app:server.name", "one"),
        ("shop.web:server", "two"),
        ("shop/main.py:server", "oneone"),
        ("./shop/main.py:server", "oneone"),
        ("app.py:server.name", "one"),
    ],
)
def test_app_is_found(app: Path, spec: str, value: str) -> None:
    assert load(app, spec).value == value


def test_file_app_is_a_module_of_its_stem(app: Path) -> None:
    told = load(app, "./app.py:server", then="__import__('app').server is found")

    assert told.value is True
    assert list(told.sources) == [str(app / "app.py")]


def test_file_outside_of_chdir_is_app_code_too(app: Path) -> None:
    (app / "other").mkdir()

    told = load(app / "other", f"{app}/app.py:server.name")

    assert list(told.sources) == [str(app / "app.py")]
    assert list(load(app / "other", "../app.py:server.name").sources) == [
        str(app / "other" / ".." / "app.py")
    ]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("app", "'app' is not module:attribute or path/to/file.py:attribute"),
        ("app:", "is not module:attribute"),
        ("nothing:server", "no module nothing in {chdir}"),
        ("shop.nothing:server", "no module shop.nothing in {chdir}/shop"),
        ("app.deeper:server", "no module app.deeper: {chdir}/app.py is no package"),
        ("shop/nothing.py:server", "no file {chdir}/shop/nothing.py"),
        ("app:sever", "'app:sever' is not in {chdir}/app.py: module 'app' has no attribute"),
        ("app:server.nam", "'Server' object has no attribute 'nam'"),
        ("./app.py:sever", "is not in {chdir}/app.py"),
        ("shop:server", "is not in {chdir}/shop: module 'shop' has no attribute 'server'"),
    ],
)
def test_what_is_not_there_is_said_in_words(app: Path, spec: str, words: str) -> None:
    told = load(app, spec)

    assert told.error is not None
    assert told.error.startswith("AppNotFound: app: ")
    assert words.format(chdir=app) in told.error


def test_file_named_like_an_imported_module_is_refused(app: Path) -> None:
    (app / "web").mkdir()
    (app / "web" / "logging.py").write_text("server = 1\n")

    told = load(app, "web/logging.py:server")

    assert told.error is not None
    assert "logging.py would take the place of the module logging" in told.error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise RuntimeError('its own')\n", "RuntimeError: its own"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("import app.sub\n", "ModuleNotFoundError: No module named 'app.sub'; 'app' is not a pack"),
    ],
)
@pytest.mark.parametrize("spec", ["app:server", "./app.py:server"])
def test_what_the_app_raises_is_not_touched(app: Path, spec: str, text: str, error: str) -> None:
    (app / "app.py").write_text(text)

    told = load(app, spec)

    assert told.error is not None
    assert told.error.startswith(error)
    assert list(told.sources) == [str(app / "app.py")]
