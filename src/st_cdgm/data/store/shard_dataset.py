"""Windows from WebDataset shards, shared out among workers and ranks."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from st_cdgm.data.files.open import is_url
from st_cdgm.data.store.manifest import METADATA, check_files
from st_cdgm.data.store.shard_names import (
    check_complete,
    expand_shards,
    fetch,
    shard_metadata,
    shard_name,
)
from st_cdgm.data.store.shards import FIELDS, Shard
from st_cdgm.data.task.datasets import SharedWindows
from st_cdgm.data.time.windows import worker_share
from st_cdgm.errors import ConfigError, InputError

logger = logging.getLogger(__name__)
# Shards held open, with the places of their samples.
_OPEN = 32
# Copies of remote shards on disk at a time, in each process.
_COPIES = 2


class WebDatasetIterableDataset(SharedWindows):
    """Windows as dictionaries, read from the tar files of ``st-cdgm preprocess``.

    Each sample holds ``lr (T, C_lr, y, x)``, ``baseline``, ``residual`` and ``hr``
    ``(T, C, Y, X)``, ``static (C_s, Y, X)`` where there is one, and ``time``, a list of
    T ISO dates; only those present. Samples, not shards, are shared out among workers
    and ranks: each comes exactly once whatever their numbers, and together they come in
    one order that ``seed`` and the epoch decide.

    Parameters
    ----------
    shard_pattern : str or sequence of str
        Brace range (``data_{000000..000009}.tar``), glob (``data_*.tar``), path or URL.
        A URL is copied here shard by shard, in each worker.
    metadata_path : str or Path, optional
        ``metadata.json``; by default the one beside the first shard, if there is one.
    shuffle : bool
        Whether samples come in random order, another one after :meth:`set_epoch`.
    shardshuffle : int or bool
        With ``shuffle``: how many shards are drawn from; False keeps them in order.
    shuffle_buffer_size : int
        With ``shuffle``: how many samples are drawn from. Only their numbers are held,
        so that a large buffer costs no memory.
    seed : int
        Of the random order.
    split : {"train", "validation", "test"}, optional
        Restricts the samples to one period; needs metadata.
    as_torch : bool
        Tensors if True, else NumPy arrays. Each sample has its own memory.
    drop_uneven : bool
        Leave out the last samples so that all ranks get equally many, as steps of
        distributed training must.
    verify : bool
        Compare the SHA-256 of all shards with the metadata first.

    Attributes
    ----------
    metadata : dict
        Content of ``metadata.json``; empty without one.
    shards : list of str
        Paths or URLs, in order.

    Raises
    ------
    MissingFileError
        If a shard or the metadata named do not exist, or a pattern matches nothing.
    InputError
        If shards or metadata are damaged; from reading also with the sample's key.
    ConfigError
        If there is no such split.
    """

    def __init__(
        self,
        shard_pattern: str | Path | Sequence[str | Path],
        *,
        metadata_path: str | Path | None = None,
        shuffle: bool = False,
        shardshuffle: int | bool = 100,
        shuffle_buffer_size: int = 1000,
        seed: int = 0,
        split: str | None = None,
        as_torch: bool = True,
        drop_uneven: bool = False,
        verify: bool = False,
    ) -> None:
        super().__init__()
        self.shards = expand_shards(shard_pattern)
        self.metadata = shard_metadata(self.shards, metadata_path)
        self.shuffle, self.shardshuffle = shuffle, shardshuffle
        self.shuffle_buffer_size, self.seed = int(shuffle_buffer_size), int(seed)
        self.split, self.as_torch = split, as_torch
        self.drop_uneven = drop_uneven
        check_complete(shard_pattern, self.shards, self.metadata)
        if verify:
            self._verify()

        listed = {facts["name"]: facts for facts in self.metadata.get("shards", [])}
        facts = [listed.get(shard_name(shard)) for shard in self.shards]
        self._store = _ShardStore(self.shards, facts)
        self._samples = self._chosen(facts)
        self._shapes = _layout(self.metadata) if self.metadata else {}

    def __len__(self) -> int:
        """Return the number of samples over all workers and ranks."""
        return sum(len(samples) for samples in self._samples)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        share, shares = worker_share(self._parent)
        order = self._order()
        if self.drop_uneven:
            order = order[: len(order) // shares * shares]
        for shard, sample in order[share::shares].tolist():
            found = self._store.get(shard).read(sample)
            self._check_shapes(found, shard, sample)
            for key in found.keys() - {"time"} if self.as_torch else ():
                found[key] = torch.from_numpy(found[key])
            yield found

    def _check_shapes(self, found: dict[str, Any], shard: int, sample: int) -> None:
        """Compare with the metadata; without any, the days with each other."""
        days = len(found.get("time", found[next(iter(found))]))
        expected = self._shapes or {
            key: (days, *found[key].shape[1:])
            for key in FIELDS
            if key in found and key != "static"
        }

        # A sample is sound if each field has its shape and all have as many days.
        other = [
            f"{key} {found[key].shape}, not {shape}"
            if key in found
            else f"no {key}, which has the shape {shape}"
            for key, shape in expected.items()
            if key not in found or found[key].shape != shape
        ]
        if not other and ("time" in found or not self._shapes):
            lengths = {shape[0] for key, shape in expected.items() if key != "static"}
            if lengths <= {days}:
                return

        raise InputError(
            "a sample has another shape",
            file=self.shards[shard],
            variable=self._store.get(shard).keys[sample],
            found="; ".join(other) or f"{days if 'time' in found else 'no'} dates",
            expected="the shapes of the metadata, or one number of days in all fields",
            remedy="copy the shard again; st-cdgm preprocess --verify DIR checks all",
        )

    def _order(self) -> NDArray[np.int64]:
        """Return shard and sample numbers in the order of this pass. Shape ``(n, 2)``.

        The same in every process: all draws come from ``seed`` and epoch.
        """
        random = np.random.default_rng((self.seed, self.epoch))
        shards = np.arange(len(self.shards))
        if self.shuffle and self.shardshuffle:
            shards = _drawn(shards, int(self.shardshuffle), random)
        pairs = [
            np.stack([np.full_like(own, shard), own], axis=1)
            for shard in shards.tolist()
            if len(own := self._samples[shard])
        ]
        order = np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)
        if self.shuffle and self.shuffle_buffer_size > 1:
            places = np.arange(len(order))
            order = order[_drawn(places, self.shuffle_buffer_size, random)]
        return order

    def _chosen(self, facts: list[dict[str, Any] | None]) -> list[NDArray[np.int64]]:
        """Return for each shard the numbers of the samples that are asked for."""
        first, stop = self._span()
        chosen = []
        for number, own in enumerate(facts):
            if own is None:
                # Without metadata the tar headers must tell.
                bounds = 0, len(self._store.get(number))
            else:
                place = own["first"]
                bounds = max(first - place, 0), min(stop - place, own["samples"])
            chosen.append(np.arange(*bounds, dtype=np.int64))
        return chosen

    def _span(self) -> tuple[int, int]:
        """Return the first and one past the last sample of the split, or of all."""
        if self.split is None:
            return 0, sys.maxsize
        splits = self.metadata.get("splits", {})
        if "samples" not in splits.get(self.split, {}):
            raise ConfigError(
                f"there is no {self.split} split in the shards",
                variable="split",
                found=", ".join(splits) or "no metadata",
                expected="train, validation or test, as in the metadata",
            )
        first, stop = splits[self.split]["samples"]
        return first, stop

    def _verify(self) -> None:
        """Compare the checksums of the shards with the metadata."""
        known = self.metadata.get("checksums", {})
        for shard in self.shards:
            name = shard_name(shard)
            if name not in known or is_url(shard):
                raise InputError(
                    "a shard cannot be verified",
                    file=shard,
                    found="a URL" if is_url(shard) else "no checksum in the metadata",
                    expected=f"local shards listed in {METADATA}",
                )
            own = {"checksums": {name: known[name]}}
            check_files(Path(shard).parent, own, contents=True)


def _layout(metadata: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each field of a sample, by the metadata."""
    coarse, fine = metadata["lr_shape"], metadata["hr_shape"]
    counts = {key: len(names) for key, names in metadata["variables"].items()}
    shapes = {
        key: (metadata["seq_len"], counts[key], *(coarse if key == "lr" else fine))
        for key in FIELDS
        if counts.get(key)
    }
    static = shapes.pop("static", None)
    if static is not None and metadata.get("static_members", True):
        shapes["static"] = static[1:]
    return shapes


