# Sourced by run_all.sh and run_tests.sh: sets up once, then leaves the interpreter in $PYTHON.
# An active conda environment is used as it is; otherwise a local .venv is made.
fail() { echo "setup: $1" >&2; exit 1; }

if [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then
    place="$CONDA_PREFIX" PYTHON="$CONDA_PREFIX/bin/python"
else
    place="$PWD/.venv" PYTHON="$PWD/.venv/bin/python"
fi
stamp="$place/.recsys-$(cat requirements.txt pyproject.toml | cksum | tr -d ' ')-$(pwd | cksum | cut -d' ' -f1)"

if [ ! -e "$stamp" ]; then
    command -v gcc >/dev/null || command -v cc >/dev/null || fail "a C compiler is missing (LightFM is compiled): install gcc, e.g. apt install gcc"
    if [ ! -x "$PYTHON" ]; then
        command -v python3.11 >/dev/null || fail "Python 3.11 is missing: install it, or run 'conda env create -f environment.yml && conda activate recsys'"
        python3.11 -m venv .venv || fail "python3.11 cannot make a virtual environment: install its venv module, e.g. apt install python3.11-venv"
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || fail "$PYTHON is not Python 3.11: remove that environment or activate another"
    echo "setup: installing the pinned packages into $place (once, some minutes)" >&2
    LIGHTFM_NO_CFLAGS=1 "$PYTHON" -m pip install --quiet --disable-pip-version-check -r requirements.txt || fail "pip could not install requirements.txt: see its message above"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps -e . || fail "pip could not install this package: see its message above"
    "$PYTHON" -m ipykernel install --prefix "$place" --name python3 >/dev/null 2>&1 || fail "the Jupyter kernel could not be installed into $place"
    touch "$stamp"
fi
export OPENBLAS_NUM_THREADS=1 PYTHONWARNINGS="${PYTHONWARNINGS:-ignore::FutureWarning}" JUPYTER_PREFER_ENV_PATH=1
