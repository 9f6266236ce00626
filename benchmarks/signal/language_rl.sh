#!/usr/bin/env bash
# Does a flow reward train a language model of 135M parameters better than RLVR? Uses what language.sh left in OUT.
#   bash benchmarks/signal/language_rl.sh OUT [SEEDS]
# One thread beside other jobs: 27 minutes for the run of rlvr. Finished runs are kept.
set -euo pipefail
out=${1:?output folder of language.sh} seeds=${2:-5}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ -f $out/rl_problems.jsonl ]] || .venv/bin/python benchmarks/signal/problems.py --out "$out/rl_problems.jsonl" --n 400 --seed 3 \
    --without "$out/test_problems.jsonl" "$out/train_problems.jsonl"
.venv/bin/rlfr sweep --config benchmarks/signal/language_rl.yaml --methods rlvr,rlfr --seeds "$seeds" --out "$out/rl" \
    --model_name_or_path "$out/policy" --dataset_name "$out/rl_problems.jsonl" \
    --eval_dataset_name "$out/test_problems.jsonl" --eval_dataset_split train --flow_path "$out/own_right/flow"
