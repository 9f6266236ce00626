#!/usr/bin/env bash
# Serve a policy with vLLM for `--rollout vllm-server`, usually on GPUs of its own. Start it before training; stop it with Ctrl-C.
#
#   CUDA_VISIBLE_DEVICES=6,7 bash scripts/serve_policy.sh MODEL [--port 8000] [--tensor-parallel-size 2] [vLLM options]
#   CUDA_VISIBLE_DEVICES=0,1,2,3,4,5 bash scripts/train.sh ... -- --rollout vllm-server --vllm_server_port 8000
#
#   MODEL            a folder or a hub id
#   --host ADDRESS   who may reach it: 127.0.0.1 (default) is this machine only; there is no password
#   --dry-run        print the command and start nothing
# Without CUDA, and with --server_weights folder, weights come through a folder that server and trainer both see.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "serve_policy: $*" >&2; exit 2; }

model="" host=127.0.0.1 dry_run=false options=()
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry_run=true; shift ;;
    --host) host="${2:?--host needs an address}"; shift 2 ;;
    -*) options+=("$1"); if [ $# -gt 1 ] && [[ "$2" != -* ]]; then options+=("$2"); shift; fi; shift ;;
    *) [ -z "$model" ] || fail "two models named, $model and $1"; model="$1"; shift ;;
  esac
done
[ -n "$model" ] || fail "name the policy: bash scripts/serve_policy.sh MODEL"

# What TRL's client needs of the server (read in TRL 1.16.0): dev mode for weight updates, token-in-token-out, log-probs
# after temperature, and the weight-transfer engine, which is CUDA's. The extension loads weights from a folder.
command=(.venv/bin/python -m vllm.entrypoints.openai.api_server --model "$model" --host "$host" --enable-scale-out
  --logprobs-mode processed_logprobs --max-logprobs -1
  --worker-extension-cls rlfr_vlm.trainer.vllm.worker_extension.LoadsPolicy)
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then
  command+=(--weight-transfer-config '{"backend": "nccl"}')
fi
command+=("${options[@]}")

printf 'serve_policy: VLLM_SERVER_DEV_MODE=1'; printf ' %q' "${command[@]}"; echo
[ "$dry_run" = false ] || exit 0
[ -x .venv/bin/python ] || fail "no environment yet; run bash scripts/setup.sh --extras vllm"
.venv/bin/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("vllm") is None)' ||
  fail "vLLM is not installed; run bash scripts/setup.sh --extras vllm"
VLLM_SERVER_DEV_MODE=1 exec "${command[@]}"
