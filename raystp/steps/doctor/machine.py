"""Checks of this machine: Python and packages, shared memory, Ray, GPU and FAISS, OpenSlide."""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from raystp.cluster.session import MIN_SHARED_BYTES, SHARED_MEMORY, cluster_cpus, cluster_gpus, session
from raystp.index.search.faiss_gpu import gpu_count
from raystp.slides.open import open_slide
from raystp.slides.readers import openslide_reader
from raystp.slides.synthetic.file import write_slide
from raystp.steps.doctor.finding import Finding
from raystp.storage import StoragePath
from raystp.units import MicronsPerPixel
from raystp.versions import installed_version

PYTHONS = ((3, 11), (3, 14))
"""The first version that works, and the first that is not tried."""
PACKAGES = ("ray", "torch", "timm", "pyarrow", "openslide-python", "mlflow")
SIDE = 64


def python() -> list[Finding]:
    """Check the version of Python, and that the packages are installed."""
    version = sys.version.split()[0]
    if not PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]:
        return [Finding("Python", "error", f"{version}; raystp needs 3.11 to 3.13", "install one of these")]
    return [Finding("Python", "ok", ", ".join([version, *(f"{one} {installed_version(one)}" for one in PACKAGES)]))]


def shared_memory() -> list[Finding]:
    """Check that Ray's objects fit into shared memory."""
    if not SHARED_MEMORY.is_dir():
        return [Finding("shared memory", "ok", f"there is no {SHARED_MEMORY} here; Ray uses files")]
    free = shutil.disk_usage(SHARED_MEMORY).free
    text = f"{SHARED_MEMORY} has {free / 1e9:.1f} GB free"
    if free < MIN_SHARED_BYTES:
        advice = "start Docker with --shm-size=4g, or mount a volume of medium Memory there in a pod"
        return [Finding("shared memory", "warning", text, advice)]
    return [Finding("shared memory", "ok", text)]


def ray(address: str | None) -> list[Finding]:
    """Start a local Ray, or connect to a cluster, and stop or leave it."""
    with session(address):
        where = f"cluster {address}" if address else "a local Ray starts"
        return [Finding("Ray", "ok", f"{where}: {cluster_cpus()} logical CPUs, {cluster_gpus()} GPUs")]


def gpu() -> list[Finding]:
    """Check that torch and FAISS see the same GPUs."""
    if not torch.cuda.is_available():
        return [Finding("GPU", "ok", "none: encoders and search run on the CPU")]
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    found = [Finding("GPU", "ok", names)]
    if not gpu_count():
        advice = "install raystp[gpu] instead of raystp[cpu] to search on the GPU"
        return [*found, Finding("FAISS on GPU", "warning", "this FAISS sees no GPU", advice)]
    return [*found, Finding("FAISS on GPU", "ok", f"{gpu_count()} GPUs")]


def openslide() -> list[Finding]:
    """Load OpenSlide, and read a slide that was just written."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "slide.svs"
        image = np.full((SIDE, SIDE, 3), 200, np.uint8)
        write_slide(file, image, mpp=MicronsPerPixel(0.5))
        with open_slide("slide", StoragePath.of(file)) as slide:
            thumbnail = slide.thumbnail(SIDE)
    if thumbnail.shape != image.shape or abs(int(thumbnail.mean()) - 200) > 1:
        advice = "install openslide-bin and imagecodecs again"
        return [Finding("OpenSlide", "error", "a written slide is read with other pixels", advice)]
    return [Finding("OpenSlide", "ok", f"{openslide_reader.VERSION}; a written slide is read again")]
