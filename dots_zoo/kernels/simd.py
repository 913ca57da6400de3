"""Sixteen neighbouring channels at once, in loops that numba compiles.

LLVM turns an inner loop over channels into vector instructions, but writes its sums to memory on every turn.
Here a variable of a loop is a vector, which stays in a register as long as the loop runs; LLVM splits it
where the machine's registers are shorter. Arrays are flat and of single or double precision.
"""

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core.types import Type, float32, intp, void
from numba.core.types.containers import UniTuple
from numba.extending import intrinsic, models, register_model

LANES = 16
WIDE = bool(get_host_cpu_features().get("avx512f"))  # 32 registers, each of LANES numbers; else 16 of half


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
def load(_: Any, array: Any, start: Any) -> Any:
    """array[start : start + LANES]"""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, *arguments)
        return builder.load(pointer, align=_align(array))

    return Lanes(array.dtype)(array, intp), build


@intrinsic  # type: ignore[untyped-decorator]
def load_all(_: Any, array: Any, start: Any, step: Any, row: Any) -> Any:
    """array[start + k * step : start + k * step + LANES], for as many k as a tuple is long."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, begin, stride, _ = arguments
        found = ir.Constant(context.get_value_type(signature.return_type), ir.Undefined)
        for k in range(row.count):
            pointer = _pointer(context, builder, array, data, _at(builder, begin, stride, k))
            found = builder.insert_value(found, builder.load(pointer, align=_align(array)), k)
        return found

    return UniTuple(Lanes(array.dtype), row.count)(array, intp, intp, row), build


@intrinsic  # type: ignore[untyped-decorator]
def relu_of_product(_: Any, lanes: Any, others: Any) -> Any:
    """lanes * others where that is positive, and 0 elsewhere; what is no number stays so."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.fmul(*arguments)
        zeros = ir.Constant(product.type, None)
        return builder.select(builder.fcmp_ordered("<=", product, zeros), zeros, product)

    return lanes(lanes, others), build


@intrinsic  # type: ignore[untyped-decorator]
def no_sums(_: Any, array: Any, row: Any) -> Any:
    """As many vectors of zeros as a tuple is long: a length is known to the compiler by the type alone."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return UniTuple(Lanes(array.dtype), row.count)(array, row), build


@intrinsic  # type: ignore[untyped-decorator]
def add_taps(_: Any, sums: Any, lanes: Any, array: Any, start: Any, line: Any, row: Any, apart: Any) -> Any:
    """sums[k] + lanes * array[at : at + LANES], for all k, at being start + i * line + j * len(apart) * LANES
    of the j-th in the i-th row: a row is as long as a tuple.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, factor, data, begin, stride = arguments[:5]
        step = ir.Constant(begin.type, apart.count * LANES)
        for k in range(sums.count):
            at = _at(builder, _at(builder, begin, stride, k // row.count), step, k % row.count)
            number = builder.load(_pointer(context, builder, array, data, at), align=_align(array))
            product = builder.fmul(factor, number, flags=("contract",))
            total = builder.fadd(builder.extract_value(found, k), product, flags=("contract",))
            found = builder.insert_value(found, total, k)
        return found

    return sums(sums, lanes, array, intp, intp, row, apart), build


@intrinsic  # type: ignore[untyped-decorator]
def add_windows(
    _: Any, sums: Any, weights: Any, array: Any, start: Any, line: Any, row: Any, apart: Any, stride: Any
) -> Any:
    """sums[p] + the sum over k of weights[k] * array[at : at + LANES], for all p, at being that of `add_taps`
    and p * len(stride) * LANES more.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, factors, data, begin, next_line = arguments[:5]
        totals = [builder.extract_value(found, p) for p in range(sums.count)]
        for k in range(weights.count):
            factor, at = builder.extract_value(factors, k), _at(builder, begin, next_line, k // row.count)
            for p in range(sums.count):
                more = (k % row.count * apart.count + p * stride.count) * LANES
                pointer = _pointer(context, builder, array, data, builder.add(at, ir.Constant(at.type, more)))
                number = builder.load(pointer, align=_align(array))
                product = builder.fmul(factor, number, flags=("contract",))
                totals[p] = builder.fadd(totals[p], product, flags=("contract",))
        for p, total in enumerate(totals):
            found = builder.insert_value(found, total, p)
        return found

    return sums(sums, weights, array, intp, intp, row, apart, stride), build


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
def add_all(_: Any, lanes: Any, sums: Any) -> Any:
    """lanes + sum_k sums[k], in pairs, so that few wait for others."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, found = arguments
        terms = [builder.extract_value(found, k) for k in range(sums.count)]
        while len(terms) > 1:
            terms = [*terms[2:], builder.fadd(terms[0], terms[1])]
        return builder.fadd(total, terms[0])

    return lanes(lanes, sums), build


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
