#!/usr/bin/env bash
# Makes .tools/airflow, the environment Airflow runs in, from requirements.txt. TFX's environment stays as it is.
#
# Usage: orchestrators/airflow/setup.sh [lock]    `lock` writes requirements.txt anew from requirements.in
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
uv=.tools/venv/bin/uv
here=orchestrators/airflow
if [ "${1:-}" = lock ]; then
  exec "$uv" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
    --no-emit-index-url "$here/requirements.in" --output-file "$here/requirements.txt"
fi
[ -x .tools/airflow/bin/python ] || "$uv" venv --quiet --python "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_config_var("BINDIR"))')/python3.11" .tools/airflow
UV_PYTHON_DOWNLOADS=never "$uv" pip sync --quiet --compile-bytecode --require-hashes --python .tools/airflow/bin/python "$here/requirements.txt"
echo "airflow: $(.tools/airflow/bin/python -c 'import importlib.metadata as m; print(m.version("apache-airflow"))') in .tools/airflow"