class _ShardStore:
    """Open shards, those used last; picklable, and safe to be forked."""

    def __init__(
        self, shards: Sequence[str], facts: Sequence[dict[str, Any] | None]
    ) -> None:
        self._paths, self._facts = list(shards), facts
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def get(self, number: int) -> Shard:
        """Return a shard, opened if need be."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        path, facts = self._paths[number], self._facts[number]
        while len(self._open) >= (_COPIES if is_url(path) else _OPEN):
            self._open.popitem(last=False)[1].close()
        shard = _opened(path)
        if facts is not None and len(shard) != facts["samples"]:
            raise InputError(
                "a shard has another number of samples",
                file=path,
                found=len(shard),
                expected=facts["samples"],
                remedy="copy the shard again; it is not the one of the metadata",
            )

        self._open[number] = shard
        return shard


def _opened(path: str) -> Shard:
    """Open a shard; of a remote one a copy, which is gone when it is closed."""
    if not is_url(path):
        return Shard(Path(path), path)
    logger.debug("%s is copied", path)
    # An open file needs no name, so that no copy is left behind after a kill.
    with tempfile.TemporaryDirectory(
        prefix="st-cdgm-shards-", ignore_cleanup_errors=True
    ) as folder:
        return Shard(fetch(path, folder, role="shard"), path)


def _drawn(
    items: NDArray[np.int64], size: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Return the items as they leave a buffer of ``size`` that is drawn from."""
    if size >= len(items):
        return random.permutation(items)
    held = items[:size].copy()
    out = np.empty_like(items)
    picks = random.integers(size, size=len(items) - size).tolist()
    for place, (pick, item) in enumerate(
        zip(picks, items[size:].tolist(), strict=True)
    ):
        out[place] = held[pick]
        held[pick] = item
    out[len(picks) :] = random.permutation(held)
    return out
