"""What runs is what was hashed: apps imported by fresh interpreters that may write bytecode."""

from __future__ import annotations

import os
import py_compile
import shutil
import sysconfig
from pathlib import Path

import pytest

from tests.kernel.interpreter import REPOSITORY, load, sha256


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """chdir: app.py, a package with a relative import, a namespace package."""
    root = tmp_path / "app"
    for name, text in {
        "app.py": "from pkg.models import value\nimport space.deep\n",
        "pkg/__init__.py": "",
        "pkg/models.py": "from .names import value\n",
        "pkg/names.py": "value = 1\n",
        "space/deep.py": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


ALL = {"app.py", "pkg/__init__.py", "pkg/models.py", "pkg/names.py", "space/deep.py"}


def test_every_source_is_reported_with_its_hash(app: Path) -> None:
    told = load(app)

    assert told.value == 1
    assert told.names(app) == ALL
    assert told.sources == {path: sha256(Path(path)) for path in told.sources}


def test_no_bytecode_file_is_written(app: Path) -> None:
    load(app)

    assert not list(app.rglob("__pycache__"))


@pytest.mark.parametrize("with_cache", [True, False])
def test_save_of_the_same_size_and_time_is_served_new(
    app: Path, tmp_path: Path, *, with_cache: bool
) -> None:
    cache = tmp_path / "cache" if with_cache else None
    names = app / "pkg" / "names.py"
    for number in (1, 2, 3, 1):
        names.write_text(f"value = {number}\n")
        os.utime(names, (1_700_000_000, 1_700_000_000))

        assert load(app, cache=cache).value == number


def test_bytecode_that_python_would_trust_is_not_read(app: Path) -> None:
    names = app / "pkg" / "names.py"
    os.utime(names, (1_700_000_000, 1_700_000_000))
    py_compile.compile(str(names))
    names.write_text("value = 2\n")
    os.utime(names, (1_700_000_000, 1_700_000_000))

    assert load(app).value == 2


def test_bytecode_without_a_source_is_no_module(app: Path) -> None:
    (app / "old.py").write_text("value = 1\n")
    py_compile.compile(str(app / "old.py"), cfile=str(app / "old.pyc"))
    (app / "old.py").unlink()

    told = load(app, "old:value")

    assert told.error == f"AppNotFound: app: no module old in {app}"


def test_source_with_a_syntax_error_is_reported(app: Path) -> None:
    (app / "pkg" / "names.py").write_text("def (:\n")

    told = load(app)

    assert told.error is not None
    assert told.error.startswith("SyntaxError")
    assert told.sources[str(app / "pkg/names.py")] == sha256(app / "pkg/names.py")


def test_lazy_import_goes_to_the_callback_of_its_time(app: Path) -> None:
    told = load(
        app,
        then="[late := [], setattr(loader, 'on_source', lambda *it: late.append(it)), "
        "__import__('lazy'), late][-1]",
        spec="pkg.names:value",
    )
    assert told.error is not None  # no such module yet

    (app / "lazy.py").write_text("")
    told = load(
        app,
        then="[late := [], setattr(loader, 'on_source', lambda *it: late.append(it)), "
        "__import__('lazy'), late][-1]",
        spec="pkg.names:value",
    )

    assert told.value == [[str(app / "lazy.py"), sha256(app / "lazy.py")]]
    assert told.names(app) == {"pkg/__init__.py", "pkg/names.py"}


def test_plugin_loaded_by_its_path_is_app_code(app: Path) -> None:
    (app / "plugin.py").write_text("name = 'one'\n")
    (app / "app.py").write_text(
        "import importlib.util as u, os\n"
        "s = u.spec_from_file_location('p', os.path.join(os.path.dirname(__file__), 'plugin.py'))\n"
        "value = u.module_from_spec(s)\ns.loader.exec_module(value)\n"
    )

    assert load(app, "app:value.name").names(app) == {"app.py", "plugin.py"}
    assert not list(app.rglob("__pycache__"))


def test_import_hook_that_rewrites_the_source_is_reported_and_never_cached(
    app: Path, tmp_path: Path
) -> None:
    (app / "app.py").write_text(
        "import importlib.machinery as m, importlib.util as u\n"
        "class Hook(m.SourceFileLoader):\n"
        "    def source_to_code(self, data, path, **more):\n"
        "        return super().source_to_code(data.replace(b'1', b'7'), path, **more)\n"
        "s = u.find_spec('pkg.names')\ns.loader = Hook(s.name, s.origin)\n"
        "hooked = u.module_from_spec(s)\ns.loader.exec_module(hooked)\n"
        "from pkg.names import value as plain\n"
        "value = [hooked.value, plain]\n"
    )

    for _ in range(2):
        told = load(app, cache=tmp_path / "cache")

        assert told.value == [7, 1]
        assert "pkg/names.py" in told.names(app)


def test_reload_reads_the_disk_again(app: Path) -> None:
    told = load(
        app,
        "pkg.names:value",
        then="[Path(order['chdir'], 'pkg/names.py').write_text('value = 2\\n'), "
        "__import__('importlib').reload(sys.modules['pkg.names']).value][-1]",
    )

    assert told.value == 2
    assert told.sources[str(app / "pkg/names.py")] == sha256(app / "pkg/names.py")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("__import__('inspect').getsource(sys.modules['pkg.names'])", "value = 1\n"),
        ("__import__('linecache').getline(sys.modules['pkg.names'].__file__, 1)", "value = 1\n"),
        ("sorted(m.name for m in __import__('pkgutil').iter_modules(sys.modules['pkg'].__path__))",
         ["models", "names"]),
        ("__import__('importlib.resources').resources.files('pkg').joinpath('a.txt').read_text()",
         "data"),
        ("__import__('pkgutil').get_data('pkg', 'a.txt').decode()", "data"),
        ("sys.modules['pkg'].__spec__.submodule_search_locations == sys.modules['pkg'].__path__",
         True),
        ("type(sys.modules['pkg'].__loader__).__name__", "SourceFileLoader"),
        ("__import__('runpy').run_module('pkg.names')['value']", 1),
    ],
)  # fmt: skip
def test_tools_that_look_at_modules_find_them(app: Path, expression: str, value: object) -> None:
    (app / "pkg" / "a.txt").write_text("data")

    told = load(app, then=expression)

    assert (told.value, told.error) == (value, None)


