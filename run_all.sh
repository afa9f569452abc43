#!/usr/bin/env bash
# Sets up once, runs the notebooks on a data set and writes reports/<dataset>/index.html. See --help.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$ROOT/.ci/setup.sh"
exec "$PYTHON" -m recsys_utils.pipeline "$@"
