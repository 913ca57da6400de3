"""Sixteen neighbouring channels at once, in loops that numba compiles.

LLVM turns an inner loop over channels into vector instructions, but writes its sums to memory on every turn.
Here a variable of a loop is a vector, which stays in a register as long as the loop runs; LLVM splits it
where the machine's registers are shorter. Arrays are flat and of single or double precision.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.core.types import Type, float32, intp, void
from numba.core.types.containers import UniTuple
from numba.extending import intrinsic, models, register_model

Function = TypeVar("Function", bound=Callable[..., Any])

LANES = 16
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}  # a * b + c may round once


def compiled(function: Function) -> Function:
    """Machine code, made on the first call for each type of arguments; kept on disk where possible."""
    try:
        return cast(Function, numba.njit(cache=True, **OPTIONS)(function))
    except RuntimeError:  # neither beside the source nor in a cache folder of the user
        return cast(Function, numba.njit(**OPTIONS)(function))


class Lanes(Type):
    """The type of a vector of LANES numbers."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Lanes({dtype})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        number = ir.FloatType() if lanes.dtype == float32 else ir.DoubleType()
        super().__init__(manager, lanes, ir.VectorType(number, LANES))


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """To the LANES numbers that begin at an index."""
    number = builder.gep(context.make_array(kind)(context, builder, array).data, [index])
    return builder.bitcast(number, context.get_value_type(Lanes(kind.dtype)).as_pointer())


def _at(builder: Any, start: Any, step: Any, turn: int) -> Any:
    return builder.add(start, builder.mul(step, ir.Constant(step.type, turn)))


def _align(kind: Any) -> int:
    return int(kind.dtype.bitwidth) // 8


@intrinsic  # type: ignore[untyped-decorator]
def array_at(_: Any, address: Any, like: Any) -> Any:
    """The array of the shape and type of another that begins at an address, which does not keep it alive."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, other = arguments
        shape = context.make_array(like)(context, builder, other)
        found = context.make_array(like)(context, builder)
        pointer = builder.inttoptr(number, found.data.type)
        numba.np.arrayobj.populate_array(
            found, pointer, shape.shape, shape.strides, shape.itemsize, meminfo=None
        )
        return found._getvalue()

    return like(intp, like), build


@intrinsic  # type: ignore[untyped-decorator]
def load(_: Any, array: Any, start: Any) -> Any:
    """array[start : start + LANES]"""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, *arguments)
        return builder.load(pointer, align=_align(array))

    return Lanes(array.dtype)(array, intp), build


@intrinsic  # type: ignore[untyped-decorator]
def no_sums(_: Any, array: Any, row: Any) -> Any:
    """As many vectors of zeros as a tuple is long: a length is known to the compiler by the type alone."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return UniTuple(Lanes(array.dtype), row.count)(array, row), build


@intrinsic  # type: ignore[untyped-decorator]
def add_products(_: Any, sums: Any, lanes: Any, array: Any, start: Any, step: Any) -> Any:
    """sums[k] + lanes * array[start + k * step : start + k * step + LANES], for all k."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, factor, data, begin, stride = arguments
        for k in range(sums.count):
            pointer = _pointer(context, builder, array, data, _at(builder, begin, stride, k))
            product = builder.fmul(factor, builder.load(pointer, align=_align(array)), flags=("contract",))
            total = builder.fadd(builder.extract_value(found, k), product, flags=("contract",))
            found = builder.insert_value(found, total, k)
        return found

    return sums(sums, lanes, array, intp, intp), build


@intrinsic  # type: ignore[untyped-decorator]
def add_to(_: Any, array: Any, start: Any, step: Any, sums: Any) -> Any:
    """array[start + k * step : start + k * step + LANES] += sums[k], for all k."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, begin, stride, found = arguments
        for k in range(sums.count):
            pointer = _pointer(context, builder, array, data, _at(builder, begin, stride, k))
            before = builder.load(pointer, align=_align(array))
            builder.store(builder.fadd(before, builder.extract_value(found, k)), pointer, align=_align(array))
        return context.get_dummy_value()

    return void(array, intp, intp, sums), build


@intrinsic  # type: ignore[untyped-decorator]
def add_multiples(_: Any, sums: Any, array: Any, start: Any, step: Any, lanes: Any) -> Any:
    """sums[k] + array[start + k * step] * lanes, a number times a vector, for all k."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, data, begin, stride, factor = arguments
        empty = ir.Constant(factor.type, ir.Undefined)
        first = ir.Constant(ir.IntType(32), 0)
        same = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        numbers = context.make_array(array)(context, builder, data).data
        for k in range(sums.count):
            number = builder.load(builder.gep(numbers, [_at(builder, begin, stride, k)]))
            spread = builder.shuffle_vector(builder.insert_element(empty, number, first), empty, same)
            product = builder.fmul(spread, factor, flags=("contract",))
            total = builder.fadd(builder.extract_value(found, k), product, flags=("contract",))
            found = builder.insert_value(found, total, k)
        return found

    return sums(sums, array, intp, intp, lanes), build


@intrinsic  # type: ignore[untyped-decorator]
def minus(_: Any, sums: Any, lanes: Any) -> Any:
    """sums[k] - lanes, for all k."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, lanes = arguments
        for k in range(sums.count):
            found = builder.insert_value(found, builder.fsub(builder.extract_value(found, k), lanes), k)
        return found

    return sums(sums, lanes), build


@intrinsic  # type: ignore[untyped-decorator]
def add_squares(_: Any, lanes: Any, sums: Any) -> Any:
    """lanes + sum_k sums[k]^2"""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, found = arguments
        for k in range(sums.count):
            value = builder.extract_value(found, k)
            square = builder.fmul(value, value, flags=("contract",))
            total = builder.fadd(total, square, flags=("contract",))
        return total

    return lanes(lanes, sums), build


@intrinsic  # type: ignore[untyped-decorator]
def store(_: Any, array: Any, start: Any, step: Any, sums: Any) -> Any:
    """array[start + k * step : start + k * step + LANES] = sums[k], for all k."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, begin, stride, found = arguments
        for k in range(sums.count):
            pointer = _pointer(context, builder, array, data, _at(builder, begin, stride, k))
            builder.store(builder.extract_value(found, k), pointer, align=_align(array))
        return context.get_dummy_value()

    return void(array, intp, intp, sums), build
