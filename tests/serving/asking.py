"""Asking the service in tests: a request, its answer, and the shopper who is asked about."""

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys_utils.serving.artifacts import Artifacts

API = "/api/v1"


USER = "U000003"


LIVE = ("als", "item_cf", "popularity", "hybrid")


def got(client: TestClient, path: str, **params: object) -> dict:
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def sent(client: TestClient, path: str, **body: object) -> dict:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def rec(client: TestClient, user: str, **params: object) -> dict:
    return got(client, f"{API}/recommendations/{user}", **params)


def ids(answer: dict) -> list[str]:
    return [row["item_id"] for row in answer["recommendations"]]


def event(user: str, item: str, kind: str, **more: object) -> dict:
    return {"user_id": user, "item_id": item, "event_type": kind, **more}


@pytest.fixture(scope="module")
def user(art: Artifacts) -> str:
    """The shopper with the longest history."""
    return str(art.hybrid.user_ids_[np.diff(art.hybrid.line_start_).argmax()])


def same(a: dict, b: dict) -> bool:
    varies = {"processing_time_ms", "generated_at", "cached"}
    return {k: v for k, v in a.items() if k not in varies} == {
        k: v for k, v in b.items() if k not in varies
    }
