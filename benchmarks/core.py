"""What the recurrent causal network costs, beside what it must cost.

Six steps, forward and backward, Q = 5 variables, 598 nodes (23 x 26), H = 128, 15
driver channels; batches of 1 and 8. In the same interleaved rounds: the bare matrix
products (each product of the forward pass and its two of the backward pass, nothing
else), and a loop over the variables with ``torch.nn.GRUCell`` and a two-layer
perceptron each, which is how such a network is usually written. The peak is that of a
large square product on the same threads.

    python benchmarks/core.py [--threads 2] [--rounds 7] [--bf16]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from st_cdgm.models.causal_rcn import RCNCell, RCNSequenceRunner

Q, NODES, HIDDEN, DRIVERS, STEPS = 5, 598, 128, 15, 6


def interleaved(
    cases: dict[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of each case in interleaved rounds, after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def products(batch: int) -> list[tuple[int, int, int, int]]:
    """Return (stack, rows, inner, columns) of the products of one step."""
    rows = NODES * batch
    return [
        (1, Q, Q, rows * HIDDEN),  # parents' sums
        (Q, rows, HIDDEN, HIDDEN),  # parent block
        (Q, rows, HIDDEN, HIDDEN),  # own-lag block
        (Q, rows, HIDDEN, HIDDEN),  # structural output
        (Q, rows, DRIVERS, HIDDEN),  # driver encoder
        (Q, rows, HIDDEN, 3 * HIDDEN),  # GRU, input
        (Q, rows, HIDDEN, 3 * HIDDEN),  # GRU, hidden
        (Q, rows, HIDDEN, DRIVERS),  # reconstruction
    ]


def bare(batch: int) -> Callable[[], None]:
    pairs = [
        (torch.randn(q, m, k), torch.randn(q, k, n), torch.randn(q, m, n))
        for q, m, k, n in products(batch)
    ]

    def run() -> None:
        for _ in range(STEPS):
            for a, b, grad in pairs:
                torch.bmm(a, b)
                torch.bmm(grad, b.transpose(1, 2))
                torch.bmm(a.transpose(1, 2), grad)

    return run


def flops(batch: int) -> float:
    return STEPS * 3 * sum(2.0 * q * m * k * n for q, m, k, n in products(batch))


def ours(batch: int, *, bf16: bool = False) -> Callable[[], None]:
    cell = RCNCell(Q, HIDDEN, DRIVERS, reconstruction_dim=DRIVERS)
    runner = RCNSequenceRunner(cell)
    state = torch.randn(Q, NODES * batch, HIDDEN)
    drivers = torch.randn(STEPS, Q, NODES * batch, DRIVERS)

    def run() -> None:
        cell.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = runner.run(state, drivers)
        loss = out.states[-1].float().mean()
        for part in out.reconstructions:
            loss = loss + part.float().mean()
        loss.backward()

    return run


class Looped(nn.Module):
    """The same network written variable by variable."""

    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Parameter(0.1 * torch.randn(Q, Q))
        self.mlp = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN)
            )
            for _ in range(Q)
        )
        self.driver = nn.ModuleList(nn.Linear(DRIVERS, HIDDEN) for _ in range(Q))
        self.gru = nn.ModuleList(nn.GRUCell(HIDDEN, HIDDEN) for _ in range(Q))
        self.decode = nn.ModuleList(nn.Linear(HIDDEN, DRIVERS) for _ in range(Q))

    def forward(self, H: list[Tensor], driver: Tensor) -> tuple[list, list]:
        new, decoded = [], []
        for k in range(Q):
            parents = sum(self.A[i, k] * H[i] for i in range(Q) if i != k)
            hat = self.mlp[k](torch.cat([parents, H[k]], dim=-1))
            decoded.append(self.decode[k](hat))
            new.append(self.gru[k](torch.relu(self.driver[k](driver[k])), hat))
        return new, decoded


def looped(batch: int) -> Callable[[], None]:
    model = Looped()
    state = torch.randn(Q, NODES * batch, HIDDEN)
    drivers = torch.randn(STEPS, Q, NODES * batch, DRIVERS)

    def run() -> None:
        model.zero_grad(set_to_none=True)
        H, loss = list(state), 0.0
        for driver in drivers:
            H, decoded = model(H, driver)
            loss = loss + sum(part.mean() for part in decoded)
        (loss + sum(h.mean() for h in H)).backward()

    return run


def peak() -> float:
    """Return the arithmetic of a large product, floating-point operations a second."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    seconds = interleaved({"square": lambda: a @ b}, 5)["square"]
    return 2 * 2048**3 / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    top = peak()
    print(f"{options.threads} threads, peak {top / 1e9:.0f} GFLOP/s (2048 x 2048)")
    for batch in (1, 8):
        cases = {"bare products": bare(batch), "GRUCell loop": looped(batch)}
        cases["stacked network"] = ours(batch)
        if options.bf16:
            cases["stacked, bf16"] = ours(batch, bf16=True)
        seconds = interleaved(cases, options.rounds)
        floor = seconds["bare products"]
        print(f"\nbatch {batch}: {flops(batch) / 1e9:.1f} GFLOP in products")
        for name, values in seconds.items():
            ratio = statistics.median(v / f for v, f in zip(values, floor, strict=True))
            middle = statistics.median(values)
            share = flops(batch) / middle / top
            print(
                f"  {name:18}{1e3 * middle:9.0f} ms   {ratio:5.2f} x bare"
                f"   {share:4.0%} of peak"
            )


if __name__ == "__main__":
    main()
