#!/usr/bin/env bash
# Train a policy with a recipe of scripts/configs on two machines with the same number of GPUs, 8 by default. Run it on
# both, with the same options but --node-rank; paths must be the same on both, on storage they share.
# Hardware: 2 x 8 GPUs of 80 GB. Hours: see `rlfr plan --config scripts/configs/RECIPE.yaml`.
#
#   bash scripts/train_two_nodes.sh --node-rank 0 --main-address HOST --recipe NAME --model DIR --data FILE
#   bash scripts/train_two_nodes.sh --node-rank 1 --main-address HOST --recipe NAME --model DIR --data FILE
#
#   --node-rank N          0 on the main machine, 1 on the other one
#   --main-address HOST    the main machine's address, as the other one reaches it
#   --main-port PORT       a free port there (default: 29500)
# All options of scripts/train.sh apply; --gpus counts those of one machine. Recipes are made for 8 processes: with 16,
# gradient_accumulation_steps is halved, so that the batch of an update stays.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"
launch train 2 "$@"
