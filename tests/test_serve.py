"""The service answers as the index does, and refuses in one line what it cannot answer."""

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import nearkin as nk
from nearkin.app.main import main
from nearkin.app.serve import listening
from nearkin.search import service as module
from nearkin.search.embedder import embedder_of
from nearkin.search.service import Service
from test_index import COLOURS, folder, model, photograph, shop  # noqa: F401 - fixtures


@pytest.fixture
def client(shop):  # noqa: F811
    with TestClient(Service(embedder_of(shop.model), shop).app()) as client:
        yield client


@pytest.fixture
def green(tmp_path) -> bytes:
    photograph(tmp_path / "new.png", COLOURS["green"], 99)
    return (tmp_path / "new.png").read_bytes()


def test_search_answers_as_the_index_does(client, shop, green, tmp_path):  # noqa: F811
    (expected,) = shop.search([tmp_path / "new.png"], k=4)
    found = client.post("/search?k=4", content=green).json()
    assert [hit["path"] for hit in found["hits"]] == [hit.path for hit in expected.hits]
    assert [hit["similarity"] for hit in found["hits"]] == [h.similarity for h in expected.hits]
    assert (found["label"], found["share"], found["known"]) == ("green", 1.0, None)
    assert found["similarity"] == "cosine"
    only = client.post("/search?label=red", content=green).json()
    assert {hit["label"] for hit in only["hits"]} == {"red"}


def test_embed_gives_the_models_embedding(client, shop, green, tmp_path):  # noqa: F811
    found = client.post("/embed", content=green).json()
    expected = shop.model.embed([tmp_path / "new.png"])[0]
    assert np.allclose(found["embedding"], expected, atol=1e-6)
    assert found["identity"] == shop.description.identity


def test_many_at_once_get_each_their_own_answer(shop, tmp_path):  # noqa: F811
    bodies = []
    for i, colour in enumerate([*COLOURS.values()] * 4):
        photograph(tmp_path / "many" / f"{i}.png", colour, 100 + i)
        bodies.append((tmp_path / "many" / f"{i}.png").read_bytes())
    with TestClient(Service(embedder_of(shop.model), shop).app()) as client:
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda b: client.post("/search?k=3", content=b).json(), bodies))
        labels = [answer["label"] for answer in found]
        assert labels == [*COLOURS] * 4
        text = client.get("/metrics").text
    assert 'nearkin_requests_total{path="/search",status="200"} 12.0' in text
    assert "nearkin_items 15.0" in text


def test_what_else_it_tells(client, shop):  # noqa: F811
    health = client.get("/healthz").json()
    assert (health["status"], health["items"], health["dim"]) == ("ok", 15, 6)
    path = shop.vectors()[0][0]
    thumbnail = client.get("/thumbnail", params={"path": path})
    assert Image.open(io.BytesIO(thumbnail.content)).format == "JPEG"
    assert client.get("/thumbnail", params={"path": "/etc/passwd"}).status_code == 404
    told = client.get("/openapi.json").json()
    served = {"/search", "/embed", "/thumbnail", "/healthz", "/metrics"}
    assert set(told["paths"]) == served
    for name in ("/", "/page.css", "/page.js"):
        page = client.get(name)
        assert page.status_code == 200
        assert not re.search(r"(src|href)=.https?:", page.text)  # nothing from elsewhere
        assert "default-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/search", b"", 400, "picture's bytes"),
        ("/search", b"not a picture", 422, "the body: not a picture"),
        ("/search?k=0", b"x", 400, "k must be in 1..1000"),
        ("/search?k=many", b"x", 400, "k must be in 1..1000"),
        ("/search?k=%C2%B2", b"x", 400, "k must be in 1..1000"),
        ("/search?label=nowhere", None, 404, "no photograph of label 'nowhere'"),
        ("/embed", b"GIF89a", 422, "the body"),
        ("/embed", b"%!PS-Adobe-3.0", 422, "the body: not a picture"),
    ],
)
def test_bad_requests_are_refused_in_words(client, green, path, body, status, words):
    answer = client.post(path, content=green if body is None else body)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert "/tmp" not in answer.text
    assert client.post("/search", content=green).status_code == 200  # and it goes on


