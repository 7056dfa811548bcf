#!/usr/bin/env bash
# Prints the folder of `prometheus` and `promtool`: those on the PATH, or Debian's package unpacked into .tools/prometheus.
# Nothing is installed on the system. Used by the tests that let a real Prometheus scrape the model server.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
found=$(command -v prometheus || true)
if [ -n "$found" ] && command -v promtool >/dev/null; then
  dirname "$found"
  exit
fi
tools=$PWD/.tools/prometheus
if [ ! -x "$tools/usr/bin/prometheus" ]; then
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
    echo "prometheus is not on the PATH and this is not Debian" >&2
    exit 1
  }
  mkdir -p "$tools/deb"
  (cd "$tools/deb" && apt-get download -qq prometheus >&2) || {
    echo "could not download Debian's prometheus package; apt-get update may help" >&2
    exit 1
  }
  dpkg -x "$tools"/deb/prometheus_*.deb "$tools"
fi
echo "$tools/usr/bin"
