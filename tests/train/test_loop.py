"""One epoch of training, and the sums that it returns."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.train.batches import worker_batches
from distributed_avel.train.loop import EpochSums, train_epoch
from tests.train.examples import objective, plan, training_set

CPU = torch.device("cpu")
sums = st.builds(
    EpochSums,
    loss_sums=st.dictionaries(st.sampled_from(["mil", "auxiliary"]), st.integers(0, 100)),
    num_videos=st.integers(1, 100),
)


def batches_of(num_videos: int, **settings):
    return list(
        worker_batches(
            training_set(num_videos), plan(**settings), rank=0, num_workers=1, dtype=torch.float64
        )
    )


def optimizer_of(module: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=1e-2)


def parameters(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_an_epoch_equals_a_plain_loop():
    ours, by_hand = objective(torch.float64), objective(torch.float64)
    batches = batches_of(7, batch_size=3)

    seen = train_epoch(ours, batches, optimizer_of(ours), CPU)

    optimizer = optimizer_of(by_hand)
    totals = {"mil": 0.0, "auxiliary": 0.0}
    for batch in batches:
        losses = by_hand(batch)
        optimizer.zero_grad()
        (losses["mil"].mean() + losses["auxiliary"].mean()).backward()
        optimizer.step()
        for name, loss_B in losses.items():
            totals[name] += float(loss_B.detach().sum())
    torch.testing.assert_close(parameters(ours), parameters(by_hand), rtol=0, atol=1e-12)
    assert seen.num_videos == 7
    assert seen.loss_sums == pytest.approx(totals)


def test_training_reduces_the_loss():
    step = objective(torch.float64)
    optimizer = optimizer_of(step)

    means = [
        train_epoch(step, batches_of(8, epoch=epoch, batch_size=4), optimizer, CPU).means()["total"]
        for epoch in range(15)
    ]

    assert means[-1] < 0.99 * means[0]


def test_a_padding_video_is_not_counted_and_changes_no_weight():
    step = objective(torch.float64)
    before = parameters(step).clone()
    batches = [replace(b, weight_B=torch.zeros_like(b.weight_B)) for b in batches_of(4)]

    seen = train_epoch(step, batches, optimizer_of(step), CPU)

    assert seen.num_videos == 0
    assert set(seen.loss_sums.values()) == {0.0}
    assert torch.equal(parameters(step), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_training_immediately(value):
    step = objective(torch.float64)
    first, second, *_ = batches_of(9, batch_size=3)
    second.audio_NTD[0, 3, 2] = value
    taken = parameters(step).clone()
    optimizer = optimizer_of(step)
    optimizer.register_step_post_hook(lambda *_: taken.copy_(parameters(step)))

    with pytest.raises(FloatingPointError, match="loss is nan after 3 videos"):
        train_epoch(step, [first, second], optimizer, CPU)

    assert torch.equal(parameters(step), taken)  # the bad batch changed no weight


@given(a=sums, b=sums, c=sums)
def test_sums_add_up_in_any_order(a, b, c):
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert EpochSums() + a == a


def test_means_are_over_videos_and_not_over_workers():
    both = EpochSums(loss_sums={"mil": 6.0, "auxiliary": 4.0}, num_videos=3) + EpochSums(
        loss_sums={"mil": 10.0, "auxiliary": 0.0}, num_videos=1
    )

    assert both.means() == {"mil": 4.0, "auxiliary": 1.0, "total": 5.0}


def test_the_mean_of_an_epoch_without_videos_is_an_error():
    with pytest.raises(ValueError, match="without videos"):
        EpochSums().means()
