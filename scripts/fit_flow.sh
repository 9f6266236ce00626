#!/usr/bin/env bash
# Fit a flow field to a frozen policy's latents on expert responses, with a recipe of scripts/configs.
# Hardware: see the head of the recipe. Hours: see `rlfr plan --config scripts/configs/RECIPE.yaml`.
#
#   bash scripts/fit_flow.sh --recipe fit_flow_qwen2.5-vl-3b --model DIR --data FILE
#
#   --recipe NAME   a fit_flow_*.yaml of scripts/configs, without its ending
#   --model DIR|ID  the policy's folder or hub id, the one that training will start from
#   --data FILE|ID  rows with prompt, response and images: a file, a folder, a hub id or a built-in task
#   --out DIR       where the field goes (default: outputs/NAME); give this folder to train.sh as --flow
#   --gpus N        processes, one a GPU (default: what the recipe is made for). The batch stays:
#                   gradient_accumulation_steps changes instead
#   --resume        go on from the newest complete checkpoint in --out
#   --dry-run       print the command, start nothing
#   -- OPTIONS      further options of `rlfr fit-flow`; they win
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"
launch fit-flow 1 "$@"
