"""The frozen networks: torchvision's architectures, input scaling, and batching."""

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.video import r2plus1d_18

from distributed_avel.errors import WeightsError
from distributed_avel.features.networks import (
    R2Plus1dPool,
    ResNet152Pool,
    Runner,
    Scale,
    Vgg19Pool5,
    VggishNetwork,
    load_network,
)
from distributed_avel.features.weights import find_weights
from tests.features.seeded_weights import save


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def imagenet(pictures_NHW3: np.ndarray) -> torch.Tensor:
    """Scale frames as torchvision does."""
    scale = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return scale(torch.from_numpy(pictures_NHW3).permute(0, 3, 1, 2) / 255)


def published_file(network: torch.nn.Module, path):
    return find_weights("net", str(save(network.state_dict(), path)))


def test_vgg19_equals_torchvision_up_to_the_last_pooling(tmp_path):
    with torch.device("meta"):
        theirs = torchvision.models.vgg19(weights=None)
    theirs.classifier = torch.nn.Linear(2, 2)  # the real one has 124 million weights
    theirs = theirs.to_empty(device="cpu").eval()
    torch.manual_seed(0)
    for layer in theirs.features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.normal_(layer.bias, std=0.1)
    frames = pictures(2, 64, 96)

    ours = load_network(
        "vgg19",
        lambda: Vgg19Pool5("torchvision"),
        published_file(theirs, tmp_path / "vgg19.pth"),
        unused=["classifier."],
    )

    with torch.inference_mode():
        expected_NDHW = theirs.features(imagenet(frames))
        maps_NRD = ours(torch.from_numpy(frames))
    assert maps_NRD.shape == (2, 2 * 3, 512)
    for region in range(6):  # row by row
        row, column = divmod(region, 3)
        torch.testing.assert_close(
            maps_NRD[:, region], expected_NDHW[:, :, row, column], rtol=1e-4, atol=1e-4
        )


def test_resnet152_equals_torchvision_up_to_the_average_pooling(tmp_path):
    theirs = torchvision.models.resnet152(weights=None).eval()
    for name, value in theirs.named_parameters():
        if name.endswith("bn3.weight"):  # with 1, activations would double in each of 50 blocks
            torch.nn.init.normal_(value, std=0.2)
    weights = published_file(theirs, tmp_path / "resnet152.pth")
    theirs.fc = torch.nn.Identity()
    frames = pictures(2, 64, 64)

    ours = load_network("resnet152", ResNet152Pool, weights, unused=["fc."])

    with torch.inference_mode():
        expected = theirs(imagenet(frames))
        torch.testing.assert_close(ours(torch.from_numpy(frames)), expected, rtol=1e-4, atol=1e-4)


def test_r2plus1d_equals_torchvision_up_to_the_average_pooling(tmp_path):
    theirs = r2plus1d_18(weights=None).eval()
    weights = published_file(theirs, tmp_path / "r2plus1d.pth")
    theirs.fc = torch.nn.Identity()
    clips = pictures(2, 8, 32, 32)
    mean, std = (
        torch.tensor([0.43216, 0.394666, 0.37645]),
        torch.tensor([0.22803, 0.22145, 0.216989]),
    )

    ours = load_network("r2plus1d_18", R2Plus1dPool, weights, unused=["fc."])

    scaled = ((torch.from_numpy(clips) / 255 - mean) / std).permute(0, 4, 1, 2, 3)
    with torch.inference_mode():
        expected = theirs(scaled)
        torch.testing.assert_close(ours(torch.from_numpy(clips)), expected, rtol=1e-4, atol=1e-4)


def test_weight_files_without_batch_counters_load(tmp_path):
    state = ResNet152Pool().net.state_dict()
    state = {name: value for name, value in state.items() if "num_batches" not in name}
    weights = find_weights("resnet152", str(save(state, tmp_path / "old.pth")))

    network = load_network("resnet152", ResNet152Pool, weights)

    assert not any(value.is_meta for value in network.state_dict().values())


def test_caffe_scaling_is_bgr_with_means_subtracted():
    red = torch.tensor([[[[255, 10, 0]]]], dtype=torch.uint8)

    scaled = Vgg19Pool5("keras_caffe").scale(red)

    torch.testing.assert_close(
        scaled.flatten(), torch.tensor([0 - 103.939, 10 - 116.779, 255 - 123.68])
    )


def test_clip_scaling_moves_channels_before_frames():
    clips = torch.from_numpy(pictures(2, 4, 5, 6))

    scaled = Scale(([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]))(clips)

    assert scaled.shape == (2, 3, 4, 5, 6)
    assert scaled[1, 2, 3, 4, 5] == clips[1, 3, 4, 5, 2]


def test_weights_of_another_network_are_refused_with_the_differences(tmp_path):
    state = VggishNetwork().state_dict()
    state["features.0.weight"] = torch.zeros(64, 3, 3, 3)
    del state["embeddings.4.bias"]
    state["head.weight"] = torch.zeros(1)
    weights = find_weights("vggish", str(save(state, tmp_path / "other.pth")))

    with pytest.raises(WeightsError) as caught:
        load_network("vggish", VggishNetwork, weights)

    message = str(caught.value)
    assert "other.pth" in message
    assert "missing: embeddings.4.bias" in message
    assert "unexpected: head.weight" in message
    assert "features.0.weight: shape (64, 3, 3, 3), expected (64, 1, 3, 3)" in message


def test_random_weights_are_reproducible_and_keep_the_global_generator():
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)

    first = load_network("vgg19", lambda: Vgg19Pool5("torchvision"), None)
    assert torch.rand(1) == expected_next
    second = load_network("vgg19", lambda: Vgg19Pool5("torchvision"), None)

    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_the_output_of_a_video_does_not_depend_on_the_batch_bit_for_bit():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten())
    runner = Runner(network, "fp32", 4)
    rng = np.random.default_rng(0)
    videos = [rng.random((n, 3, 9, 9), dtype=np.float32) for n in (5, 1, 7)]

    together = runner(videos)

    for video, output in zip(videos, together, strict=True):
        np.testing.assert_array_equal(runner([video])[0], output)


@pytest.mark.parametrize("rows_per_batch", [1, 3, 64])
def test_rows_are_returned_to_their_video(rows_per_batch):
    runner = Runner(torch.nn.Flatten(), "fp32", rows_per_batch)
    videos = [np.full((n, 1), value, dtype=np.float32) for n, value in ((2, 7), (1, 8), (4, 9))]

    outputs = runner(videos)

    for video, output in zip(videos, outputs, strict=True):
        np.testing.assert_array_equal(output, video)


def test_a_batch_without_videos_has_no_features():
    assert Runner(torch.nn.Flatten(), "fp32", 4)([]) == []
