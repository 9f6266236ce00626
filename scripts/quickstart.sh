#!/usr/bin/env bash
# The main job: set up, then RLVR and RLFR on a small real Qwen2.5-VL and real images.
# Hardware: any CPU with 2 cores and 4 GB. Time: minutes. All options go to `rlfr quickstart` (see its --help).
#
#   bash scripts/quickstart.sh [--out DIR] [--seed N] [--seeds N] [--steps N] [--fast]
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
bash "$here/setup.sh"
exec "$here/../.venv/bin/rlfr" quickstart "$@"
