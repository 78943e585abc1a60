r"""Samplers: from a denoiser and noise to a draw of the learned distribution.

All of them work in the variance-exploding frame ``x(sigma) = x0 + sigma * eps`` and
need nothing from the network but its estimate ``D(x; sigma)`` of ``x0``, so one trained
denoiser serves every sampler. A variance-preserving (VP) state is
``x / sqrt(1 + sigma^2)``, with ``sigma = sqrt((1 - abar) / abar)``.

=================  ==============================================  =====  ===========
name (alias)       algorithm                                       order  noise grid
=================  ==============================================  =====  ===========
``ddpm``           ancestral sampling, variance beta_t        --     VP, linear
``ddim``           deterministic DDIM (eta = 0)               1      VP, linear
``euler``          Euler on the probability-flow ODE          1      Karras
``heun`` (edm)     Heun, algorithm 1 without churn            2      Karras
``dpm_solver++``   DPM-Solver++(2M) (``dpm_solver``)          2      Karras
``dpm_solver_sde`` SDE-DPM-Solver++(2M)                       --     Karras
=================  ==============================================  =====  ===========

The steps are written out here, and checked against diffusers in the tests: diffusers'
schedulers draw their own noise and keep tables in float32, while an ensemble needs
random numbers that depend on (seed, member, day) alone and a solver state in float64.

Each family has its file, with its references; `base` says what a sampler is.
"""

from __future__ import annotations

from st_cdgm.models.samplers.base import Denoiser as Denoiser
from st_cdgm.models.samplers.base import Noise as Noise
from st_cdgm.models.samplers.base import Sampler as Sampler
from st_cdgm.models.samplers.sampling import draws_needed as draws_needed
from st_cdgm.models.samplers.sampling import get_sampler as get_sampler
from st_cdgm.models.samplers.sampling import noise_levels as noise_levels
from st_cdgm.models.samplers.sampling import resolve_sampler as resolve_sampler
from st_cdgm.models.samplers.sampling import sample as sample
from st_cdgm.models.samplers.sampling import sampler_names as sampler_names
