#!/usr/bin/env bash
# Create .venv-judge, the environment of a local judge: lmdeploy wants other versions of torch and peft than training does,
# so it lives by itself and is reached over HTTP. `LOCAL_LLM=MODEL rlfr-eval ...` then starts and stops it.
# Hardware: an NVIDIA GPU that holds the judge. Safe to run again.
#
#   bash scripts/setup_judge.sh [--dry-run] [--http-only]
#
# --http-only: create .venv-judge-http instead, on any machine, in a minute: lmdeploy's command line and HTTP layer on the
#   packages of .venv (`bash scripts/setup.sh`), without the engines, so it serves no model. Tests ask it.
#
# Environment: PYTHON names the interpreter; pip's own variables and configuration (mirror, proxy) are honoured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

requirement="lmdeploy>=0.18,<0.19"
# what lmdeploy's HTTP layer, parsers and tokenizers import
http_layer=(aiohttp cloudpickle fastapi mmengine-lite openai_harmony opencv-python-headless prometheus_client protobuf
  pybase64 sentencepiece shortuuid tiktoken uvicorn)
venv=".venv-judge"
python="${PYTHON:-python3}"
run() { echo "+ $*"; [ "$dry" = 1 ] || "$@"; }
dry=0 http_only=0
for option in "$@"; do
  case "$option" in
    --dry-run) dry=1 ;;
    --http-only) http_only=1 venv=".venv-judge-http" python=".venv/bin/python" ;;
    *) echo "setup_judge: unknown option $option; see the head of scripts/setup_judge.sh" >&2; exit 2 ;;
  esac
done

if [ -x "$venv/bin/lmdeploy" ] && [ "$dry" = 0 ]; then echo "setup_judge: ready"; exit 0; fi
if [ "$http_only" = 1 ] && [ ! -x "$python" ] && [ "$dry" = 0 ]; then
  echo "setup_judge: --http-only builds on .venv, which is not there. Run bash scripts/setup.sh first." >&2; exit 2
fi
[ -x "$venv/bin/python" ] || run "$python" -m venv "$venv"
install() { run "$venv/bin/python" -m pip --disable-pip-version-check install --quiet "$@"; }
if [ "$http_only" = 0 ]; then
  install "$requirement"
  [ "$dry" = 1 ] || echo "setup_judge: ready; name the judge with LOCAL_LLM, and try it with: rlfr-eval judge check"
  exit 0
fi
if [ "$dry" = 0 ]; then
  # addsitedir also runs the .pth files of .venv, such as the import hook for torchvision
  folder='import sysconfig; print(sysconfig.get_path("purelib"))'
  echo "import site; site.addsitedir(r'$("$python" -c "$folder")')" > "$("$venv/bin/python" -c "$folder")/training.pth"
fi
install --constraint constraints.txt "${http_layer[@]}"
install --no-deps "$requirement"  # its engines want CUDA, and other versions of torch and peft
[ "$dry" = 1 ] || echo "setup_judge: ready; try it with: .venv/bin/python -m pytest -m slow tests/end_to_end/eval/test_lmdeploy_http.py"
