#!/usr/bin/env bash
# Build the guides (the README.md files, CONTRIBUTING.md, CHANGELOG.md and the speed log) into one set of static pages.
# They open from disk, search included, and ask the network for nothing. A link that leads nowhere fails the build.
#
#   bash scripts/build_docs.sh [--to DIR]
#     --to DIR   where the pages go (default: outputs/docs); pages of an earlier build are replaced
#
# mkdocs lives in .venv-docs, which scripts/setup.sh makes. No GPU is needed; a build takes seconds.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=build_docs
. scripts/lib/python_env.sh

to=$PWD/outputs/docs
while [ $# -gt 0 ]; do
  case "$1" in
    --to) to=$(absolute "${2:?--to needs a folder}"); shift 2 ;;
    *) fail "unknown option $1; see the head of scripts/build_docs.sh" ;;
  esac
done
if [ -e "$to" ] && [ ! -f "$to/.rlfr-docs" ] && [ -n "$(ls -A "$to")" ]; then
  fail "$to holds something else than pages of an earlier build; name another folder with --to"
fi

bash scripts/setup.sh --extras docs
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
.venv-docs/bin/python scripts/lib/guides.py "$build"
NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict --config-file "$build/mkdocs.yml"
touch "$build/site/.rlfr-docs"
rm -rf "$to"
mkdir -p "$(dirname "$to")"
mv "$build/site" "$to"
echo "$program: open $to/index.html"
