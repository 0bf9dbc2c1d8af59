"""sgemm for compiled loops: the BLAS that SciPy ships, called without leaving machine code.

`numpy.dot` inside Numba needs contiguous operands and allocates; the inner loop multiplies
strided blocks in place. The routine is known to the compiled code by a symbol, not by its
address, so that Numba can keep the code on disk.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-overload"

from __future__ import annotations

import llvmlite.binding
import numpy as np
from numba import njit, types
from numba.extending import get_cython_function_address

_SYMBOL = "blur_es_sgemm"
llvmlite.binding.add_symbol(
    _SYMBOL, get_cython_function_address("scipy.linalg.cython_blas", "sgemm")
)
_sgemm = types.ExternalFunction(_SYMBOL, types.void(*[types.uintp] * 13))

# Fortran takes everything by address; these two live as long as the module.
_N, _T = 0, 1


@njit(error_model="numpy", nogil=True, cache=True)
def gemm(
    a,
    a_start,
    a_lead,
    a_transposed,
    b,
    b_start,
    b_lead,
    b_transposed,
    c,
    c_start,
    c_lead,
    rows,
    columns,
    depth,
    alpha,
    beta,
):
    """Row-major C = alpha A B + beta C on blocks of flat float32 arrays.

    A is (rows, depth), or (depth, rows) where `a_transposed`; B is (depth, columns), or
    (columns, depth) where `b_transposed`; C is (rows, columns). Each block begins at
    `start` and its rows are `lead` values apart. With beta = 0, C is not read.
    """
    # Fortran is column-major: it sees every block transposed, so it computes Cᵀ = Bᵀ Aᵀ.
    letters = np.array([78, 84], dtype=np.int8)  # 'N', 'T'
    sizes = np.array([columns, rows, depth, b_lead, a_lead, c_lead], dtype=np.int32)
    factors = np.array([alpha, beta], dtype=np.float32)
    letter, size, factor = letters.ctypes.data, sizes.ctypes.data, factors.ctypes.data
    _sgemm(
        letter + b_transposed,
        letter + a_transposed,
        size,
        size + 4,
        size + 8,
        factor,
        b.ctypes.data + 4 * b_start,
        size + 12,
        a.ctypes.data + 4 * a_start,
        size + 16,
        factor + 4,
        c.ctypes.data + 4 * c_start,
        size + 20,
    )
    # Reading them here keeps the three arrays alive until the routine has returned.
    return letters[0] + sizes[0] + factors[0]
