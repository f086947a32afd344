"""An image encoder that is trained with any method: what is equal to cached features, and what each layer learns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor, nn

from raystp.models.arrays import encoder_weights, without_encoder
from raystp.models.methods import METHODS, open_predictor
from raystp.models.store import load_state, save_state
from raystp.models.training.fit import TrainState, accumulate, fit
from raystp.models.training.options import FitOptions
from raystp.models.training.plan import RankLayout
from raystp.models.training.setup import SpotInputs, TrainSetup, start
from raystp.models.training.tile_samples import TileSamples, rows_of, tile_numbers
from raystp.models.training.tower import attach_tower, layer_rates, layers_of
from raystp.storage import StoragePath

SPOTS, GENES, SIDE, DIM = 48, 5, 8, 6
NAMES = [f"G{number}" for number in range(GENES)]
PIXELS = torch.randn(SPOTS, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
FROZEN = FitOptions(epochs=2, lr=1e-2, batch_size=8, accumulate_batches=2, encoder_lr=0.0)

METHOD_VALUES: dict[str, dict[str, Any]] = {
    "bleep": {"dim": 8},
    "mclstexp": {"dim": 8, "layers": 1, "heads": 1, "head_dim": 4},
    "genequery": {"dim": 8, "depth": 1, "heads": 1, "head_dim": 4, "feedforward": 8},
    "nh2st": {"dim": 8, "heads": 1},
    "attention": {"embedding": 8, "hidden": 4},
}
every_method = pytest.mark.parametrize("kind", [name for name, one in METHODS.items() if one.feature_inputs])


@dataclass(frozen=True)
class Spots:
    """Two square sections of spots that lie in memory."""

    features: Float32[np.ndarray, "spot feature"]
    expression: Float32[np.ndarray, "spot gene"]
    boxes: Float64[np.ndarray, "spot 3"]
    group: Int64[np.ndarray, "spot"]
    sections: tuple[str, ...] = ("A", "B")

    @property
    def totals(self) -> Float64[np.ndarray, "spot"]:
        return np.full(len(self.group), 1e4)


class Tiles:
    """Tiles that lie in memory, and how often each was asked for."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __call__(self, rows: Int64[np.ndarray, " _"]) -> Tensor:
        self.read += rows.tolist()
        return PIXELS[torch.from_numpy(rows)]

    def prefetch(self, parts: Sequence[Int64[np.ndarray, " _"]], epoch: int) -> None:
        """Do nothing: all tiles are in memory."""


