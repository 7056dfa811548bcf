.DEFAULT_GOAL := help
RUN := .venv/bin

.PHONY: help setup lint docs demo airflow test bench-intervals bench-serving bench-canary bench-evaluator bench-ingest bench-pipeline \
	bench-movielens bench-training bench-defaults bench-topk bench-recommend bench-topn fuzz-serving soak-serving soak-training

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: .venv/.synced ## the environment, from uv.lock
.venv/.synced: uv.lock pyproject.toml deploy/setup.sh deploy/tools.txt
	@deploy/setup.sh && touch $@

lint: setup ## style, types, layers and Dockerfiles
	$(RUN)/ruff check . && $(RUN)/ruff format --check . && $(RUN)/mypy && $(RUN)/lint-imports --no-logo
	$(RUN)/hadolint deploy/*.Dockerfile

docs: setup ## the pages and graphs that are written from the code
	$(RUN)/python -m configs.reference > docs/.config.md && mv docs/.config.md docs/config.md
	$(RUN)/recsys graph configs/movielens.yaml --write

demo: setup ## the main job on real data: MovieLens-100K, from logs to one user's top ten, and a reload under load
	@$(RUN)/recsys data movielens
	@$(RUN)/recsys run configs/movielens.yaml
	@echo && $(RUN)/recsys predict configs/movielens.yaml --user 42
	@echo && $(RUN)/python -m benchmarks.hot_reload configs/movielens.yaml

AIRFLOW := .tools/airflow
airflow: setup $(AIRFLOW)/.synced ## a real local Airflow with the DAG of every committed graph, on loopback
	@orchestrators/airflow/standalone.sh

$(AIRFLOW)/.synced: orchestrators/airflow/requirements.txt orchestrators/airflow/setup.sh
	@orchestrators/airflow/setup.sh && touch $@

test: lint ## everything that proves it works
	$(RUN)/pytest -n 2 --dist loadfile

bench-intervals: setup ## how often the evaluator's 95 % intervals hold the truth, for users of uneven activity
	@$(RUN)/python -m benchmarks.intervals

bench-serving: setup ## the model server against a naive one, both in one run
	@$(RUN)/python -m benchmarks.serving

bench-evaluator: setup ## our metrics and slicing in TFMA against TFMA's own
	$(RUN)/python -m benchmarks.evaluator

bench-ingest: setup ## our ingest against TFX's CsvExampleGen
	$(RUN)/python -m benchmarks.ingest

bench-canary: setup ## how often the canary's guard is wrong: false rollbacks and power in simulated worlds
	@$(RUN)/python -m benchmarks.canary

bench-pipeline: setup ## ingest, statistics, transform and evaluation against TFX's own components, and ten times the rows
	@$(RUN)/python -m benchmarks.pipeline

bench-movielens: setup ## MovieLens-100K, three seeds: DeepFM and baselines by two splits, and the family
	@$(RUN)/recsys data movielens && TF_CPP_MIN_LOG_LEVEL=3 $(RUN)/python -m benchmarks.movielens

bench-topk: setup ## the search for the best of a million items: exact and by inverted lists, on one core
	@TF_CPP_MIN_LOG_LEVEL=3 $(RUN)/python -m benchmarks.topk

bench-defaults: setup ## what `recsys init` proposes, untouched, on eleven logs, three seeds, against its baselines and scikit-learn
	@$(RUN)/recsys data movielens && TF_CPP_MIN_LOG_LEVEL=3 $(RUN)/python -m benchmarks.defaults

bench-recommend: setup ## a request to the signature recommend: two towers and DeepFM in one SavedModel, on one core
	@$(RUN)/recsys data movielens && TF_CPP_MIN_LOG_LEVEL=3 $(RUN)/python -m benchmarks.recommend

bench-topn: setup ## models that rank all items: MovieLens-100K, three seeds, and training speed beside PyTorch
	@$(RUN)/recsys data movielens && TF_CPP_MIN_LOG_LEVEL=3 $(RUN)/python -m benchmarks.topn

fuzz-serving: setup ## 100,000 hostile requests to server and router, both protocols, beside a second client
	@TF_CPP_MIN_LOG_LEVEL=3 $(RUN)/python -m tests.serving.fuzz

soak-serving: setup ## 100 version swaps under constant load
	SOAK=1 $(RUN)/pytest -s tests/serving/test_swaps.py

bench-training: setup ## training: vocabularies of 10 thousand to 10 million, Keras' Adam, PyTorch, two workers
	@$(RUN)/recsys data movielens && $(RUN)/python -m benchmarks.training

soak-training: setup ## ten times kill -9 of the chief and of the other worker, at random moments
	SOAK=1 $(RUN)/pytest -s tests/models/test_workers.py -k ten_kills
