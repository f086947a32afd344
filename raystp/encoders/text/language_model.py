"""A language model from a local folder, as Hugging Face saves it: texts in, its last hidden state out, pooled.

Padding is masked where the model attends and where it is pooled. (Published code for gene texts leaves the mask out.)
Weights are read from safetensors only and no code of the folder is run. `transformers` is needed here and nowhere else.
"""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from raystp.encoders.families import _torchvision
from raystp.encoders.text.hashed import check_texts
from raystp.errors import EncoderError, some

Pooling = Literal["cls", "mean"]

WEIGHTS = "model.safetensors"
BATCH = 32
"""Texts in one pass."""
LONGEST = 512
"""Tokens of a text that are read: what BERT and its kin know places for."""


@dataclass(frozen=True)
class ModelText:
    """A language model that is ready to read; `read_model_text` makes it."""

    folder: Path
    pooling: Pooling
    longest: int
    sha256: str
    tokenizer: Any = field(repr=False)
    network: Any = field(repr=False)

    @property
    def dim(self) -> int:
        """Length of a hidden state."""
        return int(self.network.config.hidden_size)

    @property
    def identity(self) -> dict[str, Any]:
        """Pooling, longest text, and a digest of weights, tokenizer and config, wherever the folder lies."""
        return {
            "name": "model",
            "dim": self.dim,
            "pooling": self.pooling,
            "longest": self.longest,
            "sha256": self.sha256,
        }

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return a row per gene, whatever others are in its batch; raises EncoderError for a missing text."""
        check_texts(texts)
        # Texts of like length go together: less padding, same rows.
        order = sorted(texts, key=lambda gene: (len(texts[gene]), gene))
        rows: dict[str, np.ndarray] = {}
        for start in range(0, len(order), BATCH):
            genes = order[start : start + BATCH]
            rows |= dict(zip(genes, self._batch([texts[gene] for gene in genes]), strict=True))
        return np.stack([rows[gene] for gene in texts])

    def _batch(self, texts: list[str]) -> Float32[np.ndarray, "gene dim"]:
        read = self.tokenizer(texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        with torch.inference_mode():
            hidden = self.network(**read).last_hidden_state.float()
            pooled: np.ndarray = pool(hidden, read["attention_mask"].bool(), self.pooling).numpy()
        return pooled


def pool(
    hidden: Float[Tensor, "gene token dim"], mask: Bool[Tensor, "gene token"], pooling: Pooling
) -> Float[Tensor, "gene dim"]:
    """Return the first token's state that is no padding (`cls`), or the mean over those that are none (`mean`)."""
    if pooling == "cls":
        return hidden[torch.arange(len(hidden)), mask.int().argmax(dim=1)]
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1)


def read_model_text(folder: Path, *, pooling: Pooling = "cls", longest: int = LONGEST) -> ModelText:
    """Make a model and its tokenizer of a local folder ready; nothing is fetched from anywhere.

    Raises EncoderError where `transformers` is not installed, or the folder holds no whole model in safetensors.
    """
    transformers = _transformers()
    if not (folder / WEIGHTS).is_file() or not (folder / "config.json").is_file():
        seen = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else "no such folder"
        msg = (
            f"{folder} holds no language model: wanted are config.json, a tokenizer's files and {WEIGHTS} (other "
            f"kinds of weights can run code and are never opened), seen: {seen}"
        )
        raise EncoderError(msg)
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
        network, report = transformers.AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
        )
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        msg = f"{folder} cannot be read as a language model ({type(error).__name__}: {error}): get it again"
        raise EncoderError(msg) from None
    # What lacks would be drawn at random without a word; the pooler alone is not read here.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        msg = f"{folder / WEIGHTS} lacks {len(missing)} weights of its own config: {some(missing)}; get it again"
        raise EncoderError(msg)
    return ModelText(folder, pooling, longest, _digest(folder), tokenizer, network.eval())


def _transformers() -> Any:
    _torchvision.make_importable()  # transformers imports it where it is there
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        msg = (
            "a gene text encoder that is a language model needs the package transformers, which is not installed: "
            "install it (pip install transformers), or use a table of vectors that were made where it is"
        )
        raise EncoderError(msg) from None


def _digest(folder: Path) -> str:
    """Return a sha256 over the files that decide a row: weights, config and the tokenizer's."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".json", ".txt", ".model"}:
            with path.open("rb") as file:
                total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
