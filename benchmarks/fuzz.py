"""Read damaged files and count what happens.

Run ``python benchmarks/fuzz.py --cases 2000``. Every case must be read or refused with
an error of the package; the exit status is the number of other outcomes (at most 100).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))

from fuzz_files import Outcome, run_cases  # noqa: E402


def table(outcomes: list[Outcome], by: str) -> list[str]:
    results = sorted({o.result for o in outcomes}, key=lambda r: (r not in GOOD, r))
    rows = sorted({getattr(o, by) for o in outcomes})
    count = Counter((getattr(o, by), o.result) for o in outcomes)
    lines = [f"{by:20}" + "".join(f"{r:>11}" for r in results)]
    for row in rows:
        numbers = "".join(f"{count[row, r]:11d}" for r in results)
        lines.append(f"{row:20}{numbers}")
    totals = Counter(o.result for o in outcomes)
    return [*lines, f"{'all':20}" + "".join(f"{totals[r]:11d}" for r in results)]


GOOD = ("read", "refused")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="limit per case")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        cases = range(options.first, options.first + options.cases)
        for outcome in run_cases(
            cases, Path(folder), seed=options.seed, seconds=options.seconds
        ):
            outcomes.append(outcome)
            if not outcome.good:
                print(
                    f"case {outcome.case}: {outcome.result} ({outcome.kind}, "
                    f"{outcome.damage}, {outcome.target}): {outcome.detail}",
                    flush=True,
                )
    for by in ("damage", "kind", "target"):
        print("\n" + "\n".join(table(outcomes, by)))
    slow = max(outcomes, key=lambda o: o.seconds if o.good else 0.0)
    print(f"\nslowest good case: {slow.case}, {slow.seconds:.2f} s")
    return min(sum(not o.good for o in outcomes), 100)


if __name__ == "__main__":
    sys.exit(main())
