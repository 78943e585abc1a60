"""Samplers against exact denoisers: errors in the limit and by default, convergence.

Prints three tables as Markdown and draws the convergence: largest difference from the
exact solution of the probability-flow ODE that starts from the same noise, for a
Gaussian (closed form) and a two-Gaussian mixture (in one dimension the flow keeps the
quantile).

    python benchmarks/samplers.py [--plot docs/images/sampler_convergence.png]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from st_cdgm.models.config import DiffusionConfig
from st_cdgm.models.samplers import get_sampler, noise_levels, sample, sampler_names

DOUBLE = torch.float64
CASES = [(0.0, 1.0), (0.2, 0.3), (0.0, 3.0), (3.0, 1.0), (-1.0, 0.05)]
LIMIT_STEPS = {
    "ddpm": 1000,
    "ddim": 512,
    "euler": 512,
    "heun": 64,
    "dpm_solver++": 64,
    "dpm_solver_sde": 200,
}
ORDERED = {"euler": 1, "ddim": 1, "heun": 2, "dpm_solver++": 2}
STEPS = [8, 16, 32, 64, 128, 256, 512]
N = 20_000
# The mixture 0.3 N(-1, 0.2^2) + 0.7 N(1, 0.2^2).
WEIGHTS, CENTRES, WIDTH = (0.3, 0.7), (-1.0, 1.0), 0.2
STYLES = {
    "euler": ("#0072B2", "-", "o"),
    "ddim": ("#D55E00", "--", "s"),
    "heun": ("#009E73", "-.", "^"),
    "dpm_solver++": ("#CC79A7", ":", "D"),
}


def gaussian(x: Tensor, sigma: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return E[x0 | x] for x0 ~ N(mean, std^2), one row per case."""
    gain = std**2 / (std**2 + sigma**2)
    return torch.lerp(mean[:, None], x, gain[:, None])


def mixture(x: Tensor, sigma: Tensor) -> Tensor:
    """Return E[x0 | x] for the mixture."""
    total = (WIDTH**2 + sigma**2)[:, None]
    odds = 0.5 * math.log(WEIGHTS[1] / WEIGHTS[0])
    return torch.lerp(torch.tanh(x / total + odds), x, WIDTH**2 / total)


