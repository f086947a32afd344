"""Gene texts encoded by a language model from a local folder in Hugging Face's format: its last hidden state, pooled.

Padding is masked in the model's attention and in the pooling. (Published code for gene texts omits the mask.) Weights
are read from safetensors only and no code of the folder is run. Only this module needs `transformers`.
"""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
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
MAX_TOKENS = 512
"""Tokens of a text that are read: BERT and similar models have position embeddings for 512."""


@dataclass(frozen=True)
class ModelText:
    """A gene text encoder with a language model; `read_model_text` creates it."""

    folder: Path
    pooling: Pooling
    max_tokens: int
    sha256: str
    tokenizer: Any = field(repr=False)  # transformers chooses the classes when it loads them
    network: Any = field(repr=False)

    @property
    def dim(self) -> int:
        """Length of a hidden state."""
        return int(self.network.config.hidden_size)

    @property
    def identity(self) -> dict[str, object]:
        """Pooling, maximum length, and a digest of weights, tokenizer and config, independent of the folder's path."""
        return {
            "name": "model",
            "dim": self.dim,
            "pooling": self.pooling,
            "longest": self.max_tokens,
            "sha256": self.sha256,
        }

    def encode(self, texts: Mapping[str, str]) -> Float32[np.ndarray, "gene dim"]:
        """Return a row per gene, independent of the other genes; raises EncoderError for a missing text."""
        check_texts(texts)
        # Texts of similar length are in one batch: less padding, same rows.
        order = sorted(texts, key=lambda gene: (len(texts[gene]), gene))
        rows: dict[str, np.ndarray] = {}
        for start in range(0, len(order), BATCH):
            genes = order[start : start + BATCH]
            rows |= dict(zip(genes, self._batch([texts[gene] for gene in genes]), strict=True))
        return np.stack([rows[gene] for gene in texts])

    def _batch(self, texts: list[str]) -> Float32[np.ndarray, "gene dim"]:
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        with torch.inference_mode():
            hidden = self.network(**tokens).last_hidden_state.float()
            pooled: np.ndarray = pool(hidden, tokens["attention_mask"].bool(), self.pooling).numpy()
        return pooled


def pool(
    hidden: Float[Tensor, "gene token dim"], mask: Bool[Tensor, "gene token"], pooling: Pooling
) -> Float[Tensor, "gene dim"]:
    """Return the state of the first token (`cls`), or the mean over all tokens (`mean`), both without padding."""
    if pooling == "cls":
        return hidden[torch.arange(len(hidden)), mask.int().argmax(dim=1)]
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1)


def read_model_text(folder: Path, *, pooling: Pooling = "cls", max_tokens: int = MAX_TOKENS) -> ModelText:
    """Load a model and its tokenizer from a local folder; nothing is downloaded.

    Raises EncoderError where `transformers` is not installed, or the folder has no complete model in safetensors.
    """
    transformers = _import_transformers()
    if not (folder / WEIGHTS).is_file() or not (folder / "config.json").is_file():
        found = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else "no such folder"
        msg = (
            f"{folder} has no language model: expected config.json, the tokenizer's files and {WEIGHTS} (other "
            f"kinds of weights can run code and are never opened), found: {found}"
        )
        raise EncoderError(msg)
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
        network, report = transformers.AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
        )
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        msg = f"{folder} cannot be read as a language model ({type(error).__name__}: {error}): download it again"
        raise EncoderError(msg) from None
    # transformers silently initialises missing weights at random; only the pooler is not used here.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        msg = f"{folder / WEIGHTS} lacks {len(missing)} weights of its own config: {some(missing)}; download it again"
        raise EncoderError(msg)
    return ModelText(folder, pooling, max_tokens, _digest(folder), tokenizer, network.eval())


def _import_transformers() -> ModuleType:
    _torchvision.make_importable()  # transformers imports it if it is installed
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        msg = (
            "gene texts from a language model need the package transformers, which is not installed: install it "
            "(pip install transformers), or use a table of vectors computed elsewhere"
        )
        raise EncoderError(msg) from None


def _digest(folder: Path) -> str:
    """Return a sha256 over the files that a row depends on: weights, config and the tokenizer's."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".json", ".txt", ".model"}:
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
