"""PaDiM's map from explicit statistics, against loops, OpenCV and stored numbers of earlier releases."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from blemish.models.padim.anomaly_map import AnomalyMapGenerator

GOLDEN = Path(os.environ.get("BLEMISH_GOLDEN", "../shared/golden")) / "peer_numbers.npz"


def statistics(seed: int = 0) -> dict[str, Tensor]:
    """Embedding (2, 5, 3, 4), mean (5, 12) and covariance (12, 5, 5)."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(12, 5, 8, generator=generator)
    return {
        "embedding": torch.randn(2, 5, 3, 4, generator=generator),
        "mean": torch.randn(5, 12, generator=generator),
        "covariance": factor @ factor.mT / 8 + 0.1 * torch.eye(5),
    }


def test_distances_are_those_of_a_loop_over_patches() -> None:
    given = statistics()
    inverse = torch.linalg.inv(given["covariance"])
    ours = AnomalyMapGenerator.compute_distance(given["embedding"], [given["mean"], inverse])
    assert ours.shape == (2, 3, 4)
    for image, row, column in np.ndindex(2, 3, 4):
        patch = 4 * row + column
        shift = (given["embedding"][image, :, row, column] - given["mean"][:, patch]).double().numpy()
        expected = np.sqrt(shift @ np.linalg.inv(given["covariance"][patch].double().numpy()) @ shift)
        assert float(ours[image, row, column]) == pytest.approx(expected, rel=1e-5)


def test_up_sampling_is_bilinear() -> None:
    distance = statistics()["embedding"][:, 0]
    expected = F.interpolate(distance[:, None], size=(23, 31), mode="bilinear", align_corners=False)
    torch.testing.assert_close(AnomalyMapGenerator((23, 31)).up_sample(distance), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sigma", [2, 4])
def test_smoothing_is_the_gaussian_blur_of_opencv(sigma: int) -> None:
    maps = torch.rand(2, 1, 40, 50, generator=torch.Generator().manual_seed(3))
    ours = AnomalyMapGenerator((40, 50), sigma).smooth_anomaly_map(maps)
    for one, blurred in zip(maps, ours, strict=True):
        size = 2 * 4 * sigma + 1
        expected = cv2.GaussianBlur(one[0].numpy(), (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(blurred[0].numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 40)])
def test_maps_smaller_than_the_kernel_are_blurred(size: tuple[int, int]) -> None:
    maps = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(4), dtype=torch.float32)
    offset = np.arange(-16, 17)
    kernel = np.exp(-0.5 * (offset / 4) ** 2)
    expected = maps[0, 0].numpy().astype(np.float64)
    for axis in (0, 1):  # numpy repeats the mirror image as often as the padding needs
        padded = np.pad(expected, [(16, 16) if one == axis else (0, 0) for one in (0, 1)], mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 33, axis=axis)
        expected = windows @ (kernel / kernel.sum())
    np.testing.assert_allclose(AnomalyMapGenerator(size).smooth_anomaly_map(maps)[0, 0].numpy(), expected, rtol=1e-5)


def test_covariance_is_inverted_and_inv_covariance_is_not() -> None:
    given = statistics()
    generator = AnomalyMapGenerator(image_size=(24, 32))
    maps = generator(**given)
    assert maps.shape == (2, 1, 24, 32)
    inverse = torch.linalg.inv(given["covariance"])
    same = generator(embedding=given["embedding"], mean=given["mean"], inv_covariance=inverse)
    torch.testing.assert_close(maps, same)
    torch.testing.assert_close(same, generator.compute_anomaly_map(given["embedding"], given["mean"], inverse))
    other = generator(embedding=given["embedding"], mean=given["mean"], inv_covariance=given["covariance"])
    assert not torch.allclose(maps, other, rtol=0.1)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ((), r"Missing keywords: embedding, mean, covariance \(or inv_covariance\)\. Got none\."),
        (("mean", "covariance"), r"Missing keywords: embedding\. Got mean, covariance\."),
        (("embedding", "covariance"), r"Missing keywords: mean\. "),
        (("embedding", "mean"), r"Missing keywords: covariance \(or inv_covariance\)\. "),
        (("embedding", "mean", "covariance", "inv_covariance"), r"one of covariance and inv_covariance\. Got emb"),
        (("embedding", "mean", "covariance", "sigma"), r"Give embedding, mean and one of .* Got .*sigma\."),
    ],
)
def test_wrong_keywords_are_named(keys: tuple[str, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AnomalyMapGenerator((8, 8))(**dict.fromkeys(keys, torch.zeros(1)))


def test_a_covariance_without_inverse_is_named() -> None:
    given = statistics()
    given["covariance"][7] = 0
    with pytest.raises(ValueError, match=r"covariance of patch 7 has no inverse\. Add a small number"):
        AnomalyMapGenerator((8, 8))(**given)


@pytest.mark.parametrize("image_size", [(24, 32), [24, 32], OmegaConf.create([24, 32])], ids=["tuple", "list", "omega"])
def test_sizes_may_be_tuples_lists_and_omegaconf_lists(image_size: tuple[int, int]) -> None:
    assert AnomalyMapGenerator(image_size)(**statistics()).shape == (2, 1, 24, 32)


@pytest.mark.parametrize("image_size", [(24,), (24, 32, 3), (0, 32)])
def test_other_sizes_are_errors(image_size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"image_size must be \(height, width\), each at least 1\. Got "):
        AnomalyMapGenerator(image_size)
    with pytest.raises(ValueError, match=r"sigma must be above 0 pixels\. Got 0\."):
        AnomalyMapGenerator((8, 8), sigma=0)


def test_inputs_are_not_modified() -> None:
    given = statistics()
    before = {key: value.clone() for key, value in given.items()}
    AnomalyMapGenerator((24, 32))(**given)
    for key, value in given.items():
        assert torch.equal(value, before[key]), key


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is absent (set BLEMISH_GOLDEN)")
def test_the_numbers_of_earlier_releases_are_met() -> None:
    with np.load(GOLDEN) as stored:
        golden = {key[6:]: torch.from_numpy(stored[key]) for key in stored.files if key.startswith("padim.")}
    generator = AnomalyMapGenerator((56, 72))
    embedding, mean, inverse = golden["embedding"], golden["mean"], golden["inv_covariance"]
    distance = generator.compute_distance(embedding, [mean, inverse])
    ours = {
        "distance": distance,
        "upsampled": generator.up_sample(distance),
        "map": generator(embedding=embedding, mean=mean, inv_covariance=inverse),
    }
    for key, values in ours.items():
        torch.testing.assert_close(values, golden[key], rtol=1e-5, atol=0)
    from_covariance = generator(embedding=embedding, mean=mean, covariance=torch.linalg.inv(inverse.double()).float())
    torch.testing.assert_close(from_covariance, golden["map"], rtol=1e-4, atol=0)
