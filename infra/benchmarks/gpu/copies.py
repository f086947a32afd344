"""Bytes per second between host and device, from pageable and from pinned memory."""

import time

import torch
from gpu.figures import Figures, Options
from gpu.networks import wait_for

TIMES = 20


def measure(options: Options, figures: Figures) -> None:
    """Measure both directions."""
    if not options.on_cuda:
        figures.skip("copies", "the CPU has none")
        return
    size = 256 * 224 * 224 * 3  # 256 tiles
    device = torch.empty(size, dtype=torch.uint8, device=options.device)
    for name, pinned in (("pageable", False), ("pinned", True)):
        host = torch.zeros(size, dtype=torch.uint8, pin_memory=pinned)
        for direction, target, source in (("to the device", device, host), ("to the host", host, device)):
            target.copy_(source)
            wait_for(options.device)
            began = time.perf_counter()
            for _ in range(TIMES):
                target.copy_(source, non_blocking=pinned)
            wait_for(options.device)
            figures.add(f"{name} memory {direction}", TIMES * size / (time.perf_counter() - began) / 1e9, "GB/s")
