# ruff: noqa: ANN001, ANN202, ARG001, PLR0917 -- numba compiles these functions; plain arguments
"""Pillow's BILINEAR filter in vector instructions, compiled by numba at first use: the same bytes in less time.

Weights and arithmetic are those of Pillow's `Resample.c`: corners in float32, a triangle in float64, weights rounded to
22 fractional bits, rows filtered first and rounded to bytes. A vector holds the same value of 16 rows. So source rows
are transposed in blocks of 16 x 16 bytes, filtered, and transposed back. The columns are then filtered as they are.
"""

from typing import cast, no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from raystp.compiled import compiled
from raystp.slides.readers.resample import LEAST_SIDE as LEAST
from raystp.slides.readers.resample import Filter

_BITS = 22
_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES, _INTS = ir.VectorType(_BYTE, LEAST), ir.VectorType(_INT, LEAST)
_BLOCK = 48  # bytes of a filtered block: 16 pixels of a row, or one pixel of 16 rows
_address = types.int64


@no_type_check
def _at(builder, address, steps, step):
    """Return the pointer to 16 bytes, `steps` steps after an address."""
    moved = builder.add(address, builder.mul(step, _LONG(steps)))
    return builder.inttoptr(moved, _BYTES.as_pointer())


@intrinsic
@no_type_check
def _transpose(context, source, source_step, target, target_step):
    """Write 16 vectors of 16 bytes, each with one byte of the 16 vectors read."""

    @no_type_check
    def emit(context, builder, signature, given):
        half = LEAST // 2
        rows = [builder.load(_at(builder, given[0], row, given[1]), align=1) for row in range(LEAST)]
        picks = [
            [_INT(at) for lane in range(start, start + half) for at in (lane, LEAST + lane)] for start in (0, half)
        ]
        for _ in range(4):  # each round interleaves the first half of the vectors with the second
            pairs = list(zip(rows[:half], rows[half:], strict=True))
            rows = [builder.shuffle_vector(*pair, ir.Constant(_INTS, pick)) for pair in pairs for pick in picks]
        for number, row in enumerate(rows):
            builder.store(row, _at(builder, given[2], number, given[3]), align=1)
        return context.get_dummy_value()

    return types.void(_address, _address, _address, _address), emit


@intrinsic
@no_type_check
def _weigh(context, source, step, taps, weights, target):
    """Write the weighted mean of `taps` blocks, the first at `source`, each `step` bytes after the one before."""

    @no_type_check
    def emit(context, builder, signature, given):
        undefined, first = ir.Constant(_INTS, ir.Undefined), ir.Constant(_INTS, [_INT(0)] * LEAST)
        half = ir.Constant(_INTS, [_INT(1 << (_BITS - 1))] * LEAST)
        sums = [cgutils.alloca_once(builder, _INTS) for _ in range(_BLOCK // LEAST)]
        for total in sums:
            builder.store(half, total)
        with cgutils.for_range(builder, given[2]) as loop:
            at = builder.inttoptr(builder.add(given[3], builder.mul(loop.index, _LONG(4))), _INT.as_pointer())
            one = builder.insert_element(undefined, builder.load(at, align=4), _INT(0))
            weight = builder.shuffle_vector(one, undefined, first)
            block = builder.add(given[0], builder.mul(loop.index, given[1]))
            for number, total in enumerate(sums):
                pixels = builder.zext(builder.load(_at(builder, block, number, _LONG(LEAST)), align=1), _INTS)
                builder.store(builder.add(builder.load(total), builder.mul(pixels, weight)), total)
        for number, total in enumerate(sums):
            mean = builder.lshr(builder.load(total), ir.Constant(_INTS, [_INT(_BITS)] * LEAST))
            builder.store(builder.trunc(mean, _BYTES), _at(builder, given[4], number, _LONG(LEAST)), align=1)
        return context.get_dummy_value()

    return types.void(_address, _address, types.int64, _address, _address), emit


@intrinsic
@no_type_check
def _keep_until_here(context, first, second, third):
    """Use arrays whose addresses were taken: numba frees an array after its last use, and an address is no use."""

    @no_type_check
    def emit(context, builder, signature, given):
        return context.get_dummy_value()

    return types.void(first, second, third), emit


@no_type_check
def _axis(start, stop, outputs, length):
    """Return each output pixel's first source pixel, the number of source pixels, and their weights."""
    scale = np.float64(stop - start) / outputs
    reach = max(scale, 1.0)
    first, taps = np.empty(outputs, np.int64), np.empty(outputs, np.int64)
    weights = np.zeros((outputs, int(np.ceil(reach)) * 2 + 1), np.int32)
    exact = np.empty(weights.shape[1], np.float64)
    for output in range(outputs):
        centre = start + (output + 0.5) * scale
        low, high = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), length)
        total = 0.0
        for tap in range(high - low):
            exact[tap] = max(1.0 - abs((tap + low - centre + 0.5) * (1.0 / reach)), 0.0)
            total += exact[tap]
        for tap in range(high - low):
            weights[output, tap] = int(0.5 + exact[tap] / total * (1 << _BITS))
        first[output], taps[output] = low, high - low
    return first, taps, weights


