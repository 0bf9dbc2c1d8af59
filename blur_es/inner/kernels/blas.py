"""sgemm for compiled loops: the BLAS that SciPy ships, called without leaving machine code.

`numpy.dot` inside Numba needs contiguous operands and allocates; the inner loop multiplies
blocks of flat arrays in place. The routine is known to the compiled code by a symbol, not by
its address, so that Numba can keep the code on disk.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, call-arg, unreachable"

from __future__ import annotations

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

_POINTER, _LETTER, _SIZE, _FACTOR = (
    ir.IntType(64),
    ir.IntType(8),
    ir.IntType(32),
    ir.FloatType(),
)


@intrinsic
def _sgemm(typing_context, a_letter, b_letter, m, n, k, alpha, a, a_lead, b, b_lead, beta, c, lead):
    """Fortran's sgemm with arguments by value; a, b and c are addresses."""
    letter, size, factor, pointer = types.int8, types.int32, types.float32, types.uintp
    signature = types.void(
        *(letter, letter, size, size, size, factor),
        *(pointer, size, pointer, size, factor, pointer, size),
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # Fortran takes everything by address: the numbers get places on the stack.
        passed = [
            argument
            if kind == pointer
            else builder.ptrtoint(cgutils.alloca_once_value(builder, argument), _POINTER)
            for kind, argument in zip(signature.args, arguments, strict=True)
        ]
        kind = ir.FunctionType(ir.VoidType(), [_POINTER] * len(passed))
        function = cgutils.get_or_insert_function(builder.module, kind, _SYMBOL)
        builder.call(function, passed)
        return context.get_dummy_value()

    return signature, generate


@compiled
def gemm(
    a,
    a_start,
    a_transposed,
    b,
    b_start,
    b_transposed,
    c,
    c_start,
    rows,
    columns,
    depth,
    alpha,
    beta,
):
    """Row-major C = alpha A B + beta C on contiguous blocks of flat float32 arrays.

    A is (rows, depth), or (depth, rows) where `a_transposed`; B is (depth, columns), or
    (columns, depth) where `b_transposed`; C is (rows, columns). Each block begins at its
    `start`. With beta = 0, C is not read.
    """
    # Fortran is column-major: it sees every block transposed, so it computes Cᵀ = Bᵀ Aᵀ.
    _sgemm(
        84 if b_transposed else 78,  # 'T', 'N'
        84 if a_transposed else 78,
        columns,
        rows,
        depth,
        alpha,
        b.ctypes.data + 4 * b_start,
        depth if b_transposed else columns,
        a.ctypes.data + 4 * a_start,
        rows if a_transposed else depth,
        beta,
        c.ctypes.data + 4 * c_start,
        columns,
    )
    # Reading them here keeps the arrays alive until the routine has returned.
    return len(a) + len(b) + len(c)
