"""The layers of a config put over each other, checked, and compared key with key.

-s > environment (PROCD_<KEY>) > file > default, a key at a time: a list or mapping of a higher
layer replaces that of a lower one whole. Every layer's value is YAML and passes the same checks.
load() reads the file and the account database and changes nothing; it may run again at any time,
in a living master too.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from procd.config import limits, source
from procd.config.address import MAX_RUN_DIR, MAX_SOCKET_PATH
from procd.config.check import check
from procd.config.fault import Fault, Place, in_order, named, printable, quoted
from procd.config.schema import KEYS, Config, Plain
from procd.config.source import Items, Node, Pairs, Scalar
from procd.errors import ConfigError

MAX_FAULTS = 100
Layer = dict[str, Node]


def load(
    path: Path, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> Config:
    """Return the valid config of the file at *path* under *overrides* (`key=value`, of -s).

    Raises ConfigError with all faults, one a line, in the order of the file.
    """
    faults: list[Fault] = []
    file = _absolute(path)
    head = Place(1, 1, printable(file))
    root = source.read_file(file, faults)
    if root is None:  # no key can be seen, so nothing true can be said about any
        raise ConfigError("\n".join(str(fault) for fault in faults))
    below = _defaults(head) | _file_layer(root, faults)
    layer = below | _environment_layer(environ, faults) | _override_layer(overrides, faults)
    if "app" not in layer:
        faults.append(Fault(head, "app", "is missing; name your app, as app: module:server"))
    values = _checked(layer, below, os.path.dirname(file), faults)
    if faults:
        raise ConfigError("\n".join(_lines(faults)))
    build: Callable[..., Config] = Config
    return build(path=Path(file), **values)


def _absolute(path: Path) -> str:
    try:
        absolute = os.path.abspath(path)
        absolute.encode()
    except FileNotFoundError:
        raise ConfigError(f"{printable(str(path))}: the working directory is gone") from None
    except UnicodeEncodeError:
        # Every path of the config begins with this one and goes through MessagePack and JSON.
        raise ConfigError(f"{printable(str(path))}: the path is not UTF-8") from None
    return absolute


def _lines(faults: list[Fault]) -> list[str]:
    faults = in_order(faults)
    lines = [str(fault) for fault in faults[:MAX_FAULTS]]
    if len(faults) > MAX_FAULTS:
        place = faults[MAX_FAULTS].place
        lines.append(f"{place}: more faults begin here; only {MAX_FAULTS} are shown")
    return lines


# ---------------------------------------------------------------- layers


def _defaults(head: Place) -> Layer:
    # A fault of a default (a run_dir that chdir makes too long) stands at the head of the file.
    return {name: _node(key.default, head) for name, key in KEYS.items() if not key.is_required}


def _node(value: Plain, place: Place) -> Node:
    match value:
        case list():
            return Items(place, tuple(_node(item, place) for item in value))
        case dict():
            pairs = ((Scalar(place, n, n), _node(item, place)) for n, item in value.items())
            return Pairs(place, tuple(pairs))
    return Scalar(place, value, str(value))


def _file_layer(root: Node, faults: list[Fault]) -> Layer:
    if isinstance(root, Scalar) and root.data is None:
        return {}
    if not isinstance(root, Pairs):
        words = "a config is a mapping, one `key: value` a line"
        faults.append(Fault(root.place, "", words))
        return {}
    layer: Layer = {}
    for key, node in root.pairs:
        if key.text in KEYS:
            layer[key.text] = node
        elif len(faults) <= MAX_FAULTS:  # the search for the nearest key is not for free
            faults.append(_unknown(key.text, key.place))
    return layer


def _environment_layer(environ: Mapping[str, str], faults: list[Fault]) -> Layer:
    """Read PROCD_<KEY> of every key. Other PROCD_* variables may belong to other software."""
    layer: Layer = {}
    for name in KEYS:
        variable = f"PROCD_{name.upper()}"
        if variable in environ:
            _set(layer, name, environ[variable], Place(0, 0, variable, name), faults)
    return layer


def _override_layer(overrides: Sequence[str], faults: list[Fault]) -> Layer:
    layer: Layer = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        name = name.strip()
        place = Place(0, 0, f"-s {named(name)}", named(name))
        if name not in KEYS:
            faults.append(_unknown(name, place))
        elif not equals:
            faults.append(Fault(place, name, f"has no value; write -s {name}=VALUE"))
        else:
            _set(layer, name, text, place, faults)
    return layer


def _set(layer: Layer, name: str, text: str, place: Place, faults: list[Fault]) -> None:
    if name == "run_dir":
        words = "can stand in the file only, else `procd stop` could not find the service"
        faults.append(Fault(place, name, words))
        return
    node = source.read_text(text, place, faults)
    if node is not None:
        layer[name] = node


def _unknown(name: str, place: Place) -> Fault:
    near = difflib.get_close_matches(name.lower().replace("-", "_")[:80], KEYS, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; see config/procd.yaml for all keys"
    return Fault(place, named(name), f"unknown key{hint}")


# ---------------------------------------------------------------- values


def _checked(layer: Layer, below: Layer, folder: str, faults: list[Fault]) -> dict[str, object]:
    """Return every key's value; *below* is the layers that each command sees, without -s."""
    chdir = check("chdir", layer["chdir"], folder, faults)
    base = str(chdir) if isinstance(chdir, Path) else folder
    # run_dir begins at the file's own chdir: `procd stop` knows nothing of start's -s chdir=...
    own = check("chdir", below["chdir"], folder, [])
    own_base = str(own) if isinstance(own, Path) else folder
    values: dict[str, object] = {"chdir": chdir}
    for name, node in layer.items():
        if name != "chdir":
            values[name] = check(name, node, own_base if name == "run_dir" else base, faults)
    if values["worker_num"] == "auto":
        values["worker_num"] = min(len(os.sched_getaffinity(0)), KEYS["worker_num"].high)
    for name, words in _contradictions(values):
        faults.append(Fault(layer[name].place, name, words))
    return values


def _contradictions(values: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with good values beside each other, or on this machine."""
    chdir, run_dir = values["chdir"], values["run_dir"]
    if isinstance(chdir, Path) and not os.path.isdir(chdir):
        yield "chdir", f"there is no folder {quoted(str(chdir))}"
    length = len(os.fsencode(run_dir)) if isinstance(run_dir, Path) else 0
    if length > MAX_RUN_DIR:
        limit = f"at most {MAX_RUN_DIR}, for a socket's whole path may have {MAX_SOCKET_PATH}"
        way = "set run_dir to a short absolute path, as /run/NAME"
        yield "run_dir", f"{quoted(str(run_dir))} has {length} bytes, {limit}; {way}"
    here = os.sched_getaffinity(0)
    if isinstance(values["cpu_affinity"], tuple):
        for text in values["cpu_affinity"]:
            if missing := set(limits.cpus(text)) - here:
                yield "cpu_affinity", f"{quoted(text)}: this process may not use CPU {min(missing)}"
    seen: dict[object, str] = {}
    for name in ("run_dir", "state_dir", "master_pid_file", "worker_pid_file", "log_file"):
        other = seen.setdefault(values[name], name)
        if values[name] is not None and other != name:
            yield name, f"{quoted(str(values[name]))} is the same as {other}; give it its own"