@pytest.mark.parametrize("query", ["k=1&k=2", "label=red&label=blue", "k=1&k=1"])
def test_a_parameter_that_is_given_twice_is_refused(client, green, query):
    answer = client.post(f"/search?{query}", content=green)
    assert answer.status_code == 400
    assert "is given 2 times, wanted once" in answer.json()["error"]


def test_an_index_that_was_moved_away_is_one_line(shop, green, tmp_path, capsys):  # noqa: F811
    with TestClient(Service(embedder_of(shop.model), shop).app()) as client:
        shop.path.rename(tmp_path / "elsewhere")
        answer = client.get("/thumbnail", params={"path": "x"})
        assert answer.status_code == 500
        assert answer.json() == {"error": "the service failed; its log says why"}
        said = capsys.readouterr().err
        assert said.startswith("nearkin: /thumbnail: ")
        assert len(said.splitlines()) == 1
        (tmp_path / "elsewhere").rename(shop.path)
        assert client.post("/search?k=1", content=green).status_code == 200


def test_a_bomb_is_refused_before_it_is_decoded(client):
    from zlib import compress, crc32

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + crc32(kind + data).to_bytes(4, "big")

    side = (60_000).to_bytes(4, "big")
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", side + side + bytes([8, 2, 0, 0, 0]))
    bomb += chunk(b"IDAT", compress(bytes(1000))) + chunk(b"IEND", b"")
    answer = client.post("/embed", content=bomb)
    assert answer.status_code == 422
    assert "too large" in answer.json()["error"]


def test_large_and_slow_bodies_are_refused(shop, green, monkeypatch):  # noqa: F811
    made = Service(embedder_of(shop.model), shop, body_bytes=100_000)
    monkeypatch.setattr(module, "BODY_SECONDS", 0.5)

    def slow():
        yield green[:100]
        time.sleep(1.0)
        yield green[100:]

    with TestClient(made.app()) as client:
        assert client.post("/search", content=bytes(100_001)).status_code == 413
        pieces = (bytes(60_000) for _ in range(2))  # of unknown length
        assert client.post("/search", content=pieces).status_code == 413
        assert client.post("/search", content=green).status_code == 200


def test_a_full_queue_turns_away(shop, green, monkeypatch):  # noqa: F811
    monkeypatch.setattr(module, "WAITING", 1)
    free = threading.Event()
    embedder = embedder_of(shop.model)
    real = embedder.embed

    def held(pixels):
        free.wait(10)
        return real(pixels)

    object.__setattr__(embedder, "embed", held)
    with TestClient(Service(embedder, shop).app()) as client, ThreadPoolExecutor(6) as pool:
        sent = [pool.submit(client.post, "/search", content=green) for _ in range(6)]
        deadline = time.monotonic() + 10
        while not any(s.done() for s in sent) and time.monotonic() < deadline:
            time.sleep(0.02)
        free.set()
        found = sorted(s.result().status_code for s in sent)
    assert found[0] == 200
    assert found[-1] == 503


def test_a_fault_of_the_model_is_heard_by_all_who_wait(shop, green):  # noqa: F811
    embedder = embedder_of(shop.model)

    def broken(pixels):
        raise RuntimeError("no more memory")

    object.__setattr__(embedder, "embed", broken)
    with TestClient(Service(embedder, shop).app()) as client:
        answer = client.post("/search", content=green)
        assert (answer.status_code, answer.json()["error"]) == (500, "no more memory")
        assert client.get("/healthz").status_code == 200


