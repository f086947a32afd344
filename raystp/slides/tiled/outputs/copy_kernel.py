# ruff: noqa: ANN001, ANN202, ARG001, PLR0917 -- numba compiles these functions; plain arguments
"""Copy the parts of a stored tile to their targets in one call, compiled by numba.

Tiles for an encoder are not read soon, so they are written past the processor's cache. That leaves the cache to the
decoder, and no target has to be read before it is written.
"""

from typing import cast, no_type_check

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from raystp.compiled import compiled
from raystp.slides.tiled.outputs.copies import CopyKernel

_LINE = 64  # bytes of a line of the cache
_address = types.int64


@intrinsic
@no_type_check
def _copy(context, source, target, count):
    """Copy bytes."""

    @no_type_check
    def emit(context, builder, signature, given):
        source, target = (builder.inttoptr(at, ir.IntType(8).as_pointer()) for at in given[:2])
        cgutils.raw_memcpy(builder, target, source, given[2], 1)
        return context.get_dummy_value()

    return types.void(_address, _address, types.int64), emit


@intrinsic
@no_type_check
def _copy_lines(context, source, target, lines):
    """Copy whole lines past the cache; the target is at the start of one."""

    @no_type_check
    def emit(context, builder, signature, given):
        line, number = ir.VectorType(ir.IntType(8), _LINE), ir.IntType(64)
        with cgutils.for_range(builder, given[2]) as loop:
            offset = builder.mul(loop.index, number(_LINE))
            source, target = (builder.inttoptr(builder.add(at, offset), line.as_pointer()) for at in given[:2])
            store = builder.store(builder.load(source, align=1), target, align=_LINE)
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(_address, _address, types.int64), emit


@intrinsic
@no_type_check
def _finish(context):
    """Let no later access overtake the copies."""

    @no_type_check
    def emit(context, builder, signature, given):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit


@no_type_check
def _copy_rects(stored, rects, first, last, targets, past_cache):
    row_bytes, start = stored.shape[1] * 3, stored.ctypes.data
    for rect in range(first, last):
        number, top, bottom, left, right, row, _, column, _ = rects[rect]
        step, count = targets[number, 1], (right - left) * 3
        source = start + row * row_bytes + column * 3
        target = targets[number, 0] + top * step + left * 3
        for _ in range(bottom - top):
            before = min(-target % _LINE, count) if past_cache else count
            lines = (count - before) // _LINE
            after = before + lines * _LINE
            _copy(source, target, before)
            _copy_lines(source + before, target + before, lines)
            _copy(source + after, target + after, count - after)
            source, target = source + row_bytes, target + step
    if past_cache:
        _finish()


def load_copy_kernel() -> CopyKernel:
    """Return the kernel, compiled or loaded."""
    stored, numbers = types.Array(types.uint8, 3, "C"), types.Array(types.int64, 2, "C")
    signature = types.void(stored, numbers, types.int64, types.int64, numbers, types.boolean)
    return cast("CopyKernel", compiled(_copy_rects, signature))
