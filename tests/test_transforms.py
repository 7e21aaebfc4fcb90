"""Claim: batches are augmented as torchvision would, pixel by pixel and in distribution."""

import math

import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from scipy.stats import ks_2samp

from nearkin.data.crops import centre_boxes, crop, crop_by_products, random_boxes
from nearkin.data.photographs import Photographs
from nearkin.data.transforms import AUGMENTS, batch, inverse_affine
from nearkin.names import resolve


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(*shape, seed=0):
    """Random pictures without sharp edges, as photographs are."""
    coarse = torch.rand(*shape[:2], 6, 6, generator=generator(seed)) * 255
    return TF.resize(coarse, list(shape[2:]), antialias=True).round().clamp(0, 255).byte()


def ragged(*sizes, channels=3):
    pictures = [smooth(1, channels, *size, seed=i)[0] for i, size in enumerate(sizes)]
    flat = torch.cat([p.permute(1, 2, 0).flatten() for p in pictures])
    heights, widths = torch.tensor(sizes).T
    lengths = heights * widths * channels
    return pictures, Photographs(flat, lengths.cumsum(0) - lengths, heights, widths, channels)


DIGITS = smooth(20, 1, 28, 28)
SIZES = ((40, 60), (64, 48), (33, 33), (50, 90), (128, 31))


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_batch_is_float_normalised_and_decided_by_its_generator(augment):
    indices = torch.tensor([3, 7, 7, 1])
    one, again, other = (
        batch(DIGITS, indices, augment=augment, generator=generator(seed)) for seed in (1, 1, 2)
    )
    assert one.shape == (4, 1, 28, 28)
    assert one.dtype == torch.float32
    assert one.min() >= -1
    assert one.max() <= 1
    assert torch.equal(one, again)
    assert torch.equal(one, other) == (augment == "none")
    plain = (DIGITS[indices] / 255 - 0.5) / 0.5
    torch.testing.assert_close(batch(DIGITS, indices, augment=augment, train=False), plain)


def test_mean_and_std_of_a_backbone():
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    colour = smooth(2, 3, 8, 8)
    wanted = TF.normalize(colour / 255, mean, std)
    torch.testing.assert_close(batch(colour, torch.arange(2), mean=mean, std=std), wanted)
    grey = batch(DIGITS, torch.arange(2), mean=mean, std=std)
    wanted = TF.normalize(DIGITS[:2].expand(-1, 3, -1, -1) / 255, mean, std)
    torch.testing.assert_close(grey, wanted)


def test_features_come_as_they_are():
    features = torch.randn(5, 3)
    assert torch.equal(batch(features, torch.tensor([4, 0])), features[[4, 0]])
    with pytest.raises(ValueError, match="cannot be augmented"):
        batch(features, torch.tensor([0]), augment="shift")
    with pytest.raises(ValueError, match="did you mean 'shift'"):
        batch(DIGITS, torch.tensor([0]), augment="shft")


def test_shift_is_torchvisions_translation():
    indices = torch.zeros(400, dtype=torch.int64)
    moved = resolve(AUGMENTS["shift"])(DIGITS[indices], 0, generator())
    places = [TF.affine(DIGITS[0], 0, [x, y], 1, [0]) for x in range(-2, 3) for y in range(-2, 3)]
    found = (moved[:, None] == torch.stack(places)).flatten(2).all(2)
    assert (found.sum(1) == 1).all()
    assert found.any(0).all()


@pytest.mark.parametrize("size", [(28, 28), (20, 36)])
def test_affine_is_torchvisions_affine(size):
    picture = smooth(1, 1, *size).float()
    turn, x, y, scale, shear = 9.0, 2.0, -1.0, 1.1, -7.0
    numbers = (math.radians(turn), x, y, scale, math.radians(shear))
    matrix = inverse_affine(*torch.tensor(numbers)[:, None], *size)  # type: ignore[arg-type]
    grid = torch.nn.functional.affine_grid(matrix, [1, 1, *size], align_corners=False)
    ours = torch.nn.functional.grid_sample(picture, grid, align_corners=False)
    theirs = TF.affine(picture, turn, [x, y], scale, [shear, 0.0], TF.InterpolationMode.BILINEAR)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=0)


