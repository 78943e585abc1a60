"""Quick benchmark: seconds on any machine, ratios rather than absolute figures.

Three questions, each against a yardstick measured in the same interleaved rounds:
how fast windows come out of memory (a plain copy of the same bytes), what the
recurrent causal network costs (the bare matrix products it needs), and how much longer
the diffusion sampler takes for a member than the one-step generator of the same size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from st_cdgm.models.causal_rcn import RCNCell
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.config import DiffusionConfig, UNetConfig
from st_cdgm.models.diffusion_decoder import CausalDiffusionDecoder
from st_cdgm.models.samplers import sample

ROUNDS = 5


def interleaved(cases: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each case over interleaved rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case()
    for _ in range(ROUNDS):
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def windows() -> dict[str, float]:
    """Gather 32 windows of 6 days of 3 x 64 x 64 fields; copy as many bytes."""
    fields = torch.randn(400, 3, 64, 64)
    days = torch.randint(0, 394, (32, 1)) + torch.arange(6)
    same = fields[days]
    return interleaved({"copy": same.clone, "windows": lambda: fields[days]})


def network(
    q: int = 5, nodes: int = 598, hidden: int = 64, steps: int = 6
) -> dict[str, float]:
    """Roll the causal network out, forward and backward; and its bare products."""
    cell = RCNCell(q, hidden, 15, reconstruction_dim=15)
    driver, state = torch.randn(q, nodes, 15), torch.randn(q, nodes, hidden)
    # Hidden-to-hidden products per step: parents, memory, output, 3 + 3 GRU gates.
    weight = torch.randn(q, hidden, 9 * hidden, requires_grad=True)

    def rollout() -> None:
        h = state
        for _ in range(steps):
            h, _, _ = cell(h, driver)
        h.sum().backward()

    def products() -> None:
        for _ in range(steps):
            torch.bmm(state, weight).sum().backward()

    return interleaved({"products": products, "network": rollout})


def generators() -> dict[str, float]:
    """Make 8 members of a 32 x 32 field, in one step and with 18 Heun steps."""
    sizes = UNetConfig(block_out_channels=[16, 32])
    made = {
        kind: CausalDiffusionDecoder(
            3,
            16,
            32,
            32,
            config=DiffusionConfig(scheduler_type=kind, unet=sizes),
            spatial_channels=8,
        ).eval()
        for kind in ("one_step", "edm")
    }
    condition = Conditioning(
        torch.randn(8, 4, 16), torch.randn(8, 5, 32, 32), torch.randn(8, 3, 32, 32)
    )
    noise = torch.randn(8, *made["one_step"].noise_shape)

    @torch.no_grad()
    def one_step() -> object:
        return made["one_step"].generate_one_step(noise, condition)

    def heun() -> object:
        return sample(
            lambda x, sigma: made["edm"].denoise(x, sigma, condition),
            (8, 3, 32, 32),
            sampler="heun",
            steps=18,
            generator=torch.Generator().manual_seed(0),
            denoiser_dtype=torch.float32,
        )

    return interleaved({"one_step": one_step, "heun_18": heun})


def main() -> None:
    """Print the three comparisons."""
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, median of {ROUNDS} interleaved rounds")
    for title, run in (
        ("windows from memory / plain copy", windows),
        ("causal network / bare products", network),
        ("Heun, 18 steps / one step", generators),
    ):
        (base, t_base), (other, t_other) = run().items()
        print(
            f"{title:34s} {t_other / t_base:6.2f}"
            f"   ({other} {1e3 * t_other:.1f} ms, {base} {1e3 * t_base:.1f} ms)"
        )


if __name__ == "__main__":
    main()
