# Sourced by the set-up scripts: find an interpreter, tell whether there is a GPU, install torch as this machine needs it,
# install from a folder of wheels, make the environment of mkdocs. Wants: $program (its name, for messages), for
# install_torch $python and a constraints file, for absolute $caller (the folder in which the user is).

fail() { echo "$program: $*" >&2; exit 2; }

absolute() { case "$1" in /*) echo "$1" ;; *) echo "$caller/$1" ;; esac; }

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; }

find_python() {
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
    if command -v "$candidate" >/dev/null 2>&1 &&
       "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
  fail "no Python 3.11 or newer found (tried ${PYTHON:-python3.11, 3.12, 3.13}); install one, or name it in PYTHON"
}

make_venv() {  # folder
  if [ ! -x "$1/bin/python" ]; then
    local base
    base=$(find_python)
    echo "$program: creating $1 with $($base --version)"
    "$base" -m venv "$1"
  fi
  python="$1/bin/python"
}

pip() { "$python" -m pip --disable-pip-version-check "$@"; }

wheels="" sources=()
pip_install() { pip install --quiet ${sources[@]+"${sources[@]}"} "$@"; }  # bash 3 calls an empty array unset

use_wheels() {  # folder of scripts/wheelhouse.sh, perhaps with numbered sub-folders: pip_install asks no index
  wheels=$1
  local part
  for part in "$1" "$1"/[0-9]*; do
    if compgen -G "$part/*.whl" >/dev/null; then sources+=(--find-links "$part"); fi
  done
  [ ${#sources[@]} -gt 0 ] || fail "no wheels in $1; collect them with scripts/wheelhouse.sh where there is a network"
  sources+=(--no-index)
}

sha256() { "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

reachable() {
  "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$1/" >/dev/null 2>&1
}

install_torch() {  # constraints file
  if "$python" -c 'import torch' >/dev/null 2>&1; then return; fi
  local index="${TORCH_CPU_INDEX-https://download.pytorch.org/whl/cpu}"
  if has_gpu; then
    echo "$program: installing torch (CUDA)"
    pip install --quiet --constraint "$1" torch torchvision
  elif [ "$(uname -s)" = Linux ] && [ -n "$index" ] && reachable "$index"; then
    echo "$program: installing torch (CPU, PyTorch's own build)"
    pip install --quiet --constraint "$1" --index-url "$index" torch torchvision
  else
    echo "$program: installing torch (from the configured package index)"
    pip install --quiet --constraint "$1" torch
  fi
}

make_docs_venv() {  # mkdocs in .venv-docs: the guides need nothing of training, and training nothing of mkdocs
  make_venv .venv-docs
  local stamp=.venv-docs/.rlfr-setup wanted
  wanted=$(cat pyproject.toml constraints.txt scripts/lib/python_env.sh | sha256)
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
  "$python" - > .venv-docs/requirements.txt <<'END'
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")
END
  echo "$program: installing mkdocs into .venv-docs"
  pip_install --constraint constraints.txt --requirement .venv-docs/requirements.txt
  echo "$wanted" > "$stamp"
}
