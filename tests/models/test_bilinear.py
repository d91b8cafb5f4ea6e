"""Factorized bilinear pooling, also at zero, where its root and norm are not smooth."""

import torch

from distributed_avel.models.bilinear import FactorizedBilinear


def segments(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def fusion() -> FactorizedBilinear:
    torch.manual_seed(0)
    return FactorizedBilinear(8).double().eval()


@torch.no_grad()
def test_a_fused_segment_has_unit_norm_and_the_sign_of_the_product():
    heard, seen = segments(2, 3, 4, 8)

    fused = fusion()(heard, seen)

    torch.testing.assert_close(fused.norm(dim=-1), torch.ones(3, 4).double())
    torch.testing.assert_close(fusion()(-heard, seen), -fused)
    torch.testing.assert_close(fusion()(5 * heard, seen), fused, rtol=0, atol=1e-6)


def test_gradients_are_finite_for_zero_audio():
    heard, seen = torch.zeros(1, 1, 8).double().requires_grad_(), segments(1, 1, 8)

    fused = fusion()(heard, seen)
    fused.sum().backward()

    assert torch.equal(fused, torch.zeros(1, 1, 8).double())
    assert heard.grad is not None
    assert heard.grad.isfinite().all()
