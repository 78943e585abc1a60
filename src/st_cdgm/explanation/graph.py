"""The tested graph of a run and its certificate: which paths an edit may take."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.explanation.certificate import CERTIFIED

GRAPH, CERTIFICATE = "dag.json", "certificate.json"
UNCERTIFIED = "not certified"
# A checkpoint lies in RUN/checkpoints/best.
LEVELS_UP = 2

Pair = tuple[str, str]
Lagged = tuple[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class TestedGraph:
    """Accepted edges with their lags, and what the certificate says of each.

    Attributes
    ----------
    file : Path
        Where it was read.
    targets : tuple of str
        Nodes that are fine fields.
    lags : mapping
        Days after which an edge acts, by (source, target).
    verdicts : mapping
        The certificate's word for an edge, ``not certified`` where it has none.
    same_step : tuple of (str, str)
        Pairs that go together within a day, without direction.
    """

    __test__ = False  # no test, for pytest

    file: Path
    targets: tuple[str, ...]
    lags: Mapping[Pair, tuple[int, ...]]
    verdicts: Mapping[Pair, str]
    same_step: tuple[Pair, ...] = ()

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read ``dag.json`` and, where it lies beside it, ``certificate.json``.

        Raises
        ------
        MissingFileError
            There is no such graph.
        InputError
            It cannot be read, or is no tested graph.
        """
        content = _json(file)
        try:
            lags = {
                (str(e["source"]), str(e["target"])): parse_lags(str(e["lag"]))
                for e in content["edges"]
            }
            targets = tuple(map(str, content["targets"]))
            same_step = tuple((str(i), str(k)) for i, k in content["same_step"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "not a tested graph",
                file=file,
                found=f"{type(error).__name__}: {error}",
                expected="targets, same_step and edges with source, target and lag",
                remedy="test the graph: st-cdgm discover or run",
            ) from error

        # What the certificate does not name is not certified.
        certificate = file.with_name(CERTIFICATE)
        found = _verdicts(certificate) if certificate.is_file() else {}
        return cls(
            file=file,
            targets=targets,
            lags=lags,
            verdicts={pair: found.get(pair, UNCERTIFIED) for pair in lags},
            same_step=same_step,
        )

    def check_nodes(self, levels: Collection[str], targets: Collection[str]) -> None:
        """Raise InputError for an edge of nodes that a model does not have."""
        known = {*levels, *targets}
        wrong = sorted({name for pair in self.lags for name in pair} - known)
        if wrong:
            raise InputError(
                "the graph belongs to another model",
                file=self.file,
                found=", ".join(wrong),
                expected=", ".join([*levels, *targets]),
                remedy="name the graph of this model: --graph FILE",
            )

    def descendants(self, nodes: Collection[str]) -> set[str]:
        """Return the nodes that some nodes lead to, themselves included."""
        reached = set(nodes)
        while more := {k for i, k in self.lags if i in reached} - reached:
            reached |= more
        return reached

    def inputs(self, names: Iterable[str]) -> dict[str, tuple[Lagged, ...]]:
        """Return the sources of every level with their lags: its own past first."""
        levels = tuple(names)
        return {
            name: (
                (name, 1),
                *(
                    (source, lag)
                    for source in levels
                    for lag in self.lags.get((source, name), ())
                    if lag > 0 and source != name
                ),
            )
            for name in levels
        }

    def used(self, nodes: Collection[str], *, hold_others: bool) -> list[Pair]:
        """Return the edges that the effect of an edit of ``nodes`` takes.

        With ``hold_others`` those from the nodes to fine fields alone.
        """
        sources = set(nodes) if hold_others else self.descendants(nodes)
        return [
            (i, k)
            for i, k in self.lags
            if i in sources and (not hold_others or k in self.targets)
        ]

    def check_certified(self, pairs: Collection[Pair]) -> None:
        """Raise InputError for an edge without certificate."""
        wrong = [pair for pair in pairs if self.verdicts[pair] != CERTIFIED]
        if wrong:
            raise InputError(
                "the effect would take edges that are not certified",
                file=self.file,
                found=self.described(wrong),
                expected=f"edges of which {CERTIFICATE} says {CERTIFIED}",
                remedy="certify the run (st-cdgm certify RUN), or pass "
                "--allow-uncertified and take the answer for a predictive one",
            )

    def described(self, pairs: Iterable[Pair]) -> str:
        """Return edges as text: ``GP500->SURF (lag 1, certified)``."""
        texts = [
            f"{i}->{k} (lag {','.join(map(str, self.lags[i, k]))}, "
            f"{self.verdicts[i, k]})"
            for i, k in pairs
        ]
        return "; ".join(texts) or "none"


def find_graph(checkpoint: Path) -> Path:
    """Return the graph of the run that a checkpoint directory lies in.

    Raises
    ------
    MissingFileError
        There is none.
    """
    folder = checkpoint.absolute()
    places = [folder, *folder.parents][: LEVELS_UP + 1]
    for place in places:
        if (place / GRAPH).is_file():
            return place / GRAPH
    raise MissingFileError(
        "the checkpoint has no tested graph",
        file=checkpoint,
        found=f"no {GRAPH} in it or in the run above it",
        expected=f"RUN/{GRAPH} for RUN/checkpoints/best",
        remedy="name the file: --graph FILE",
    )


def parse_lags(text: str) -> tuple[int, ...]:
    """Read ``1``, ``1,3`` or ``0-2``, which stands for all of them.

    Raises
    ------
    ValueError
        The text has none of these forms.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d+(-\d+)?", part) for part in parts):
        msg = f"lag {text!r}"
        raise ValueError(msg)
    ends = [tuple(map(int, part.split("-"))) for part in parts]
    return tuple(sorted({n for end in ends for n in range(end[0], end[-1] + 1)}))


def _verdicts(file: Path) -> dict[Pair, str]:
    try:
        return {
            (str(edge["source"]), str(edge["target"])): str(edge["verdict"])
            for edge in _json(file)["edges"]
        }
    except (KeyError, TypeError) as error:
        raise InputError(
            "the certificate cannot be read",
            file=file,
            found=f"{type(error).__name__}: {error}",
            expected="edges with source, target and verdict",
            remedy="certify the run again: st-cdgm certify RUN",
        ) from error


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise MissingFileError("there is no such graph", file=file)
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise InputError("not a JSON file", file=file, found=str(error)) from error
    if not isinstance(content, dict):
        raise InputError("not a JSON object", file=file, found=type(content).__name__)
    return content
