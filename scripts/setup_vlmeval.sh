#!/usr/bin/env bash
# Create .venv-vlmeval, the environment of VLMEvalKit (PyPI: ms-vlmeval), whose datasets, prompts and scoring
# `rlfr-eval vlm` uses. It wants other versions than training does and switches certificate checks off when it is
# imported, so it lives by itself, and a worker process is all that ever runs in it. No GPU is needed. Safe to run again.
#
#   bash scripts/setup_vlmeval.sh [--dry-run]
#
# Environment: PYTHON names the interpreter; TORCH_CPU_INDEX the index of CPU builds of torch (empty: do not try one);
# pip's own variables and configuration (mirror, proxy) are honoured. Another environment that has ms-vlmeval is named
# with VLMEVAL_PYTHON instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=setup_vlmeval
. scripts/lib/python_env.sh

# pandas 3 has dropped what VLMEvalKit scores WeMath with; math-verify's extra of the same name would pull an old one
requirements=("ms-vlmeval==0.0.20" "pandas>=2.2,<3" "math-verify==0.9.0")
venv=".venv-vlmeval"
case "${1:-}" in
  --dry-run)
    echo "+ $(find_python) -m venv $venv"
    echo "+ $venv/bin/python -m pip install torch torchvision ${requirements[*]}"
    exit 0 ;;
  "") ;;
  *) fail "unknown option $1; see the head of scripts/setup_vlmeval.sh" ;;
esac

make_venv "$venv"
wanted=$(cat constraints.txt scripts/setup_vlmeval.sh scripts/lib/python_env.sh | sha256)
stamp="$venv/.rlfr-setup"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

grep -v '^pandas==' constraints.txt > "$venv/constraints.txt"
install_torch "$venv/constraints.txt"
echo "$program: installing ${requirements[0]} (minutes the first time)"
# torch again, so that nothing that wants torchvision exchanges it for another build
pip install --quiet --constraint "$venv/constraints.txt" torch torchvision "${requirements[@]}"
echo "$wanted" > "$stamp"
echo "$program: ready"
