# Sourced: settings of the local Airflow. Everything it writes is under AIRFLOW_HOME, an ignored folder of the project.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export AIRFLOW_HOME=${AIRFLOW_HOME:-$root/.tools/airflow-home}
export AIRFLOW_PORT=${AIRFLOW_PORT:-8080}
export PATH=$root/.tools/airflow/bin:$PATH
export AIRFLOW__CORE__DAGS_FOLDER=$root/orchestrators/airflow/dags
export AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=${AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION:-True}
export AIRFLOW__API__HOST=127.0.0.1
export AIRFLOW__API__PORT=$AIRFLOW_PORT
export AIRFLOW__API__BASE_URL=http://127.0.0.1:$AIRFLOW_PORT
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:$AIRFLOW_PORT/execution/
export AIRFLOW__API__WORKERS=1
export AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
# One machine: tasks wait for their turn here instead of all loading TFX at once.
export AIRFLOW__CORE__PARALLELISM=${AIRFLOW__CORE__PARALLELISM:-2}
