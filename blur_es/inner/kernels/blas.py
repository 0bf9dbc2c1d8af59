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


class Transposed(enum.IntEnum):
    """Which factor of `matmul` is stored transposed."""

    NONE = 0
    LEFT = 1
    RIGHT = 2


# Codes of sgemm for a factor as it is stored, or its transpose.
_PLAIN, _TRANSPOSED = ord("N"), ord("T")

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
def matmul(transposed, a, b, c, rows, columns, depth, alpha, beta):
    """C = alpha A B + beta C, for row-major matrices at the front of flat float32 arrays.

    Args:
        transposed: which of A and B is stored transposed; see `Transposed`.
        a: A, (rows, depth).
        b: B, (depth, columns).
        c: C, (rows, columns). With beta = 0 it is not read, and may hold anything.
        rows: number of rows of C.
        columns: number of columns of C.
        depth: number of columns of A.
        alpha: float32.
        beta: float32.
    """
    left, right = transposed == Transposed.LEFT, transposed == Transposed.RIGHT
    # Fortran stores matrices by columns and so takes each for its transpose: Cᵀ = alpha Bᵀ Aᵀ + ...
    _sgemm(
        _TRANSPOSED if right else _PLAIN,
        _TRANSPOSED if left else _PLAIN,
        columns,
        rows,
        depth,
        alpha,
        b.ctypes.data,
        depth if right else columns,
        a.ctypes.data,
        rows if left else depth,
        beta,
        c.ctypes.data,
        columns,
    )
    # Using the arrays here keeps them alive until sgemm has returned.
    return len(a) + len(b) + len(c)
