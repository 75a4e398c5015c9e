# Everything runs in .venv, which `make install` makes once from locks/.
RUN_DIR ?= runs/quickstart
PYTEST_ARGS ?=
AUDIT_ARGS ?=
WORKERS ?= 2
TOGETHER = --dist loadfile --no-loadscope-reorder  # a file's tests share engines, so they stay together

.PHONY: quickstart test test-fast check coverage mutation site audit sbom install gpu clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

quickstart: install  ## the whole pipeline on the embedded recipes, from raw items to a report
	.venv/bin/r4t run configs/quickstart.yaml --run-dir $(RUN_DIR)

test: install  ## every test
	.venv/bin/python -m pytest $(TOGETHER) -n $$(($(WORKERS) + 1)) $(PYTEST_ARGS)

test-fast: install  ## the tests that start neither engine nor server nor browser
	.venv/bin/python -m pytest -m "not slow and not service and not gpu" $(TOGETHER) -n $(WORKERS) $(PYTEST_ARGS)

check: install  ## formatting, lint and types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

coverage: install  ## line coverage of r4t/ by the tests that start no engine
	.venv/bin/coverage run -m pytest -m "not slow and not gpu" -q -p no:xdist
	.venv/bin/coverage combine -q
	.venv/bin/coverage report --skip-covered --fail-under 95

mutation: install  ## mutation scores of the mathematics, in about half an hour; goes on where it was
	.venv/bin/mutmut run --max-children $(WORKERS) > /dev/null
	.venv/bin/python -m benchmarks.mutation

site: install  ## the documentation as a site: build/site/index.html
	.venv/bin/mkdocs build -q

audit: install  ## known vulnerabilities of the locked versions; needs the advisory database on the network
	for lock in cpu gpu dev edge; do .venv/bin/pip-audit --no-deps --disable-pip $(AUDIT_ARGS) -r locks/$$lock.txt || failed=1; done; exit $${failed:-0}

sbom: install  ## CycloneDX bills of materials of the locks: build/sbom-*.json
	mkdir -p build
	for lock in cpu gpu; do .venv/bin/cyclonedx-py requirements --output-reproducible --of JSON -o build/sbom-$$lock.json locks/$$lock.txt || exit 1; done

install:  ## .venv from the CPU lock
	@bash tools/install.sh cpu

gpu:  ## .venv from the GPU lock (CUDA machines)
	@bash tools/install.sh gpu

clean:  ## removes .venv and the caches, keeps runs/
	rm -rf .venv .coverage* mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build
