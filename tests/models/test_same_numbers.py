"""Every x86-64 processor with AVX2 makes the same lists, to the last bit.

Each setting is a process of its own, since libraries look at the processor once. Some settings make
the processor seem older than it is; others are left-overs in the environment that must not count.
"""

import ast
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from recsys_utils import ARITHMETIC, settings
from recsys_utils.store import ROOT

# Models by name, as small as they still have something to get wrong.
MODELS = {
    "ALS": {"factors": 16, "iterations": 5},
    "BPR": {"factors": 8, "iterations": 50},
    "EASE": {},
    "ItemCF": {"neighbours": 50},
    "LightFM": {"epochs": 4},
    "TIFUKNN": {},
    "UPCF": {},
    "PreferencePairs": {"negatives": 4, "learning_rate": 0.02, "epochs": 3},
    "TwoTower": {"windows": 4, "epochs": 3},
    "TwoStage": {"windows": 2, "rounds": 10, "leaves": 7, "min_leaf": 5},
    "TwoStage, new items": {"target": "new", "windows": 2, "rounds": 10, "min_leaf": 5},
    "Progressive": {},
}
NETWORKS = {"PreferencePairs", "TwoTower", "Progressive"}
ALL_LEVELS = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
OLD_LIBM = "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-AVX2_Usable,-FMA_Usable"

SEEMS = {
    "AVX2 and no AVX-512, one thread": {
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OMP_NUM_THREADS": "1",
    },
    "older to MKL and the C library, two threads": {
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "GLIBC_TUNABLES": OLD_LIBM,
        "OMP_NUM_THREADS": "2",
    },
}
LEFT_OVER = {
    "torch default, MKL AVX2, OpenBLAS Prescott": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "AVX2",
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": ALL_LEVELS,
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
    },
    "torch AVX-512, MKL by itself, OpenBLAS Zen": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_CBWR": "AUTO",
        "OPENBLAS_CORETYPE": "Zen",
        "NPY_DISABLE_CPU_FEATURES": "",
    },
}
# The same without the cure: torch's own loops differ on every processor with AVX2.
UNCURED = {
    "uncured, AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AUTO"},
    "uncured, older": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "AUTO"},
}
THIS = "this processor"
CHILD = """
import hashlib, json, os, sys
import recsys_utils
os.environ |= json.loads(sys.argv[2])
import threadpoolctl, torch
from shops import cut_shop
from recsys_utils import models
from recsys_utils.ensembles.two_stage import TwoStage

shop, digests = cut_shop(lines=3_000, seed=1), {}
digest = lambda column: hashlib.sha256(column.to_numpy().tobytes()).hexdigest()[:12]
for name, params in json.loads(sys.argv[1]).items():
    kind = TwoStage if name.startswith("TwoStage") else getattr(models, name)
    table = kind(**params).fit(shop.history).recommend(shop.history.user_ids, 10)
    digests[name] = [digest(table["item_id"].cat.codes), digest(table["score"])]
blas = {p["architecture"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"}
print(json.dumps({"digests": digests, "blas": sorted(blas),
                  "torch": torch.backends.cpu.get_cpu_capability()}))
"""

pytestmark = pytest.mark.skipif(
    not ARITHMETIC.keys() <= settings().keys(), reason="this processor has no AVX2"
)


def fit_all(setting: dict[str, str], uncured: dict[str, str]) -> dict:
    """Digests of every model's lists and scores in a process, and which code the libraries took.

    setting: its environment. uncured: variables set after the package has set its own.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in settings()}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    models = {name: MODELS[name] for name in NETWORKS} if uncured else MODELS
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, json.dumps(models), json.dumps(uncured)],
        env=inherited | {"PYTHONPATH": paths} | setting,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    """What each setting gave, two processes at a time."""
    tasks = {THIS: ({}, {})}
    tasks |= {name: (setting, {}) for name, setting in (SEEMS | LEFT_OVER).items()}
    tasks |= {name: ({}, change) for name, change in UNCURED.items()}
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(fit_all, *task) for name, task in tasks.items()}
        return {name: future.result() for name, future in futures.items()}


@pytest.mark.parametrize("name", [*SEEMS, *LEFT_OVER])
def test_every_list_and_score_is_the_same(name: str, results: dict[str, dict]) -> None:
    assert results[name]["digests"] == results[THIS]["digests"]


@pytest.mark.parametrize("name", [THIS, *SEEMS, *LEFT_OVER])
def test_libraries_take_the_code_that_all_have(name: str, results: dict[str, dict]) -> None:
    assert results[name]["blas"] == ["Haswell"]
    assert results[name]["torch"] == "AVX2"


def test_without_the_cure_networks_differ(results: dict[str, dict]) -> None:
    """Otherwise the equality above would say nothing."""
    one, other = (results[name]["digests"] for name in UNCURED)
    assert all(one[name] != other[name] for name in NETWORKS)


def test_adam_is_fused() -> None:
    """Otherwise its square roots are MKL's, whose last digit no setting makes the same on AMD."""
    calls = [
        (path.name, node)
        for path in (ROOT / "recsys_utils").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("optim.Adam")
    ]
    assert len(calls) >= 3
    for name, call in calls:
        assert "fused=True" in ast.unparse(call), name
