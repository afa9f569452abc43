"""Who may ask and by which address.

Names and origins, keys, ids that hold what addresses are made of.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from test_serving_input import EVENT, problem
from test_serving_shop import serving

from recsys_utils import LabError
from recsys_utils.serving.settings import LOOPBACK, Settings

API = "/api/v1"
WRITES = [("/events", {"events": [EVENT]}), ("/reload", None), ("/queue/u/next", None)]


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:8000", "[::1]", "[::1]:8000", "LOCALHOST:1"]
)
def test_it_answers_to_the_names_of_this_machine(client: TestClient, host: str) -> None:
    assert client.get(f"{API}/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "user@localhost",
        "localhost:80:80",
        "[::2]",
        "[::1",
        "",
        "localhost/x",
        "0.0.0.0",
        "*",
    ],
)
def test_another_host_is_400_for_every_path_and_runs_nothing(client: TestClient, host: str) -> None:
    """DNS rebinding: a page of evil.example whose name points here must not read or write."""
    for path in (
        "/",
        "/docs",
        "/static/app.js",
        "/metrics",
        f"{API}/recommendations/u",
        "/nowhere",
    ):
        problem(
            client.get(path, headers={"Host": host}),
            400,
            f"the host is {host!r}: this service answers to the names in ALLOWED_HOSTS only",
        )
    before = client.app.state.service.online.queue.read("SELECT COUNT(*) AS n FROM events")["n"][0]
    problem(
        client.post(f"{API}/events", json={"events": [EVENT]}, headers={"Host": host}),
        400,
        "ALLOWED_HOSTS",
    )
    assert (
        client.app.state.service.online.queue.read("SELECT COUNT(*) AS n FROM events")["n"][0]
        == before
    )


@pytest.mark.spec("S5-50")
def test_allowed_hosts_replace_the_default_and_are_shown(folder: Path) -> None:
    with serving(folder, allowed_hosts=("localhost", "shop.example")) as named:
        assert named.get(f"{API}/health", headers={"Host": "shop.example:443"}).status_code == 200
        problem(
            named.get(f"{API}/health", headers={"Host": "127.0.0.1"}),
            400,
            "the host is '127.0.0.1'",
        )
        assert named.get(f"{API}/config").json()["config"]["service"]["allowed_hosts"] == [
            "localhost",
            "shop.example",
        ]
    with serving(folder, allowed_hosts=("*",)) as opened:
        assert {
            opened.get(f"{API}/health", headers={"Host": host}).status_code
            for host in ("any.example", "[::2]:1")
        } == {200}


@pytest.mark.spec("S5-50")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("shop.example", ("shop.example",)),
        ('["Shop.example", "[::1]"]', ("shop.example", "::1")),
        (" a.example , 10.0.0.5 ", ("a.example", "10.0.0.5")),
        ("*", ("*",)),
        ("", LOOPBACK),
    ],
)
def test_allowed_hosts_are_a_json_or_a_comma_list(text: str, names: tuple) -> None:
    result = Settings.from_env({"ALLOWED_HOSTS": text})
    assert result.allowed_hosts == names
    started = result.placed(Path("there"), "0.0.0.0")
    assert started.allowed_hosts == (names if text else (*LOOPBACK, "0.0.0.0"))
    assert started.model_path == Path("there")
    assert result.placed(Path("there"), "localhost").allowed_hosts == names


@pytest.mark.spec("S5-50")
@pytest.mark.parametrize(
    "text", ["http://shop.example", "shop.example:8000", "a.example,b.example/path", "[", "[]", ","]
)
def test_a_bad_list_of_hosts_is_an_error(text: str) -> None:
    with pytest.raises(LabError, match="ALLOWED_HOSTS"):
        Settings.from_env({"ALLOWED_HOSTS": text})


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost:9999",
        "http://localhost.evil.example",
        "null",
        "",
        "http://[",
        "https://localhost@evil.example",
        "http://evil-localhost",
    ],
)
def test_a_page_of_another_site_writes_nothing(client: TestClient, origin: str) -> None:
    queue = client.app.state.service.online.queue
    tables = [queue.read(f"SELECT COUNT(*) AS n FROM {name}")["n"][0] for name in ("events", "log")]
    version = client.get(f"{API}/health").json()["model_version"]
    for path, body in [*WRITES, ("/recommendations", {"user_id": "u"})]:
        problem(
            client.post(f"{API}{path}", json=body, headers={"Origin": origin}),
            403,
            f"the origin is {origin!r}: a page of another site may not write",
        )
    assert [
        queue.read(f"SELECT COUNT(*) AS n FROM {name}")["n"][0] for name in ("events", "log")
    ] == tables
    assert client.get(f"{API}/health").json()["model_version"] == version
    read = client.get(f"{API}/recommendations/u", headers={"Origin": origin})
    assert read.status_code == 200
    # its browser keeps the answer from the page
    assert "access-control-allow-origin" not in read.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost"},
        {"Origin": "http://localhost:8765", "Host": "localhost:8765"},
        {"Origin": "https://LOCALHOST"},
        {"Origin": "http://[::1]:80", "Host": "[::1]:80"},
    ],
    ids=str,
)
def test_its_own_pages_and_programs_without_origin_write(client: TestClient, headers: dict) -> None:
    for path, body in WRITES:
        assert client.post(f"{API}{path}", json=body, headers=headers).status_code == 200


def test_cors_origins_may_write(folder: Path) -> None:
    with serving(folder, cors_origins=("https://shop.example",)) as opened:
        answer = opened.post(
            f"{API}/events", json={"events": [EVENT]}, headers={"Origin": "https://shop.example"}
        )
        assert answer.json()["accepted"] == 1
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        problem(
            opened.post(
                f"{API}/events", json={"events": [EVENT]}, headers={"Origin": "http://shop.example"}
            ),
            403,
            "CORS_ORIGINS",
        )
    with serving(folder, cors_origins=("*",)) as opened:
        assert (
            opened.post(f"{API}/reload", headers={"Origin": "https://any.example"}).status_code
            == 200
        )


ODD = [
    "a/b",
    "/a",
    "a/",
    "../x",
    "..",
    ".",
    "100%",
    "what?",
    "a#b",
    "two words",
    " ",
    "a;b=c&d",
    "a/profile",
    "a/similar",
    "a/next",
    "next",
    "explain",
    "profile",
    "similar",
    "popular",
    "anonymous/x",
    "a\u2028b",
    "ü/名",
    "http://a.example/b",
    "{user_id}",
]


def at(text: str) -> str:
    """An id in a path; two dots alone are written out, as clients take them for a way up."""
    return quote(text, safe="").replace(".", "%2E")


@pytest.mark.spec("S5-30")
@pytest.mark.parametrize("odd", ODD)
def test_every_id_reaches_every_path(client: TestClient, odd: str) -> None:
    item = client.get(f"{API}/items/popular").json()["items"][0]["item_id"]
    posted = client.post(
        f"{API}/events",
        json={
            "events": [
                {
                    "user_id": odd,
                    "item_id": item,
                    "event_type": "purchase",
                    "event_id": f"odd {odd}",
                },
                {"user_id": odd, "item_id": odd, "event_type": "cart", "event_id": f"cart {odd}"},
            ]
        },
    )
    assert posted.status_code == 200
    have = client.get(f"{API}/recommendations/{at(odd)}?n=3").json()
    assert have["user_id"] == odd
    assert have["user_info"]["total_purchases"] == 1
    assert have["primary_model"] == "hybrid"
    first = have["recommendations"][0]
    why = client.get(
        f"{API}/recommendations/{at(odd)}/explain", params={"item_id": first["item_id"]}
    ).json()
    assert (why["user_id"], why["rank"], why["relevance_score"]) == (
        odd,
        1,
        first["relevance_score"],
    )
    profile = client.get(f"{API}/users/{at(odd)}/profile").json()
    assert (
        profile["user_id"],
        profile["is_known_user"],
        profile["profile"]["history"][0]["item_id"],
    ) == (odd, True, item)
    problem(
        client.get(f"{API}/items/{at(odd)}/similar"), 404, f"item '{odd}' is not in the catalogue"
    )
    queue = client.get(f"{API}/queue/{at(odd)}").json()
    assert (queue["user_id"], queue["pool"], queue["purchased"], queue["shown"]) == (
        odd,
        [[odd, 0, 3]],
        [item],
        [],
    )
    shown = client.post(f"{API}/queue/{at(odd)}/next?n=2").json()
    assert shown["user_id"] == odd
    assert len(shown["shown"]) == 2
    assert [row["counter"] for row in shown["shown"]] == [1, 1]


@pytest.mark.spec("S5-62")
def test_fixed_paths_are_not_taken_for_ids(client: TestClient) -> None:
    """Declared first: anonymous, popular, explain; what is no path stays 404 or 405."""
    assert client.get(f"{API}/recommendations/anonymous").json()["user_id"] == "anonymous"
    assert client.get(f"{API}/items/popular").json()["count"] == 10
    assert client.get(f"{API}/items").json()["categories"]
    problem(client.get(f"{API}/recommendations/u/explain"), 422, "item_id is missing: add it")
    # Where GET means the explanation.
    assert (
        client.post(f"{API}/recommendations", json={"user_id": "u/explain"}).json()["user_id"]
        == "u/explain"
    )
    for method, path in (
        ("GET", "/users/u"),
        ("GET", "/items/I00001"),
        ("GET", "/users//profile/x"),
    ):
        problem(client.request(method, f"{API}{path}"), 404, "there is no")
    for method, path in (
        ("POST", "/recommendations/u"),
        ("POST", "/queue/u"),
        ("POST", "/recommendations/u/explain"),
        ("GET", "/reload"),
    ):
        problem(client.request(method, f"{API}{path}"), 405, "is not allowed here")


@pytest.mark.spec("S4-20")
def test_looking_at_a_queue_writes_nothing(client: TestClient) -> None:
    queue = client.app.state.service.online.queue
    before = queue.read("SELECT COUNT(*) AS n FROM log")["n"][0]
    client.post(
        f"{API}/events", json={"events": [EVENT | {"user_id": "looker", "item_id": "I00002"}]}
    )
    for _ in range(2):
        assert client.get(f"{API}/queue/looker").json()["shown"] == []
        asked = client.get(f"{API}/queue/looker", params={"advance": True, "n": 3})
        problem(asked, 422, "advance is no parameter here")
    assert queue.read("SELECT COUNT(*) AS n FROM log")["n"][0] == before
    assert len(client.post(f"{API}/queue/looker/next").json()["shown"]) == 3
    assert queue.read("SELECT COUNT(*) AS n FROM log")["n"][0] > before
    for n in ("0", "21", "x"):
        problem(client.post(f"{API}/queue/looker/next?n={n}"), 422, f"n is '{n}'")


@pytest.fixture
def silent() -> Iterator[str]:
    """A program that builds the app while another thread undoes the warning filters, as a loading
    library does, and asks at once.
    """
    yield """