def test_warnings_become_errors_with_python_w(app: Path) -> None:
    (app / "app.py").write_text("import warnings\nwarnings.warn('old', UserWarning)\n")

    assert load(app, options=("-W", "error::UserWarning")).error == "UserWarning: old"


def test_extension_module_is_imported_and_reported(app: Path) -> None:
    library = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    extension = next(iter(library.glob("_heapq.*.so")))
    shutil.copy(extension, app / "pkg" / extension.name)

    told = load(app, "pkg._heapq:heappush")

    assert told.error is None
    assert told.sources[str(app / "pkg" / extension.name)] == sha256(extension)


@pytest.mark.parametrize("folder", ["venv", "lib/site-packages", "lib/dist-packages"])
def test_what_others_brought_is_no_app_code(app: Path, folder: str) -> None:
    (app / folder / "third").mkdir(parents=True)
    (app / folder / "third" / "__init__.py").write_text("")
    (app / "venv" / "pyvenv.cfg").parent.mkdir(exist_ok=True)
    (app / "venv" / "pyvenv.cfg").touch()
    (app / "app.py").write_text(
        f"import sys\nsys.path.append({str(app / folder)!r})\nimport third\nvalue = 1\n"
    )

    told = load(app)

    assert told.names(app) == {"app.py"}
    assert list((app / folder).rglob("*.pyc"))


def test_app_inside_its_own_virtual_environment_is_app_code(app: Path) -> None:
    (app / "pyvenv.cfg").touch()

    assert load(app).names(app) == ALL


def test_repository_itself_can_be_chdir(tmp_path: Path) -> None:
    for name in ("procd", "examples"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, dirs_exist_ok=True)
    (tmp_path / "examples" / "mine.py").write_text(
        "import procd.spawn.sources\nvalue = procd.spawn.sources.__file__\n"
    )

    # procd runs from REPOSITORY, which is chdir too: the layout of config/procd.yaml
    told = load(REPOSITORY, str(tmp_path / "examples" / "mine.py") + ":value")

    assert told.value == str(REPOSITORY / "procd" / "spawn" / "sources.py")
    assert set(told.sources) == {str(tmp_path / "examples" / "mine.py")}


def test_release_behind_a_link_is_named_by_the_link(app: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("app")
    (app / "app.py").write_text(
        "import os, sys\nsys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)),"
        "'space'))\nimport pkg, deep\nvalue = 1\n"
    )

    told = load(tmp_path / "current")

    assert set(told.sources) == {
        *(f"{tmp_path}/current/app.py", f"{tmp_path}/current/pkg/__init__.py"),
        f"{tmp_path}/app/space/deep.py",  # the app itself asked for the resolved one
    }
