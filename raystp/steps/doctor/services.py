"""Checks of what a run talks to: the store, MLflow, the weights of encoders, the hub."""

import os
import urllib.request
import uuid

import huggingface_hub
from huggingface_hub import constants, errors

from raystp.artifacts import without_secrets
from raystp.encoders.catalogue import cached_file
from raystp.encoders.registry import CARDS
from raystp.errors import ConfigError, some
from raystp.steps.doctor.finding import Finding
from raystp.steps.run_config import TrackedRun
from raystp.storage import StoragePath

TIMEOUT_S = 10.0
CONTENT = b"raystp doctor"


def store(run: TrackedRun) -> list[Finding]:
    """Write a file only if it is absent, twice, and read a range of it; the file is removed."""
    folder = StoragePath.of(run.store)
    folder.check_writable()
    file = folder / f"doctor-{uuid.uuid4().hex}"
    try:
        first, second = file.write_new(CONTENT), file.write_new(b"other")
        part = file.read_range(7, 6, version=file.version())
    finally:
        file.remove()
    if (first, second, part) != (True, False, CONTENT[7:13]):
        text = f"{folder} does not keep a file that is written twice, or reads other bytes of it"
        return [Finding("store", "error", text, "choose a store with put-if-absent and range reads (run.store)")]
    return [Finding("store", "ok", f"{folder}: put-if-absent and range reads work")]


def tracking(run: TrackedRun) -> list[Finding]:
    """Ask the MLflow server for its state; a database in a local store needs no server."""
    try:
        uri = run.tracker("doctor").uri
    except ConfigError as error:
        return [Finding("MLflow", "warning", str(error), "set run.tracking")]
    if uri is None:
        return [Finding("MLflow", "ok", "run.tracking=none: nothing is logged")]
    shown = without_secrets(uri)
    if not uri.startswith(("http://", "https://")):
        return [Finding("MLflow", "ok", f"{shown}, without a server")]
    try:
        with urllib.request.urlopen(f"{shown.rstrip('/')}/health", timeout=TIMEOUT_S) as answer:
            return [Finding("MLflow", "ok", f"{shown} answers with status {answer.status}")]
    except OSError as error:
        advice = "start the server, correct run.tracking, or run now and `raystp send` later"
        return [Finding("MLflow", "warning", f"{shown} does not answer ({error})", advice)]


def weights() -> list[Finding]:
    """List the published encoders whose weights are in the hub's cache."""
    found = [name for name, card in CARDS.items() if cached_file(card) is not None]
    if found:
        return [Finding("weights", "ok", f"in the hub's cache: {some(found, 20)}")]
    text = f"none of {len(CARDS)} published encoders is in the hub's cache ({constants.HF_HUB_CACHE})"
    advice = "they are downloaded at first use, or give encoder.weights=FILE; `raystp encoders` lists them"
    return [Finding("weights", "warning", text, advice)]


def tokens() -> list[Finding]:
    """Say which tokens are set; their values are never shown."""
    gated = sum(card.gated for card in CARDS.values())
    if huggingface_hub.get_token() is None:
        text = f"no token of the hub is set, which {gated} gated encoders need"
        return [Finding("token", "warning", text, "run `hf auth login`, or set HF_TOKEN")]
    where = "HF_TOKEN" if "HF_TOKEN" in os.environ else "the hub's own file"
    return [Finding("token", "ok", f"a token of the hub is set ({where})")]


def gated_access() -> list[Finding]:
    """Ask the hub about each gated encoder, with this user's token."""
    repositories = {card.repository: name for name, card in CARDS.items() if card.gated and card.repository}
    return [_access(repository, name) for repository, name in repositories.items()]


def _access(repository: str, encoder: str) -> Finding:
    name = f"gate {encoder}"
    try:
        huggingface_hub.auth_check(repository)
    except errors.GatedRepoError:
        advice = f"accept its terms at {constants.ENDPOINT}/{repository}, then `hf auth login`"
        return Finding(name, "error", f"{repository}: the hub refuses this token", advice)
    except (OSError, errors.HfHubHTTPError) as error:
        reason = str(error).partition("\n")[0]
        return Finding(
            name, "error", f"{repository}: the hub cannot be asked ({reason})", "check the network and token"
        )
    return Finding(name, "ok", f"{repository}: the hub grants access")
