"""Checks of what a run talks to: the store, MLflow, the weights of encoders, the hub."""

import contextlib
import os
import urllib.request
import uuid

import huggingface_hub
from huggingface_hub import constants, errors

from raystp.artifacts import without_secrets
from raystp.encoders.catalogue import cached_file
from raystp.encoders.registry import CARDS
from raystp.errors import ConfigError, StorageError, some
from raystp.steps.doctor.finding import Finding
from raystp.steps.encoder_source import source_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.run_config import TrackedRun
from raystp.storage import StoragePath

TIMEOUT_S = 10.0
CONTENT = b"raystp doctor"
REFUSED = (401, 403)
"""Status of the hub for a token that is wrong, or whose user has not accepted the terms."""


def store(run: TrackedRun) -> list[Finding]:
    """Write a file only if it is absent, twice, and read a range of it; the file is removed."""
    folder = StoragePath.of(run.store)
    file = folder / f"doctor-{uuid.uuid4().hex}"
    other = "or choose another one with --run.store"
    rights = "allow writing in it" if folder.is_local else "create the bucket, or set credentials that may put there"
    try:
        first = file.write_new(CONTENT)
    except StorageError as error:
        return [Finding("store", "error", f"{folder} is not writable: {_reason(error, file)}", f"{rights}, {other}")]
    try:
        second, part = file.write_new(b"other"), file.read_range(7, 6, version=file.version())
        file.remove()
    except StorageError as error:
        with contextlib.suppress(StorageError):
            file.remove()
        text = f"{folder} takes a file that cannot be read or removed again: {_reason(error, file)}"
        return [Finding("store", "error", text, f"allow to get, put and delete there, {other}")]
    if (first, second, part) != (True, False, CONTENT[7:13]):
        text = f"{folder} does not keep a file that is written twice, or reads other bytes of it"
        return [Finding("store", "error", text, "choose a store with put-if-absent and range reads (--run.store)")]
    return [Finding("store", "ok", f"{folder}: put-if-absent and range reads work")]


def _reason(error: StorageError, file: StoragePath) -> str:
    """Return the reason in an error's message, without the name of the file that was tried."""
    return str(error).partition(f"{file}: ")[2] or str(error)


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


def encoder(config: EncoderConfig, store: str) -> list[Finding]:
    """Look for an encoder's weights; a given file is read whole, and its digest is compared with the expected one."""
    card = None if config.weights or config.random or config.trained else CARDS.get(config.name)
    if card is None:
        identity, named = source_of(config, store).identity, config.trained or config.name
        if not identity.startswith("hub:"):
            return [Finding("encoder", "ok", f"{named}: {identity}")]
        text = f"{named} ({identity}) is downloaded at first use, unless the hub's cache has it"
        return [Finding("encoder", "warning", text, "without network give encoder.weights=FILE")]
    if (found := cached_file(card)) is not None:
        return [Finding("encoder", "ok", f"{config.name}: {found}")]
    text, terms = f"{config.name} is not in the hub's cache", f"{constants.ENDPOINT}/{card.repository}"
    if card.repository is None:
        return [Finding("encoder", "error", f"{config.name} is on no hub", "give encoder.weights=FILE")]
    if card.gated and huggingface_hub.get_token() is None:
        advice = f"accept its terms at {terms}, then `hf auth login`; or give encoder.weights=FILE"
        return [Finding("encoder", "error", f"{text}, is gated, and no token is set", advice)]
    advice = f"`raystp doctor --gated` asks for access to {terms}" if card.gated else "that needs a network"
    advice += "; or give encoder.weights=FILE"
    return [Finding("encoder", "warning", f"{text}: it is downloaded at first use", advice)]


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
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status not in REFUSED:
            return Finding(name, "error", f"{repository}: the hub answers with status {status}", "try again later")
        text = f"{repository}: the hub refuses this token (status {status})"
        advice = f"`hf auth login` with a valid token, and accept the terms at {constants.ENDPOINT}/{repository}"
        return Finding(name, "error", text, advice)
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # of the HTTP library that the hub uses
        reason = str(error).partition("\n")[0]
        return Finding(name, "error", f"{repository}: the hub cannot be asked ({reason})", "check the network")
    return Finding(name, "ok", f"{repository}: the hub grants access")
