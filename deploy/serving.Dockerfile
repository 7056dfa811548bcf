# The model server alone: TensorFlow, the server, and nothing of TFX, Beam or training.
#
#   docker build --file deploy/serving.Dockerfile --tag tfx-recsys-serving .
#   docker run --publish 8500:8500 --publish 8501:8501 --volume "$PWD/served:/models:ro" tfx-recsys-serving \
#     --port=8500 --rest_api_port=8501 --model_name=movielens --model_base_path=/models/movielens
#
# Untried as an image, for want of a container engine. A linter and tests/deploy check what can be checked without.
FROM python:3.11-trixie AS build
COPY deploy/tools.txt /tmp/tools.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/tools.txt
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /opt/recsys
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --only-group serving
COPY . .
# Without its dependencies: those of the pipeline are not wanted here, those of the server are there.
RUN uv pip install --no-deps .

FROM python:3.11-slim-trixie
RUN useradd --create-home --uid 10001 recsys
COPY --from=build /opt/recsys/.venv /opt/recsys/.venv
ENV PATH=/opt/recsys/.venv/bin:$PATH
USER 10001
WORKDIR /home/recsys
# gRPC and REST, as TensorFlow Serving has them.
EXPOSE 8500 8501
ENTRYPOINT ["recsys-model-server"]
