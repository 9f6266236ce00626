#!/usr/bin/env bash
# Measure a checkpoint on text benchmarks: serve it with vLLM, ask, stop serving, grade, judge what is undecided, report.
# Hardware: a GPU that holds the model, or a CPU for small ones. MODEL is a folder or a hub id.
#
#   bash scripts/eval_lm.sh MODEL [SUITE...] [-- options of `rlfr-eval lm`]
#   bash scripts/eval_lm.sh outputs/rlfr/checkpoint-160 math -- --out outputs/eval/rlfr --dry-run
#
# SUITE is math by default. The judge comes from .env (see .env.example); benchmark files from RLFR_EVAL_DATA, and
# `rlfr-eval fetch math` gets them. Run the same line again to go on where it stopped.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
[ $# -gt 0 ] || { sed -n '2,9p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit 2; }

model="$1"; shift
suites=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do suites+=("$1"); shift; done
[ "${1:-}" != "--" ] || shift

rlfr_eval="$here/../.venv/bin/rlfr-eval"
if [ ! -x "$rlfr_eval" ]; then bash "$here/setup.sh" --extras vllm; fi
set -- lm --model "$model" --suite "${suites[@]:-math}" "$@"
echo "+ rlfr-eval $*" >&2
exec "$rlfr_eval" "$@"
