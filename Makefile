# procd: one command a purpose, on a fresh machine with python3 (>= 3.11), python3-venv, make and git.
# Each target makes the virtual environment that it needs and skips that when pyproject.toml has not changed since.
#
# PYTHON chooses the interpreter: `make test PYTHON=python3.13` keeps a virtual environment of its own, .venv-3.13.

PYTHON ?= python3

ifeq ($(PYTHON),python3)
VENV := .venv
else
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' || echo missing)
endif
BIN := $(VENV)/bin

.PHONY: help run test test-short lint bench bench-reload bench-tasks bench-foreign bench-flood endurance torture clean
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# `exec` in a recipe: the program takes the shell's place, so that Ctrl-C reaches it once and make waits for it alone.

run: $(VENV)/.installed  ## start the sample service of config/procd.yaml here; Ctrl-C ends it
	@echo
	@echo 'Starting config/procd.yaml in the foreground; Ctrl-C ends it. From a second terminal, in this folder:'
	@echo
	@echo '  a request     bash -c '\''exec 3<>/dev/tcp/127.0.0.1/9000; printf hello >&3; read -rt 2 answer <&3; echo "$$answer"'\'
	@echo '  what runs     $(BIN)/procd status'
	@echo '  hot reload    save an edit of examples/hello.py: the next request is answered by the new code'
	@echo '  a bad edit    save a syntax error: the old code keeps serving, and "status" says why'
	@echo '  by hand       $(BIN)/procd reload'
	@echo '  more workers  $(BIN)/procd scale worker=4'
	@echo '  the end       $(BIN)/procd stop'
	@echo
	@exec $(BIN)/procd -c config/procd.yaml start --foreground

test: lint  ## the one gate: format, lint, types, all tests
	@exec $(BIN)/python -m pytest

test-short: $(VENV)/.installed-dev  ## pure and kernel tests and a short round of service tests
	@exec $(BIN)/python -m pytest -m short

lint: $(VENV)/.installed-dev  ## format check, lint, types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

bench: $(VENV)/.installed-dev  ## what the README claims, measured here
	@exec $(BIN)/python -m bench

bench-reload: $(VENV)/.installed-bench  ## a save served: procd beside its peers (13 minutes; fetches them)
	@exec $(BIN)/python -m bench.reload --picture bench/reload.svg

bench-tasks: $(VENV)/.installed-bench  ## tasks with a result: procd's tiers beside Celery, Huey, ... (6 minutes; needs redis-server)
	@exec $(BIN)/python -m bench.tasktable

bench-foreign: $(VENV)/.installed-dev  ## a million hostile messages; what the ingress takes from PHP (3 minutes)
	@exec $(BIN)/python -m bench.foreign

bench-flood: $(VENV)/.installed-dev  ## one worker prints as fast as it can; what the others notice (90 s)
	@exec $(BIN)/python -m bench.flood

endurance: $(VENV)/.installed-bench  ## 1,000 reloads of a heavy app under load; a save in 80,000 lines
	@exec $(BIN)/python -m bench.endurance

torture: $(VENV)/.installed-dev  ## the heavy cases at their full counts (long)
	PROCD_TORTURE=1 $(BIN)/python -m pytest -o faulthandler_timeout=7200 -m heavy
	PROCD_TORTURE=1 $(BIN)/python -m pytest tests/kernel/test_control.py tests/pure/test_config_fuzz.py
	@exec $(BIN)/python -m bench.torture

clean:  ## virtual environments and caches; never run/ and state/, which may hold kept tasks
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find procd tests bench examples -name __pycache__ -prune -exec rm -rf {} +

# ---------------------------------------------------------------- virtual environment

$(VENV)/.installed: pyproject.toml
	$(call venv,.)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml
	$(call venv,.[dev])
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: pyproject.toml
	$(call venv,.[bench])
	@touch $(VENV)/.installed $(VENV)/.installed-dev $@

# pip keeps its own settings (PIP_*, pip.conf): a mirror or a proxy of this machine is none of our business.
define venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "procd needs Python 3.11 or later; %s is %s.%s: make ... PYTHON=python3.13" % (sys.executable, *sys.version_info[:2]))'
@echo 'making $(VENV) ...'
@$(PYTHON) -m venv $(VENV)
@$(BIN)/python -m pip install --quiet --editable '$(1)'
endef
