.DEFAULT_GOAL := help
RUN := .venv/bin

.PHONY: help setup test lint bench-serving soak-serving

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: .venv/.synced ## the environment, from uv.lock
.venv/.synced: uv.lock pyproject.toml deploy/setup.sh
	@deploy/setup.sh && touch $@

lint: setup ## style, types and layers
	$(RUN)/ruff check . && $(RUN)/ruff format --check . && $(RUN)/mypy && $(RUN)/lint-imports

test: lint ## everything that proves it works
	$(RUN)/pytest

bench-serving: setup ## the model server against a naive one, both in one run
	@$(RUN)/python -m benchmarks.serving

soak-serving: setup ## 100 version swaps under constant load
	SOAK=1 $(RUN)/pytest -s tests/serving/test_swaps.py
