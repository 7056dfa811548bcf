#!/usr/bin/env bash
# Prints the path of a headless Chromium: one on the PATH, or Debian's packages unpacked into .tools/chromium.
# Nothing is installed on the system. Used by the tests that open the report and the site as a person does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for name in chromium chromium-headless-shell chromium-browser google-chrome; do
  if found=$(command -v "$name"); then
    echo "$found"
    exit
  fi
done
tools=$PWD/.tools/chromium
if [ ! -x "$tools/chromium" ]; then
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
    echo "no Chromium is on the PATH and this is not Debian" >&2
    exit 1
  }
  rm -rf "$tools" "$tools.partial"
  mkdir -p "$tools.partial/deb/partial"
  # What it needs and this machine lacks, fonts included; only downloaded, then unpacked beside each other.
  apt-get -qq -o Debug::NoLocking=1 -o APT::Sandbox::User= -o "Dir::Cache::archives=$tools.partial/deb" \
    install --download-only --no-install-recommends --yes chromium-headless-shell fonts-dejavu-core fontconfig-config >&2 || {
    echo "could not download Debian's chromium-headless-shell; apt-get update may help" >&2
    exit 1
  }
  for package in "$tools.partial"/deb/*.deb; do dpkg -x "$package" "$tools.partial"; done
  rm -r "$tools.partial/deb"
  cat >"$tools.partial/chromium" <<'SH'
#!/bin/sh
# Chromium on the libraries and fonts unpacked beside it.
here=$(dirname "$(readlink -f "$0")")
libraries=$(find "$here/usr/lib" "$here/lib" -maxdepth 2 -name '*-linux-gnu*' -type d 2>/dev/null | tr '\n' ':')
export LD_LIBRARY_PATH="$libraries$(find "$here/usr/lib" -name pulseaudio -type d | head -n 1)"
[ -e /etc/fonts/fonts.conf ] || export FONTCONFIG_PATH="$here/etc/fonts"
export XDG_DATA_DIRS="$here/usr/share:${XDG_DATA_DIRS:-/usr/share}"
exec "$here/usr/lib/chromium/chromium-headless-shell" "$@"
SH
  chmod +x "$tools.partial/chromium"
  mv "$tools.partial" "$tools"
fi
echo "$tools/chromium"
