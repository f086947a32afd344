"""Gene text encoders: a row depends on its own gene only, and missing texts are reported."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from raystp.encoders.families import _torchvision
from raystp.encoders.text import language_model
from raystp.encoders.text.hashed import GeneTextEncoder, HashedText, RandomText, WeightedText
from raystp.encoders.text.language_model import pool, read_model_text
from raystp.encoders.text.table import TableText, read_table_text
from raystp.errors import EncoderError, StorageError
from raystp.storage import StoragePath

TEXTS = {
    "A": "protein folding in the T-cell membrane",
    "B": "DNA repair, protein kinase",
    "C": "DNA repair in the membrane " * 5,
    "D": "kinase",
}
ROWS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def _npz(folder: Path, genes: list[str] | None = None) -> StoragePath:
    np.savez(folder / "t.npz", genes=np.array(list(TEXTS) if genes is None else genes), vectors=ROWS)
    return StoragePath.of(folder / "t.npz")


def _parquet(folder: Path) -> StoragePath:
    pq.write_table(pa.table({"gene": list(TEXTS), "vector": ROWS.tolist()}), folder / "t.parquet")
    return StoragePath.of(folder / "t.parquet")


def _npy(folder: Path) -> tuple[StoragePath, StoragePath]:
    np.save(folder / "t.npy", ROWS)
    (folder / "names.txt").write_text("\n".join(TEXTS))
    return StoragePath.of(folder / "t.npy"), StoragePath.of(folder / "names.txt")


def _bert(folder: Path) -> Path:
    """Write a language model of a few hundred random weights with its tokenizer, in Hugging Face's format."""
    _torchvision.make_importable()
    transformers = pytest.importorskip("transformers")
    words = sorted({word for text in TEXTS.values() for word in text.lower().replace(",", " ,").split()} | {"-"})
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    config = transformers.BertConfig(
        vocab_size=len(words) + 5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


ENCODERS: dict[str, Callable[[Path], GeneTextEncoder]] = {
    "hashed": lambda _: HashedText(64),
    "weighted": lambda _: WeightedText.of(TEXTS),
    "random": lambda _: RandomText(8, seed=1),
    "npz": lambda folder: read_table_text(_npz(folder)),
    "parquet": lambda folder: read_table_text(_parquet(folder)),
    "npy": lambda folder: read_table_text(_npy(folder)[0], names=_npy(folder)[1]),
    "model, cls": lambda folder: read_model_text(_bert(folder / "bert")),
    "model, mean": lambda folder: read_model_text(_bert(folder / "bert"), pooling="mean"),
}


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_a_row_depends_on_its_own_gene_only(make: Callable[[Path], GeneTextEncoder], tmp_path: Path) -> None:
    encoder = make(tmp_path)
    assert isinstance(encoder, GeneTextEncoder)
    rows = encoder.encode(TEXTS)
    assert rows.shape == (4, encoder.dim)
    assert rows.dtype == np.float32
    assert len(np.unique(rows.round(5), axis=0)) == 4
    reversed_rows = encoder.encode({gene: TEXTS[gene] for gene in ("C", "A")})
    np.testing.assert_allclose(reversed_rows, rows[[2, 0]], atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(TEXTS), rows)
    assert json.loads(json.dumps(encoder.identity)) == encoder.identity
    assert encoder.identity["dim"] == encoder.dim


def test_common_words_make_texts_similar_and_rare_words_have_larger_weights() -> None:
    corpus = {
        "a": "protein of bone",
        "b": "protein of bone",
        "c": "protein of skin",
        "d": "protein of skin",
        "e": "protein",
    }
    encoder = WeightedText.of(corpus)
    assert list(encoder.words) == sorted(encoder.words)
    assert encoder.weights[encoder.words["bone"]] == pytest.approx(np.log(6 / 3) + 1)
    assert encoder.weights[encoder.words["protein"]] == pytest.approx(1.0)
    rows = encoder.encode(corpus)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert rows[0] @ rows[1] == pytest.approx(1.0)
    assert rows[0] @ rows[2] < 0.7
    assert WeightedText.of(corpus, dim=2).dim == 2


def test_random_rows_are_normal_and_depend_on_seed_and_symbol() -> None:
    rows = RandomText(4000).encode({"A": "", "B": ""})
    assert abs(float(np.corrcoef(rows)[0, 1])) < 0.05
    assert rows.std() == pytest.approx(1, abs=0.05)
    assert not np.array_equal(RandomText(4000, seed=1).encode({"A": ""})[0], rows[0])


def test_the_identity_differs_where_rows_differ(tmp_path: Path) -> None:
    other = {**TEXTS, "E": "another kinase"}
    assert WeightedText.of(TEXTS).identity != WeightedText.of(other).identity
    one = read_table_text(_npz(tmp_path))
    assert one.identity == read_table_text(_npz(tmp_path)).identity
    assert one.identity != read_table_text(_npz(tmp_path, ["A", "B", "D", "C"])).identity
    assert isinstance(one, TableText)


@pytest.mark.parametrize("encoder", [HashedText(64), WeightedText.of(TEXTS)])
def test_a_missing_text_is_reported(encoder: GeneTextEncoder) -> None:
    with pytest.raises(EncoderError, match=r"2 of 3 genes have no text: 'X', 'Y'; give"):
        encoder.encode({"X": "", "B": "kinase", "Y": " "})
    with pytest.raises(EncoderError, match=r"1 of 2 genes contain no known word: 'X'; the first is '\?!'"):
        encoder.encode({"X": "?!", "B": "kinase"})
    with pytest.raises(EncoderError, match="no genes are given"):
        encoder.encode({})


def test_corpus_without_common_words_is_refused() -> None:
    with pytest.raises(EncoderError, match="contain no words"):
        WeightedText.of({"A": "?", "B": "!"})
    with pytest.raises(EncoderError, match="no word occurs in two"):
        WeightedText.of({"A": "bone", "B": "skin"})


def test_a_gene_without_a_row_in_a_table_is_reported(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"6 of 7 genes have no row in .*t.npz: 'X0', .* 'X4' and 1 more; it has"):
        read_table_text(_npz(tmp_path)).encode(dict.fromkeys(["A", *(f"X{n}" for n in range(6))], ""))


def test_malformed_tables_are_refused_and_no_pickle_is_opened(tmp_path: Path) -> None:
    rows, names = _npy(tmp_path)
    with pytest.raises(EncoderError, match="give a file with the symbol of each row"):
        read_table_text(rows)
    names.local_path.write_text("A\nB\n")
    with pytest.raises(EncoderError, match=r"float32 \(4, 3\) for 2 genes"):
        read_table_text(rows, names=names)
    names.local_path.write_text("A\nB\nB\nC\n")
    with pytest.raises(EncoderError, match=r"1 genes more than once \('B'\)"):
        read_table_text(rows, names=names)
    np.save(rows.local_path, np.where(np.arange(12).reshape(4, 3) == 4, np.nan, ROWS))
    names.local_path.write_text("\n".join(TEXTS))
    with pytest.raises(EncoderError, match="nan or infinity for 'B'"):
        read_table_text(rows, names=names)
    np.save(rows.local_path, np.array([{"A": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(EncoderError, match="cannot be read as a table"):
        read_table_text(rows, names=names)
    for name in ("t.parquet", "t.npz"):
        (tmp_path / name).write_bytes(pickle.dumps({"A": 1}))
        with pytest.raises(EncoderError, match="cannot be read as a table"):
            read_table_text(StoragePath.of(tmp_path / name))
    with pytest.raises(EncoderError, match=r"expected a \.parquet"):
        read_table_text(StoragePath.of(tmp_path / "t.pkl"))


def test_pooling_ignores_padding() -> None:
    hidden = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, False], [False, True, True]])
    assert pool(hidden, mask, "cls").tolist() == [[0.0, 1.0], [8.0, 9.0]]
    assert pool(hidden, mask, "mean").tolist() == [[1.0, 2.0], [9.0, 10.0]]


def test_padding_of_a_batch_changes_no_row_of_a_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = read_model_text(_bert(tmp_path / "bert"), pooling="mean")
    together = encoder.encode(TEXTS)
    monkeypatch.setattr(language_model, "BATCH", 1)
    np.testing.assert_allclose(encoder.encode(TEXTS), together, atol=1e-5)
    with pytest.raises(EncoderError, match="1 of 1 genes have no text: 'A'"):
        encoder.encode({"A": ""})


def test_language_model_without_safetensors_is_refused(tmp_path: Path) -> None:
    folder = _bert(tmp_path / "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"has no language model: .*never opened.*pytorch_model\.bin"):
        read_model_text(folder)
    with pytest.raises(EncoderError, match="no such folder"):
        read_model_text(tmp_path / "nowhere")
    (folder / "model.safetensors").write_bytes(safetensors.torch.save({"other": torch.zeros(1)}))
    with pytest.raises(EncoderError, match=r"lacks .* weights of its own config"):
        read_model_text(folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(EncoderError, match="cannot be read as a language model"):
        read_model_text(folder)


def test_a_language_model_without_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    absent: dict[str, Any] = {"transformers": None}
    for name, value in absent.items():
        monkeypatch.setitem(sys.modules, name, value)
    with pytest.raises(EncoderError, match="need the package transformers, which is not installed"):
        read_model_text(Path("anywhere"))


def test_a_symbol_used_as_text_has_its_own_row_and_changes_no_other() -> None:
    corpus = {"A": "membrane protein kinase", "B": "kinase of the membrane", "MARS": "MARS", "PTRF": "PTRF"}
    refusing, hashing = WeightedText.of(corpus), WeightedText.of(corpus, hash_rest=True)
    with pytest.raises(EncoderError, match="2 of 4 genes contain no known word"):
        refusing.encode(corpus)
    rows = hashing.encode(corpus)
    assert np.array_equal(rows[:2], refusing.encode({gene: corpus[gene] for gene in "AB"}))
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)


def test_absent_symbols_of_rows_are_an_error_with_their_own_path(tmp_path: Path) -> None:
    rows, names = _npy(tmp_path)
    names.remove_file()
    with pytest.raises(StorageError, match=r"^cannot read .*names\.txt: No such file"):
        read_table_text(rows, names=names)
