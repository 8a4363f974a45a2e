# Shared by the scripts beside it: a Python, and a virtual environment that follows the lock files.
# To be sourced; leaves the shell in the repository's root.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv

say() { printf '==> %s\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints the command of a Python that is new enough and can make virtual environments.
find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "Python 3.11 or newer with its venv module is needed (Debian: python3-venv); PYTHON=… names one"
}

# checksum FILE…: one word that changes when a file's content does.
checksum() { cat "$@" | cksum | tr ' ' -; }

# is_current STAMP WANTED: whether the last `mark` of this stamp said the same.
is_current() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

mark() { printf '%s\n' "$2" >"$1"; }

# Makes the virtual environment, anew if the repository was moved or its Python has gone.
ensure_venv() {
  if is_current "$VENV/stamp-place" "$PWD" && "$VENV/bin/python" -c '' 2>/dev/null; then
    return
  fi
  local python
  python=$(find_python)
  say "making $VENV with $("$python" --version)"
  rm -rf "$VENV"
  "$python" -m venv "$VENV"
  mark "$VENV/stamp-place" "$PWD"
}

# pip_install ARGUMENT…: by uv where there is one; pip's chatter is cut to a line a package.
pip_install() {
  if command -v uv >/dev/null; then
    uv pip install --quiet --python "$VENV/bin/python" "$@"
    return
  fi
  if ! "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" \
    2>"$VENV/pip.log" | name_packages; then
    cat "$VENV/pip.log" >&2
    return 1
  fi
}

name_packages() {
  local word rest
  while read -r word rest; do
    case $word in
      # A requirement, or a file; behind either may be where it was asked for.
      Collecting | Processing) rest=${rest%% *} && printf '    %s\n' "${rest##*/}" >&2 ;;
    esac
  done
}

# install_lock NAME [OPTION…]: requirements/NAME.txt, if it has changed since the last time.
install_lock() {
  local name=$1 lock=requirements/$1.txt wanted
  shift
  wanted=$(checksum "$lock")
  if is_current "$VENV/stamp-$name" "$wanted"; then
    return
  fi
  say "installing $lock"
  pip_install --require-hashes "$@" -r "$lock" || return 1
  mark "$VENV/stamp-$name" "$wanted"
}

# The project itself, editable; a stamp of what the installation was made from keeps it quick.
install_project() {
  local wanted
  wanted=$(checksum setup.cfg pyproject.toml gateway/__init__.py)
  if is_current "$VENV/stamp-project" "$wanted"; then
    return
  fi
  install_lock build
  say "installing sluice"
  pip_install --no-deps --no-build-isolation -e .
  mark "$VENV/stamp-project" "$wanted"
}

# What the gateway needs to run.
prepare_run() {
  ensure_venv
  install_lock run
  install_project
}

# The same and what tests and checks need: test.txt contains all of run.txt.
prepare_test() {
  ensure_venv
  install_lock test
  mark "$VENV/stamp-run" "$(checksum requirements/run.txt)"
  install_project
}
