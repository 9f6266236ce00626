#!/usr/bin/env bash
# Set up, check style and types, and run the tests. Options go to pytest, e.g. `-m slow` or `tests/test_shaping.py`.
#
#   bash scripts/test.sh [pytest options]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! bash scripts/setup.sh --extras dev,vllm,deepspeed; then
  [ "${CI:-}" != true ] || exit 2
  echo "test: going on without vLLM and DeepSpeed, which could not be installed here; their tests skip" >&2
  bash scripts/setup.sh --extras dev
fi
if ! bash scripts/setup_vlmeval.sh; then
  [ "${CI:-}" != true ] || exit 2
  echo "test: going on without VLMEvalKit, which could not be installed here; its tests skip" >&2
fi
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
