# gill-lite: every command of the project. `make help` lists them.
#
#   PYTHON=python3.12 make reproduce     another interpreter (3.11 or newer)
#   make reproduce TABLES=1               one table, the quick form (1,2,mappers,context,tokens,ladder,retrieval,decide; family: see,draw,edit,teach)
#   make reproduce OUT=runs/mine         another run folder; the same one again continues it
#   make reproduce ARGS="--seeds 0"      options of what is run; every target but help, install and clean passes ARGS on
#   make install CPU=1                   PyTorch's small CPU build, for every later command, too
#   make lab FOLDER=~/gill               your copy of the course there instead of in runs/student

PYTHON ?= python3
VENV := .venv
OUT ?=
ARGS ?=
TABLES ?=
FOLDER ?=
CPU ?=
# An environment refuses what pip is set to install for the user.
export PIP_USER := 0
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
STAMP := $(VENV)/installed.lock

.PHONY: help install reproduce test lab demo pretrain notebooks student teacher bench site clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## install what the lock pins into .venv; CPU=1 takes PyTorch's small CPU build

reproduce: $(STAMP) ## install if needed, compute the paper's tables in miniature, write runs/<date>/report.html
	$(BIN)/gill-lite reproduce $(if $(TABLES),--tables $(TABLES)) $(if $(OUT),-o "$(OUT)") $(ARGS)

test: $(STAMP) ## install if needed, then the unit tests and every notebook against its stored output
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --nbval --nbval-current-env --nbval-kernel-startup-timeout 300 notebooks $(ARGS)

lab: $(STAMP) ## open your own copy of the course (as `make student` makes it) in JupyterLab
	$(BIN)/python -m gill_lite.course.hand_out student $(FOLDER)
	$(BIN)/jupyter lab --ServerApp.root_dir="$(or $(FOLDER),runs/student)" --LabApp.default_url=/lab/tree/notebooks $(ARGS)

demo: $(STAMP) ## talk to the model in the browser (`gill-lite chat` in the terminal)
	$(BIN)/gill-lite demo $(ARGS)

pretrain: $(STAMP) ## train the mini world's backbones from scratch into runs/pretrain (hours; goes on where it was stopped)
	$(BIN)/gill-lite pretrain $(ARGS)

notebooks: $(STAMP) ## execute every notebook anew and clean its metadata, for committing; ARGS="03 05" some
	$(BIN)/python -m gill_lite.course.notebooks $(ARGS)

student: $(STAMP) ## a copy of the course to work in, without outputs, in runs/student or FOLDER; work in it stays
	$(BIN)/python -m gill_lite.course.hand_out student $(FOLDER) $(ARGS)

teacher: $(STAMP) ## the course with solutions and a marking sheet, in runs/teacher or FOLDER
	$(BIN)/python -m gill_lite.course.hand_out teacher $(FOLDER) $(ARGS)

bench: $(STAMP) ## measure speed and memory beside the plain algorithm, on a machine that does nothing else; docs/benchmarks.md
	@mkdir -p runs/bench
	$(BIN)/python -m pytest -q benchmarks/bench_*.py --benchmark-json=runs/bench/benchmarks.json $(ARGS)
	$(BIN)/python -m benchmarks.table runs/bench/benchmarks.json

site: $(STAMP) ## the course, tables, report and documentation as a static site in runs/site/html
	$(BIN)/python -m sphinx -M html . runs/site -c docs -q -W --keep-going $(ARGS)

clean: ## remove the environment, builds and caches (runs/ stays)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv knows where PyTorch keeps its CPU build; the lock's GPU libraries stay out.
PIP := $(BIN)/python -m pip install --disable-pip-version-check
INSTALL := $(PIP) -r requirements.lock
ifdef CPU
INSTALL := $(PIP) --quiet -c requirements.lock uv && grep -vE '^(cuda|nvidia|triton)' requirements.lock \
  | $(BIN)/python -m uv pip install --python $(BIN)/python --torch-backend=cpu -r -
endif

# The stamp is a copy of the lock that was installed last: the same lock is never installed twice.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "gill-lite needs Python 3.11 or newer and '$(PYTHON)' is not one: install it, or name one as in 'make PYTHON=python3.12 test'." >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@cmp -s requirements.lock $@ || { rm -f $@; \
	  echo "Installing the locked environment into $(VENV) (once, about $(if $(CPU),2 GB,6 GB with GPU libraries))."; \
	  $(INSTALL); }
	$(PIP) --quiet --no-deps --no-build-isolation -e .
	@cp requirements.lock $@
