"""What the environment may set, checked at the start: an unknown or impossible value is an error and never a surprise."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from .. import LabError
from ..tuning import load_tuning

BODY = 256 << 10        # bytes of a request's body


class Settings(BaseModel):
    """Settings of one service. tuning: every knob of the hybrid that differs from the trained ones, as `tuning.tuned` takes them."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    debug: bool = False
    environment: Literal["development", "test", "production"] = "development"
    cors_origins: tuple[str, ...] = ()
    cache_ttl_seconds: float = Field(3600, ge=0, le=10_000_000, allow_inf_nan=False)
    cache_max_size: int = Field(1000, ge=1, le=1_000_000)
    model_path: Path | None = None
    api_key: SecretStr | None = None
    tuning: dict | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """DEBUG, ENVIRONMENT, CORS_ORIGINS, CACHE_TTL_SECONDS, CACHE_MAX_SIZE, MODEL_PATH, API_KEY and TUNING_PATH, a TOML file; empty is unset."""
        given = {name: env[name.upper()].strip() for name in cls.model_fields if env.get(name.upper(), "").strip() and name != "tuning"}
        if "cors_origins" in given:
            given["cors_origins"] = origins(given["cors_origins"])
        if env.get("TUNING_PATH", "").strip():
            given["tuning"] = load_tuning(env["TUNING_PATH"].strip()).to_dict()
        try:
            made = cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            raise LabError(f"{str(first['loc'][0]).upper()} is {given.get(first['loc'][0])!r}: {first['msg'].lower()}") from error
        if made.environment == "production" and made.api_key is None:
            raise LabError("ENVIRONMENT is production and API_KEY is empty: set a key that writing requests must bring")
        return made

    def shown(self) -> dict:
        """All of it as plain values for GET /config, the key only as whether there is one."""
        return self.model_dump(mode="json", exclude={"api_key", "tuning"}) | {"api_key_set": self.api_key is not None}


def origins(text: str) -> list[str]:
    """CORS origins from a JSON list or a comma list."""
    try:
        made = json.loads(text) if text.startswith("[") else text.split(",")
    except ValueError as error:
        raise LabError(f'CORS_ORIGINS is {text!r}: write ["http://localhost:3000"] or a comma list') from error
    made = [str(origin).strip().rstrip("/") for origin in made if str(origin).strip()]
    if odd := [origin for origin in made if origin != "*" and not origin.startswith(("http://", "https://"))]:
        raise LabError(f"CORS_ORIGINS names {odd[0]!r}: an origin begins with http:// or https://")
    return made
