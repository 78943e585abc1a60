"""A small run directory made of smooth random weather over made-up mountains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import ndimage

from st_cdgm.evaluation.graph.dag import export_dag
from st_cdgm.evaluation.scorecard import evaluate_ensembles

GRAPH_NAMES = ["SURF", "GP1000", "GP850", "GP500", "static"]
GRAPH = np.array(
    [
        [0.0, 0.42, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.31, 0.05, 0.0],
        [0.18, 0.0, 0.0, 0.66, 0.0],
        [0.0, 0.0, 0.22, 0.0, 0.0],
        [0.35, 0.12, 0.0, 0.0, 0.0],
    ]
)
NOTE = (
    "Edges are lagged predictive relations between source groups under this model, "
    "not proof of physical causation; a slow common driver can make one."
)
CONFIG = """\
run:
  name: {name}
  seed: 7
data:
  baseline_strategy: {strategy}
  hr_variables: [tasmin, tasmax, pr]
  wet_threshold: 0.1
"""


def write_run(
    folder: Path,
    *,
    shape: tuple[int, int] = (16, 28),
    sea: bool = True,
    days: int = 12,
    members: int = 8,
    strategy: str = "lr_interp",
    model_error: float = 0.6,
    variables: tuple[str, ...] = ("tasmin", "tasmax", "pr"),
    seed: int = 3,
) -> Path:
    """Write every file of a run directory but ``report.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    world = _World(shape, sea, days, seed, variables)
    forecasts = {
        "st-cdgm": world.ensemble(members, error=model_error, smooth=1.0),
        "climatology": world.ensemble(members, error=1.4, smooth=2.5),
        "analogs": world.ensemble(members, error=0.8, smooth=1.0),
        "lr_interp": world.ensemble(1, error=0.5, smooth=4.0),
    }
    protocol = {
        "split": {"train": ["1991-01-01", "1999-12-21"], "test": ["2003-01-01"]},
        "seed": 7,
        "checkpoint": "checkpoints/best",
    }
    evaluate_ensembles(
        forecasts,
        world.truth,
        protocol=protocol,
        output=folder,
        baseline=forecasts["lr_interp"].isel(realization=0, drop=True),
    )
    export_dag(folder, GRAPH, GRAPH_NAMES, 0.1, None, "none", NOTE)
    _write_log(folder)
    config = CONFIG.format(name=folder.name, strategy=strategy)
    (folder / "config.yaml").write_text(config)
    provenance = {
        "versions": {"st_cdgm": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        "seed": 7,
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "data": {"targets.nc": "sha256:" + "ab" * 32},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


class _World:
    """Truth, and ensembles that miss it by a chosen amount."""

    def __init__(
        self,
        shape: tuple[int, int],
        sea: bool,
        days: int,
        seed: int,
        variables: tuple[str, ...],
    ) -> None:
        self.variables = variables
        self.rng = np.random.default_rng(seed)
        self.shape, self.days = shape, days
        scale = min(shape) / 8
        self.height = np.clip(self.noise(scale) + 0.3, 0, None) * 900
        land = self.noise(scale * 1.6) > -0.45
        self.land = land if sea else np.ones(shape, bool)
        self.weather = np.stack([self.noise(min(shape) / 5) for _ in range(days)])
        self.detail = np.stack([self.noise(1.0) for _ in range(days)])
        self.truth = self.dataset(self.weather[None], self.detail[None], squeeze=True)

    def noise(self, smooth: float) -> np.ndarray:
        field = ndimage.gaussian_filter(self.rng.standard_normal(self.shape), smooth)
        return field / field.std()

    def ensemble(self, members: int, *, error: float, smooth: float) -> xr.Dataset:
        wide = min(self.shape) / 5
        miss = np.stack(
            [[self.noise(wide) for _ in range(self.days)] for _ in range(members)]
        )
        fine = np.stack(
            [[self.noise(smooth) for _ in range(self.days)] for _ in range(members)]
        )
        detail = np.sqrt(0.3) * self.detail + np.sqrt(0.7) * fine
        return self.dataset(self.weather[None] + error * miss, detail)

    def dataset(
        self, weather: np.ndarray, detail: np.ndarray, *, squeeze: bool = False
    ) -> xr.Dataset:
        """Turn standard fields (M, T, Y, X) into temperatures and precipitation."""
        lapse = -6.5e-3 * self.height
        tasmin = 6 + 5 * weather + 0.8 * detail + lapse
        tasmax = tasmin + 9 + np.abs(2 * detail)
        rain = 5 * (weather + 0.35 * detail + self.height / 1500 - 0.3)
        pr = np.clip(rain, 0, None) ** 1.4
        ny, nx = self.shape
        dims = ("realization", "time", "lat", "lon")
        fields = {"tasmin": tasmin, "tasmax": tasmax, "pr": pr}
        units = {"tasmin": "degC", "tasmax": "degC", "pr": "mm day-1"}
        names = {
            "tasmin": "air_temperature",
            "tasmax": "air_temperature",
            "pr": "precipitation_flux",
        }
        made = xr.Dataset(
            {
                name: (
                    dims,
                    np.where(self.land, values, np.nan).astype(np.float32),
                    {"units": units[name], "standard_name": names[name]},
                )
                for name, values in fields.items()
                if name in self.variables
            },
            coords={
                "time": xr.date_range(
                    "2003-01-01", periods=self.days, use_cftime=True, calendar="noleap"
                ),
                "lat": (
                    "lat",
                    np.linspace(36.25, 36.25 + 0.5 * (ny - 1), ny),
                    {"units": "degrees_north", "standard_name": "latitude"},
                ),
                "lon": (
                    "lon",
                    np.linspace(-9.75, -9.75 + 0.5 * (nx - 1), nx),
                    {"units": "degrees_east", "standard_name": "longitude"},
                ),
            },
        )
        made = made.isel(realization=0, drop=True) if squeeze else made
        return made.transpose("time", ...)


def _write_log(folder: Path, epochs: int = 30) -> None:
    rng = np.random.default_rng(1)
    lines = ["epoch,step,train_loss,val_loss,loss_gen,loss_rec,loss_dag,lr,seconds"]
    for epoch in range(epochs):
        loss = 0.35 + 0.8 * np.exp(-epoch / 6) + 0.01 * rng.standard_normal()
        held = f"{loss + 0.05 + 0.002 * epoch:.4f}" if epoch % 2 == 0 else ""
        lines.append(
            f"{epoch},{epoch * 40},{loss:.4f},{held},{loss * 0.9:.4f},"
            f"{0.2 * loss:.4f},{np.exp(-epoch / 3):.5f},{1e-3 * 0.95**epoch:.6f},3.1"
        )
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs" / "metrics.csv").write_text("\n".join(lines) + "\n")
