"""Configs to load and the faults to read, for the tests of procd.config."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from procd.config.load import load
from procd.config.schema import Config
from procd.errors import ConfigError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "procd.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def loaded(
    folder: Path, text: str, *overrides: str, environ: Mapping[str, str] | None = None
) -> Config:
    """Load a config that has an app and, from line 2, *text*."""
    return load(written(folder, f"app: app:server\n{text}\n"), overrides, environ or {})


def refusal(path: Path, *overrides: str, environ: Mapping[str, str] | None = None) -> str:
    """Return what load() says of a config that it cannot take."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides, environ or {})
    return str(caught.value)


def faults(
    folder: Path, text: str | bytes, *overrides: str, environ: Mapping[str, str] | None = None
) -> list[str]:
    """Return the lines of the refusal, without the folder of the file."""
    lines = refusal(written(folder, text), *overrides, environ=environ).split("\n")
    return [line.removeprefix(f"{folder}/") for line in lines]


def fault(folder: Path, text: str) -> str:
    """Return the one fault of a config that has an app and, in line 2, *text*."""
    (line,) = faults(folder, f"app: a:b\n{text}\n")
    return line
