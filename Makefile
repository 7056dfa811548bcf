.DEFAULT_GOAL := help
RUN := .venv/bin

.PHONY: help setup test lint docs bench-movielens

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: .venv/.synced ## the environment, from uv.lock
.venv/.synced: uv.lock pyproject.toml deploy/setup.sh
	@deploy/setup.sh && touch $@

lint: setup ## style, types and layers
	$(RUN)/ruff check . && $(RUN)/ruff format --check . && $(RUN)/mypy && $(RUN)/lint-imports --no-logo

docs: setup ## the pages that are written from the code
	$(RUN)/python -m configs.reference > docs/.config.md && mv docs/.config.md docs/config.md

test: lint ## everything that proves it works
	$(RUN)/pytest

bench-movielens: setup ## MovieLens-100K: DeepFM and baselines, three seeds, two splits
	@$(RUN)/recsys data movielens && $(RUN)/python -m benchmarks.movielens
