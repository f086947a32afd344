"""Download a repository's weights from the hub, once, into the hub's own cache on this machine.

With HF_HUB_OFFLINE=1 only the cache is used. A gated model needs a token whose owner accepted its terms. The token is
read from where the hub's own tools keep it (`hf auth login`, HF_TOKEN), and never shown.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from raystp.encoders import weights
from raystp.errors import EncoderError

ALTERNATIVES = f"give a local {weights.SUFFIX} file as `weights`, or request random weights with `random: true`"
NAMES = ("model.safetensors", "pytorch_model.bin")
"""File names of a repository's weights, in order of preference."""


def download(repository: str, names: Sequence[str] = NAMES, *, encoder: str, gated: bool = False) -> Path:
    """Return the first of these files that `owner/name` or `owner/name@revision` has.

    Raises EncoderError where it has none of them, access is denied, or the hub cannot be reached.
    """
    import huggingface_hub  # noqa: PLC0415 -- slow to import, and most runs do not need it
    from huggingface_hub import constants, errors  # noqa: PLC0415 -- the same

    name, _, revision = repository.partition("@")
    terms = f"; it is gated: accept its terms at {constants.ENDPOINT}/{name} and log in" if gated else ""
    fetch = functools.partial(huggingface_hub.hf_hub_download, name, revision=revision or None)
    absent: BaseException | None = None
    for file in names:
        try:
            # After half a minute without a connection, the other names are looked up in the cache only.
            return Path(fetch(file, local_files_only=isinstance(absent, errors.LocalEntryNotFoundError)))
        except errors.EntryNotFoundError as error:  # no such file in the repository, or in the cache
            absent = absent or error
        except (OSError, errors.HFValidationError) as error:
            raise _download_error(f"{name}/{file}", encoder, error, terms) from error
    raise _download_error(f"{name}/{names[0]}", encoder, absent, terms) from absent


def _download_error(file: str, encoder: str, error: BaseException | None, terms: str) -> EncoderError:
    reason = str(error).partition("\n")[0]
    return EncoderError(
        f"cannot download {file}, which encoder '{encoder}' needs, from the hub ({reason}){terms}: {ALTERNATIVES}"
    )
