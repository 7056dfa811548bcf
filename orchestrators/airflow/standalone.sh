#!/usr/bin/env bash
# Starts a real local Airflow (API server, scheduler, DAG processor, triggerer) on 127.0.0.1 and says where and with
# which login. Ctrl-C stops it. For one person on one machine: its database is SQLite.
#
# AIRFLOW_PORT (8080), AIRFLOW_HOME (.tools/airflow-home), RECSYS_CONFIGS (configs/) change what their names say.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
mkdir -p "$AIRFLOW_HOME"
cat <<EOF
Airflow is coming up: http://127.0.0.1:$AIRFLOW_PORT
  login      admin; the password is in $AIRFLOW_HOME/simple_auth_manager_passwords.json.generated
  DAGs       one for every graph file in ${RECSYS_CONFIGS:-$root/configs}; they are paused until you switch them on
  log        $AIRFLOW_HOME/standalone.log
EOF
airflow standalone > "$AIRFLOW_HOME/standalone.log" 2>&1 &
airflow=$!
trap 'kill $airflow 2>/dev/null; wait $airflow 2>/dev/null || true' EXIT INT TERM
for _ in $(seq 180); do
  kill -0 $airflow 2>/dev/null || { tail -n 20 "$AIRFLOW_HOME/standalone.log" >&2; exit 1; }
  if python -c "import urllib.request as u; u.urlopen('$AIRFLOW__API__BASE_URL/api/v2/monitor/health', timeout=2)" 2>/dev/null; then
    echo "Airflow is up. Password of admin: $(python -c "import json; print(json.load(open('$AIRFLOW_HOME/simple_auth_manager_passwords.json.generated'))['admin'])")"
    break
  fi
  sleep 1
done
wait $airflow
