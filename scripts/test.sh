#!/usr/bin/env bash
# Set up, check style and types, and run the tests in two processes. Options go to pytest: `tests/test_shaping.py`,
# `-m slow` for the slow tests, `-n 8` for eight processes, `-n 0` for one, which `--pdb` needs.
#
#   bash scripts/test.sh [pytest options]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! bash scripts/setup.sh --extras dev,vllm,deepspeed,reasoning-gym; then  # reasoning-gym's parts need a C compiler
  [ "${CI:-}" != true ] || exit 2
  echo "test: going on without what could not be installed here; its tests skip" >&2
  bash scripts/setup.sh --extras dev,vllm,deepspeed || bash scripts/setup.sh --extras dev
fi
if ! bash scripts/setup_vlmeval.sh; then
  [ "${CI:-}" != true ] || exit 2
  echo "test: going on without VLMEvalKit, which could not be installed here; its tests skip" >&2
fi
if ! command -v chromium chromium-browser google-chrome > /dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } > /dev/null ||
      [ "${CI:-}" != true ] || exit 2
  else
    echo "test: no Chromium here, so the tests of pages skip; on Debian: sudo apt-get install chromium" >&2
  fi
fi
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Tests of a file share fixtures, so they stay in one process; tests/conftest.py puts long files first.
exec .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
