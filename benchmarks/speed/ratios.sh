#!/usr/bin/env bash
# The ratios of a step and of scoring, measured briefly: a benchmark for the log of continuous integration, where no
# time can fail. Two minutes on two cores; writes outputs/ci/speed.json.
#
#   bash benchmarks/speed/ratios.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=.venv/bin/python
[ -x "$python" ] || { echo "ratios: no environment yet; run bash scripts/setup.sh" >&2; exit 2; }
file=outputs/ci/speed.json
mkdir -p outputs/ci
rm -f "$file"
export HF_HUB_OFFLINE=1
for script in flow step; do
  echo "== $script.py --quick"
  "$python" "benchmarks/speed/$script.py" --quick --json "$file"
done
echo "written to $file"