def _tower() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        stem, block = (nn.Sequential(nn.Conv2d(*size, 3, 2), nn.BatchNorm2d(size[1])) for size in ((3, 4), (4, DIM)))
        tower = nn.Sequential(*stem, nn.ReLU(), *block, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        tower.train()(PIXELS)  # statistics of its own training
    return tower.eval()


def _spots() -> Spots:
    with torch.no_grad():
        features = _tower()(PIXELS).numpy()
    rng, half = np.random.default_rng(0), SPOTS // 2
    expression = np.abs(features @ rng.normal(size=(DIM, GENES)) + rng.normal(size=(SPOTS, GENES)))
    places = np.stack([np.arange(half) // 5, np.arange(half) % 5], axis=1) * 100.0
    boxes = np.concatenate([np.column_stack([places, np.full(half, 50.0)])] * 2)
    return Spots(features, expression.astype(np.float32), boxes, np.repeat([0, 1], half))


def _setup(kind: str, options: FitOptions | None, tower: nn.Module | None = None) -> TrainSetup:
    """Return a training from pixels, or with no options one from the features of the first tower."""
    method, rng = METHODS[kind], np.random.default_rng(3)
    meta = {"genes": NAMES, "d_image": DIM, "seen": NAMES, "unseen": [], "tile": {"side": 50.0}}
    inputs = SpotInputs(
        train=_spots(),
        validation=None,
        d_image=DIM,
        meta=meta,
        seed=0,
        device=torch.device("cpu"),
        texts=rng.normal(size=(GENES, 4)).astype(np.float32),
        bags={"parts": 12, "tiles": None, "labels": None},
        from_pixels=options is not None,
    )
    made = method.setup(method.options(**METHOD_VALUES[kind]), inputs)
    if options is None:
        return made
    attach_tower(made.model, tower if tower is not None else _tower(), method.feature_inputs, options)
    return replace(made, train=TileSamples(made.train, method.feature_inputs, Tiles()))


def _trained(setup: TrainSetup, options: FitOptions) -> tuple[list[float], TrainState]:
    state = start(setup, options)
    losses = [row["train_loss"] for row in fit(state, setup.train, options)]
    return [float(loss or 0) for loss in losses], state


def _arrays(state: TrainState) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in state.model.state_dict().items()}


@every_method
def test_a_frozen_encoder_trains_the_model_of_its_embeddings(kind: str) -> None:
    from_pixels, state = _trained(_setup(kind, FROZEN), FROZEN)
    from_features, other = _trained(_setup(kind, None), FROZEN)
    np.testing.assert_allclose(from_pixels, from_features, rtol=1e-4)
    own, tower = without_encoder(_arrays(state)), encoder_weights(_arrays(state))
    assert own.keys() == _arrays(other).keys()
    for name, values in _arrays(other).items():
        np.testing.assert_allclose(own[name], values, atol=1e-4, err_msg=name)
    for name, value in _tower().state_dict().items():
        np.testing.assert_array_equal(tower[name], value)


@every_method
def test_a_trained_encoder_changes_but_the_statistics_of_its_batch_normalisation_do_not(kind: str) -> None:
    options = replace(FROZEN, encoder_lr=1e-2)
    losses, state = _trained(_setup(kind, options), options)
    tower, before = encoder_weights(_arrays(state)), _tower().state_dict()
    changed = {name for name, value in before.items() if not np.array_equal(tower[name], value)}
    assert changed == {name for name, _ in _tower().named_parameters()}
    frozen, _ = _trained(_setup(kind, FROZEN), FROZEN)
    assert losses != frozen
    free = replace(options, freeze_batch_norm=False)
    _, state = _trained(_setup(kind, free), free)
    assert not np.array_equal(encoder_weights(_arrays(state))["1.running_mean"], before["1.running_mean"])


@every_method
def test_two_ranks_have_the_gradients_of_one(kind: str) -> None:
    options = replace(FROZEN, encoder_lr=1e-2)
    rows = np.random.default_rng(4).permutation(min(len(_setup(kind, None).train), 16)).reshape(4, -1)

    def gradients(ranks: RankLayout) -> list[Tensor]:
        setup = _setup(kind, options)
        accumulate(start(setup, options), setup.train, rows, ranks, key=(0, 0, 0))
        return [one.grad if one.grad is not None else torch.zeros_like(one) for one in setup.model.parameters()]

    both = zip(*(gradients(RankLayout(rank, 2)) for rank in range(2)), strict=True)
    for whole, parts in zip(gradients(RankLayout()), both, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, atol=1e-6, rtol=1e-4)


@every_method
def test_tiles_in_parts_have_the_gradients_of_all_at_once(kind: str) -> None:
    found = []
    for at_once in (None, 3):
        options = replace(FROZEN, encoder_lr=1e-2, encoder_tiles=at_once)
        setup = _setup(kind, options)
        accumulate(start(setup, options), setup.train, np.arange(8).reshape(2, 4), key=(0, 0, 0))
        found.append([one.grad for one in setup.model.get_submodule("tower").parameters()])
    for whole, part in zip(*found, strict=True):
        torch.testing.assert_close(part, whole, atol=1e-6, rtol=1e-4)


@every_method
def test_a_stored_model_predicts_from_features_without_its_encoder(kind: str) -> None:
    setup = _setup(kind, FROZEN)
    arrays = {name: value.numpy() for name, value in setup.model.state_dict().items()} | setup.extra
    meta = {"genes": NAMES, "d_image": DIM, "options": METHOD_VALUES[kind], "seen": NAMES, "unseen": []}
    opened: Any = open_predictor(kind, arrays, meta)
    features = _spots().features
    rows = opened.embed_images(features) if METHODS[kind].needs_index else opened.predict(features)
    assert rows.shape[0] == SPOTS
    assert np.isfinite(rows).all()


def test_each_tile_of_a_batch_is_read_once_and_no_other_tile_is() -> None:
    setup = _setup("nh2st", FROZEN)
    samples = setup.train
    assert isinstance(samples, TileSamples)
    pixels, own, near, *_ = samples.at(np.array([0, 1, 0]))
    tiles = samples.tiles
    assert isinstance(tiles, Tiles)
    assert len(tiles.read) == len(set(tiles.read)) == len(pixels)
    torch.testing.assert_close(pixels[own - 1], PIXELS[[0, 1, 0]])
    torch.testing.assert_close(near[:, 0], own)


def test_padding_is_a_row_of_zeros() -> None:
    samples = TileSamples(_Padded(), (1,), Tiles())
    pixels, other, numbers = samples.at(np.array([0, 1]))
    assert numbers.tolist() == [[1, 2], [2, 0]]
    torch.testing.assert_close(pixels, PIXELS[[4, 7]])
    assert other.tolist() == [5.0, 6.0]
    assert rows_of(tile_numbers(3)).tolist() == [0, 1, 2]


class _Padded:
    """Two bags: rows 4 and 7, and row 7 with padding."""

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[Tensor, ...]:
        assert rows.tolist() == [0, 1]
        return torch.tensor([5.0, 6.0]), torch.tensor([[[5.0], [8.0]], [[8.0], [0.0]]])

    def __len__(self) -> int:
        return 2


def test_the_rates_of_layers_are_those_asked_for() -> None:
    tower = _tower()
    options = FitOptions(lr=1e-2, encoder_lr=1e-3, layer_decay=0.5)
    assert [rate for rate, _ in layer_rates(tower, options)] == [5e-4, 1e-3]
    assert [len(layer) for layer in layers_of(tower)] == [4, 4]  # a convolution with its normalisation
    setup = _setup("bleep", options, tower)
    groups = start(setup, options).optimizer.param_groups
    assert [group["lr"] for group in groups] == [1e-2, 5e-4, 1e-3]
    found = {id(one): group["lr"] for group in groups for one in group["params"]}
    assert {found[id(one)] for one in tower[0].parameters()} == {5e-4}
    assert {found[id(one)] for one in tower[3].parameters()} == {1e-3}
    assert len(found) == len(list(setup.model.parameters()))
    assert [rate for rate, _ in layer_rates(tower, FitOptions(lr=1e-2))] == [1e-2, 1e-2]


def test_layers_are_the_blocks_of_a_stage_and_a_wrapper_adds_none() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.code, self.stem, self.norm = nn.Parameter(torch.zeros(2)), nn.Linear(2, 2), nn.LayerNorm(2)
            self.blocks = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.ModuleList([nn.Linear(2, 2)]))
            self.pool = nn.Identity()

    assert [len(layer) for layer in layers_of(nn.Sequential(nn.Module(), Net()))] == [5, 2, 2]


def test_a_schedule_of_the_method_scales_the_rates_of_the_encoder_too() -> None:
    options = replace(FROZEN, encoder_lr=1e-3, epochs=1)
    setup = _setup("nh2st", options)
    state = start(setup, options)
    state.epoch = 100
    list(fit(state, setup.train, replace(options, epochs=101)))
    assert [group["lr"] for group in state.optimizer.param_groups] == pytest.approx(
        [1e-2 * 0.81, *[1e-3 * 0.81] * 2], rel=1e-9
    )


def test_a_training_that_is_resumed_equals_one_that_is_not(tmp_path: Any) -> None:
    options = replace(FROZEN, epochs=4, encoder_lr=1e-3, layer_decay=0.7)
    _, whole = _trained(_setup("nh2st", options), options)
    _, first = _trained(_setup("nh2st", options), replace(options, epochs=2))
    save_state(StoragePath.of(tmp_path / "state"), first)
    setup = _setup("nh2st", options)
    second = start(setup, options)
    load_state(StoragePath.of(tmp_path / "state"), second)
    list(fit(second, setup.train, options))
    for name, values in _arrays(whole).items():
        np.testing.assert_array_equal(_arrays(second)[name], values, err_msg=name)


def test_a_trained_encoder_in_bfloat16_stays_near_that_in_float32() -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        options = replace(FROZEN, encoder_lr=1e-3, precision=precision)
        losses[precision], state = _trained(_setup("bleep", options), options)
        assert {value.dtype for value in state.model.parameters()} == {torch.float32}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["bfloat16"] != losses["float32"]


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layer_decay must be from 0 to 1, got 1\.5"):
        FitOptions(layer_decay=1.5)
    with pytest.raises(ValueError, match="encoder_tiles=8 divides a batch"):
        FitOptions(encoder_tiles=8, freeze_batch_norm=False)


def test_methods_say_why_their_encoder_cannot_be_trained() -> None:
    assert METHODS["ridge"].frozen_reason({}).startswith("it is fitted at once")
    assert "reads all spots of a section" in METHODS["genequery"].frozen_reason({"context": "spot"})
    assert "nh2st.tokens=49 reads a map" in METHODS["nh2st"].frozen_reason({"tokens": 49})
    able = {name for name, method in METHODS.items() if not method.frozen_reason({})}
    assert able == METHOD_VALUES.keys()
