"""The bound and its parts: the KL is torch's, slopes flow through the draw, it can be learned."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from gill_lite.family.vae import SPREAD, Vae, kl_to_standard, reparameterise
from gill_lite.world.pictures import held_out


def test_the_kl_is_torchs():
    mean, log_var = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    library = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(kl_to_standard(mean, log_var), library, atol=1e-5)
    assert kl_to_standard(torch.zeros(1, 3), torch.zeros(1, 3)) == 0


def test_a_draw_has_the_mean_and_variance_and_lets_slopes_through():
    mean = torch.full((50_000, 1), 2.0, requires_grad=True)
    z = reparameterise(mean, torch.full((50_000, 1), -1.0), torch.Generator().manual_seed(0))
    assert z.mean().item() == pytest.approx(2, abs=0.02)
    assert z.var().item() == pytest.approx(0.3679, abs=0.01)
    assert torch.autograd.grad(z.sum(), mean)[0].eq(1).all()


def test_the_bound_is_reconstruction_and_kl_and_falls():
    torch.manual_seed(0)
    model, (_, pictures) = Vae(), held_out(8)
    generator = torch.Generator().manual_seed(0)
    parts = model.bound(pictures, generator)
    again = model.decode(reparameterise(*model.encode(pictures), torch.Generator().manual_seed(0)))
    error = (again - pictures).square().sum((1, 2, 3)) / (2 * SPREAD**2)
    assert torch.allclose(parts.reconstruction, error)
    assert parts.loss == (parts.reconstruction + parts.kl).mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(80):
        optimizer.zero_grad()
        loss = model.bound(pictures, generator).loss
        loss.backward()
        optimizer.step()
    assert loss < parts.loss / 2
    assert model.decode(torch.zeros(2, 16)).shape == (2, 3, 64, 64)