def test_the_key_opens_all_but_the_page(shop, green):  # noqa: F811
    made = Service(embedder_of(shop.model), shop, key="s3cret")
    with TestClient(made.app()) as client:
        for key in ("", "Bearer s3cre", "Bearer ß"):
            sent = [(b"authorization", key.encode())]
            assert client.post("/search", content=green, headers=sent).status_code == 401
            assert client.get("/metrics", headers=sent).status_code == 401
        right = {"authorization": "Bearer s3cret"}
        assert client.post("/search", content=green, headers=right).status_code == 200
        assert client.get("/").status_code == client.get("/healthz").status_code == 200


def test_other_hosts_names_are_refused(shop, green):  # noqa: F811
    """A page elsewhere whose name is made to mean this machine cannot ask."""
    made = Service(embedder_of(shop.model), shop, hosts=("127.0.0.1", "localhost"))
    with TestClient(made.app(), base_url="http://evil.example") as client:
        assert client.post("/search", content=green).status_code == 400
    with TestClient(made.app(), base_url="http://127.0.0.1:9999") as client:
        assert client.post("/search", content=green).status_code == 200


def test_a_model_alone_embeds_and_does_not_search(green):
    with TestClient(Service(embedder_of(model())).app()) as client:
        assert len(client.post("/embed", content=green).json()["embedding"]) == 6
        assert client.post("/search", content=green).status_code == 404
        assert client.get("/healthz").json()["items"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "can be reached by others"),
        (["--port", "65536"], "0..65535"),
        (["--max-megabytes", "0"], "1..4096"),
        (["--api-key-file", "nowhere"], "nowhere"),
        (["--host", "not an address", "--api-key-file", "key"], "not an address"),
    ],
)
def test_wrong_words_are_refused(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEARKIN_API_KEY", raising=False)
    (tmp_path / "key").write_text("s3cret\n")
    model().save(tmp_path / "model")
    with pytest.raises(SystemExit) as left:
        main(["serve", "model", *words])
    captured = capsys.readouterr()
    assert left.value.code == 2
    assert said in captured.err
    assert captured.err.count("\n") == 1


@pytest.fixture
def served(shop, tmp_path):  # noqa: F811
    """A service in a process of its own: its port."""
    words = [sys.executable, "-m", "nearkin", "serve", str(tmp_path / "shop"), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    first = process.stdout.readline()
    yield int(re.findall(r"http://127.0.0.1:(\d+)", first)[0]), process
    process.kill()
    process.communicate()


def ask(port: int, body: bytes, path: str = "/search?k=3") -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", path, body)
        with connection.getresponse() as answer:
            return answer.status


def test_a_process_under_load(served, green):
    """200 at once, a body of 1 GB, clients that say nothing, and then the end in a second."""
    port, process = served
    assert ask(port, green) == 200
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for each in silent:
        each.sendall(b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nx")
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: ask(port, green), range(200)))
    assert found == [200] * 200
    with socket.create_connection(("127.0.0.1", port), timeout=20) as large:
        head = f"POST /embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {2**30}\r\n\r\n"
        large.sendall(head.encode() + bytes(1000))
        assert b" 413 " in large.recv(1000).splitlines()[0]
    for each in silent:
        each.close()
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert time.monotonic() - begun < 10


def test_a_port_that_is_taken(tmp_path, capsys):
    model().save(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as left:
            main(["serve", str(tmp_path / "model"), "--port", str(port)])
    assert left.value.code == 2
    assert f"127.0.0.1:{port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_answers_body_does_not_wait_for_the_receipt_of_its_head(host):
    try:
        listener = listening(host, 0)
    except OSError:
        pytest.skip(f"{host} is no address of this machine")
    with listener, socket.create_connection(listener.getsockname()[:2]):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_index_served_sees_what_is_added(client, shop, green, tmp_path):  # noqa: F811
    photograph(tmp_path / "more.png", COLOURS["green"], 99)
    nk.Index(tmp_path / "shop").add(tmp_path / "more.png", label="new")
    found = client.post("/search?k=1", content=green).json()
    assert found["hits"][0]["label"] == "new"
    assert json.dumps(found)
