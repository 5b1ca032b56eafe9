# Sourced by launch/demo and launch/test: makes and reuses .venv in the clone. Not a program of its own.
# shellcheck shell=bash

# Prints a Python that can make the venv: 3.11 or newer, with venv and pip on board.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    if [[ -n $candidate ]] && "$candidate" -c \
      'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11 or newer with its venv module was found; install one, or name it: PYTHON=/path/to/python3.11 bash launch/..." >&2
  return 1
}

# prepare_environment EXTRAS: after it, .venv holds the package with EXTRAS ('' or '[test]').
# Installs only when setup.py or the clone's place has changed since the last time.
prepare_environment() {
  local extras=$1 python stamp wanted
  if ! .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(find_python)
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
  fi
  stamp=".venv/installed${extras}"
  wanted=$(pwd && cat setup.py)
  if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    return
  fi
  echo "Installing mscaflax${extras} and what it needs into .venv (minutes the first time):"
  .venv/bin/python -m pip install --disable-pip-version-check --editable ".${extras}" |
    awk '/^Collecting/ { printf "."; fflush() } /^Installing collected/ { printf " unpacking"; fflush() }
         END { print "" }'
  echo "$wanted" >"$stamp"
}
