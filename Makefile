# The two commands of the README are `make report` and `make test`; each builds .venv when it has to.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: report rehearse test test-all fuzz test-isa test-browser lint docs bench bench-check clean

$(VENV)/.installed: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e ".[digits,search]"
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@

report: $(VENV)/.installed
	$(BIN)/pararev-hw report pararevsnn37 --device h200 -o out/

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The campaign for a GPU at toy size, every call to CUDA played on the CPU, and the pages that its results become.
rehearse: $(VENV)/.installed-test
	rm -rf out/rehearsal
	$(BIN)/python benchmarks/gpu_campaign.py --device cpu --rehearse --minutes 20 -o out/rehearsal
	$(BIN)/python benchmarks/gpu_campaign.py --use out/rehearsal --into out/rehearsal/pages

test-all: lint
	$(BIN)/python -m pytest -m "not gpu"

# Damaged and hostile inputs for an hour, others than those of the tests. What finds a fault stays in out/fuzz.
fuzz: $(VENV)/.installed-test
	mkdir -p out
	PARAREV_FUZZ_SECONDS=3600 PARAREV_FUZZ_FIRST=1000000 $(BIN)/python -m pytest -m slow tests/fuzz --basetemp=out/fuzz

# What depends on the processor's instructions, as narrower processors than this one have them.
test-isa: $(VENV)/.installed-test
	for isa in SSE41 AVX2; do \
	  ONEDNN_MAX_CPU_ISA=$$isa $(BIN)/python -m pytest -n 2 -m "machine and not slow" || exit 1; \
	done

# Opens the reports in Debian's chromium; installs it where it is missing.
test-browser: $(VENV)/.installed-test
	command -v chromium >/dev/null || apt-get install -y chromium
	$(BIN)/python -m pytest -m browser

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	touch $@

# Pages and figures of docs/ that come from the code, then the site: out/site/index.html. Broken links fail.
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_texts.py
	$(BIN)/python docs/make_folders.py
	$(BIN)/python docs/make_zoo.py
	$(BIN)/python docs/make_figures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-test
	$(BIN)/python benchmarks/bench_trace.py
	$(BIN)/python benchmarks/bench_schedulers.py

# Fails where something has become more than a quarter slower, as ratios of times in one run tell.
bench-check: $(VENV)/.installed-test
	$(BIN)/python benchmarks/bench_check.py

clean:
	rm -rf $(VENV) out build dist *.egg-info
