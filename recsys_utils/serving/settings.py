"""What the environment may set, checked at the start.

An unknown or impossible value is an error and never a surprise.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from recsys_utils import LabError
from recsys_utils.ensembles.rule_settings import load_tuning
from recsys_utils.online.queue import MIN_POOL, checked_weights
from recsys_utils.serving.errors import sentence

BODY = 256 << 10  # bytes of a request's body
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class QueueSettings(BaseModel):
    """Settings of the shoppers' queues, from a TOML file.

    shown: products of one showing where the request names no number. min_pool: a shorter pool is
    filled first. max_pool, event_weights: what is not given is as the database has it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    shown: int = Field(3, ge=1, le=20)
    min_pool: int = Field(MIN_POOL, ge=1, le=10_000)
    max_pool: int | None = Field(None, ge=1, le=10_000)
    event_weights: dict[str, int] | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file; LabError that names it where it is no good."""
        try:
            result = cls(**tomllib.loads(path.read_text()))
            checked_weights(result.event_weights or {})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise LabError(f"{path} cannot be read as TOML ({error}): correct it") from error
        except ValidationError as error:
            raise LabError(f"{path}: {sentence(error.errors())}") from error
        except LabError as error:
            raise LabError(f"{path}: {error}") from error
        if result.max_pool is not None and result.max_pool < result.min_pool:
            raise LabError(
                f"{path}: min_pool is {result.min_pool} and max_pool {result.max_pool}: choose"
                " min_pool ≤ max_pool"
            )
        return result


class Settings(BaseModel):
    """Settings of one service.

    max_waiting: single requests that may wait while others are worked on; the next is refused with
    503. A browser asks for six things at once: two pages must fit.
    tuning: every knob of the hybrid that differs from the trained ones, as `tuning.tuned` takes
    them. default_model: who answers where a request names no model, and the page opens with it;
    unset it is the hybrid, and the page opens with the model that the report ships.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    debug: bool = False
    environment: Literal["development", "test", "production"] = "development"
    allowed_hosts: tuple[str, ...] = LOOPBACK
    cors_origins: tuple[str, ...] = ()
    cache_ttl_seconds: float = Field(3600, ge=0, le=10_000_000, allow_inf_nan=False)
    cache_max_size: int = Field(1000, ge=1, le=1_000_000)
    max_waiting: int = Field(8, ge=0, le=10_000)
    model_path: Path | None = None
    default_model: str | None = None
    api_key: SecretStr | None = None
    tuning: dict | None = None
    queue: QueueSettings = QueueSettings()

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """The fields' names in capitals; TUNING_PATH and QUEUE_PATH, TOML files; empty is unset.

        Lists are JSON or comma lists.
        """
        given = {
            name: env[name.upper()].strip()
            for name in cls.model_fields
            if env.get(name.upper(), "").strip() and name not in ("tuning", "queue")
        }
        given |= {
            name: check(given[name])
            for name, check in (("allowed_hosts", hosts), ("cors_origins", origins))
            if name in given
        }
        if env.get("TUNING_PATH", "").strip():
            given["tuning"] = load_tuning(env["TUNING_PATH"].strip()).to_dict()
        if env.get("QUEUE_PATH", "").strip():
            given["queue"] = QueueSettings.load(Path(env["QUEUE_PATH"].strip()))
        try:
            result = cls(**given)
        except ValidationError as error:
            name, said = sentence(error.errors()).split(" ", 1)
            raise LabError(f"{name.upper()} {said}") from error
        result._check_key()
        return result

    def _check_key(self) -> None:
        """LabError where a key is needed and not there, or no client could bring it."""
        if self.api_key is None:
            if self.environment == "production":
                raise LabError(
                    "ENVIRONMENT is production and API_KEY is empty: set a key that writing"
                    " requests must bring"
                )
            return
        key = self.api_key.get_secret_value()
        if not (key.isascii() and key.isprintable()):
            raise LabError(
                "API_KEY holds a character that no header carries: take letters, digits and signs"
                " of ASCII"
            )

    def placed(self, folder: Path, host: str) -> Self:
        """The same, started for a folder at an address.

        It answers to that too, unless it was told its names.
        """
        named = (
            self.allowed_hosts
            if "allowed_hosts" in self.model_fields_set
            else tuple(dict.fromkeys((*LOOPBACK, host.lower())))
        )
        return self.model_copy(update={"model_path": folder, "allowed_hosts": named})

    def shown(self) -> dict:
        """All of it as plain values for GET /config, the key only as whether there is one."""
        return self.model_dump(mode="json", exclude={"api_key", "tuning", "queue"}) | {
            "api_key_set": self.api_key is not None
        }


def origins(text: str) -> list[str]:
    """CORS origins from a JSON list or a comma list."""
    result = [
        origin.rstrip("/") for origin in _listed("CORS_ORIGINS", text, "http://localhost:3000")
    ]
    if odd := [
        origin
        for origin in result
        if origin != "*" and not origin.startswith(("http://", "https://"))
    ]:
        raise LabError(f"CORS_ORIGINS names {odd[0]!r}: an origin begins with http:// or https://")
    return result


def hosts(text: str) -> list[str]:
    """Names and addresses that the service answers to, from a JSON list or a comma list.

    * is any.
    """
    result = [host.lower().strip("[]") for host in _listed("ALLOWED_HOSTS", text, "shop.example")]
    if odd := [host for host in result if "/" in host or host.count(":") == 1] or [text] * (
        not result
    ):
        raise LabError(
            f"ALLOWED_HOSTS names {odd[0]!r}: a host is a name or an address without scheme, port"
            " and path"
        )
    return result


def _listed(name: str, text: str, example: str) -> list[str]:
    try:
        result = json.loads(text) if text.startswith("[") else text.split(",")
    except ValueError as error:
        raise LabError(f'{name} is {text!r}: write ["{example}"] or a comma list') from error
    return [str(part).strip() for part in result if str(part).strip()]
