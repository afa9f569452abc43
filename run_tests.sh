#!/usr/bin/env bash
# Sets up once, then every test: lint, units, end-to-end runs, and every notebook on the synthetic shop, its outputs compared.
# With arguments, only pytest with these.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$ROOT/.ci/setup.sh"
cd "$ROOT"
if [ $# -gt 0 ]; then exec "$PYTHON" -m pytest "$@"; fi
"$PYTHON" -m ruff check .
"$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder     # files by name: the end-to-end runs are long and must not come last
home="$(mktemp -d)"
trap 'rm -rf "$home"' EXIT
export RECSYS_HOME="$home"
"$PYTHON" -m pytest --nbval notebooks/0[12]_*.ipynb                                                             # data and folds
"$PYTHON" -m pytest --nbval -n 2 --dist loadfile notebooks/0[3-9]_*.ipynb notebooks/1[0-2]_*.ipynb               # models
"$PYTHON" -m pytest --nbval -n 2 --dist loadfile notebooks/1[3-9]_*.ipynb                                       # what reads all of them
