"""Laws of the copies to and from a device: the rows of direct copies, no race, and no wait for the batch before."""

from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from raystp.encoders import encoder as encoders
from raystp.encoders.encoder import BatchEncoder, Encoder, InferenceOptions, encode
from raystp.encoders.normalise import PixelNormaliser
from raystp.encoders.transfer import SLOTS, OverlappedTransfer, Transfer
from raystp.errors import EncoderError
from raystp.units import TilePixels
from tests.encoders.race_detector import COMPUTE, HOST, UPLOAD, RaceDetector

SIDE = 4
COUNTS = [3, 8, 8, 8, 1, 20, 8, 0, 5]
"""Tiles of each call: more than a buffer holds, fewer, and none."""


class Halved(nn.Module):
    """Half of the mean of each channel."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3)) * 0.5


class Bright(nn.Module):
    """A million times the mean of each channel."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3)) * 1e6


def encoder_of(network: nn.Module) -> Encoder:
    return Encoder("toy", network, 3, TilePixels(SIDE), mean=(0.5,) * 3, std=(0.25,) * 3, digest="")


def calls() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8) for count in COUNTS]


def overlapped(
    detector: RaceDetector, monkeypatch: pytest.MonkeyPatch, options: InferenceOptions = encoders.DEFAULT_OPTIONS
) -> BatchEncoder:
    """Return an encoder that copies as on a CUDA device."""

    def transfer_to(_: torch.device) -> Transfer:
        return OverlappedTransfer(detector)

    monkeypatch.setattr(encoders, "transfer_to", transfer_to)
    return BatchEncoder(encoder_of(Halved()), device="cpu", batch=8, options=options)


def encode_ahead(batch_encoder: BatchEncoder, ahead: int = 2) -> list[np.ndarray]:
    """Encode all calls with `ahead` of them under way, from one array that is overwritten each time."""
    buffer = np.empty((max(COUNTS), SIDE, SIDE, 3), np.uint8)
    under_way: deque[Callable[[], np.ndarray]] = deque()
    rows = []
    for tiles in calls():
        buffer[: len(tiles)] = tiles
        under_way.append(batch_encoder.start(buffer[: len(tiles)]))
        if len(under_way) > ahead:
            rows.append(under_way.popleft()())
    return rows + [fetch() for fetch in under_way]


@pytest.mark.parametrize("options", [InferenceOptions(), InferenceOptions(half_rows=True)])
def test_copies_beside_the_computation_give_the_rows_of_direct_ones_without_a_race(
    options: InferenceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = [encode(encoder_of(Halved()), tiles, device="cpu", batch=8, options=options) for tiles in calls()]
    with RaceDetector() as detector:
        found = encode_ahead(overlapped(detector, monkeypatch, options))
    assert not detector.races
    for rows, expected in zip(found, direct, strict=True):
        np.testing.assert_array_equal(rows, expected)
        assert rows.dtype == (np.float16 if options.half_rows else np.float32)


@pytest.mark.parametrize(
    ("ignored", "race"),
    [
        ("host waits", "upload, host"),
        ("upload waits", "compute, upload"),
        ("compute waits", "upload, compute"),
        ("download waits", "compute, download"),
    ],
)
def test_each_wait_prevents_a_race(ignored: str, race: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RaceDetector(ignored) as detector:
        encode_ahead(overlapped(detector, monkeypatch))
    assert race in detector.races


def test_neither_the_host_nor_the_upload_waits_for_the_batch_before(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = calls()[1]
    with RaceDetector() as detector:
        batch_encoder = overlapped(detector, monkeypatch)
        for number in range(6):
            before = detector.clocks[COMPUTE].get(COMPUTE, 0)  # the last operation of the batch before
            batch_encoder.start(tiles)
            if number >= SLOTS:  # the first ones allocate the buffers
                assert detector.clocks[HOST].get(COMPUTE, 0) < before
                assert detector.clocks[UPLOAD].get(COMPUTE, 0) < before


def test_half_rows_are_the_rounded_rows() -> None:
    tiles = np.concatenate(calls())
    rows = encode(encoder_of(Halved()), tiles, device="cpu")
    half = encode(encoder_of(Halved()), tiles, device="cpu", options=InferenceOptions(half_rows=True))
    np.testing.assert_array_equal(half, rows.astype(np.float16))


def test_rows_beyond_the_range_of_float16_are_refused() -> None:
    with pytest.raises(EncoderError, match=r"nan or infinity for 20 of 20 tiles in bfloat16.*use float32"):
        encode(
            encoder_of(Bright()),
            calls()[5],
            device="cpu",
            precision="bfloat16",
            options=InferenceOptions(half_rows=True),
        )


def test_a_fault_is_raised_by_the_call_whose_tiles_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with RaceDetector() as detector:
        batch_encoder = overlapped(detector, monkeypatch)
        good = batch_encoder.start(calls()[0])
        with pytest.raises(EncoderError, match="expects RGB tiles of 4 x 4 px"):
            batch_encoder.start(np.zeros((2, 5, 5, 3), np.uint8))
        assert good().shape == (3, 3)


def test_tiles_that_a_gradient_needs_are_kept_while_later_ones_are_sent() -> None:
    normaliser = PixelNormaliser((0.5,) * 3, (0.25,) * 3, side=SIDE, capacity=0, device=torch.device("cpu"))
    with RaceDetector() as detector:
        transfer = OverlappedTransfer(detector)
        kept = []
        for tiles in calls():
            with transfer.sent(tiles) as sent:
                kept.append(normaliser.normalise(sent, keep=True))
    assert not detector.races
    for pixels, tiles in zip(kept, calls(), strict=True):
        np.testing.assert_allclose(pixels.permute(0, 2, 3, 1), (tiles / 255 - 0.5) / 0.25, atol=1e-5)


def test_a_transfer_that_began_in_inference_mode_is_used_outside_it() -> None:
    with RaceDetector() as detector:
        transfer = OverlappedTransfer(detector)
        for mode in (True, False, True, False):
            with torch.inference_mode(mode), transfer.sent(calls()[0]) as sent:
                np.testing.assert_array_equal(sent.numpy(), calls()[0])
