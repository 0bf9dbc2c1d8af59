"""Matrix products for kernels: single-precision `sgemm` of the BLAS that SciPy ships.

`numpy.dot` in compiled code needs contiguous arrays and allocates its result. Kernels multiply
blocks of flat arrays in place instead. Compiled code refers to `sgemm` by a symbol and not by its
address, so that Numba can keep the code on disk.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, call-arg, unreachable"

from __future__ import annotations

import enum
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

from blur_es.inner.kernels.compiling import compiled

_SYMBOL = "blur_es_sgemm"
llvmlite.binding.add_symbol(
    _SYMBOL, get_cython_function_address("scipy.linalg.cython_blas", "sgemm")
)

_ADDRESS = ir.IntType(64)


class Stored(enum.IntEnum):
    """How a factor of `matmul` is stored; the values are sgemm's codes."""

    PLAIN = ord("N")
    TRANSPOSED = ord("T")


_LETTER, _SIZE, _FACTOR, _POINTER = types.int8, types.int32, types.float32, types.uintp


@intrinsic
def _sgemm(
    typing_context, transa, transb, m, n, k, alpha, a, a_columns, b, b_columns, beta, c, c_columns
):
    """Call Fortran's sgemm with arguments by value; a, b and c are addresses of float32 values."""
    matrix = (_POINTER, _SIZE)
    signature = types.void(
        _LETTER, _LETTER, _SIZE, _SIZE, _SIZE, _FACTOR, *matrix, *matrix, _FACTOR, *matrix
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # Fortran takes every argument by address, so numbers are placed on the stack.
        addresses = [
            argument
            if kind == _POINTER
            else builder.ptrtoint(cgutils.alloca_once_value(builder, argument), _ADDRESS)
            for kind, argument in zip(signature.args, arguments, strict=True)
        ]
        kind = ir.FunctionType(ir.VoidType(), [_ADDRESS] * len(addresses))
        function = cgutils.get_or_insert_function(builder.module, kind, _SYMBOL)
        builder.call(function, addresses)
        return context.get_dummy_value()

    return signature, generate


@compiled
def matmul(a, a_stored, b, b_stored, c, rows, columns, depth, alpha, beta):
    """C = alpha A B + beta C, for row-major matrices at the front of flat float32 arrays.

    Args:
        a: A (rows, depth), or its transpose (depth, rows).
        a_stored: whether `a` holds the transpose; see `Stored`.
        b: B (depth, columns), or its transpose (columns, depth).
        b_stored: whether `b` holds the transpose.
        c: C (rows, columns). With beta = 0 it is not read, and may hold anything.
        rows: number of rows of C.
        columns: number of columns of C.
        depth: number of columns of A.
        alpha: float32.
        beta: float32.
    """
    # Fortran stores matrices by columns and so takes each for its transpose: Cᵀ = alpha Bᵀ Aᵀ + ...
    _sgemm(
        b_stored,
        a_stored,
        columns,
        rows,
        depth,
        alpha,
        b.ctypes.data,
        depth if b_stored == Stored.TRANSPOSED else columns,
        a.ctypes.data,
        rows if a_stored == Stored.TRANSPOSED else depth,
        beta,
        c.ctypes.data,
        columns,
    )
    # Using the arrays here keeps them alive until sgemm has returned.
    return len(a) + len(b) + len(c)
