"""What a sampler is. To add one, write such a class and register it in its own file."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, TypeAlias

from torch import Tensor

from st_cdgm.models.noise_levels import karras_sigmas

Denoiser: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Noise: TypeAlias = Callable[[int], Tensor]


class Sampler(Protocol):
    """A way from noise to a sample, in the frame ``x(sigma) = x0 + sigma * eps``.

    A subclass needs `name`, `default_steps` and `walk`, and the decorator
    ``st_cdgm.registry.register("sampler", name)``, once more for each alias::

        @register("sampler", "my_sampler")
        class MySampler(Sampler):
            name = "my_sampler"
            default_steps = 20

            def walk(self, D, x, sigmas, draw):
                for sigma, following in itertools.pairwise(sigmas):
                    x = torch.lerp(D(x, x.new_tensor(sigma)), x, following / sigma)
                return x

    Attributes
    ----------
    name : str
        The name that aliases stand for.
    default_steps : int
        Noise levels where the caller names no number.
    most_steps : int or None
        Largest number of them; None: any.
    fresh_noise : bool
        Whether every step but the last draws noise.
    """

    name: ClassVar[str]
    default_steps: ClassVar[int]
    most_steps: ClassVar[int | None] = None
    fresh_noise: ClassVar[bool] = False

    def sigmas(
        self, steps: int, *, sigma_min: float, sigma_max: float, rho: float
    ) -> Tensor:
        """Return the noise levels, falling, without the final zero.

        Shape ``(steps,)``, float64.
        """
        return karras_sigmas(steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)

    def start(self, sigma: float) -> float:
        """Return the standard deviation of the starting point at the first level."""
        return sigma

    def walk(self, D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
        """Go from ``x`` at ``sigmas[0]`` to the state at ``sigmas[-1]``.

        Parameters
        ----------
        D : callable
            ``D(x, sigma)`` estimates x0; ``sigma`` is a scalar tensor.
        x : Tensor
            In the solver's precision. Shape ``(B, ...)``.
        sigmas : list of float
            Falling; the last one is 0 unless the caller wants the noisy state.
        draw : callable
            ``draw(i)`` returns the noise of step i, from 1 on, like ``x``.
        """
        ...
