"""JPEG tiles per second: decoded on a CPU core, and by nvJPEG through nvImageCodec or torchvision where they are."""

import importlib
import io
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from gpu.figures import Figures, Options
from gpu.networks import wait_for
from PIL import Image

SIDE = 256

Decode = Callable[[Sequence[bytes]], Sequence[np.ndarray | torch.Tensor]]


def measure(options: Options, figures: Figures) -> None:
    """Measure each decoder on the same tiles; pixels are compared with those of the CPU."""
    tiles = _tiles(64 if options.quick else 2048)
    expected = _time("one CPU core", _cpu_decoder(), tiles, options, figures=figures)
    for name, decoder in (("nvImageCodec", _nvimagecodec), ("torchvision", _torchvision)):
        if not options.on_cuda:
            figures.skip(f"nvJPEG through {name}", "it needs a CUDA device")
            continue
        try:
            decode = decoder(options.device)
            found = _time(f"nvJPEG through {name}", decode, tiles, options, figures=figures)
        except (ImportError, RuntimeError) as error:
            figures.skip(
                f"nvJPEG through {name}", f"{error} (nvImageCodec: pip install nvidia-nvimgcodec-cu12[nvjpeg])"
            )
            continue
        pairs = list(zip(found[:8], expected[:8], strict=True))
        largest = max(int(np.abs(_array(a).astype(int) - _array(b)).max()) for a, b in pairs)
        figures.add(f"nvJPEG through {name}, largest difference of a pixel", largest, "of 255")


def _tiles(count: int) -> list[bytes]:
    """Return JPEG files of smooth noise, as bright and as large as stained tissue."""
    rng, files = np.random.default_rng(0), []
    for _ in range(16):
        coarse = rng.integers(90, 240, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE, SIDE)).save(stream, "JPEG", quality=80)
        files.append(stream.getvalue())
    return [files[number % len(files)] for number in range(count)]


def _cpu_decoder() -> Decode:
    try:
        import simplejpeg  # noqa: PLC0415 -- absent on some machines
    except ImportError:
        return lambda files: [np.asarray(Image.open(io.BytesIO(file))) for file in files]
    return lambda files: [simplejpeg.decode_jpeg(file) for file in files]


def _nvimagecodec(device: str) -> Decode:
    nvimgcodec = importlib.import_module("nvidia.nvimgcodec")

    decoder = nvimgcodec.Decoder(device_id=torch.device(device).index or 0)
    return lambda files: [torch.utils.dlpack.from_dlpack(image) for image in decoder.decode(list(files))]


def _torchvision(device: str) -> Decode:
    from torchvision.io import decode_jpeg  # noqa: PLC0415 -- absent on some machines

    def decode(files: Sequence[bytes]) -> Sequence[torch.Tensor]:
        encoded = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        return [image.permute(1, 2, 0) for image in decode_jpeg(encoded, device=device)]

    return decode


def _time(
    name: str, decode: Decode, tiles: list[bytes], options: Options, *, figures: Figures
) -> Sequence[np.ndarray | torch.Tensor]:
    decode(tiles[:32])
    wait_for(options.device)
    began, found = time.perf_counter(), []
    for start in range(0, len(tiles), 256):
        found += list(decode(tiles[start : start + 256]))
    wait_for(options.device)
    figures.add(name, len(tiles) / (time.perf_counter() - began), "tiles/s")
    return found


def _array(image: np.ndarray | torch.Tensor) -> np.ndarray:
    return image.cpu().numpy() if isinstance(image, torch.Tensor) else image