def test_affine_stays_within_its_ranges():
    dot = torch.zeros(1, 1, 29, 29, dtype=torch.uint8)
    dot[..., 14, 14] = 255  # the centre only moves
    moved = resolve(AUGMENTS["affine"])(dot.expand(300, 1, 29, 29), 0, generator())
    weight = moved[:, 0] / moved.sum((1, 2, 3))[:, None, None]
    place = (weight.sum(1) @ torch.arange(29.0), weight.sum(2) @ torch.arange(29.0))
    for centre in place:
        assert 1.5 < (centre - 14).abs().max() < 0.08 * 29 + 0.5


@pytest.mark.parametrize("size", [(128, 192), (60, 50), (30, 200), (200, 30)])
def test_random_boxes_have_torchvisions_distribution(size):
    """Two samples of 2,000 boxes each; a p below 1e-4 in one of the tests would be no chance."""
    height, width = size
    count = 2000
    sides = torch.full((count,), height), torch.full((count,), width)
    ours = random_boxes(*sides, generator())
    torch.manual_seed(0)
    picture = torch.empty(1, height, width)
    theirs = torch.tensor(
        [T.RandomResizedCrop.get_params(picture, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(count)]
    )
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    for our, their in (
        *zip(ours.T, theirs.T, strict=True),
        (ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]),
        (ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3]),
        (ours[:, 0] / (height - ours[:, 2] + 1), theirs[:, 0] / (height - theirs[:, 2] + 1)),
    ):
        assert ks_2samp(our.numpy(), their.numpy()).pvalue > 1e-4  # type: ignore[attr-defined]


@pytest.mark.parametrize("side", [16, 40, 96])
@pytest.mark.parametrize("way", [crop, crop_by_products])
def test_crops_are_torchvisions_resized_crops(side, way):
    pictures, photographs = ragged(*SIZES)
    boxes = random_boxes(photographs.heights, photographs.widths, generator())
    flips = torch.tensor([True, False, True, False, True])
    ours = way(photographs, boxes, side, flips).float()
    for our, picture, box, flip in zip(ours, pictures, boxes.tolist(), flips, strict=True):
        their = TF.resized_crop(picture.float(), *box, [side, side], antialias=True)  # type: ignore[arg-type]
        their = their.flip(-1) if flip else their
        assert (our - their).abs().max() <= (1.01 if way is crop else 0.01)


@pytest.mark.parametrize("way", [crop, crop_by_products])
def test_crops_of_a_dense_tensor_are_those_of_photographs(way):
    pictures, photographs = ragged(*[(30, 40)] * 6)
    boxes = random_boxes(photographs.heights, photographs.widths, generator())
    flips = torch.arange(6) % 2 == 0
    dense = way(torch.stack(pictures), boxes, 24, flips)
    assert torch.equal(dense, way(photographs, boxes, 24, flips))


def test_crops_do_not_depend_on_the_number_of_threads():
    _, photographs = ragged(*SIZES)
    boxes = centre_boxes(photographs.heights, photographs.widths, 0.875)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(crop(photographs, boxes, 20))
    torch.set_num_threads(before)
    assert torch.equal(*results)


def test_evaluation_is_torchvisions_resize_and_centre_crop():
    pictures, photographs = ragged((100, 140), (133, 100), (100, 100))
    ours = batch(photographs, torch.arange(3), train=False, size=56, mean=0, std=1) * 255
    for our, picture in zip(ours, pictures, strict=True):
        their = TF.center_crop(TF.resize(picture, [64], antialias=True), [56]).float()
        # a fraction of a pixel apart where half a margin is not a whole number
        assert (our - their).abs().mean() < 3
        assert our.shape == (3, 56, 56)


def test_crop_flip_mirrors_one_in_two():
    ramp = torch.arange(64, dtype=torch.uint8).expand(1, 1, 64, 64)
    crops = batch(ramp, torch.zeros(600, dtype=torch.int64), augment="crop-flip", size=16)
    assert crops.shape == (600, 1, 16, 16)
    mirrored = (crops[..., 0] > crops[..., -1]).float().mean()
    assert 0.4 < mirrored < 0.6


def test_small_pictures_are_resized_where_a_size_is_asked():
    out = batch(DIGITS, torch.arange(4), size=14, train=False, mean=0, std=1)
    their = TF.resize(DIGITS[:4], [14, 14], antialias=True)
    assert (out * 255 - their).abs().max() < 1.01
