#!/usr/bin/env bash
# Train a policy with a recipe of scripts/configs on the GPUs of this machine.
# Hardware and memory: see the head of the recipe. Hours: see `rlfr plan --config scripts/configs/RECIPE.yaml`.
#
#   bash scripts/train.sh --recipe train_rlfr_qwen2.5-vl-3b --model DIR --data FILE --flow DIR
#   bash scripts/train.sh --recipe train_rlfr_lora_qwen2.5-vl-3b --model DIR --data FILE --flow DIR   # one 24 GB GPU
#
#   --recipe NAME       a train_*.yaml of scripts/configs, without its ending: the method and the model
#   --model DIR|ID      the policy's folder, or its hub id
#   --data FILE|ID      rows with prompt, answer and images: a file, a folder, a hub id or a built-in task
#   --flow DIR          the fitted field, for flow rewards; leave it out with `-- --method rlvr`
#   --out DIR           where results go (default: outputs/NAME)
#   --gpus N            processes, one a GPU (default: what the recipe is made for). The batch of an update stays:
#                       gradient_accumulation_steps changes instead
#   --accelerate NAME   zero2, zero3, ddp or fsdp2 (default: zero3 for 7B and 8B, zero2 below, ddp on one GPU)
#   --resume            go on from the newest complete checkpoint in --out
#   --dry-run           print the command, start nothing
#   -- OPTIONS          further options of `rlfr train`; they win
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"
launch train 1 "$@"