_axis_compiled = njit(_axis)


@no_type_check
def _filter(source, edges, image):
    height, width, (rows, columns) = source.shape[0], source.shape[1], image.shape[:2]
    first_x, taps_x, weights_x = _axis_compiled(np.float32(edges[0]), np.float32(edges[2]), columns, width)
    first_y, taps_y, weights_y = _axis_compiled(np.float32(edges[1]), np.float32(edges[3]), rows, height)
    above, before = min(first_y[0], height - LEAST), min(first_x[0], width - LEAST)
    needed_rows = max(first_y[-1] + taps_y[-1] - above, LEAST)
    needed_bytes = max(first_x[-1] + taps_x[-1] - before, LEAST) * 3
    row_bytes = columns * 3
    turned, turned_image = np.empty(needed_bytes * LEAST, np.uint8), np.empty(row_bytes * LEAST, np.uint8)
    narrow = np.empty(needed_rows * row_bytes, np.uint8)
    turned_at, turned_image_at, narrow_at = turned.ctypes.data, turned_image.ctypes.data, narrow.ctypes.data
    source_step, source_at = source.strides[0], source.ctypes.data + above * source.strides[0] + before * 3
    for row in range(0, needed_rows, LEAST):
        row = min(row, needed_rows - LEAST)  # noqa: PLW2901 -- the last block overlaps the one before
        for column in range(0, needed_bytes, LEAST):
            column = min(column, needed_bytes - LEAST)  # noqa: PLW2901 -- the same
            _transpose(source_at + row * source_step + column, source_step, turned_at + column * LEAST, LEAST)
        for x in range(columns):
            weights = weights_x.ctypes.data + x * weights_x.strides[0]
            _weigh(turned_at + (first_x[x] - before) * _BLOCK, _BLOCK, taps_x[x], weights, turned_image_at + x * _BLOCK)
        for column in range(0, row_bytes, LEAST):
            column = min(column, row_bytes - LEAST)  # noqa: PLW2901 -- the same
            _transpose(turned_image_at + column * LEAST, LEAST, narrow_at + row * row_bytes + column, row_bytes)
    for y in range(rows):
        weights = weights_y.ctypes.data + y * weights_y.strides[0]
        for column in range(0, row_bytes, _BLOCK):
            column = min(column, row_bytes - _BLOCK)  # noqa: PLW2901 -- the same
            at = narrow_at + (first_y[y] - above) * row_bytes + column
            _weigh(at, row_bytes, taps_y[y], weights, image.ctypes.data + y * image.strides[0] + column)
    _keep_until_here(turned, turned_image, narrow)


def load_filter() -> Filter:
    """Return the filter, compiled or loaded."""
    source, image = types.Array(types.uint8, 3, "A", readonly=True), types.Array(types.uint8, 3, "A")
    edges = types.UniTuple(types.float64, 4)  # type: ignore[no-untyped-call]  # numba has no types
    return cast("Filter", compiled(_filter, types.void(source, edges, image)))
