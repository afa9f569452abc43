"""The settings of blend and business rules: one checked tree, from TOML or a dictionary."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from recsys_utils import LabError
from recsys_utils.store import ROOT

SHIPPED = ROOT / "data" / "tuning.toml"


def knob(default: object, low: float = -math.inf, high: float = math.inf) -> Field:
    """A field with a default and an inclusive range."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class ModelWeights:
    """Shares of the models in the hybrid's score; they sum to 1."""

    als: float = knob(0.4, 0, 1)
    item_cf: float = knob(0.4, 0, 1)
    popularity: float = knob(0.2, 0, 1)


@dataclass(frozen=True)
class Upsell:
    """More expensive items gain at most factor · price_boost_weight.

    It acts on prices up to budget_tolerance times the user's mean price.
    """

    enabled: bool = True
    factor: float = knob(0.1, 0, 1)
    price_boost_weight: float = knob(0.2, 0, 1)


@dataclass(frozen=True)
class UserSegments:
    """Upper bounds of the segments as quantiles of users' mean item price.

    `enabled` caps prices by segment.
    """

    enabled: bool = True
    default: Literal["small", "low_average", "average", "high"] = "average"
    small: float = knob(0.25, 0, 1)
    low_average: float = knob(0.50, 0, 1)
    average: float = knob(0.75, 0, 1)
    high: float = knob(1.0, 1, 1)


@dataclass(frozen=True)
class RepurchaseCycle:
    """Leave an item out until `exclusion_factor` of its usual cycle is over since its purchase."""

    enabled: bool = True
    default_cycle_days: float = knob(30, 0.01, 10_000)
    exclusion_factor: float = knob(0.8, 0, 100)


@dataclass(frozen=True)
class PriceSensitivity:
    """cap: no item above budget_tolerance times the user's mean price.

    penalty: it loses up to max_penalty of its score.
    """

    mode: Literal["cap", "penalty", "off"] = "cap"
    budget_tolerance: float = knob(1.5, 1, 1_000)
    full_penalty_at: float = knob(3.0, 1, 1_000)
    max_penalty: float = knob(0.3, 0, 1)


@dataclass(frozen=True)
class Merchandising:
    """What a person decides of single products and of a list as a whole, after the models.

    It acts on every list that is served, by whatever model; the leaderboard's lists go without it.

    pin: ids that come first, in this order. exclude: ids that are never listed. boost: ids whose
    relevance gains `boost_factor`. diversity: 0 goes by relevance alone, 1 by unlikeness alone.
    min_relevance: what is less relevant is left out, of models whose scores have a scale.
    """

    pin: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    boost: tuple[str, ...] = ()
    boost_factor: float = knob(0.1, 0, 1)
    diversity: float = knob(0.0, 0, 1)
    min_relevance: float = knob(0.0, 0, 1)


@dataclass(frozen=True)
class Tuning:
    """Every knob of the hybrid.

    `load_tuning` reads them from TOML, `tuned` from a dictionary of what differs from the defaults.
    """

    candidate_pool_size: int = knob(200, 1, 1_000_000)
    loyal_purchases: int = knob(10, 1, 1_000_000)
    popularity_days: int = knob(0, 0, 10_000)  # 0: ever
    model_weights: ModelWeights = ModelWeights()
    upsell: Upsell = Upsell()
    user_segments: UserSegments = UserSegments()
    repurchase_cycle: RepurchaseCycle = RepurchaseCycle()
    price_sensitivity: PriceSensitivity = PriceSensitivity()
    merchandising: Merchandising = Merchandising()

    def to_dict(self) -> dict:
        """All of it as plain values: what GET /config shows, what a model saves."""
        return _plain(asdict(self))


DEFAULTS = Tuning()


def load_tuning(path: Path | str | None = None) -> Tuning:
    """Read the knobs from TOML; None reads the repository's `data/tuning.toml`.

    Keys that are left out keep their defaults.
    """
    path = SHIPPED if path is None else Path(path)
    if not path.is_file():
        raise LabError(f"{path} does not exist: give the path of a TOML file like data/tuning.toml")
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise LabError(
            f"{path} cannot be read ({error.strerror}): allow this user to read it"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(
            f"{path} is no valid TOML ({error}): correct it, see data/tuning.toml"
        ) from error
    return tuned(values, str(path))


def tuned(values: Mapping, where: str = "tuning") -> Tuning:
    """The defaults with some values replaced, checked; `where` is named in errors.

    Nested: {"upsell": {"factor": 0.5}}.
    """
    result = _built(Tuning, values, "", where)
    _check_sums(result, where)
    return result


def _built(cls: type, values: Mapping, prefix: str, where: str) -> object:
    if not isinstance(values, Mapping):
        raise LabError(
            f"{where}: {prefix.rstrip('.') or 'tuning'} is {values!r}: it takes a table of"
            f" {_names(cls)}"
        )
    if unknown := [key for key in values if key not in {f.name for f in fields(cls)}]:
        raise LabError(
            f"{where}: '{prefix}{unknown[0]}' is an unknown key: {prefix.rstrip('.') or 'tuning'}"
            f" takes {_names(cls)}"
        )
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    return cls(
        **{
            key: _value(hints[key], known[key], value, prefix + str(key), where)
            for key, value in values.items()
        }
    )


def _value(kind: object, known: Field, value: object, key: str, where: str) -> object:
    if is_dataclass(kind):
        return _built(kind, value, f"{key}.", where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise LabError(f"{where}: {key} is {value!r}: choose {', '.join(get_args(kind))}")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise LabError(f"{where}: {key} is {value!r}: it takes true or false")
        return value
    if get_origin(kind) is tuple:
        is_list = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
        if not is_list:
            raise LabError(f"{where}: {key} is {value!r}: it takes a list of ids, as text")
        return tuple(dict.fromkeys(value))
    low, high = known.metadata["range"]
    right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not (right and low <= value <= high):
        raise LabError(
            f"{where}: {key} is {value!r}: it takes a {'whole ' * (kind is int)}number from {low:g}"
            f" to {high:g}"
        )
    return kind(value)


def _check_sums(made: Tuning, where: str) -> None:
    """Check what concerns several knobs together.

    Weights sum to 1, quantiles rise, the full penalty begins above the tolerance.
    """
    weights = made.model_weights
    segments = made.user_segments
    price = made.price_sensitivity
    if abs(sum(asdict(weights).values()) - 1) > 1e-6:
        shown = " + ".join(f"{v:g}" for v in asdict(weights).values())
        raise LabError(
            f"{where}: model_weights are {shown} = {sum(asdict(weights).values()):g}: they must sum"
            " to 1"
        )
    quantiles = [segments.small, segments.low_average, segments.average, segments.high]
    if sorted(set(quantiles)) != quantiles:
        raise LabError(
            f"{where}: user_segments are {', '.join(f'{q:g}' for q in quantiles)}: they must rise"
            " from small to high"
        )
    if price.mode == "penalty" and price.full_penalty_at <= price.budget_tolerance:
        raise LabError(
            f"{where}: price_sensitivity.full_penalty_at is {price.full_penalty_at:g}: "
            f"it must be above budget_tolerance, {price.budget_tolerance:g}"
        )


def _plain(value: object) -> object:
    """Tuples as lists, as JSON and TOML have them."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _names(cls: type) -> str:
    return ", ".join(f.name for f in fields(cls))
