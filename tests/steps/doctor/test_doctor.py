"""doctor: each check says what works, and the next command where something does not; nothing of it stays."""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from raystp import cli
from raystp.encoders.registry import CARDS
from raystp.steps.doctor import machine, services
from raystp.steps.doctor import step as doctor
from raystp.steps.doctor.finding import Finding, findings_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.run_config import TrackedRun
from raystp.storage import StoragePath
from tests.storage.fault_proxy import Proxy


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def _running(handler: type[_Health]) -> Iterator[str]:
    one = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{one.server_port}"
    one.shutdown()
    one.server_close()


@pytest.fixture
def health() -> Iterator[str]:
    with _running(_Health) as address:
        yield address


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_doctor_reports_each_check_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert cli.main(["doctor", "--run.store", str(store)]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {line[9:23].strip(): line.split()[0] for line in lines}
    assert {"Python", "shared memory", "Ray", "GPU", "OpenSlide", "store", "MLflow", "weights", "token"} <= {*found}
    assert [found[name] for name in ("Python", "Ray", "GPU", "OpenSlide", "store")] == ["ok"] * 5
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    assert cli.main(["doctor", "--json", "--run.store", str(store), "--run.tracking", "none"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {*rows[0]} == {"name", "state", "text", "next"}


def test_an_error_has_the_next_command_and_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "ray", lambda _: [])  # this test is about the store
    (tmp_path / "file").write_text("not a folder")
    assert cli.main(["doctor", "--run.store", str(tmp_path / "file" / "store")]) == 1
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("error")]
    assert re.fullmatch(
        r"error +store +.* is not writable: Not a directory: allow writing in it, or choose another one .*", line
    )


def test_a_folder_that_refuses_writing_is_an_error_with_the_reason() -> None:
    (found,) = services.store(TrackedRun(store="/proc/store"))  # refuses root too
    assert (found.state, found.next) == ("error", "allow writing in it, or choose another one with --run.store")
    assert found.text.startswith("/proc/store is not writable: ")


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("PUT", r"is not writable: the store refuses it \(403 AccessDenied\)"),
        ("GET", r"takes a file that cannot be read or removed again: the store refuses it \(403 AccessDenied\)"),
        ("POST", r"takes a file that cannot be read or removed again: the store refuses it \(403 AccessDenied\)"),
    ],
)
def test_an_object_store_that_refuses_one_kind_of_request_is_named_with_the_reason(
    proxied: StoragePath, proxy: Proxy, method: str, text: str
) -> None:
    assert services.store(TrackedRun(store=proxied.uri))[0].state == "ok"
    proxy.add("status", 403, method=method, code="AccessDenied", text="Access Denied")
    (found,) = services.store(TrackedRun(store=proxied.uri))
    assert found.state == "error"
    assert re.search(text, found.text)
    assert found.next.endswith("or choose another one with --run.store")


def test_an_exception_of_a_check_is_an_error_with_its_reason() -> None:
    def broken() -> list[Finding]:
        raise ZeroDivisionError("x")

    (finding,) = findings_of("GPU", broken, "install a driver")
    assert (finding.state, finding.next) == ("error", "install a driver")
    assert finding.text.startswith("ZeroDivisionError: x")


def test_mlflow_is_asked_for_its_state(health: str, tmp_path: Path) -> None:
    def state(**values: str) -> str:
        (finding,) = services.tracking(TrackedRun(**{"store": str(tmp_path), **values}))
        assert bool(finding.next) == (finding.state != "ok")
        return finding.state

    assert state() == "ok"
    assert state(tracking="none") == "ok"
    assert state(tracking=health) == "ok"
    assert state(tracking=health.replace("//", "//user:secret@")) == "ok"
    assert state(tracking=f"{health}/elsewhere") == "warning"
    assert state(tracking="http://127.0.0.1:9") == "warning"
    assert state(store="s3://bucket/x") == "warning"


