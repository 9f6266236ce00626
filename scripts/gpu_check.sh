#!/usr/bin/env bash
# Turn ten minutes on a GPU into evidence: tests in bfloat16, steps of RLFR over TRL's GRPO at Qwen2.5-VL's 3B and 7B
# shapes, fitting of a field, shared prompts, RLVR against RLFR on a small pretrained policy, in this order of value.
# Hardware: one GPU; 80 GB for whole policies of 7B, less takes fewer layers. No network is used. Time: --minutes, 10.
#
#   bash scripts/gpu_check.sh --minutes 10 --wheels wheels --smollm2 DIR --out outputs/gpu_check
#     --out DIR          results.json, index.html and log.txt (default: outputs/gpu_check); scratch files go to DIR.work.
#                        Both files are written after each part; the same line again takes up where a run has ended
#     --minutes N        the time for everything, set-up included; each part has its share as a limit
#     --wheels DIR       wheels of what the machine's Python lacks, from scripts/wheelhouse.sh or `pip download`; what it
#                        has already in a version that fits stays, torch above all
#     --parts A,B        some parts; --list shows all, with their estimated minutes
#     --again            runs parts that are done, too; RL parts add seeds
#     --smollm2 DIR      policy that `rlfr get-policy smollm2 --to DIR` wrote before; without it that part is not run
#     --smollm2-vl DIR   folder of a vision-language policy, which is trained on the task digits
#     --note TEXT        a line for the head of the page
#     --cpu              a dry run with tiny shapes on a CPU, which tests this script; its numbers say nothing
#
# Python: the first of $PYTHON, .venv/bin/python, python3 and python that is 3.11 or newer and has torch. It is not
# changed: wheels are unpacked into DIR.work/site.
set -euo pipefail
started=$(date +%s)
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() { echo "gpu_check: $*" >&2; exit 2; }
absolute() { case "$1" in /*) echo "$1" ;; *) echo "$caller/$1" ;; esac; }

out="" wheels="" rest=()
while [ $# -gt 0 ]; do
  case "$1" in
    --out | --wheels | --minutes | --parts | --smollm2 | --smollm2-vl | --note)
      [ $# -gt 1 ] && [[ "$2" != --* ]] || fail "$1 has no value; see the head of scripts/gpu_check.sh" ;;
  esac
  case "$1" in
    --out) out=$(absolute "$2"); shift 2 ;;
    --wheels) wheels=$(absolute "$2"); shift 2 ;;
    --smollm2 | --smollm2-vl) rest+=("$1" "$(absolute "$2")"); shift 2 ;;
    --minutes | --parts | --note) rest+=("$1" "$2"); shift 2 ;;
    --again | --cpu | --list) rest+=("$1"); shift ;;
    *) fail "unknown option $1; see the head of scripts/gpu_check.sh" ;;
  esac
done
out=${out:-$caller/outputs/gpu_check}
out=${out%/}

python=""
for candidate in ${PYTHON:-.venv/bin/python python3 python}; do
  if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c 'import importlib.util, sys
sys.exit(sys.version_info < (3, 11) or importlib.util.find_spec("torch") is None)' 2>/dev/null; then
    python=$candidate; break
  fi
done
[ -n "$python" ] || fail "no Python 3.11 or newer with torch (tried ${PYTHON:-.venv/bin/python, python3, python});" \
  "install torch, or name an interpreter that has it in PYTHON"

export PYTHONPATH="$PWD:$PWD/eval${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if [ -n "$wheels" ]; then
  "$python" -m benchmarks.gpu.install "$wheels" "$out.work/site" || exit 2
  export PYTHONPATH="$out.work/site:$PYTHONPATH"
fi
exec "$python" -m benchmarks.gpu.check --started "$started" --out "$out" ${rest[@]+"${rest[@]}"}
