#!/usr/bin/env bash
# Where is the signal on the digits policy? Sample it, fit fields of each kind, compare them in a grid.
#   bash benchmarks/signal/digits.sh POLICY OUT     (POLICY: the quick start's, printed by `rlfr quickstart`)
set -euo pipefail
policy=${1:?folder of the policy} out=${2:?output folder}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rlfr=.venv/bin/rlfr
mkdir -p "$out"
sample() { # split prompts samples seed
    "$rlfr" sample --policy "$policy" --data digits --dataset_split "$1" --dataset_limit "$2" --samples "$3" --seed "$4" \
        --max_new_tokens 24 --batch_size 128 --out "$out/$1.jsonl"
}
fit() { # name settings...
    local name=$1
    shift
    [[ -d $out/$name/flow ]] || "$rlfr" fit-flow --model_name_or_path "$policy" --output_dir "$out/$name" --max_steps 300 \
        --per_device_train_batch_size 32 --learning_rate 1e-3 --flow_noise_repeats 2 --eval_rows 128 --save_strategy no \
        --report_to none --flow_layers 0.25 0.5 0.75 1.0 "$@"
}
sample train 1500 4 11
sample test 400 8 12
fit expert --dataset_name digits --dataset_limit 4096
fit own_right --dataset_name "$out/train.jsonl" --flow_reference own --flow_accept right
fit contrast --dataset_name "$out/train.jsonl" --flow_reference contrast
fit expert_image --dataset_name digits --dataset_limit 4096 --flow_image_context true
fit expert_minus_prompt --dataset_name digits --dataset_limit 4096 --flow_latents minus_prompt
fit expert_sphere --dataset_name digits --dataset_limit 4096 --flow_latents sphere
fit expert_identity --dataset_name digits --dataset_limit 4096 --flow_context_mode identity
"$rlfr" inspect --grid true --given true --policy "$policy" --data "$out/test.jsonl" --n 400 --batch_size 128 \
    --timesteps 0.5 0.95 --out "$out/grid" --flow "$out/expert" "$out/own_right" "$out/contrast"
"$rlfr" inspect --grid true --given true --policy "$policy" --data "$out/test.jsonl" --n 400 --batch_size 128 --timesteps 0.5 \
    --out "$out/grid_context" --flow "$out/expert" "$out/expert_image" "$out/expert_minus_prompt" "$out/expert_sphere" \
    "$out/expert_identity"
