"""Whether the arrays of a file are those that were written, and how large they may be.

Every tensor has a checksum beside it, so that a flipped bit is found before it becomes
a field. Sizes are compared with the file before memory is taken for them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from st_cdgm.errors import InputError

CHECKSUMS = "checksums"
# A model may hold more than its file: constants that are made anew, drafts of weights.
_FACTOR, _MARGIN = 8, 256 << 20
_SHOWN = 5
_MADE = ("empty", "zeros", "ones", "full", "rand", "randn", "empty_strided")
_MADE_LIKE = ("new_empty", "new_zeros", "new_ones", "new_full")


def checksum(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's type, shape and values."""
    plain = tensor.detach().cpu().contiguous()
    mark = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)} ".encode())
    mark.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return mark.hexdigest()


def checksums(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the checksum of every tensor by its key."""
    return {key: checksum(value) for key, value in tensors.items()}


def damaged(
    problem: str,
    path: Path,
    found: object,
    *,
    expected: str = "the file that the training wrote",
) -> InputError:
    """Return the error for a file of a checkpoint that is not what was written."""
    return InputError(
        problem,
        file=path,
        found=found,
        expected=expected,
        remedy="copy the checkpoint again, or use another one",
    )


def check_sums(tensors: Mapping[str, Tensor], stored: Any, path: Path) -> None:
    """Compare tensors with their stored checksums; nothing where there are none.

    Raises
    ------
    InputError
        A tensor was changed, is missing or came to it.
    """
    if stored is None:  # of a version that wrote none
        return
    known = stored if isinstance(stored, Mapping) else {}
    found = checksums(tensors)
    other = [
        f"{key} {_how(found.get(key), known.get(key))}"
        for key in sorted({*found, *known})
        if found.get(key) != known.get(key)
    ]
    if other:
        problem = "the checkpoint's weights are not those that were written"
        expected = "tensors with the checksums that were stored with them"
        raise damaged(problem, path, listed(other), expected=expected)


def _how(found: str | None, stored: str | None) -> str:
    if found is None:
        return "is missing"
    return "was added" if stored is None else "was changed"


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError for weights that are no numbers: all they make is none."""
    bad = [
        key
        for key, value in tensors.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if bad:
        raise damaged(
            "the checkpoint's weights are not finite",
            path,
            f"NaN or infinity in {listed(bad)}",
            expected="finite numbers",
        )


def check_no_others(found: Iterable[str], known: Iterable[str], path: Path) -> None:
    """Raise InputError for tensors that no part of the model asks for."""
    others = sorted(set(found) - set(known))
    if others:
        raise damaged(
            "the checkpoint holds tensors that do not belong to it",
            path,
            listed(others),
            expected="the weights of the model and the arrays of its data",
        )


def listed(names: list[str]) -> str:
    """Return some names and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# -- Sizes -----------------------------------------------------------------------------


@contextmanager
def sizes_within(tensors: Mapping[str, Tensor], path: Path) -> Iterator[None]:
    """Let tensors be made inside that together are no larger than the file explains.

    Raises
    ------
    InputError
        One is asked for that goes beyond it; no memory is taken for it.
    """
    stored = sum(value.nbytes for value in tensors.values())
    with _Bounded(_FACTOR * stored + _MARGIN, path):
        yield


class _Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of new tensors, and refuse those above a limit."""

    def __init__(self, limit: int, path: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left, self.path = limit, path

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Look at the size before the tensor is made."""
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        size = args[0] if name in _MADE and args else None
        size = args[1] if name in _MADE_LIKE else size
        if size is not None:
            kind = kwargs.get("dtype") or torch.get_default_dtype()
            self._take([int(n) for n in size], kind.itemsize)
        return func(*args, **kwargs)

    def _take(self, shape: list[int], itemsize: int) -> None:
        size = math.prod(shape) * itemsize
        self.left -= size
        if self.left < 0:
            raise damaged(
                "the checkpoint's description asks for more than its weights hold",
                self.path,
                f"a tensor of shape {tuple(shape)}, {size / 1e6:,.0f} MB",
                expected="the sizes of the model that was trained",
            )