def test_no_token_is_a_warning_and_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (given,) = services.tokens()
    assert given.state == "ok"
    assert "hf_secret" not in given.line()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    (absent,) = services.tokens()
    assert (absent.state, absent.next) == ("warning", "run `hf auth login`, or set HF_TOKEN")


def test_weights_in_the_cache_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "cached_file", lambda card: Path("w") if card.name == "uni_v2" else None)
    (found,) = services.weights()
    assert (found.state, "'uni_v2'" in found.text) == ("ok", True)
    monkeypatch.setattr(services, "cached_file", lambda _: None)
    (absent,) = services.weights()
    assert absent.state == "warning"
    assert f"none of {len(CARDS)} " in absent.text


@pytest.mark.parametrize(
    ("values", "state", "text"),
    [
        ({"name": "tiny"}, "ok", "tiny: seed:0"),
        ({"name": "uni_v2"}, "error", "uni_v2 is not in the hub's cache, is gated, and no token is set: accept its"),
        (
            {"name": "resnet50"},
            "warning",
            "resnet50 is not in the hub's cache: it is downloaded at first use: that needs a network",
        ),
        ({"name": "ctranspath"}, "error", "ctranspath is on no hub: give encoder.weights=FILE"),
        ({"name": "uni_v2", "weights": "/none/w.safetensors"}, "error", "cannot read /none/w.safetensors: "),
        (
            {"name": "timm:resnet18"},
            "warning",
            "timm:resnet18 (hub:resnet18:a1_in1k) is downloaded at first use, unless",
        ),
        ({"trained": "train/none"}, "error", "no artifact 'train/none' in /none"),
        ({"name": "uni_v3"}, "error", "unknown encoder 'uni_v3'"),
    ],
)
def test_weights_of_an_encoder_that_are_missing_are_an_error_with_the_next_command(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], state: str, text: str
) -> None:
    monkeypatch.setattr(services, "cached_file", lambda _: None)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    config = EncoderConfig.model_validate(values)
    (found,) = findings_of("encoder", lambda: services.encoder(config, "/none"), "correct encoder.weights")
    assert found.state == state
    assert text in found.line()
    assert bool(found.next) == (state != "ok")


@pytest.mark.parametrize(("status", "code"), [(401, ""), (403, "GatedRepo"), (401, "GatedRepo")])
def test_a_wrong_token_is_refused_by_the_hub_and_named(monkeypatch: pytest.MonkeyPatch, status: int, code: str) -> None:
    """A hub on loopback that refuses every token."""

    class Hub(_Health):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", "Invalid credentials in Authorization header")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 -- the base class's name

    with _running(Hub) as address:
        api = huggingface_hub.HfApi(endpoint=address, token="hf_wrong")
        monkeypatch.setattr(huggingface_hub, "auth_check", api.auth_check)
        found = services.gated_access()
    assert {one.state for one in found} == {"error"}
    for one in found:
        assert f"the hub refuses this token (status {status})" in one.text
        assert "hf auth login" in one.next
        assert "hf_wrong" not in one.line()


def test_a_gate_that_cannot_be_asked_is_an_error_and_the_others_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9", token="hf_x")  # nothing listens there

    def ask(repository: str) -> None:
        if repository == "MahmoodLab/UNI":
            absent.auth_check(repository)

    monkeypatch.setattr(huggingface_hub, "auth_check", ask)
    found = services.gated_access()
    assert len(found) == len({card.repository for card in CARDS.values() if card.gated})
    (refused,) = [one for one in found if one.state == "error"]
    assert len({one.name for one in found}) == len(found)
    assert "MahmoodLab/UNI: the hub cannot be asked ([Errno 111] Connection refused)" in refused.text


def test_gates_are_asked_only_on_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "ray", lambda _: [])
    monkeypatch.setattr(services, "gated_access", lambda: [Finding("gate", "ok", "open")])
    values = {"run": {"store": str(tmp_path)}}
    names = [one.name for one in doctor.examine(doctor.CONFIG.of(values))]
    assert [one.name for one in doctor.examine(doctor.CONFIG.of({**values, "gated": True}))] == [*names, "gate"]