def mixture_cdf(x: Tensor, sigma: float) -> Tensor:
    spread = math.sqrt(WIDTH**2 + sigma**2)
    parts = [
        weight * torch.special.ndtr((x - centre) / spread)
        for weight, centre in zip(WEIGHTS, CENTRES, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)


def exact_mixture(start: Tensor, high: float, low: float) -> Tensor:
    """Follow the ODE from ``high`` to ``low``: find the same quantile by bisection."""
    quantile = mixture_cdf(start, high)
    left = torch.full_like(start, -10 * high)
    right = -left
    for _ in range(200):
        middle = (left + right) / 2
        below = mixture_cdf(middle, low) < quantile
        left, right = (
            torch.where(below, middle, left),
            torch.where(below, right, middle),
        )
    return (left + right) / 2


def solve(denoiser: object, noise: Tensor, sampler: str, steps: int) -> Tensor:
    """Return the state at the smallest noise level."""
    return sample(
        denoiser,
        noise.shape[1:],
        sampler=sampler,
        steps=steps,
        noise=noise,
        final_denoise=False,
    )


def convergence(sampler: str) -> dict[str, tuple[list[int], list[float]]]:
    """Return steps and largest errors, for the Gaussian and for the mixture."""
    # Within three standard deviations: further out the mixture has no quantile left.
    grid = torch.linspace(-3, 3, 61, dtype=DOUBLE)
    noise = grid.expand(1, 1, -1)
    mean, std = torch.tensor([0.2], dtype=DOUBLE), torch.tensor([0.5], dtype=DOUBLE)
    out: dict[str, tuple[list[int], list[float]]] = {}
    for name in ("Gaussian", "mixture"):
        errors = []
        for steps in STEPS:
            high, low = noise_levels(sampler, steps)[[0, -1]].tolist()
            scale = math.sqrt(1 + high**2) if sampler == "ddim" else high
            start = noise[0] * scale
            if name == "Gaussian":
                shrink = torch.sqrt((std**2 + low**2) / (std**2 + high**2))
                exact = torch.lerp(mean[:, None], start, shrink[:, None])
                made = solve(
                    lambda x, s: gaussian(x, s, mean, std), noise, sampler, steps
                )
            else:
                exact = exact_mixture(start, high, low)
                made = solve(mixture, noise, sampler, steps)
            errors.append((made - exact).abs().max().item())
        out[name] = (STEPS, errors)
    return out


def slope(steps: list[int], errors: list[float], last: int = 4) -> float:
    """Fit the order over the last points."""
    x, y = np.log(steps[-last:]), np.log(errors[-last:])
    return -float(np.polyfit(x, y, 1)[0])


def plot(curves: dict[str, dict[str, tuple[list[int], list[float]]]], to: Path) -> None:
    """Draw error against steps, log-log, with reference slopes."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    titles = {"Gaussian": "N(0.2, 0.5²)", "mixture": "0.3 N(−1, 0.2²) + 0.7 N(1, 0.2²)"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for sampler, results in curves.items():
            steps, errors = results[name]
            colour, line, marker = STYLES[sampler]
            label = f"{sampler}: order {slope(steps, errors):.2f}"
            axis.loglog(
                steps, errors, color=colour, linestyle=line, marker=marker, label=label
            )
        x = np.array([24.0, 512.0])
        for order, level in ((1, 2.0), (2, 40.0)):
            y = level * x ** -float(order)
            axis.loglog(x, y, color="0.7", linewidth=1, zorder=0)
            axis.annotate(
                f"slope −{order}",
                (x[-1], y[-1]),
                textcoords="offset points",
                xytext=(4, -3),
                fontsize=8,
                color="0.4",
            )
        axis.set(title=title, xlabel="noise levels")
        axis.set_xticks(STEPS, [str(n) for n in STEPS])
        axis.minorticks_off()
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, loc="lower left")
    axes[0].set_ylabel("largest error of x(σ_min)")
    figure.suptitle("Samplers against the exact solution from the same noise")
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=150, metadata={"Software": None})


def moments(sampler: str, steps: int, sigmas: tuple[float, float]) -> list[float]:
    """Return errors of mean and std per case, then of the mixture's first weight."""
    mean = torch.tensor([m for m, _ in CASES], dtype=DOUBLE)
    std = torch.tensor([s for _, s in CASES], dtype=DOUBLE)
    rows = len(CASES)

    def exact(x: Tensor, sigma: Tensor) -> Tensor:
        first = gaussian(x[:rows], sigma[:rows], mean, std)
        return torch.cat([first, mixture(x[rows:], sigma[rows:])])

    generator = torch.Generator().manual_seed(0)

    def standard(_: int) -> Tensor:
        """Rows of mean 0 and variance 1 to rounding: less sampling error."""
        noise = torch.randn((rows + 1, N), generator=generator, dtype=DOUBLE)
        noise -= noise.mean(1, keepdim=True)
        return noise / noise.std(1, correction=0, keepdim=True)

    x = sample(
        exact,
        (rows + 1, N),
        sampler=sampler,
        steps=steps,
        noise=standard,
        sigma_min=sigmas[0],
        sigma_max=sigmas[1],
    )
    scale = torch.maximum(mean.abs(), std)
    mean_error = ((x[:rows].mean(1) - mean) / scale).tolist()
    std_error = (x[:rows].std(1) / std - 1).tolist()
    return [*mean_error, *std_error, (x[rows] < 0).double().mean().item() - WEIGHTS[0]]


def table(title: str, steps: dict[str, int], sigmas: tuple[float, float]) -> None:
    print(f"\n{title}, noise in {list(sigmas)}, {N} samples: mean / std error in %\n")
    head = [f"N({m:g}, {s:g}²)" for m, s in CASES]
    print("| sampler | steps |", " | ".join(head), "| mixture weight |")
    print("|---|---|" + "---|" * (len(CASES) + 1))
    for sampler in sampler_names():
        *errors, weight = moments(sampler, steps[sampler], sigmas)
        pairs = zip(errors[: len(CASES)], errors[len(CASES) :], strict=True)
        cells = [f"{100 * m:+.1f} / {100 * s:+.1f}" for m, s in pairs]
        print(
            f"| {sampler} | {steps[sampler]} |", " | ".join(cells), f"| {weight:+.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--plot", type=Path, default=Path("docs/images/sampler_convergence.png")
    )
    arguments = parser.parse_args()
    table("In the limit", LIMIT_STEPS, (0.002, 80.0))
    defaults = {name: get_sampler(name).default_steps for name in sampler_names()}
    ours = DiffusionConfig()
    table("Default steps", defaults, (ours.sigma_min, ours.sigma_max))
    curves = {sampler: convergence(sampler) for sampler in ORDERED}
    print("\nOrder of convergence, fitted over the last four points\n")
    print("| sampler | expected | Gaussian | mixture | error at 64 steps |")
    print("|---|---|---|---|---|")
    for sampler, results in curves.items():
        fitted = [f"{slope(*results[name]):.2f}" for name in ("Gaussian", "mixture")]
        at = [results[name][1][STEPS.index(64)] for name in ("Gaussian", "mixture")]
        print(
            f"| {sampler} | {ORDERED[sampler]} |",
            " | ".join(fitted),
            f"| {at[0]:.1e}, {at[1]:.1e} |",
        )
    plot(curves, arguments.plot)
    print(f"\n{arguments.plot}")


if __name__ == "__main__":
    main()
