#!/usr/bin/env bash
# Get training data and base models from the hub, by name, and record what came in data/downloads.json: hub id,
# revision, bytes. Hardware: none; disk: see --list. Run the same line again to go on where it stopped.
#
#   bash scripts/download_data.sh --list
#   bash scripts/download_data.sh mm-eureka qwen2.5-vl-3b [--dry-run]
#   bash scripts/download_data.sh mm-eureka@COMMIT     # that revision; the one another machine has recorded
#
#   --list      what there is: hub id, rows or size, licence, where it goes, how to use it
#   --dry-run   print the commands, get nothing
# Revisions are not pinned here; the script records the one it got. Models that ask for consent (Llama) need
# `.venv/bin/hf auth login` once; no token is given on a command line. Mirrors: hf's own HF_ENDPOINT.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "download_data: $*" >&2; exit 2; }

# name | kind | hub id | files, if not all | rows or size | licence | use: what the hub's pages and the papers say.
data_card="see its data card" model_card="see its model card"
things=(
  "openr1-math|dataset|open-r1/OpenR1-Math-220k|data/*|93.7k rows|apache-2.0|fit, text; --dataset_format sharegpt"
  "mmpr|dataset|OpenGVLab/MMPR-v1.1||60.8 GB|mit|fit, VL; all rows, in zips: its card says how to unpack"
  "rlfr-vlm|dataset|JingHaoZ/RLFR-Dataset-VLM||170k rows|apache-2.0|RLFR's 115k math rows of MMPR and 55k of MM-Eureka"
  "rlfr-lm|dataset|JingHaoZ/RLFR-Dataset-LM||-|$data_card|RLFR's rows for text"
  "math-3to5|dataset|hkust-nlp/SimpleRL-Zoo-Data|simplelr_qwen_level3to5/*|8k rows|apache-2.0|train, text; MATH 3-5"
  "mm-eureka|dataset|FanqingM/MM-Eureka-Dataset||55k rows|$data_card|train, VL"
  "rlpr-train|dataset|openbmb/RLPR-Train-Dataset||-|$data_card|train_rlpr, text"
  "qwen2.5-vl-3b|model|Qwen/Qwen2.5-VL-3B-Instruct||-|Qwen Research License|policy"
  "qwen2.5-vl-7b|model|Qwen/Qwen2.5-VL-7B-Instruct||-|$model_card|policy"
  "qwen2.5-math-1.5b|model|Qwen/Qwen2.5-Math-1.5B||-|$model_card|policy"
  "qwen2.5-math-7b|model|Qwen/Qwen2.5-Math-7B||-|$model_card|policy"
  "qwen2.5-7b|model|Qwen/Qwen2.5-7B||-|$model_card|policy"
  "llama-3.1-8b|model|meta-llama/Llama-3.1-8B||-|$model_card|policy; has no chat template"
)

place() { if [ "$1" = model ]; then echo "data/models/$2"; else echo "data/$2"; fi; }

list() {
  printf '%-18s %-30s %-15s %-22s %-29s %s\n' NAME "HUB ID" "ROWS OR SIZE" LICENCE "GOES TO" USE
  for thing in "${things[@]}"; do
    IFS='|' read -r name kind id files size licence use <<<"$thing"
    printf '%-18s %-30s %-15s %-22s %-29s %s\n' "$name" "$id" "$size" "$licence" "$(place "$kind" "$name")" "$use"
  done
  echo
  echo "Not pinned; the script records the revision and the bytes it got in data/downloads.json. -: not known before."
  echo "Look before you train: rlfr check-data, rlfr preview; other column names: --dataset_columns prompt=question."
}

# What came: hf keeps the commit of each file on the first line of a file beside it.
record() {  # record NAME KIND ID FOLDER
  .venv/bin/python - "$@" <<'PYTHON'
import json, os, pathlib, sys, time

name, kind, hub_id, folder = sys.argv[1:]
notes = sorted(pathlib.Path(folder, ".cache/huggingface/download").rglob("*.metadata"))
revisions = sorted({note.read_text().split("\n", 1)[0].strip() for note in notes})
files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file() and ".cache" not in path.parts]
target = pathlib.Path("data/downloads.json")
known = json.loads(target.read_text()) if target.exists() else {}
known[name] = {
    "kind": kind,
    "hub_id": hub_id,
    "revision": revisions[0] if len(revisions) == 1 else revisions,
    "folder": folder,
    "files": len(files),
    "bytes": sum(path.stat().st_size for path in files),
    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
}
aside = target.with_suffix(".json.new")
aside.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
os.replace(aside, target)
print(f"download_data: {name} is in {folder}, revision {known[name]['revision']}")
PYTHON
}

dry=0 wanted=()
while [ $# -gt 0 ]; do
  case "$1" in
    --list) list; exit 0 ;;
    --dry-run) dry=1 ;;
    -*) fail "unknown option $1; see the head of scripts/download_data.sh" ;;
    *) wanted+=("$1") ;;
  esac
  shift
done
[ ${#wanted[@]} -gt 0 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2; }

find_thing() {  # sets name, kind, id, files
  for thing in "${things[@]}"; do
    IFS='|' read -r name kind id files _ <<<"$thing"
    if [ "$name" = "${1%%@*}" ]; then return; fi
  done
  fail "nothing is called ${1%%@*}. Choose one of: $(printf '%s\n' "${things[@]}" | cut -d '|' -f 1 | paste -sd ' ')"
}

for one in "${wanted[@]}"; do find_thing "$one"; done  # a wrong name is found before anything is got
[ "$dry" = 1 ] || [ -x .venv/bin/hf ] || fail ".venv/bin/hf is missing. Run: bash scripts/setup.sh"
for one in "${wanted[@]}"; do
  find_thing "$one"
  folder="$(place "$kind" "$name")"
  line=(.venv/bin/hf download "$id" --repo-type "$kind" --local-dir "$folder")
  [ -z "$files" ] || line+=(--include "$files")
  [[ "$one" != *@* ]] || line+=(--revision "${one#*@}")
  printf '+'
  printf ' %q' "${line[@]}"
  echo
  [ "$dry" = 0 ] || continue
  mkdir -p "$folder"
  "${line[@]}" || fail "$name did not arrive whole, see above. Run the same line again to go on."
  record "$name" "$kind" "$id" "$folder"
done
