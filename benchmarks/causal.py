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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causal_methods import METHODS
from lagged_climate import LaggedClimate, LaggedOptions, simulate_lagged
from st_cdgm.discovery.anomalies import remove_harmonics, standardise
from st_cdgm.discovery.granger import patch_granger
from st_cdgm.discovery.network import DiscoveryConfig
from st_cdgm.discovery.search import discover_edges
from st_cdgm.discovery.series import Record
from st_cdgm.discovery.verdicts import EdgeVerdicts

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
    config = DiscoveryConfig(**{**asdict(config), "harmonics": case.harmonics})
    record = Record(
        fields={n: climate.fields[:, [k]] for k, n in enumerate(climate.names)},
        year=climate.year,
        season=climate.season,
    )
    verdicts, seconds = timed(lambda: discover_edges(record, config, seed=seed))
    line: dict[str, Any] = {
        "case": name,
        "q": q,
        "seed": seed,
        "truth": climate.graph.round(4).tolist(),
        "config": asdict(config),
        "edges": {"model": verdicts.edge.astype(int).tolist()},
        "seconds": {"model": seconds},
        "verdicts": matrices(verdicts),
    }
    others(line, climate, case.harmonics, config)
    return line


def others(
    line: dict[str, Any],
    climate: LaggedClimate,
    harmonics: int,
    config: DiscoveryConfig,
) -> None:
    """Add the other methods: on the same anomalies, whole record or same folds."""
    anomalies = standardise(
        remove_harmonics(climate.fields, climate.season, harmonics=harmonics)
    )

    def linear() -> EdgeVerdicts:
        return patch_granger(
            anomalies,
            climate.year,
            climate.season,
            names=climate.names,
            folds=config.folds,
            config=config,
        )

    found, line["seconds"]["linear patches"] = timed(linear)
    line["edges"]["linear patches"] = found.edge.astype(int).tolist()
    line["linear"] = matrices(found)
    for name, method in METHODS.items():
        try:
            edge, seconds = timed(lambda m=method: m(anomalies))
        except ImportError as error:
            LOG.warning("%s left out: %s", name, error)
            continue
        line["edges"][name] = edge.astype(int).tolist()
        line["seconds"][name] = seconds


def matrices(verdicts: EdgeVerdicts) -> dict[str, Any]:
    return {
        "gain": verdicts.gain.round(6).tolist(),
        "t": verdicts.t_value.round(3).tolist(),
        "shadow": verdicts.shadow.round(6).tolist(),
        "unidentifiable": verdicts.unidentifiable.astype(int).tolist(),
        "tested": verdicts.tested.astype(int).tolist(),
        "slow": verdicts.slow.round(3).tolist(),
        "error": verdicts.error.round(5).tolist(),
    }


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
