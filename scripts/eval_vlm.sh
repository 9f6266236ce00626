#!/usr/bin/env bash
# Measure a checkpoint on VLMEvalKit's multimodal benchmarks: serve it, wait for health, ask, stop serving, judge, stop
# the judge, report. Hardware: a GPU that holds the model (and one after the other, the judge), or a CPU for small ones.
#
#   CKPT=outputs/rlfr/checkpoint-160 bash scripts/eval_vlm.sh [--dry-run] [options of `rlfr-eval vlm`]
#
# Environment: CKPT: the checkpoint, or a hub id; RUN_NAME: name of the results (default: the checkpoint's); DATASETS:
# benchmarks (default: the six of the RLFR paper); PRESET: official, paper or training (default: paper). The judge comes
# from .env or LOCAL_LLM (see .env.example), files from LMUData. Run the same line again to go on where it stopped.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
[ -n "${CKPT:-}" ] || { sed -n '2,9p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit 2; }

parent="$(basename "$(dirname "$CKPT")")"
if [ "$parent" = . ]; then parent=""; fi  # a name without a folder
run_name="${RUN_NAME:-${parent:+$parent--}$(basename "$CKPT")}"
mapfile -t datasets < <(tr -s '[:space:]' '\n' \
  <<< "${DATASETS:-MathVista_MINI MathVision_MINI MathVerse_MINI WeMath LogicVista VisuLogic}" | grep .)
dry="" more=()
for argument in "$@"; do
  if [ "$argument" = --dry-run ]; then dry=1; else more+=("$argument"); fi
done
arguments=(vlm --model "$CKPT" --data "${datasets[@]}" --preset "${PRESET:-paper}" --out "outputs/eval/$run_name" "${more[@]}")
line="rlfr-eval$(printf ' %q' "${arguments[@]}")"
if [ -n "$dry" ]; then
  echo "+ bash scripts/setup_vlmeval.sh    # VLMEvalKit in .venv-vlmeval, once"
  echo "+ $line"
  echo "    # starts a worker for VLMEvalKit; serves $CKPT with vLLM and waits for its health; asks ${#datasets[@]} benchmarks;"
  echo "    # stops the server; grades by rules; starts or reaches the judge of .env, asks it, stops it;"
  echo "    # writes outputs/eval/$run_name/scores.json and report.md"
  exit 0
fi
rlfr_eval="$here/../.venv/bin/rlfr-eval"
if [ ! -x "$rlfr_eval" ]; then bash "$here/setup.sh" --extras vllm; fi
bash "$here/setup_vlmeval.sh"
echo "+ $line" >&2
exec "$rlfr_eval" "${arguments[@]}"
