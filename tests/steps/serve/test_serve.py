"""`raystp serve` as a process over loopback: what comes back over HTTP, and what keeps it from starting."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from ray.serve.schema import ServeDeploySchema

from raystp import cli
from raystp.artifacts import resolve
from raystp.cluster.serving.arrow import STREAM
from raystp.cluster.serving.messages import JsonRequest
from raystp.encoders.encoder import EncoderSpec, encode
from raystp.encoders.registry import build
from raystp.errors import ConfigError
from raystp.steps.impute.imputer import NeighborImputer
from raystp.steps.serve import step as serve
from raystp.steps.serve.answers import ImputeHandler, open_handler
from raystp.steps.serve.config import ServeConfig
from tests.cluster.serving.service_toy import (
    GENES,
    GONE_WITHIN_S,
    ROWS,
    TOKEN,
    Client,
    K,
    Served,
    features,
    make_store,
)
from tests.cluster.serving.service_toy import served as serving
from tests.conftest import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LIMITS = {"body_bytes": 200_000, "tiles": 16, "k": 50, "values": 150, "requests": 24, "deadline_s": 5.0}
SIDE = 224
"""Of the encoder `tiny`, in px; on the toy's slide of 0.5 um/px that is 112 um."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "slides").mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (600, 800, 3), np.uint8)).save(folder / "slides" / "A.png")
    (folder / "secret.png").write_bytes((folder / "slides" / "A.png").read_bytes())
    (folder / "slides" / "link.png").symlink_to(folder / "secret.png")
    return make_store(folder / "store")


@pytest.fixture(scope="module")
def service(store: Path) -> Iterator[Served]:
    values = {
        "encoder": {"name": "tiny"},
        "slides": [str(store.parent / "slides")],
        "side": 112.0,
        "far": 0.5,
        "token": {"env": "TOKEN_OF_TEST"},
        "limits": LIMITS,
        "batch": {"tiles": 64, "wait_ms": 20},
        "run": {"replicas": 1},
    }
    with serving(store, values, TOKEN_OF_TEST=TOKEN) as one:
        yield one


@pytest.fixture
def client(service: Served) -> Client:
    return service.client()


@pytest.fixture(autouse=True)
def _hung_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """Close what a test has opened."""
    yield
    if "service" in request.fixturenames:
        request.getfixturevalue("service").hang_up()


@pytest.fixture(scope="module")
def answers(store: Path) -> ImputeHandler:
    values = {"model": "train/toy", "index": "index/toy", "far": 0.5, "run": {"store": str(store)}}
    return open_handler(ServeConfig.of(values))


@pytest.fixture(scope="module")
def imputer(answers: ImputeHandler) -> NeighborImputer:
    return answers.imputer