import threading, warnings
from fastapi.testclient import TestClient
warnings.simplefilter("default")
from recsys_utils.serving.app import create_app
app = create_app("nowhere")
def loud(*args, **kw):
    raise SystemExit(f"warned: {args[0]}")
# As if somebody else had just restored the filters.
warnings.catch_warnings.__enter__ = lambda self: None
warnings.catch_warnings.__exit__ = lambda self, *_: None
warnings.simplefilter = lambda *_, **__: None
warnings.warn = loud
client = TestClient(app, "http://localhost")
for path in ("/api/v1/health", "/api/v1/recommendations/u", "/openapi.json"):
    client.get(path)
"""


def test_the_first_requests_do_not_depend_on_process_wide_warning_filters(silent: str) -> None:
    """FastAPI builds routes late, and mutes pydantic by filters that any other thread may restore.

    They are built before.
    """
    done = subprocess.run(
        [sys.executable, "-c", silent], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "UnsupportedFieldAttribute" not in done.stderr, done.stderr


def test_queues_are_set_by_a_file(folder: Path, tmp_path: Path) -> None:
    """Event weights, pool sizes and the number shown; what is wrong in it is named."""
    path = tmp_path / "queue.toml"
    path.write_text("shown = 2\nmin_pool = 4\nmax_pool = 9\n[event_weights]\nview = 7\n")
    chosen = Settings.from_env({"QUEUE_PATH": str(path)}).queue
    with serving(folder, queue=chosen) as client:
        config = client.get(f"{API}/config").json()["config"]
        assert config["queue"] == {"min_pool": 4, "max_pool": 9, "shown": 2}
        assert config["event_weights"] == {"view": 7, "cart": 3, "remove_from_cart": -1}
        view = {"user_id": "set", "item_id": "I00001", "event_type": "view"}
        assert client.post(f"{API}/events", json={"events": [view]}).status_code == 200
        answer = client.post(f"{API}/queue/set/next").json()
        assert len(answer["shown"]) == 2
        assert len(answer["pool"]) == 4
        assert ["I00001", 1, 7] in answer["pool"]
        assert answer["weights"]["view"] == 7
    for text, words in (
        ("shown = 21", "shown is 21: it takes a number of at most 20"),
        ("show = 2", "show is no field here"),
        ("min_pool = 5\nmax_pool = 4", "choose min_pool ≤ max_pool"),
        ("[event_weights]\nstare = 1", "event weight 'stare' is unknown"),
        ("shown =", "cannot be read as TOML"),
    ):
        path.write_text(text)
        with pytest.raises(LabError, match=f"queue.toml.*{words}"):
            Settings.from_env({"QUEUE_PATH": str(path)})
