#!/usr/bin/env bash
# Where is the signal on a language model of 135M parameters? Sample it, fit fields of each kind, compare them.
#   bash benchmarks/signal/language.sh OUT
# Two CPU cores: an hour of sampling, ten minutes for each field, half an hour for the grid. It goes on where it stopped.
set -euo pipefail
out=${1:?output folder}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rlfr=.venv/bin/rlfr python=.venv/bin/python policy=$out/policy
mkdir -p "$out"
[[ -d $policy ]] || "$rlfr" get-policy smollm2 --to "$policy"
"$python" benchmarks/signal/problems.py --out "$out/test_problems.jsonl" --n 510 --seed 0
"$python" benchmarks/signal/problems.py --out "$out/train_problems.jsonl" --n 120 --seed 1 --without "$out/test_problems.jsonl"
"$python" benchmarks/signal/problems.py --out "$out/more_problems.jsonl" --n 24 --seed 2 \
    --without "$out/test_problems.jsonl" "$out/train_problems.jsonl"
sample() { # name seed
    "$rlfr" sample --policy "$policy" --data "$out/$1_problems.jsonl" --samples 8 --seed "$2" --temperature 1.0 \
        --max_new_tokens 32 --batch_size 32 --out "$out/$1.jsonl"
}
fit() { # name settings...
    local name=$1
    shift
    [[ -d $out/$name/flow ]] || "$rlfr" fit-flow --model_name_or_path "$policy" --output_dir "$out/$name" --max_steps 45 \
        --per_device_train_batch_size 16 --learning_rate 1e-3 --flow_noise_repeats 2 --flow_depth 2 --eval_rows 48 \
        --save_strategy no --report_to none --flow_layers 0.25 0.5 0.75 --flow_latents sphere --seed 42 "$@"
}
sample train 11
sample test 12
sample more 13 # test problems, too: 287 of the first 510 had right and wrong responses
fit expert --dataset_name "$out/train_problems.jsonl"
fit own_right --dataset_name "$out/train.jsonl" --flow_reference own --flow_accept right
fit contrast --dataset_name "$out/train.jsonl" --flow_reference contrast
"$python" benchmarks/signal/mixed_groups.py --data "$out/test.jsonl" "$out/more.jsonl" --out "$out/mixed.jsonl"
"$rlfr" inspect --grid true --given true --yardsticks true --policy "$policy" --data "$out/mixed.jsonl" --n 510 --batch_size 32 \
    --timesteps 0.5 --out "$out/grid" --flow "$out/expert" "$out/own_right" "$out/contrast"
