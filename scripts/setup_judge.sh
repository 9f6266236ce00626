#!/usr/bin/env bash
# Create .venv-judge, the environment of a local judge: lmdeploy wants other versions of torch and peft than training does,
# so it lives by itself and is reached over HTTP. `LOCAL_LLM=MODEL rlfr-eval ...` then starts and stops it.
# Hardware: an NVIDIA GPU that holds the judge. Safe to run again.
#
#   bash scripts/setup_judge.sh [--dry-run]
#
# Environment: PYTHON names the interpreter; pip's own variables and configuration (mirror, proxy) are honoured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

requirement="lmdeploy>=0.18,<0.19"
venv=".venv-judge"
python="${PYTHON:-python3}"
run() { echo "+ $*"; [ "$dry" = 1 ] || "$@"; }
dry=0
case "${1:-}" in
  --dry-run) dry=1 ;;
  "") ;;
  *) echo "setup_judge: unknown option $1; see the head of scripts/setup_judge.sh" >&2; exit 2 ;;
esac

if [ -x "$venv/bin/lmdeploy" ] && [ "$dry" = 0 ]; then echo "setup_judge: ready"; exit 0; fi
[ -x "$venv/bin/python" ] || run "$python" -m venv "$venv"
run "$venv/bin/python" -m pip --disable-pip-version-check install --quiet "$requirement"
[ "$dry" = 1 ] || echo "setup_judge: ready; name the judge with LOCAL_LLM, and try it with: rlfr-eval judge check"
