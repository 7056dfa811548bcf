#!/usr/bin/env bash
# Runs a MariaDB on 127.0.0.1 for trying metadata on a database server: the one on the PATH, or Debian's packages
# unpacked into .tools/mariadb. Nothing is installed on the system.
#
# Usage: MARIADB_PASSWORD=... deploy/mariadb.sh DATA PORT    user `recsys`; DATA, a folder, is made where it is missing
set -euo pipefail
data=$(realpath -m "$1") port=$2
: "${MARIADB_PASSWORD:?the password that user recsys gets}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
base=/usr
if ! command -v mariadbd >/dev/null; then
  tools=$PWD/.tools/mariadb
  if [ ! -e "$tools/complete" ]; then
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
      echo "mariadbd is not on the PATH and this is not Debian" >&2
      exit 1
    }
    rm -rf "$tools"
    mkdir -p "$tools/deb"
    # The server, and the libraries it is linked to that a small system lacks.
    (cd "$tools/deb" && apt-get download -qq mariadb-server-core libaio1 liburing2 libnuma1 libsnappy1v5 >&2) || {
      echo "could not download Debian's mariadb packages; apt-get update may help" >&2
      exit 1
    }
    for package in "$tools"/deb/*.deb; do dpkg -x "$package" "$tools"; done
    touch "$tools/complete"
  fi
  base=$tools/usr
  export PATH=$base/sbin:$base/bin:$PATH
  LD_LIBRARY_PATH=$(find "$tools" -name 'lib*.so.*' -printf '%h\n' | sort -u | paste -sd:)
  export LD_LIBRARY_PATH
fi
server=(mariadbd --no-defaults --basedir="$base" --datadir="$data" --user="$(id -un)" --skip-name-resolve)
if [ ! -e "$data/complete" ]; then
  mkdir -p -m 700 "$data"
  {
    # One statement a line: so the server reads its bootstrap.
    printf '%s;\n' "CREATE DATABASE mysql" "USE mysql" "SET @auth_root_socket=NULL" "SET @current_hostname='localhost'"
    cat "$base"/share/mysql/m*_system_tables.sql "$base"/share/mysql/m*_performance_tables.sql \
      "$base"/share/mysql/m*_system_tables_data.sql
  } | "${server[@]}" --bootstrap > "$data/install.log" 2>&1 || {
    tail -n 20 "$data/install.log" >&2
    exit 1
  }
  touch "$data/complete"
fi
(umask 077 && cat > "$data/users.sql" <<EOF
CREATE USER IF NOT EXISTS recsys@'127.0.0.1' IDENTIFIED BY '$MARIADB_PASSWORD';
GRANT ALL ON *.* TO recsys@'127.0.0.1';
EOF
)
exec "${server[@]}" --bind-address=127.0.0.1 --port="$port" --socket="$data/socket" --pid-file="$data/pid" \
  --init-file="$data/users.sql"
