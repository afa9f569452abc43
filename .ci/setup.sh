# Sourced by run_all.sh and run_tests.sh with $ROOT set: sets up once, then leaves the interpreter in
# $PYTHON. An active conda environment is used as it is; otherwise a local .venv is made.
fail() { echo "setup: $1" >&2; exit 1; }
pip() { "$PYTHON" -m pip --quiet --disable-pip-version-check "$@"; }
checksum() { cksum | cut -d' ' -f1; }
# Lines NAME=VALUE: one kind of arithmetic for all processors, to be set before numpy loads.
arithmetic() {
    "$PYTHON" -c 'import recsys_utils; print(*map("=".join, recsys_utils.settings().items()), sep=chr(10))'
}

if [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then
    place="$CONDA_PREFIX"
else
    place="$ROOT/.venv"
fi
PYTHON="$place/bin/python"
pins="$(cat "$ROOT/requirements.txt" "$ROOT/pyproject.toml" | checksum)"
stamp="$place/.recsys-$pins-$(echo "$ROOT" | checksum)"

if [ ! -e "$stamp" ]; then
    command -v gcc >/dev/null || command -v cc >/dev/null ||
        fail "a C compiler is missing (LightFM is compiled): install gcc, e.g. apt install gcc"
    if [ ! -x "$PYTHON" ]; then
        command -v python3.11 >/dev/null || fail "Python 3.11 is missing: install it, or run \
'conda env create -f environment.yml' and 'conda activate recsys'"
        python3.11 -m venv "$place" || fail "python3.11 cannot make a virtual environment: \
install its venv module, e.g. apt install python3.11-venv"
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
        fail "$PYTHON is not Python 3.11: remove that environment or activate another"
    echo "setup: installing the pinned packages into $place (once, some minutes)" >&2
    LIGHTFM_NO_CFLAGS=1 pip install -r "$ROOT/requirements.txt" ||
        fail "pip could not install requirements.txt: its message is above"
    pip install --no-deps -e "$ROOT" ||
        fail "pip could not install this package: its message is above"
    # A notebook that JupyterLab opens gets the same settings from its kernel.
    settings=()
    while IFS='=' read -r name value; do settings+=(--env "$name" "$value"); done < <(arithmetic)
    "$PYTHON" -m ipykernel install --prefix "$place" --name python3 "${settings[@]}" >/dev/null ||
        fail "the notebooks' kernel could not be installed: its message is above"
    touch "$stamp"
fi
export JUPYTER_PREFER_ENV_PATH=1
while IFS='=' read -r name value; do
    export "$name=$value"
done < <(arithmetic)
