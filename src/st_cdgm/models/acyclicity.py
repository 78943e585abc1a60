"""Acyclicity of a weighted graph: penalties, their domain, sparsity.

``A[i, k]`` is the weight of the edge i -> k. All functions take one matrix: the penalty
belongs to the matrix, so it is counted once per optimiser step however many time steps
used it.

References
----------
Bello, Aragam & Ravikumar, DAGMA, arXiv:2209.08037.
Zheng et al., DAGs with NO TEARS, arXiv:1803.01422.
Yuan & Lin, Model selection and estimation in regression with grouped variables,
doi:10.1111/j.1467-9868.2005.00532.x.
Berman & Plemmons, Nonnegative matrices in the mathematical sciences, ch. 6,
doi:10.1137/1.9781611971262.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from st_cdgm.errors import ConfigError, InputError, check_choice

CONSTRAINTS = ("dagma", "notears", "none")


def dagma(A: Tensor, s: float = 1.0) -> Tensor:
    """Log-determinant acyclicity penalty.

    ``h_s(A) = -logdet(s I - A * A) + q log s`` with the elementwise square, defined
    where ``s`` exceeds the spectral radius of ``A * A``. There it is 0 for an acyclic
    graph and positive for any other; its gradient is ``2 A * inv(s I - A * A).T``.

    Parameters
    ----------
    A : Tensor
        Shape ``(q, q)``.
    s : float
        Size of the domain.

    Returns
    -------
    Tensor
        Scalar, computed in double precision, in the precision of ``A``.

    Raises
    ------
    InputError
        ``A`` is outside the domain, where the formula is another function. Keep it
        inside with `keep_in_domain`.
    """
    _check_square(A)
    if not in_dagma_domain(A, s):
        raise InputError(
            "the matrix is outside the domain of the log-determinant penalty",
            variable="A",
            found=f"spectral radius of A * A not below s = {s:g}, or not finite",
            expected=f"spectral radius of A * A < {s:g}",
            remedy="apply keep_in_domain after every optimiser step",
        )
    W = A.double()
    q = W.shape[0]
    M = s * torch.eye(q, dtype=W.dtype, device=W.device) - W * W
    h: Tensor = q * math.log(s) - torch.linalg.slogdet(M).logabsdet
    return h.to(A.dtype)


def notears(A: Tensor) -> Tensor:
    """Trace-exponential penalty ``tr exp(A * A) - q``: 0 iff acyclic, else positive.

    Computed in double precision, returned in the precision of ``A``.
    """
    _check_square(A)
    W = A.double()
    return (torch.matrix_exp(W * W).trace() - W.shape[0]).to(A.dtype)


def acyclicity(A: Tensor, *, constraint: str = "dagma", s: float = 1.0) -> Tensor:
    """Return the penalty named ``constraint``: ``dagma``, ``notears`` or ``none``.

    ``none`` is an honest choice where the true system has two-cycles; it returns 0.

    Raises
    ------
    ConfigError
        Unknown ``constraint``.
    InputError
        ``A`` is not one square matrix, or outside DAGMA's domain.
    """
    check_choice("constraint", constraint, CONSTRAINTS, section="")
    if constraint == "dagma":
        return dagma(A, s)
    if constraint == "notears":
        return notears(A)
    _check_square(A)
    return A.new_zeros(())


def in_dagma_domain(A: Tensor, s: float = 1.0) -> bool:
    """Say whether ``s`` exceeds the spectral radius of ``A * A``.

    Equivalent to ``s I - A * A`` being a non-singular M-matrix, that is, to positive
    pivots in Gaussian elimination without row exchange. This is exact for nilpotent
    matrices with large entries, where computed eigenvalues are not.
    """
    if s <= 0:
        raise ConfigError("s must be positive", variable="s", found=s, expected="> 0")
    W = A.detach().double().cpu().numpy()
    M = s * np.eye(len(W)) - W * W
    for k in range(len(M)):
        pivot = M[k, k]
        if not pivot > 0.0:  # also catches NaN
            return False
        M[k + 1 :, k + 1 :] -= np.outer(M[k + 1 :, k] / pivot, M[k, k + 1 :])
    return bool(np.isfinite(M).all())


def keep_in_domain(A_new: Tensor, A_old: Tensor, s: float = 1.0) -> Tensor:
    """Shorten a step until it stays in DAGMA's domain.

    The step from ``A_old`` is halved, not the entries clamped: the direction of descent
    is kept, and the penalty remains the function it is. After 40 halvings the step is
    refused altogether.

    Parameters
    ----------
    A_new : Tensor
        Matrix after the optimiser step. Shape ``(q, q)``.
    A_old : Tensor
        Feasible matrix before it. Shape ``(q, q)``.
    s : float
        Size of the domain.

    Returns
    -------
    Tensor
        ``A_new`` itself where it is feasible, else a feasible matrix on the segment
        from ``A_old``; no gradient.

    Raises
    ------
    InputError
        ``A_old`` is not in the domain.
    """
    if in_dagma_domain(A_new, s):
        return A_new.detach()
    if not in_dagma_domain(A_old, s):
        raise InputError(
            "no feasible matrix to step back to",
            variable="A_old",
            found="outside the domain of the log-determinant penalty",
            expected=f"spectral radius of A * A < {s:g}",
            remedy="start from a small matrix, or enlarge s",
        )

    start, step = A_old.detach(), (A_new - A_old).detach()
    for k in range(1, 41):
        candidate = start + 0.5**k * step
        if in_dagma_domain(candidate, s):
            return candidate
    return start.clone()


def central_path(
    epoch: int,
    epochs: int,
    *,
    start: float = 1.0,
    factor: float = 0.1,
    stages: int = 4,
) -> float:
    """Return mu of DAGMA's central path at ``epoch`` of ``epochs``.

    The objective is ``mu * (score + sparsity) + h(A)``, or the same divided by mu; mu
    falls from ``start`` by ``factor`` over equally long ``stages``, so that
    acyclicity weighs more and more.

    Raises
    ------
    ConfigError
        A schedule that does not decrease or has no stage.
    """
    if start <= 0 or not 0 < factor <= 1 or stages < 1 or epochs < 1:
        raise ConfigError(
            "the central path must decrease over at least one stage",
            found=f"start {start}, factor {factor}, stages {stages}, epochs {epochs}",
            expected="start > 0, 0 < factor <= 1, stages >= 1, epochs >= 1",
        )
    stage = min(max(epoch, 0) * stages // epochs, stages - 1)
    return start * factor**stage


def sparsity(A: Tensor, groups: Sequence[str] | None = None) -> Tensor:
    """L1 norm of the edges, or group lasso over source groups.

    Parameters
    ----------
    A : Tensor
        Shape ``(q, q)``; the diagonal does not count.
    groups : sequence of str, optional
        Source group of each variable. Edges between two groups then enter together, as
        the norm of their block times the root of its size, so that whole links between
        groups vanish; edges inside a group enter one by one.

    Raises
    ------
    InputError
        Not one group per variable.
    """
    _check_square(A)
    q = A.shape[0]
    off = A * (1.0 - torch.eye(q, dtype=A.dtype, device=A.device))
    if groups is None:
        return off.abs().sum()
    if len(groups) != q:
        raise InputError("not one group per variable", found=len(groups), expected=q)

    names = sorted(set(groups))
    member = torch.tensor(
        [[group == name for group in groups] for name in names],
        dtype=A.dtype,
        device=A.device,
    )  # (G, q)
    internal = (off.abs() * (member.T @ member)).sum()
    size = torch.outer(member.sum(1), member.sum(1))
    square = member @ (off * off) @ member.T  # (G, G)
    between = (square > 0) & ~torch.eye(len(names), dtype=torch.bool, device=A.device)
    # The root's gradient is infinite at 0: absent blocks get the subgradient 0.
    length = torch.where(between, square, 1.0).sqrt() * between
    return internal + (size.sqrt() * length).sum()


def _check_square(A: Tensor) -> None:
    if A.dim() != 2 or A.shape[0] != A.shape[1]:
        raise InputError(
            "the penalty takes one square matrix, once per step",
            variable="A",
            found=tuple(A.shape),
            expected="(q, q)",
        )
