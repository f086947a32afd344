"""The hub: a repository's weights, downloaded once and kept in the hub's own cache on this machine.

With HF_HUB_OFFLINE=1 the cache alone is asked. A gated model needs a token whose owner accepted its terms; it is taken
from where the hub's own tools keep it (`hf auth login`, HF_TOKEN), and never shown.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from raystp.encoders import weights
from raystp.errors import EncoderError

WAY = f"give a local {weights.ENDING} file as `weights`, or ask for random weights with `random: true`"
NAMES = ("model.safetensors", "pytorch_model.bin")
"""What a repository's weights are called, in the order of trust."""


def download(repository: str, names: Sequence[str] = NAMES, *, encoder: str, gated: bool = False) -> Path:
    """Return the first of these files that `owner/name` or `owner/name@revision` has.

    Raises EncoderError where it has none of them, may not be read, or the hub cannot be reached.
    """
    import huggingface_hub  # noqa: PLC0415 -- slow to import, and most runs need none of it
    from huggingface_hub import constants, errors  # noqa: PLC0415 -- the same

    name, _, revision = repository.partition("@")
    terms = f"; it is gated: accept its terms at {constants.ENDPOINT}/{name} and log in" if gated else ""
    fetch = functools.partial(huggingface_hub.hf_hub_download, name, revision=revision or None)
    absent: BaseException | None = None
    for file in names:
        try:
            # A hub that was out of reach once, after half a minute of trying, is not tried again: its cache is.
            return Path(fetch(file, local_files_only=isinstance(absent, errors.LocalEntryNotFoundError)))
        except errors.EntryNotFoundError as error:  # the repository has no such file, or nor has the cache
            absent = absent or error
        except (OSError, errors.HFValidationError) as error:
            raise _not_given(f"{name}/{file}", encoder, error, terms) from error
    raise _not_given(f"{name}/{names[0]}", encoder, absent, terms) from absent


def _not_given(what: str, encoder: str, error: BaseException | None, terms: str) -> EncoderError:
    reason = str(error).partition("\n")[0]
    return EncoderError(f"the hub did not give {what}, which encoder '{encoder}' needs ({reason}){terms}: {WAY}")
