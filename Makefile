# The commands of the project. Each makes the environment it needs; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-vllm check bench tiny clean

help: ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (the first time this fetches torch; later runs take seconds)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## Stream scripted conversations through the real worker, on this machine alone
	@$(BIN)/moderation-worker demo $(ARGS)

test: $(READY) ## Run every test, with a real Kafka and a real S3 API where their tools are present
	@$(BIN)/python -m pytest $(ARGS)

test-vllm: $(READY) ## Hold the judge to a real vLLM server on this CPU; the first time fetches about 6 GB
	@$(BIN)/python -m pytest tests/vllm/agreement.py $(ARGS)

check: $(READY) ## Format, lint and strict types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: $(READY) ## Measure the pipeline, the judge and its engine; prints tables of ratios
	@$(BIN)/python -m tests.support.with_kafka $(BIN)/moderation-worker bench pipeline
	@$(BIN)/python -m tests.support.with_kafka $(BIN)/moderation-worker bench memory
	@$(BIN)/moderation-worker bench judge
	@$(BIN)/moderation-worker bench engine --rounds 1

tiny: $(READY) ## Make the demonstration checkpoint from nothing, then evaluate it
	@# A thread that waits sleeps: while it spins, any other load makes a step several times as long.
	@OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 $(BIN)/python -m moderation_tools.training.tiny build --out build/tiny $(ARGS)
	@$(BIN)/python -m moderation_tools.training.tiny evaluate build/tiny

clean: ## Remove everything these commands made
	rm -rf $(VENV) .tools .cache .demo build dist
