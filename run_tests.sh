#!/usr/bin/env bash
# Sets up once, then every test: lint, units, and the notebooks on synthetic data. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
. .ci/setup.sh
"$PYTHON" -m ruff check .
exec "$PYTHON" -m pytest "$@"
