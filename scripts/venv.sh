#!/usr/bin/env bash
# Makes a virtual environment and installs into it: scripts/venv.sh FOLDER PIP-ARGUMENTS...
#
# PYTHON=python3.12   the interpreter to use (default: the first that is 3.11 or newer)
# TORCH=torch==2.12   the PyTorch to install (default: 2.13.0, or the newest where that one is not to be had)
#
# PyTorch comes first and by its exact version: left to the dependency of the package, pip may choose a newer build
# that brings gigabytes of CUDA libraries. It is then pinned, so that nothing installed later can replace it.
set -euo pipefail

folder=$1
shift

newest_python() {
  local name
  for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "$name"
      return
    fi
  done
  echo "oneiro needs Python 3.11 or newer; found: $(python3 --version 2>&1 || echo none)." >&2
  echo "On Debian or Ubuntu: sudo apt-get install python3 python3-venv; or name one: make PYTHON=python3.12 ..." >&2
  return 1
}

if [ ! -x "$folder/bin/python" ]; then
  python=$(newest_python)
  if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$python cannot make virtual environments: its venv module is a package of its own here." >&2
    echo "On Debian or Ubuntu: sudo apt-get install python3-venv   (or python$version-venv)" >&2
    exit 1
  fi
  echo "making the virtual environment $folder with $("$python" --version)"
  "$python" -m venv "$folder" || { rm -rf "$folder"; exit 1; }
fi

pip=("$folder/bin/python" -m pip --disable-pip-version-check)
torch_version() {
  "$folder/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null
}

if ! torch_version >/dev/null; then
  wanted=${TORCH:-torch==2.13.0}
  if [ -z "${TORCH:-}" ] && nvidia-smi -L >/dev/null 2>&1; then
    wanted=torch # a GPU is there: the build with CUDA
  fi
  echo "installing $wanted (some hundred MB, once)"
  "${pip[@]}" install "$wanted" || { [ -z "${TORCH:-}" ] && echo "$wanted is not to be had; installing torch" && "${pip[@]}" install torch; }
fi

echo "torch==$(torch_version)" >"$folder/constraints.txt"
echo "installing $*"
"${pip[@]}" install --quiet --constraint "$folder/constraints.txt" "$@"
