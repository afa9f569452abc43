#!/usr/bin/env bash
# Sets up once, then every test: format, lint, the notebooks on the synthetic shop, units and
# end-to-end runs with their coverage, and the docstrings' examples. With arguments, only pytest
# with these.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
started=$SECONDS
. "$ROOT/.ci/setup.sh"
cd "$ROOT"
if [ $# -gt 0 ]; then exec "$PYTHON" -m pytest "$@"; fi

# Percent of the lines that tests run in their own process; services and notebooks are not counted.
LEAST_COVERAGE=88
LEAST_COVERAGE_OF_SERVING=84

took=("$(printf '%5d s  set-up' $((SECONDS - started)))")
failed=()
step() {  # NAME COMMAND…: goes on after a failure, which fails the whole at the end
    local name="$1" start=$SECONDS
    shift
    echo "=== $name"
    "$@" || failed+=("$name")
    took+=("$(printf '%5d s  %s' $((SECONDS - start)) "$name")")
}
covered() {  # WHAT LEAST OPTION…: prints the percent, fails below the least
    echo "$1: $("$PYTHON" -m coverage report --format=total "${@:3}") % of lines, at least $2 %"
    "$PYTHON" -m coverage report --fail-under="$2" "${@:3}" >/dev/null
}

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export COVERAGE_FILE="$work/coverage"

step "format" "$PYTHON" -m ruff format --check .
step "lint" "$PYTHON" -m ruff check .
step "notebooks" env RECSYS_HOME="$work" "$PYTHON" -m recsys_utils.pipeline
step "tests" env RECSYS_DEFAULT_RUN="$work" "$PYTHON" -m pytest -n 2 --dist loadfile \
    --no-loadscope-reorder --durations=25 --cov=recsys_utils --cov-report=
step "examples in docstrings" "$PYTHON" -m pytest --doctest-modules recsys_utils
step "coverage" covered recsys_utils $LEAST_COVERAGE
step "coverage of serving" covered recsys_utils/serving $LEAST_COVERAGE_OF_SERVING \
    --include='recsys_utils/serving/*'

echo "=== seconds"
printf '%s\n' "${took[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
fi
