"""The settings: what is shipped, what is refused."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import NO_RULES

from recsys_utils import LabError
from recsys_utils.ensembles.rule_settings import (
    DEFAULTS,
    SHIPPED,
    Tuning,
    load_tuning,
    tuned,
)


def keys(tree: dict, prefix: str = "") -> set[str]:
    return {
        found
        for key, value in tree.items()
        for found in (
            keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
        )
    }


@pytest.mark.spec("S5-49")
def test_the_shipped_file_spells_out_every_default() -> None:
    assert load_tuning() == load_tuning(SHIPPED) == Tuning() == DEFAULTS
    assert keys(tomllib.loads(SHIPPED.read_text())) == keys(DEFAULTS.to_dict())


@pytest.mark.spec("S5-49")
def test_the_defaults_are_those_of_the_system() -> None:
    result = DEFAULTS.to_dict()
    assert result["candidate_pool_size"] == 200
    assert result["model_weights"] == {
        "als": 0.4,
        "item_cf": 0.4,
        "popularity": 0.2,
    }
    assert result["upsell"] == {"enabled": True, "factor": 0.1, "price_boost_weight": 0.2}
    assert [result["user_segments"][s] for s in ("small", "low_average", "average", "high")] == [
        0.25,
        0.5,
        0.75,
        1.0,
    ]
    assert result["repurchase_cycle"] == {
        "enabled": True,
        "default_cycle_days": 30,
        "exclusion_factor": 0.8,
    }
    assert result["price_sensitivity"]["budget_tolerance"] == 1.5
    assert result["price_sensitivity"]["mode"] == "cap"


def test_what_is_left_out_keeps_its_default_and_the_rest_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("candidate_pool_size = 7\n[upsell]\nfactor = 1\n")
    result = load_tuning(path)
    assert result == dataclasses.replace(
        Tuning(), candidate_pool_size=7, upsell=dataclasses.replace(Tuning().upsell, factor=1.0)
    )
    assert isinstance(result.upsell.factor, float)
    assert load_tuning(str(path)) == result


@pytest.mark.spec("S5-49")
@pytest.mark.parametrize(
    "change", [{}, NO_RULES, {"popularity_days": 28}, {"price_sensitivity": {"mode": "penalty"}}]
)
def test_to_dict_is_plain_and_comes_back(change: dict) -> None:
    result = tuned(change)
    assert tuned(result.to_dict()) == result
    assert (result == DEFAULTS) == (not change)


def test_the_tree_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULTS.upsell.factor = 0.5


BAD = [
    ({"candidate_pool": 5}, "'candidate_pool' is an unknown key.*candidate_pool_size"),
    ({"upsell": {"faktor": 1}}, "'upsell.faktor' is an unknown key.*factor"),
    ({"model_weights": {"als": 0.5, "item_cf": 0.5, "bpr": 0}}, "model_weights.bpr"),
    ({"upsell": 0.5}, "upsell is 0.5: it takes a table"),
    ({"candidate_pool_size": 0}, "candidate_pool_size is 0: it takes a whole number from 1"),
    ({"candidate_pool_size": 2.5}, "candidate_pool_size is 2.5: it takes a whole number"),
    ({"candidate_pool_size": True}, "candidate_pool_size is True"),
    ({"loyal_purchases": 0}, "loyal_purchases is 0"),
    ({"popularity_days": -1}, "popularity_days is -1"),
    ({"model_weights": {"als": 0.5}}, r"0\.5 \+ 0\.4 \+ 0\.2 = 1\.1: they must sum to 1"),
    (
        {"model_weights": {"als": -0.2, "item_cf": 1.0, "popularity": 0.2}},
        "model_weights.als is -0.2",
    ),
    ({"upsell": {"factor": 1.01}}, r"upsell.factor is 1.01: it takes a number from 0 to 1"),
    ({"upsell": {"factor": -0.01}}, "upsell.factor"),
    ({"upsell": {"factor": float("nan")}}, "upsell.factor is nan"),
    ({"upsell": {"factor": "much"}}, "upsell.factor is 'much'"),
    ({"upsell": {"factor": None}}, "upsell.factor is None"),
    ({"upsell": {"price_boost_weight": 2}}, "upsell.price_boost_weight"),
    ({"upsell": {"enabled": 1}}, "upsell.enabled is 1: it takes true or false"),
    ({"user_segments": {"small": 0.6}}, r"user_segments are 0\.6, 0\.5, 0\.75, 1: they must rise"),
    ({"user_segments": {"low_average": 0.75}}, "must rise"),
    ({"user_segments": {"high": 0.9}}, "user_segments.high is 0.9"),
    (
        {"user_segments": {"default": "rich"}},
        "user_segments.default is 'rich': choose small, low_average, average, high",
    ),
    ({"repurchase_cycle": {"default_cycle_days": 0}}, "repurchase_cycle.default_cycle_days is 0"),
    ({"repurchase_cycle": {"exclusion_factor": -0.1}}, "repurchase_cycle.exclusion_factor"),
    (
        {"repurchase_cycle": {"exclusion_factor": float("inf")}},
        "repurchase_cycle.exclusion_factor is inf",
    ),
    (
        {"price_sensitivity": {"mode": "strict"}},
        "price_sensitivity.mode is 'strict': choose cap, penalty, off",
    ),
    ({"price_sensitivity": {"mode": ["cap"]}}, "price_sensitivity.mode"),
    ({"price_sensitivity": {"budget_tolerance": 0.9}}, "price_sensitivity.budget_tolerance is 0.9"),
    ({"price_sensitivity": {"max_penalty": 1.1}}, "price_sensitivity.max_penalty"),
    (
        {"price_sensitivity": {"mode": "penalty", "budget_tolerance": 3}},
        "full_penalty_at is 3: it must be above budget_tolerance, 3",
    ),
]


@pytest.mark.spec("S5-18", "S5-49")
@pytest.mark.parametrize(("values", "message"), BAD, ids=[m[:40] for _, m in BAD])
def test_a_bad_value_is_named_with_its_key_and_cure(values: dict, message: str) -> None:
    with pytest.raises(LabError, match=message):
        tuned(values)
    with pytest.raises(LabError, match="^shop.toml: "):
        tuned(values, "shop.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[upsell", "no valid TOML"),
        ("upsell = 3", "upsell is 3"),
        ("a = 1", "'a' is an unknown key"),
    ],
)
def test_errors_of_a_file_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "knobs.toml"
    path.write_text(text)
    with pytest.raises(LabError, match=rf"knobs\.toml.*{message}"):
        load_tuning(path)
    with pytest.raises(LabError, match=r"none\.toml does not exist"):
        load_tuning(tmp_path / "none.toml")


def test_a_file_that_may_not_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path) -> str:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "knobs.toml"
    path.write_text("")
    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(LabError, match=r"knobs\.toml cannot be read \(Permission denied\)"):
        load_tuning(path)


@pytest.mark.spec("S5-07")
@given(st.floats(0, 1), st.floats(0, 1), st.floats(-0.3, 0.3))
def test_weights_are_taken_exactly_if_they_sum_to_one(a: float, share: float, off: float) -> None:
    b = (1 - a) * share
    weights = {"als": a, "item_cf": b, "popularity": 1 - a - b + off}
    if abs(sum(weights.values()) - 1) <= 1e-6 and all(0 <= w <= 1 for w in weights.values()):
        assert dataclasses.asdict(tuned({"model_weights": weights}).model_weights) == weights
    else:
        with pytest.raises(LabError, match="model_weights"):
            tuned({"model_weights": weights})
