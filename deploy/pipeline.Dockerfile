# A pipeline node: `recsys` and everything it runs, in the versions of uv.lock.
#
#   docker build --file deploy/pipeline.Dockerfile --tag tfx-recsys .
#   docker run --volume "$PWD:/home/recsys/work" --workdir /home/recsys/work tfx-recsys run configs/movielens.yaml
#
# Untried as an image, for want of a container engine. A linter and tests/deploy check what can be checked without.
#
# Debian 13 ("trixie"), because the wheels of TFDV 1.21 and ml-metadata 1.21 need glibc 2.38. Its own Python is 3.13, so
# the image that brings 3.11.
FROM python:3.11-trixie AS build
COPY deploy/tools.txt /tmp/tools.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/tools.txt
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /opt/recsys
# Dependencies first: their layer stays when only our code changes.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --no-install-project
COPY . .
RUN uv sync --frozen --no-dev --no-editable

FROM python:3.11-slim-trixie
RUN useradd --create-home --uid 10001 recsys
COPY --from=build /opt/recsys/.venv /opt/recsys/.venv
ENV PATH=/opt/recsys/.venv/bin:$PATH
USER 10001
WORKDIR /home/recsys
ENTRYPOINT ["recsys"]
CMD ["--help"]
