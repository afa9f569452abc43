"""What is refused and why, in our own words.

The routes answer 503, 404, 409 and 401, and 422 for any other LabError and for bad input.
"""

from collections.abc import Sequence

from recsys_utils import LabError

NUMBER = "a number"
WHOLE = "a whole number"
TIME = "a time like 2025-01-15T10:00:00Z"
OBJECT = "a JSON object"
TAKES = {
    "string_type": "text",
    "string_unicode": "text in UTF-8",
    "string_pattern_mismatch": "text without control characters",
    "string_too_short": "at least {min_length} character",
    "string_too_long": "at most {max_length} characters",
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_from_float": WHOLE,
    "int_parsing_size": WHOLE,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "a finite number",
    "greater_than_equal": "a number of at least {ge:,.15g}",
    "less_than_equal": "a number of at most {le:,.15g}",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "literal_error": "{expected}",
    "value_error": "{error}",
    "datetime_type": TIME,
    "datetime_parsing": TIME,
    "datetime_from_date_parsing": TIME,
    "datetime_object_invalid": TIME,
    "list_type": "a list",
    "too_short": "at least {min_length} entry",
    "too_long": "at most {max_length:,} entries",
    "dict_type": OBJECT,
    "model_type": OBJECT,
    "model_attributes_type": OBJECT,
}


class Unavailable(LabError):
    """Nothing can be answered now."""


class NotFound(LabError):
    """What was asked for is not there."""


class Conflict(LabError):
    """What was sent contradicts what is known."""


class Forbidden(LabError):
    """The key is missing or wrong."""


def sentence(errors: Sequence[dict], body: object = None) -> str:
    """Pydantic's deepest fault in one sentence: the field, what was given, what it takes.

    Where it takes several kinds of value, all of them.
    """
    wheres = [_where(error, body) for error in errors]
    where = max(wheres, key=len)
    first, kind = next(
        (error, error["type"]) for error, there in zip(errors, wheres) if there == where
    )
    name = _named(where)
    if kind == "json_invalid":
        return f"the body is not valid JSON from character {first['loc'][-1] + 1} on: correct it"
    if kind in ("missing", "extra_forbidden"):
        return (
            f"{name} is missing: add it"
            if kind == "missing"
            else f"{name} is no field here: leave it out"
        )
    takes = dict.fromkeys(_takes(error) for error, there in zip(errors, wheres) if there == where)
    return (
        f"{name} is {_given(first['input'])}: it takes"
        f" {' or '.join(takes)}{'' if where else ', sent as application/json'}"
    )


def _takes(error: dict) -> str:
    # Pydantic counts a checked text as entries.
    kind = f"string_{error['type']}" if isinstance(error["input"], str) else error["type"]
    return TAKES.get(kind, TAKES.get(error["type"], "something else, see /docs")).format(
        **error.get("ctx", {})
    )


def _named(where: Sequence[str]) -> str:
    return (
        ".".join(part if part.isprintable() else repr(part)[1:-1] for part in where)[:100]
        or "the body"
    )


def _where(error: dict, body: object) -> list[str]:
    """The way to the field through what was sent.

    Pydantic's names for the kinds of value that it tried are left out.
    """
    source, *loc = error["loc"]
    result = [] if source in ("body", "query", "path") else [source]
    for part in loc:
        there = source != "body" or (
            part in body
            if isinstance(body, dict)
            else isinstance(body, list) and isinstance(part, int)
        )
        if there or error["type"] == "missing":
            result.append(str(part))
        if source == "body" and there:
            body = body[part]
    return result


def _given(value: object) -> str:
    if isinstance(value, dict | list):
        return (
            "an object"
            if isinstance(value, dict)
            else f"a list of {len(value):,}"
            if value
            else "an empty list"
        )
    text = (
        {True: "true", False: "false", None: "null"}[value]
        if isinstance(value, bool | None)
        else repr(value).lstrip("b")
    )
    return text if len(text) <= 60 else f"{text[:60]}…"
