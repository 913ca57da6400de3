"""Vectors of SIMD_WIDTH neighbouring channels, for loops that numba compiles.

LLVM turns an inner loop over channels into vector instructions, but writes its sums to memory on every
iteration. Here a variable of a loop is a vector, which stays in a register as long as the loop runs; LLVM
splits it where the machine's registers are shorter. Arrays are flat and of single or double precision. The
number of vectors in a loop is the length of a tuple, and so part of its type.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core.types import Type, float32, intp, void
from numba.core.types.containers import UniTuple
from numba.extending import intrinsic, models, register_model

from .jit import SIMD_WIDTH

WIDE = bool(
    get_host_cpu_features().get("avx512f")
)  # 32 registers, each of SIMD_WIDTH floats; else 16 of half


class Vector(Type):
    """The numba type of SIMD_WIDTH values."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        value = ir.FloatType() if vector.dtype == float32 else ir.DoubleType()
        super().__init__(manager, vector, ir.VectorType(value, SIMD_WIDTH))


class _Memory:
    """An array in LLVM code, from which vectors are loaded, and to which they are stored, at any index."""

    def __init__(self, context: Any, builder: Any, array_type: Any, array: Any) -> None:
        self.builder, self.data = builder, context.make_array(array_type)(context, builder, array).data
        self.vector = context.get_value_type(Vector(array_type.dtype)).as_pointer()
        self.align = int(array_type.dtype.bitwidth) // 8

    def pointer(self, index: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.data, [index]), self.vector)

    def load(self, index: Any) -> Any:
        return self.builder.load(self.pointer(index), align=self.align)

    def store(self, value: Any, index: Any) -> None:
        self.builder.store(value, self.pointer(index), align=self.align)

    def splat(self, index: Any) -> Any:
        """Broadcast one value of the array to a vector."""
        value = self.builder.load(self.builder.gep(self.data, [index]))
        empty = ir.Constant(self.vector.pointee, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(
            first, empty, ir.Constant(ir.VectorType(ir.IntType(32), SIMD_WIDTH), None)
        )


def _offset(builder: Any, start: Any, step: Any, count: int) -> Any:
    """Emit start + count * step."""
    return builder.add(start, builder.mul(step, ir.Constant(step.type, count))) if count else start


def _multiply_add(builder: Any, total: Any, left: Any, right: Any) -> Any:
    return builder.fadd(total, builder.fmul(left, right, flags=("contract",)), flags=("contract",))


def _each(builder: Any, vectors: Any, count: int, function: Callable[[int, Any], Any]) -> Any:
    """Return the tuple of function(k, vectors[k])."""
    for k in range(count):
        vectors = builder.insert_value(vectors, function(k, builder.extract_value(vectors, k)), k)
    return vectors


@intrinsic  # type: ignore[untyped-decorator]
def load(_: Any, array: Any, start: Any) -> Any:
    """Load array[start : start + SIMD_WIDTH]."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _Memory(context, builder, array, arguments[0]).load(arguments[1])

    return Vector(array.dtype)(array, intp), build


@intrinsic  # type: ignore[untyped-decorator]
def load_all(_: Any, array: Any, start: Any, step: Any, like: Any) -> Any:
    """Load array[start + k * step : start + k * step + SIMD_WIDTH] for as many k as `like` is long."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory, (_, begin, stride, _) = _Memory(context, builder, array, arguments[0]), arguments
        empty = ir.Constant(context.get_value_type(signature.return_type), ir.Undefined)
        return _each(builder, empty, like.count, lambda k, _: memory.load(_offset(builder, begin, stride, k)))

    return UniTuple(Vector(array.dtype), like.count)(array, intp, intp, like), build


@intrinsic  # type: ignore[untyped-decorator]
def store(_: Any, array: Any, start: Any, step: Any, vectors: Any) -> Any:
    """Store array[start + k * step : start + k * step + SIMD_WIDTH] = vectors[k] for all k."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory, (_, begin, stride, values) = _Memory(context, builder, array, arguments[0]), arguments
        for k in range(vectors.count):
            memory.store(builder.extract_value(values, k), _offset(builder, begin, stride, k))
        return context.get_dummy_value()

    return void(array, intp, intp, vectors), build


@intrinsic  # type: ignore[untyped-decorator]
def zeros(_: Any, array: Any, like: Any) -> Any:
    """Return as many vectors of zeros, of the dtype of an array, as `like` is long."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return UniTuple(Vector(array.dtype), like.count)(array, like), build


@intrinsic  # type: ignore[untyped-decorator]
def relu_of_product(_: Any, vector: Any, other: Any) -> Any:
    """Return vector * other where that is positive, and 0 elsewhere; NaN stays NaN."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.fmul(*arguments)
        nothing = ir.Constant(product.type, None)
        return builder.select(builder.fcmp_ordered("<=", product, nothing), nothing, product)

    return vector(vector, other), build


@intrinsic  # type: ignore[untyped-decorator]
def add_taps(_: Any, sums: Any, vector: Any, array: Any, start: Any, line: Any, column: Any, row: Any) -> Any:
    """Return sums[k] + vector * array[at : at + SIMD_WIDTH] for every tap k.

    at = start + i * line + j * column for the j-th tap in the i-th row of taps; a row is as long as `row`.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (totals, factor, _, begin, next_line, next_column, _) = arguments
        memory = _Memory(context, builder, array, arguments[2])

        def add(k: int, total: Any) -> Any:
            at = _offset(
                builder, _offset(builder, begin, next_line, k // row.count), next_column, k % row.count
            )
            return _multiply_add(builder, total, factor, memory.load(at))

        return _each(builder, totals, sums.count, add)

    return sums(sums, vector, array, intp, intp, intp, row), build


@intrinsic  # type: ignore[untyped-decorator]
def add_windows(
    _: Any, sums: Any, taps: Any, array: Any, start: Any, line: Any, column: Any, row: Any, step: Any
) -> Any:
    """Return sums[p] + sum_k taps[k] * array[at : at + SIMD_WIDTH] for every pixel p.

    at is that of `add_taps` plus p * step.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (totals, factors, _, begin, next_line, next_column, _, next_pixel) = arguments
        memory = _Memory(context, builder, array, arguments[2])
        values = [builder.extract_value(totals, p) for p in range(sums.count)]
        pixels = [_offset(builder, begin, next_pixel, p) for p in range(sums.count)]
        for k in range(taps.count):
            tap = ir.Constant(begin.type, 0)
            tap = _offset(
                builder, _offset(builder, tap, next_line, k // row.count), next_column, k % row.count
            )
            factor = builder.extract_value(factors, k)
            for p, pixel in enumerate(pixels):
                values[p] = _multiply_add(builder, values[p], factor, memory.load(builder.add(pixel, tap)))
        return _each(builder, totals, sums.count, lambda p, _: values[p])

    return sums(sums, taps, array, intp, intp, intp, row, intp), build


@intrinsic  # type: ignore[untyped-decorator]
def add_multiples(_: Any, sums: Any, array: Any, start: Any, step: Any, vector: Any) -> Any:
    """Return sums[k] + array[start + k * step] * vector, a scalar times a vector, for all k."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory, (totals, _, begin, stride, factor) = _Memory(context, builder, array, arguments[1]), arguments
        return _each(
            builder,
            totals,
            sums.count,
            lambda k, total: _multiply_add(
                builder, total, memory.splat(_offset(builder, begin, stride, k)), factor
            ),
        )

    return sums(sums, array, intp, intp, vector), build


@intrinsic  # type: ignore[untyped-decorator]
def add(_: Any, sums: Any, vectors: Any) -> Any:
    """Return sums[k] + vectors[k] for all k."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        totals, values = arguments
        return _each(
            builder, totals, sums.count, lambda k, t: builder.fadd(t, builder.extract_value(values, k))
        )

    return sums(sums, vectors), build


@intrinsic  # type: ignore[untyped-decorator]
def subtract(_: Any, sums: Any, vector: Any) -> Any:
    """Return sums[k] - vector for all k."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _each(builder, arguments[0], sums.count, lambda _, total: builder.fsub(total, arguments[1]))

    return sums(sums, vector), build


@intrinsic  # type: ignore[untyped-decorator]
def add_sum(_: Any, vector: Any, vectors: Any) -> Any:
    """Return vector + sum_k vectors[k], added in pairs, so that few additions wait for others."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        terms = [builder.extract_value(arguments[1], k) for k in range(vectors.count)]
        while len(terms) > 1:
            terms = [*terms[2:], builder.fadd(terms[0], terms[1])]
        return builder.fadd(arguments[0], terms[0])

    return vector(vector, vectors), build


@intrinsic  # type: ignore[untyped-decorator]
def add_squares(_: Any, vector: Any, vectors: Any) -> Any:
    """Return vector + sum_k vectors[k]^2."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total = arguments[0]
        for k in range(vectors.count):
            value = builder.extract_value(arguments[1], k)
            total = _multiply_add(builder, total, value, value)
        return total

    return vector(vector, vectors), build
