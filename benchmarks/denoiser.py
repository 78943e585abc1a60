"""What a denoiser step costs at 172 x 179, by size of the U-Net.

For each preset, and for the library's own default sizes (843.5 million parameters):
parameters, floating-point operations of one forward pass of one field (counted, not
timed), seconds of that pass, and seconds and peak memory of a training step (forward,
backward, AdamW) on a batch of 4. Peak memory is the largest resident set of a process
that does nothing else, libraries and optimiser included; every figure comes from a
process of its own. The library's default is not trained: weights, gradients and AdamW
alone would take 13.5 GB.

    python benchmarks/denoiser.py [--cases tiny base large library] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.config import DiffusionConfig, UNetConfig
from st_cdgm.models.diffusion_decoder import CausalDiffusionDecoder

SIZE, CHANNELS = (172, 179), 3
TOKENS, TOKEN_DIM = 6, 128
# State maps, then baseline, validity, two static fields and the season.
STATE_MAPS, CONTEXT = 32, 2 * CHANNELS + 2 + 2
BATCH = 4
CASES = ("tiny", "base", "large", "library")
# What is measured, in one process each.
JOBS = ("count", "forward", "train", "train_checkpointed")


def build(case: str, *, checkpointing: bool = False) -> CausalDiffusionDecoder:
    """Build a decoder; ``library`` has the default sizes of UNet2DConditionModel."""
    preset = UNetConfig(preset=None if case == "library" else case)
    decoder = CausalDiffusionDecoder(
        CHANNELS,
        TOKEN_DIM,
        *SIZE,
        config=DiffusionConfig(
            scheduler_type="heun",
            unet=preset,
            use_gradient_checkpointing=checkpointing,
        ),
        spatial_channels=STATE_MAPS + CONTEXT,
    )
    if case == "library":
        from diffusers import UNet2DConditionModel

        decoder.unet = UNet2DConditionModel(
            sample_size=SIZE,
            in_channels=CHANNELS + STATE_MAPS + CONTEXT,
            out_channels=CHANNELS,
            cross_attention_dim=TOKEN_DIM,
        )
        decoder.multiple = 8
    return decoder


def inputs(batch: int) -> tuple[Tensor, Conditioning]:
    """Return a target and a conditioning of random numbers."""
    condition = Conditioning(
        torch.randn(batch, TOKENS, TOKEN_DIM),
        torch.randn(batch, STATE_MAPS, *SIZE),
        torch.randn(batch, CONTEXT, *SIZE),
    )
    return torch.randn(batch, CHANNELS, *SIZE), condition


def count(case: str) -> dict[str, float]:
    """Count parameters and operations on the meta device: no number is computed."""
    with torch.device("meta"):
        decoder = build(case).eval()
        x, condition = inputs(1)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            decoder.denoise(x, torch.ones(1), condition)
    return {
        "parameters_million": sum(p.numel() for p in decoder.parameters()) / 1e6,
        "gflop": counter.get_total_flops() / 1e9,
    }


def forward(case: str) -> dict[str, float]:
    """Time one denoiser step of one field: the best of some."""
    decoder = build(case).eval()
    x, condition = inputs(1)
    sigma = torch.ones(1)
    seconds = []
    with torch.no_grad():
        for _ in range(1 if case == "library" else 4):
            started = time.perf_counter()
            decoder.denoise(x, sigma, condition)
            seconds.append(time.perf_counter() - started)
    return {"forward_s": min(seconds), "forward_peak_gib": peak()}


def train(case: str, *, checkpointing: bool = False) -> dict[str, float]:
    """Time a training step: the best of two, of which only one has to set up AdamW."""
    decoder = build(case, checkpointing=checkpointing).train()
    optimizer = torch.optim.AdamW(decoder.parameters())
    seconds = []
    for _ in range(2):
        target, condition = inputs(BATCH)
        started = time.perf_counter()
        optimizer.zero_grad()
        decoder.compute_loss(target, condition).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    suffix = "_checkpointed" if checkpointing else ""
    return {f"train_s{suffix}": min(seconds), f"train_peak_gib{suffix}": peak()}


def peak() -> float:
    """Return the largest resident set of this process, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(job: str, case: str) -> dict[str, float]:
    """Do one job in this process."""
    torch.manual_seed(0)
    if job == "count":
        return count(case)
    if job == "forward":
        return forward(case)
    return train(case, checkpointing=job == "train_checkpointed")


def measure(case: str) -> dict[str, float]:
    """Do every job of a case, each in a process of its own."""
    measured: dict[str, float] = {}
    for job in JOBS[:2] if case == "library" else JOBS:
        made = subprocess.run(
            [sys.executable, __file__, "--job", job, "--cases", case],
            check=True,
            capture_output=True,
            text=True,
        )
        measured |= json.loads(made.stdout)
    return measured


def report(results: dict[str, dict[str, float]]) -> None:
    """Print the results as a Markdown table."""
    columns = {
        "parameters_million": ("parameters (million)", ".1f"),
        "gflop": ("GFLOP per field", ".0f"),
        "forward_s": ("forward (s)", ".2f"),
        "forward_peak_gib": ("peak (GiB)", ".2f"),
        "train_s": (f"training step of {BATCH} (s)", ".1f"),
        "train_peak_gib": ("peak (GiB)", ".2f"),
        "train_s_checkpointed": ("checkpointed (s)", ".1f"),
        "train_peak_gib_checkpointed": ("peak (GiB)", ".2f"),
    }
    print("| U-Net |", " | ".join(title for title, _ in columns.values()), "|")
    print("|---|" + "---|" * len(columns))
    for case, measured in results.items():
        cells = [
            format(measured[key], spec) if key in measured else "--"
            for key, (_, spec) in columns.items()
        ]
        print(f"| {case} |", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(run(arguments.job, arguments.cases[0])))
        return
    print(f"{torch.get_num_threads()} threads, float32, {SIZE[0]} x {SIZE[1]}\n")
    results = {case: measure(case) for case in arguments.cases}
    report(results)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
