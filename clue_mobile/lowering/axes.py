"""Linear maps along axes: whatever mixes the elements of an axis by fixed weights is a product of matrices.

Every runtime has a fast matrix product, and few have resizes, reflections or uneven averages, let alone their
backward passes: with the matrix of the forward map known, that is the product with its transpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Matrix = list[list[float]]  # [out][size]: a row holds the weights of one element of the result


def transposed(matrix: Matrix) -> Matrix:
    """The adjoint map."""
    return [list(column) for column in zip(*matrix, strict=True)]


def selection(indices: Sequence[int], size: int) -> Matrix:
    """Row i picks the element `indices[i]` of an axis of length `size`."""
    return [[float(j == index) for j in range(size)] for index in indices]


def along(x: Tensor, matrices: Sequence[Matrix | None]) -> Tensor:
    """x with matrices[a] applied to axis a of its last `len(matrices)`; None leaves an axis as it is.

    The axis with the largest reduction goes first.
    """
    first = x.dim() - len(matrices)
    given = [(first + axis, matrix) for axis, matrix in enumerate(matrices) if matrix is not None]
    for dim, matrix in sorted(given, key=lambda each: (len(each[1]) / len(each[1][0]), -each[0])):
        weights = torch.tensor(transposed(matrix), dtype=x.dtype)
        x = x.transpose(dim, -1)
        product = torch.mm(x.reshape(-1, x.shape[-1]), weights)
        x = product.reshape(*x.shape[:-1], weights.shape[1]).transpose(dim, -1)
    return x


def adjoint(grad: Tensor, matrices: Sequence[Matrix | None]) -> Tensor:
    """The backward pass of `along`."""
    return along(grad, [None if matrix is None else transposed(matrix) for matrix in matrices])
