"""Compiled kernels of the Numba inner loop, and how its arrays are laid out."""
