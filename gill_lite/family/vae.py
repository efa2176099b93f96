"""A variational autoencoder: a picture's few numbers as a Gaussian, and the bound that teaches it.

log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)), with q(z|x) = N(mean, exp(log_var)) from the
encoder, p(z) = N(0, 1) and p(x|z) = N(decoder(z), SPREAD^2). Kingma and Welling 2014,
arXiv:1312.6114. Stable Diffusion's autoencoder is one, too, with another weight of the KL.

Axes: B pictures, Z numbers of a picture.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

Z = 16
CHANNELS = (3, 16, 32, 64, 64)  # 64x64 to 4x4
SPREAD = 0.1  # of a pixel in 0..1 around what the decoder says


class Bound(NamedTuple):
    """The two parts of the negative bound of each picture, (B,), without the constant."""

    reconstruction: Tensor
    kl: Tensor

    @property
    def loss(self) -> Tensor:
        """Their mean over the pictures."""
        return (self.reconstruction + self.kl).mean()


class Vae(nn.Module):
    """Encoder and decoder of pictures (B, 3, 64, 64) in 0..1."""

    def __init__(self, z: int = Z):
        super().__init__()
        pairs = list(zip(CHANNELS, CHANNELS[1:]))
        down = [part for a, b in pairs for part in (nn.Conv2d(a, b, 4, 2, 1), nn.SiLU())]
        up = [part for a, b in reversed(pairs)
              for part in (nn.SiLU(), nn.ConvTranspose2d(b, a, 4, 2, 1))]  # fmt: skip
        size = CHANNELS[-1] * 4 * 4
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(size, 2 * z))
        self.decoder = nn.Sequential(
            nn.Linear(z, size), nn.Unflatten(1, (CHANNELS[-1], 4, 4)), *up, nn.Sigmoid()
        )

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of each picture's Gaussian, (B, Z) each."""
        mean, log_var = self.encoder(pictures).chunk(2, dim=1)
        return mean, log_var

    def decode(self, z: Tensor) -> Tensor:
        """Numbers (B, Z) as pictures (B, 3, 64, 64) in 0..1."""
        return self.decoder(z)

    def bound(self, pictures: Tensor, generator: torch.Generator | None = None) -> Bound:
        """The negative bound, from one z of each picture's Gaussian."""
        mean, log_var = self.encode(pictures)
        z = reparameterise(mean, log_var, generator)
        error = (self.decode(z) - pictures).square().sum((1, 2, 3))  # (B,)
        return Bound(error / (2 * SPREAD**2), kl_to_standard(mean, log_var))


def reparameterise(mean: Tensor, log_var: Tensor, generator=None) -> Tensor:
    """A draw of N(mean, exp(log_var)) through which slopes flow: the chance comes from outside."""
    noise = torch.randn(mean.shape, generator=generator)
    return mean + (log_var / 2).exp() * noise


def kl_to_standard(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)), summed over the Z numbers: (B, Z) each -> (B,)."""
    return (mean.square() + log_var.exp() - 1 - log_var).sum(1) / 2
