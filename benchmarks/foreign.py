"""Links between series that tigramite simulates: ours, VAR, PCMCI, PCMCI+.

tigramite (GPL, extra ``oracle``) draws the graphs and the series; one rule for all
methods: the same lags, the same record, defaults as documented. Every line of the
output is one data set and one method. Seeds below 1000 are results; nothing was chosen
on them.

    python benchmarks/foreign.py --out runs/foreign.jsonl [--cases linear] [--graphs 10]
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from st_cdgm.discovery.compare import METHODS, compare
from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.search import discover_edges
from st_cdgm.discovery.series import Record

LOG = logging.getLogger("foreign")
LAGS, DAYS = 3, 365
BASE: dict[str, Any] = {
    **{"N": 8, "L": 8, "max_lag": LAGS, "contemp_fraction": 0.0},
    **{"dependency_funcs": ["linear"], "dependency_coeffs": [-0.3, 0.3]},
    **{"auto_coeffs": [0.3, 0.5], "years": 10, "trend": 0.0, "slow": 0.0},
}
CASES: dict[str, dict[str, Any]] = {
    "linear": {},
    "nonlinear": {"dependency_funcs": ["nonlinear"]},
    "even": {"dependency_funcs": ["even"], "dependency_coeffs": [-0.4, 0.4]},
    "weak": {"dependency_coeffs": [-0.1, 0.1]},
    "heavy tails": {"noise_dists": ["weibull"]},
    "within-day": {"contemp_fraction": 0.5},
    "trend": {"trend": 3.0},
    "slow driver": {"slow": 0.7},
    "slow driver, no links": {"slow": 0.7, "L": 0},
    "no links": {"L": 0},
    "3 years": {"years": 3},
    "20 variables": {"N": 20, "L": 30},
}


RESPONSES = {
    "linear": lambda x: x,
    "even": lambda x: np.abs(x) - 0.8,  # no linear part
    "nonlinear": lambda x: x + 5.0 * x**2 * np.exp(-(x**2) / 20.0),
}


def simulate(case: str, seed: int) -> tuple[Record, set[tuple[str, str]]]:
    """Draw a graph and a record with it; links within a day count for neither way."""
    from tigramite.toymodels import structural_causal_processes as toys

    options = {**BASE, **CASES[case]}
    years, trend, slow = (options.pop(name) for name in ("years", "trend", "slow"))
    options["dependency_funcs"] = [RESPONSES[n] for n in options["dependency_funcs"]]
    links, noises = toys.generate_structural_causal_process(**options, seed=seed)
    data, _ = toys.structural_causal_process(links, years * DAYS, noises, seed=seed)
    data = (data - data.mean(0)) / data.std(0)
    rng = np.random.default_rng(seed)

    # What all of them share, and nobody sees.
    if trend:
        data = data + trend * np.linspace(-1, 1, len(data))[:, None]
    if slow:
        driver = np.zeros(len(data))
        for t in range(1, len(data)):
            driver[t] = 0.97 * driver[t - 1] + 0.243 * rng.standard_normal()
        data = data + slow * driver[:, None] * (rng.uniform(size=data.shape[1]) < 0.6)
    number = np.arange(len(data))
    record = Record(
        fields={f"x{k}": data[:, [k], None, None] for k in range(data.shape[1])},
        year=number // DAYS,
        season=number % DAYS / DAYS,
    )
    truth = {
        (f"x{i}", f"x{k}")
        for k, parents in links.items()
        for (i, lag), *_ in parents
        if lag < 0 and i != k
    }
    return record, truth


def run(case: str, seed: int) -> list[dict[str, Any]]:
    """Ask every method about one data set."""
    config = DiscoveryConfig(max_lag=LAGS, harmonics=0)
    record, truth = simulate(case, seed)
    started = time.process_time()
    graph = discover_edges(record, config)
    ours = {(link.source, link.target): link.verdict for link in graph.edges}
    found: dict[str, set[tuple[str, str]]] = {"st-cdgm": set(ours)}
    seconds = {"st-cdgm": time.process_time() - started}
    for method in METHODS:
        started = time.process_time()
        found[method] = set(compare(record, [method], config)[method])
        seconds[method] = time.process_time() - started
    return [
        {
            "case": case,
            "seed": seed,
            "method": method,
            "links": len(truth),
            "found": len(edges & truth),
            "false": len(edges - truth),
            "doubtful true": sum(ours.get(p) == "doubtful" for p in edges & truth),
            "doubtful false": sum(ours.get(p) == "doubtful" for p in edges - truth),
            "seconds": round(seconds[method], 2),
        }
        for method, edges in found.items()
    ]


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Return mean F1, false edges per data set, and marks, a case a row."""
    methods = list(dict.fromkeys(line["method"] for line in lines))
    rows = ["| case | graphs | " + " | ".join(methods) + " | doubtful: true, false |"]
    rows.append("|---" * (len(methods) + 3) + "|")
    cases: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        cases[line["case"]].append(line)

    for case, own in cases.items():
        cells = []
        for method in methods:
            some = [line for line in own if line["method"] == method]
            f1 = [
                2 * x["found"] / max(x["found"] + x["false"] + x["links"], 1)
                for x in some
            ]
            false = np.mean([line["false"] for line in some])
            shown = f"{np.mean(f1):.2f}" if some[0]["links"] else "-"
            cells.append(f"{shown} / {false:.1f}")
        first = [line for line in own if line["method"] == "st-cdgm"]
        marks = [
            f"{sum(x[f'doubtful {k}'] for x in first)} of {sum(x[n] for x in first)}"
            for k, n in (("true", "found"), ("false", "false"))
        ]
        rows.append(
            f"| {case} | {len(first)} | {' | '.join(cells)} | {', '.join(marks)} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--graphs", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = args.out.read_text("utf-8") if args.out.is_file() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    known = {(line["case"], line["seed"]) for line in lines}

    for case in args.cases:
        for seed in range(args.first, args.first + args.graphs):
            if (case, seed) in known:
                continue
            new = run(case, seed)
            lines += new
            with args.out.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in new)
            LOG.info("%s, seed %d", case, seed)
    print("\n".join(table(lines)))


if __name__ == "__main__":
    main()
