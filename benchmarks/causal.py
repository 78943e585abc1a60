"""How well the learned graph is the true one: synthetic climates with known graphs.

Every line of the output is one data set: the truth, the model's verdicts, and the
graphs of all other methods on the same series. An interrupted run goes on where it
stopped.

    python benchmarks/causal.py --out runs/causal.jsonl [--cases mild] [--graphs 10]
    python benchmarks/causal_report.py runs/causal.jsonl

Seeds 0, 1, ... are the test graphs. The rule for edges (the defaults of
``DiscoveryConfig``) was fixed on graphs with seeds from 1001 on.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causal_methods import METHODS
from lagged_climate import LaggedClimate, LaggedOptions, simulate_lagged
from st_cdgm.discovery.anomalies import remove_harmonics, standardise
from st_cdgm.discovery.compare import compare
from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.search import discover_edges
from st_cdgm.discovery.series import Record
from st_cdgm.errors import ConfigError

LOG = logging.getLogger("causal")
SIZES = (5, 8, 12)


@dataclass(frozen=True)
class Case:
    """A kind of climate; ``harmonics`` 0 leaves the season in for every method."""

    options: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = (5,)
    harmonics: int = 3


MAIN = {
    "mild": Case({}, SIZES),
    "none": Case({"links": 0}, (5, 8)),
    "quadratic": Case({"family": "quadratic"}, SIZES),
}
SIDE = {
    "weak": Case({"strength": (0.1, 0.2)}),
    "cyclic": Case({"cyclic": True}),
    "season left in": Case({"season": 2.0}, harmonics=0),
    "season removed": Case({"season": 2.0}),
    "slow hidden driver": Case({"slow_driver": 0.5}),
    "sub-daily means": Case({"substeps": 4}),
    "noisy measurement": Case({"measurement_noise": 0.5}),
}
CASES = {**MAIN, **SIDE}


def plan(names: list[str], graphs: int, first: int) -> Iterator[tuple[str, int, int]]:
    """Yield (case, Q, seed), seed by seed, so that a short run is a balanced one."""
    for seed in range(first, first + graphs):
        for name in names:
            for q in CASES[name].sizes:
                yield name, q, seed


def run_case(name: str, q: int, seed: int, config: DiscoveryConfig) -> dict[str, Any]:
    """Simulate one climate and ask every method."""
    case = CASES[name]
    climate = simulate_lagged(LaggedOptions(num_vars=q, seed=seed, **case.options))
    config = replace(config, harmonics=case.harmonics)
    record = Record(
        fields={n: climate.fields[:, [k]] for k, n in enumerate(climate.names)},
        year=climate.year,
        season=climate.season,
    )
    line: dict[str, Any] = {
        "case": name,
        "q": q,
        "seed": seed,
        "truth": climate.graph.round(4).tolist(),
        "config": asdict(config),
        "edges": {},
        "seconds": {},
    }
    for method, settings in (
        ("model", config),
        ("linear patches", replace(config, squares=0)),
    ):
        found, seconds = timed(lambda c=settings: discover_edges(record, c))
        line["edges"][method] = (found.matrix() > 0).astype(int).tolist()
        line["seconds"][method] = seconds
        line.setdefault("verdicts", found.to_dict())
    others(line, climate, record, case.harmonics, config)
    return line


def others(
    line: dict[str, Any],
    climate: LaggedClimate,
    record: Record,
    harmonics: int,
    config: DiscoveryConfig,
) -> None:
    """Add the other methods: on the same anomalies, the whole record."""
    anomalies = standardise(
        remove_harmonics(climate.fields, climate.season, harmonics=harmonics)
    )
    lagged = {f"{m} lag {config.max_lag}": m for m in ("var", "pcmci", "pcmci+")}
    calls: dict[str, Callable[[], Any]] = {
        name: lambda m=method: m(anomalies) for name, method in METHODS.items()
    }
    for name, method in lagged.items():
        calls[name] = lambda m=method: as_matrix(
            compare(record, [m], config)[m], record
        )
    for name, call in calls.items():
        try:
            edge, seconds = timed(call)
        except (ImportError, ConfigError) as error:
            LOG.warning("%s left out: %s", name, error)
            continue
        line["edges"][name] = edge.astype(int).tolist()
        line["seconds"][name] = seconds


def as_matrix(pairs: list[tuple[str, str]], record: Record) -> np.ndarray:
    edge = np.zeros((len(record.names),) * 2, bool)
    for source, target in pairs:
        edge[record.names.index(source), record.names.index(target)] = True
    return edge


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and the CPU seconds it took."""
    started = time.process_time()
    result = function()
    return result, round(time.process_time() - started, 2)


def done(path: Path) -> set[tuple[str, int, int]]:
    if not path.exists():
        return set()
    lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    return {(line["case"], line["q"], line["seed"]) for line in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--graphs", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = done(args.out)
    for name, q, seed in plan(args.cases, args.graphs, args.first):
        if (name, q, seed) in known:
            continue
        started = time.perf_counter()
        line = run_case(name, q, seed, DiscoveryConfig())
        line["wall"] = round(time.perf_counter() - started, 1)
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        truth = np.array(line["truth"]) != 0
        wrong = (np.array(line["edges"]["model"]) != truth).sum()
        LOG.info(
            "%s Q=%d seed %d: %d wrong (%.0f s)", name, q, seed, wrong, line["wall"]
        )


if __name__ == "__main__":
    main()
