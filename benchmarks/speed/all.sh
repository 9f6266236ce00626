#!/usr/bin/env bash
# Run the speed scripts that this machine can run, one after the other on an otherwise quiet machine, and write
# benchmarks/speed/results/MACHINE.json. `--quick` takes some six minutes on two cores; without, there are more rounds
# and shapes, and the quick start twice.
#
#   bash benchmarks/speed/all.sh [--quick]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/../../.venv/bin/python"
[ -x "$python" ] || { echo "all: no environment yet; run bash scripts/setup.sh" >&2; exit 2; }
quick=()
case "${1:-}" in
  --quick) quick=(--quick) ;;
  "") ;;
  *) echo "all: unknown option $1; there is --quick" >&2; exit 2 ;;
esac

cd "$here"
mkdir -p results
name="$("$python" -c 'import re, torch, measuring
print(re.sub("[^a-z0-9]+", "-", (torch.cuda.get_device_name(0) if torch.cuda.is_available() else
      f"{measuring.processor()} {torch.get_num_threads()} threads").lower()).strip("-"))')"
file="results/$name.json"
run() { echo; echo "== $*"; "$python" "$@" --json "$file"; }

run import_time.py
run grading.py ${quick:+--rounds 2}
run eval_overhead.py
if [ -f report.py ]; then run report.py; fi
run flow.py "${quick[@]}"
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  run fit.py --widths 2048 3584 --tokens 2048
  run step.py --size 3b "${quick[@]}"
  run step.py --size 7b "${quick[@]}"
else
  run fit.py ${quick:+--rounds 2}
fi
run step.py "${quick[@]}"
[ "${#quick[@]}" -gt 0 ] || run check_data.py
[ "${#quick[@]}" -gt 0 ] || run quickstart.py
echo
"$python" summary.py "$file"
echo "written to benchmarks/speed/$file"