def arrow(values: np.ndarray, options: dict[str, Any]) -> bytes:
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    table = pa.table({"features": column}).replace_schema_metadata({b"raystp": json.dumps(options).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


# ---- answers


@pytest.mark.parametrize("weights", ["mean", "top1", "softmax", "bleep"])
def test_the_answer_over_http_is_the_imputers_own_in_json_and_in_arrow(
    client: Client, imputer: NeighborImputer, weights: str
) -> None:
    tiles, wanted = features(4, seed=9), ["G7", "G0", "G3"]
    options = {"genes": wanted, "k": K, "weights": weights, "spread": True, "neighbours": True}
    own = NeighborImputer(imputer.model, imputer.bank, imputer.metric, weights)
    found, columns = own.find(tiles, K), own.columns(wanted)
    expression = own.expression(found, columns)
    spread = own.spread(found, expression, columns)

    said = client.impute({"embeddings": tiles.tolist(), **options})
    assert (said.status, said.headers["content-type"]) == (200, "application/json")
    told = said.values
    assert told["genes"] == wanted
    np.testing.assert_allclose(told["expression"], expression, rtol=1e-5)
    np.testing.assert_allclose(told["spread"], spread, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(told["distance"], own.distance(found), atol=1e-5)
    assert told["far"] == (own.distance(found) > 0.5).tolist()
    assert told["neighbours"]["rows"] == found.rows.tolist()
    assert told["neighbours"]["spots"] == [[f"s{row}" for row in line] for line in found.rows.tolist()]
    assert told["neighbours"]["sections"] == [["A1" if r < ROWS // 2 else "B1" for r in line] for line in found.rows]

    said = client.impute(arrow(tiles, options), {"content-type": STREAM, "accept": STREAM})
    assert (said.status, said.headers["content-type"]) == (200, STREAM)
    table = pa.ipc.open_stream(said.content).read_all()
    assert json.loads(table.schema.metadata[b"raystp"])["genes"] == wanted
    np.testing.assert_allclose(table["expression"].to_pylist(), expression, rtol=1e-5)
    assert table["rows"].to_pylist() == found.rows.tolist()


def test_all_genes_come_where_none_are_named_and_nothing_of_no_tiles(client: Client) -> None:
    assert client.impute({"embeddings": features(1, 0).tolist(), "k": K}).values["genes"] == GENES
    assert client.impute({"embeddings": [], "k": K}).values == {
        "genes": GENES,
        "expression": [],
        "distance": [],
        "far": [],
    }


def test_a_patient_who_is_left_out_is_no_neighbour(client: Client) -> None:
    body = {"embeddings": features(8, 4).tolist(), "genes": GENES[:3], "k": 20, "neighbours": True}
    everybody, without = (client.impute(body | {"without": patients}).values for patients in ([], ["P1"]))
    assert {s for line in everybody["neighbours"]["sections"] for s in line} == {"A1", "B1"}
    assert {s for line in without["neighbours"]["sections"] for s in line} == {"B1"}


def test_pixels_are_encoded_as_the_encoder_would(client: Client, imputer: NeighborImputer) -> None:
    tiles = np.random.default_rng(5).integers(0, 2, (2, SIDE, SIDE, 3), np.uint8) * np.uint8(200)
    found = imputer.find(encode(build(EncoderSpec("tiny")), tiles, device="cpu"), K)
    said = client.impute({"pixels": [_png(tile) for tile in tiles], "genes": GENES[:2], "k": K})
    assert said.status == 200, said.content
    np.testing.assert_allclose(
        said.values["expression"], imputer.expression(found, imputer.columns(GENES[:2])), rtol=1e-4
    )


def test_a_region_of_a_slide_is_read_tile_by_tile_from_the_left(
    client: Client, imputer: NeighborImputer, store: Path
) -> None:
    picture = np.asarray(Image.open(store.parent / "slides" / "A.png"))
    region = {"x": 10, "y": 20, "tiles": [3, 2], "mpp": 0.5}
    said = client.impute({"slide": "A.png", "region": region, "genes": ["G0"], "k": K})
    assert said.status == 200, said.content
    squares = [[10 + SIDE * column, 20 + SIDE * row, SIDE] for row in range(2) for column in range(3)]
    assert said.values["squares"] == squares
    whole = np.pad(picture, ((0, 100), (0, 100), (0, 0)), constant_values=255)
    tiles = np.stack([whole[y : y + side, x : x + side] for x, y, side in squares])
    found = imputer.find(encode(build(EncoderSpec("tiny")), tiles, device="cpu"), K)
    np.testing.assert_allclose(said.values["expression"], imputer.expression(found, imputer.columns(["G0"])), rtol=1e-4)


def test_questions_that_come_together_are_answered_together_each_as_if_it_were_alone(service: Served) -> None:
    bodies = [
        {"embeddings": features(1 + n % 3, n).tolist(), "genes": [GENES[n % 4]], "k": 1 + n % 4} for n in range(64)
    ]
    alone = service.client()
    expected = [alone.impute(body).values["expression"] for body in bodies]

    def ask(part: list[Any]) -> list[Any]:
        one = service.client()
        return [one.impute(body) for body in part]

    with ThreadPoolExecutor(16) as pool:
        said = [one for part in pool.map(ask, [bodies[n : n + 4] for n in range(0, 64, 4)]) for one in part]
    for one, wanted in zip(said, expected, strict=True):
        assert one.status == 200, one.content
        np.testing.assert_allclose(one.values["expression"], wanted, rtol=1e-5)
    joined = [int(one.headers["x-raystp-batch"]) for one in said]
    assert max(joined) > 1
    text = alone.ask("GET", "/metrics").content.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    counts = {what.partition("{")[0]: float(number) for what, _, number in lines}
    assert counts["raystp_batch_requests_count"] < counts["raystp_batch_requests_sum"]
    assert 'status="200"' in text
    assert counts["raystp_seconds_count"] >= 128


def test_a_question_that_cannot_be_answered_takes_no_other_along(answers: ImputeHandler) -> None:
    from raystp.cluster.serving.messages import ImputeRequest, RequestOptions  # noqa: PLC0415 -- of this test alone

    options = RequestOptions(k=K, genes=["G0"])
    good = [answers.prepare(ImputeRequest(options, features(2, n))) for n in range(3)]
    bad = answers.prepare(
        ImputeRequest(options, np.full((1, 128), 3e38, np.float32))
    )  # finite, and its embedding is not
    alone = [answers.answer([one])[0] for one in good]
    together = answers.answer([good[0], bad, good[1], good[2]])
    assert isinstance(together[1], Exception)
    for own, other in zip(alone, [together[0], *together[2:]], strict=True):
        np.testing.assert_allclose(own.expression, other.expression, rtol=1e-5)  # type: ignore[union-attr]  # answers


# ---- refusals


def _png(tile: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(tile).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


ROW = [0.5] * 128
REGION = {"x": 0, "y": 0, "mpp": 0.5}
REFUSALS: list[tuple[Any, int, str]] = [
    (b"", 400, "the body is not JSON: EOF"),
    (b'{"embeddings": [[', 400, "the body is not JSON: EOF"),
    ({"k": 5}, 422, "one of `embeddings`, `pixels`, or `slide` with `region` is wanted, got none"),
    ({"embeddings": [[1.0, 2.0]], "k": 5}, 422, "embeddings: the model reads rows of 128 values, these are 2 long"),
    (
        {"embeddings": [ROW, [*ROW[:-1], float("nan")]]},
        422,
        "1 of 2 tiles hold nan or infinity (the first is number 1)",
    ),
    ({"embeddings": [[*ROW[:-1], 1e300]]}, 422, "1 of 1 tiles hold nan or infinity (the first is number 0)"),
    ({"embeddings": [ROW], "genes": ["G0", "TP53"]}, 422, "the bank has no genes 'TP53'; it has 12, such as G0, G1"),
    ({"embeddings": [ROW], "k": 51}, 422, "k: 51 neighbours were asked for, at most 50 are searched"),
    ({"embeddings": [ROW], "k": 40, "without": ["P1"]}, 422, "k = 40 neighbours were asked of a bank with 30 rows"),
    ({"embeddings": [ROW], "weights": "median"}, 422, "weights: there are mean, top1, softmax, bleep, got 'median'"),
    ({"embeddings": [ROW] * 17, "k": 5, "genes": ["G0"]}, 413, "17 tiles were sent, at most 16 are answered at a time"),
    ({"embeddings": [ROW] * 16, "k": 5}, 422, "16 tiles x 12 genes are more than 150 values"),
    ({"embeddings": [ROW], "secret": 1}, 422, "secret: Extra inputs are not permitted"),
    ({"pixels": ["%%%"]}, 422, "pixels: picture number 0 is not base64"),
    ({"pixels": ["aGVsbG8="]}, 422, "pixels: picture number 0 is no PNG or JPEG that can be decoded"),
    (
        {"pixels": [_png(np.zeros((9, 8, 3), np.uint8))]},
        422,
        "is 8 x 9 px, RGB; the encoder takes 8-bit RGB of 224 x 224",
    ),
    ({"slide": "none.png", "region": REGION}, 404, "there is no slide 'none.png' here"),
    ({"slide": "../secret.png", "region": REGION}, 404, "there is no slide '../secret.png' here"),
    ({"slide": "link.png", "region": REGION}, 404, "there is no slide 'link.png' here"),
    ({"slide": "/etc/passwd", "region": REGION}, 404, "there is no slide '/etc/passwd' here"),
    ({"slide": "A.png", "region": {"x": 0, "y": 0}}, 422, "um/px"),
    (
        {"slide": "A.png", "region": REGION | {"x": 9000}},
        422,
        "region: a tile lies outside slide 'A.png', which is 800",
    ),
    ({"slide": "A.png", "region": REGION | {"tiles": [400, 400]}}, 413, "160,000 tiles were sent"),
]


@pytest.mark.parametrize(("body", "status", "said"), REFUSALS, ids=lambda value: str(value)[:40])
def test_a_wrong_request_gets_its_status_and_a_sentence(client: Client, body: Any, status: int, said: str) -> None:
    answer = client.impute(body)
    assert (answer.status, said in answer.error) == (status, True), answer.content
    assert "Traceback" not in answer.error
    assert str(ROOT) not in answer.error


def test_what_is_neither_json_nor_arrow_is_refused(client: Client) -> None:
    answer = client.impute(b"a,b", {"content-type": "text/csv"})
    assert (answer.status, answer.error) == (
        415,
        "content-type: application/json and application/vnd.apache.arrow.stream are read, got text/csv",
    )
    assert client.impute(b"abc", {"content-type": STREAM}).status == 400


def test_paths_and_methods_that_are_not_there_are_told(client: Client) -> None:
    assert (client.ask("GET", "/v2").status, client.ask("GET", "/v1/impute").status) == (404, 405)
    assert client.ask("GET", "/v2").error.startswith("there is no '/v2' here; there are /v1/impute")
    assert client.ask("DELETE", "/v1/info").error == "/v1/info does not take DELETE"


def test_nobody_is_answered_without_the_token_but_health(service: Served) -> None:
    for one in (service.client(None), service.client("another-token-than-that")):
        answer = one.impute({"embeddings": [ROW]})
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="raystp"')
        assert [one.ask("GET", path).status for path in ("/v1/info", "/metrics", "/openapi.json")] == [401] * 3
        assert [one.ask("GET", path).status for path in ("/healthz", "/readyz")] == [200] * 2
    assert TOKEN not in "\n".join(service.lines)


def test_a_body_of_a_gigabyte_is_refused_while_it_comes_and_is_never_held(service: Served) -> None:
    before = service.rss()
    head = f"POST /v1/impute HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    for length, chunk in (("Content-Length: 1000000000", b"x" * 65536), ("Transfer-Encoding: chunked", b"")):
        began, sent = time.monotonic(), 0
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as one:
            one.sendall(f"{head}{length}\r\n\r\n".encode())
            try:
                while sent < 1_000_000_000:
                    one.sendall(chunk or b"10000\r\n" + b"x" * 65536 + b"\r\n")
                    sent += 65536
            except OSError:
                pass  # the service has hung up, as it should
            assert b" 413 " in one.recv(4096).partition(b"\r\n")[0]
        assert sent < 200_000_000
        assert time.monotonic() - began < 15
        assert service.rss() - before < 100 << 20
    assert service.client().ask("GET", "/v1/info").status == 200


def test_a_client_that_dribbles_is_cut_off_and_keeps_nobody_waiting(service: Served) -> None:
    head = f"POST /v1/impute HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    body = [socket.create_connection(("127.0.0.1", service.port), timeout=30) for _ in range(6)]
    heads = [socket.create_connection(("127.0.0.1", service.port), timeout=30) for _ in range(6)]
    began = time.monotonic()
    for one in body:
        one.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    for one in heads:
        one.sendall(b"POST /v1/impute HTTP/1.1\r\nHost: ")
    assert service.client().impute({"embeddings": [ROW], "k": K}).status == 200
    assert all(b" 408 " in one.recv(4096).partition(b"\r\n")[0] for one in body)
    assert all(not one.recv(4096) for one in heads)  # an end without a word: there was no request
    assert 4 < time.monotonic() - began < 20
    for one in body + heads:
        one.close()


def test_more_requests_than_fit_are_told_to_come_again(service: Served) -> None:
    gate = threading.Barrier(60)

    def ask(_: int) -> tuple[int, str]:
        one = service.client()
        gate.wait(30)
        answer = one.impute({"embeddings": [ROW] * 12, "k": K})
        return answer.status, answer.headers.get("retry-after", "")

    with ThreadPoolExecutor(60) as pool:
        seen = set(pool.map(ask, range(60)))
    assert seen <= {(200, ""), (503, "1")}
    assert (200, "") in seen
    assert service.client().impute({"embeddings": [ROW], "k": K}).status == 200


# ---- what it says of itself


def test_the_service_says_what_it_is(client: Client, store: Path) -> None:
    told = client.ask("GET", "/v1/info").values
    assert told["model"] == resolve(str(store), "train/toy", "train").manifest.folder
    assert (told["genes"], told["rows"], told["metric"], told["protocol"]) == (GENES, ROWS, "cosine", "patient")
    assert told["limits"] == LIMITS | {"genes": 25_000}
    assert told["reads"] == ["embeddings", "pixels", "slide"]
    assert {"raystp", "ray", "torch"} <= set(told["versions"])


def test_the_description_is_openapi_whose_references_lead_somewhere(client: Client) -> None:
    described = client.ask("GET", "/openapi.json").values
    assert described["openapi"].startswith("3.")
    body = described["paths"]["/v1/impute"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", STREAM}
    assert set(described["components"]["schemas"]["JsonRequest"]["properties"]) == set(JsonRequest.model_fields)
    text = json.dumps(described)
    for reference in {part.partition('"')[0] for part in text.split('"$ref": "')[1:]}:
        at = described
        for word in reference.removeprefix("#/").split("/"):
            at = at[word]
    answers = described["paths"]["/v1/impute"]["post"]["responses"]
    assert {"200", "400", "401", "404", "413", "415", "422", "503", "504"} <= set(answers)


# ---- beginning and end


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGTERM])
def test_it_ends_within_seconds_with_status_0(store: Path, how: signal.Signals) -> None:
    with serving(store, {"run": {"actors": 2, "replicas": 2, "cpus": 0.5}}) as one:
        told = one.client(None).impute({"embeddings": [ROW], "k": K})
        assert told.status == 200, told.content
        assert one.stop(how) == 0
    assert one.ended_s < GONE_WITHIN_S
    assert "no token is wanted" in one.lines[0]
    assert one.lines[-2] == f"serve: http://127.0.0.1:{one.port} was served, and is no longer"
    assert json.loads(one.lines[-1])["status"] == "done"


def refused(*overrides: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["serve", *(word for one in overrides for word in ("--set", one))]) == 1
    return capsys.readouterr().err


def test_a_model_and_an_index_of_another_do_not_start(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused("model=train/other", "index=index/toy", f"run.store={store}", capsys=capsys)
    toy, other = (resolve(str(store), f"train/{name}", "train").manifest.folder for name in ("toy", "other"))
    assert said.startswith("ModelError: the index ")
    assert f"was made with model {toy}, not with {other}: make one with this model, or serve that one" in said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["run.host=0.0.0.0"], "run.host 0.0.0.0 is not loopback, so a token is wanted: set token.file or token.env"),
        (["run.host='::'"], "run.host :: is not loopback, so a token is wanted"),
        (
            ["token.env=NO_SUCH_TOKEN"],
            "the environment variable NO_SUCH_TOKEN of the token cannot be read: it is not set",
        ),
        (["token.env=A", "token.file=/b"], "a token has one place: a file, or an environment variable"),
        (["slides=[/tmp]"], "slides are read with an `encoder` and tiles of a `side` in um: give both"),
        (["limits.tiles=9999"], "batch.tiles 2048 would not hold a request of limits.tiles 9999"),
        (
            ["encoder.name=resnet50", "encoder.random=true"],
            "reads 128 features of encoder 'tiny', got encoder 'resnet50'",
        ),
        (["index=index/none"], "no artifact 'index/none'"),
    ],
)
def test_what_is_amiss_is_told_before_serve_starts(
    store: Path, overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert said in refused("model=train/toy", "index=index/toy", f"run.store={store}", *overrides, capsys=capsys)
    assert time.monotonic() - began < 20


def test_the_service_in_serves_own_schema_is_one(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    file = tmp_path / "serve.yaml"
    words = ["model=train/toy", "index=index/toy", f"run.store={store}", f"token.file={tmp_path / 'token'}"]
    words += [f"run.written={file}", "run.host=0.0.0.0", "run.port=8123", "run.replicas=3", "limits.requests=9"]
    assert cli.main(["serve", *(word for one in words for word in ("--set", one))]) == 0
    assert f"serve: {file} holds the service in Ray Serve's schema: serve deploy {file}\n" in capsys.readouterr().out
    assert TOKEN not in file.read_text()
    schema = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    (one,) = schema.applications
    assert (schema.http_options.host, schema.http_options.port, one.name) == ("0.0.0.0", 8123, "raystp")
    assert (one.deployments[0].num_replicas, one.deployments[0].max_queued_requests) == (3, 9)
    module, _, name = one.import_path.partition(":")
    assert (module, getattr(serve, name)) == (serve.__name__, serve.build)
    application = serve.build(one.args)
    assert {"Replica"} == {application._bound_deployment.name}
    with pytest.raises(ConfigError, match="may be reached from anywhere: set token"):
        serve.build({key: value for key, value in one.args.items() if key != "token"} | {"run": {"store": str(store)}})
    monkeypatch.chdir(tmp_path)
    assert "is relative" in refused(*words[:2], "run.store=store", "run.written=a.yaml", capsys=capsys)


def test_a_port_that_is_taken_is_told(store: Path, capsys: pytest.CaptureFixture[str], ray_session: None) -> None:  # noqa: ARG001 -- Ray must be up
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        said = refused("model=train/toy", "index=index/toy", f"run.store={store}", f"run.port={port}", capsys=capsys)
    assert f"run.port: 127.0.0.1:{port} cannot be listened on (Address already in use); another would do" in said


@pytest.mark.faults
def test_a_file_of_the_bank_that_was_tampered_with_does_not_start(store: Path, tmp_path: Path) -> None:
    import shutil  # noqa: PLC0415 -- of this test alone

    shutil.copytree(store, tmp_path / "store")
    index = resolve(str(tmp_path / "store"), "index/toy", "index").path.local_path
    (shard, *_) = sorted(index.glob("shard-*expression*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    words = [sys.executable, "-m", "raystp.cli", "serve", "--set", "model=train/toy", "--set", "index=index/toy"]
    words += ["--set", f"run.store={tmp_path / 'store'}"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ}, check=False, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("ArtifactError: ")]
    assert shard.name in line
