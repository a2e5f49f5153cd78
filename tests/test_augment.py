"""Augmentation by the batch: the assignment's transforms, shifts, elastic distortions and views for test time."""
import pytest
import torch
from PIL import Image

from s5_mnist.augment import AUGMENTS, ManyViews, crop_rotate, random_elastic, random_shift, s5_augment, s5_transforms, shifted_views
from s5_mnist.data import MNIST_MEAN, MNIST_STD, loaders
from s5_mnist.model import Net, init_weights
from s5_mnist.training import evaluate


@pytest.fixture(scope='module')
def x(small):
    "Images in [0,1]"
    return small.train_x[:40, None].float()/255


def generator(seed=0): return torch.Generator().manual_seed(seed)


# --- all of them ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', [n for n in AUGMENTS if n != 'none'])
def test_augmentations_repeat_by_seed_and_keep_shape_and_range(name, x):
    augment, before = AUGMENTS[name], x.clone()
    a, b, c = (augment(x, generator(s)) for s in (0, 0, 1))
    assert a.equal(b) and not a.equal(c) and x.equal(before)
    assert a.shape == x.shape and a.dtype == x.dtype and 0 <= a.min() and a.max() <= 1
    different = (a != x).flatten(1).any(1).float().mean()
    assert different > .6


@pytest.mark.parametrize('name', AUGMENTS)
def test_the_same_batches_with_any_number_of_threads(name, small):
    "Of what the loaders make; the sums in a gradient may depend on the threads"
    threads, seen = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            dl = loaders(small, augment=AUGMENTS[name]).train
            seen.append(torch.cat([batch for batch, _ in dl]))
    finally:
        torch.set_num_threads(threads)
    assert seen[0].equal(seen[1])


# --- the assignment's -------------------------------------------------------------------------------------------

def test_without_a_change_the_image_stays(x):
    assert torch.allclose(crop_rotate(x, torch.zeros(40, dtype=torch.bool), torch.zeros(40)), x, atol=1e-5)


def test_one_image_in_ten_is_enlarged_and_all_are_rotated():
    "Seen by the corners of a frame: enlarged images lose it"
    x = torch.zeros(4000, 1, 28, 28)
    x[:, :, 2, 14] = 1                                            # A pixel that the crop cuts off
    kept = s5_augment(x, generator()).flatten(1).any(1).float().mean().item()
    assert abs(kept-.9) < .02


def test_transforms_for_torchvision(small):
    im = Image.fromarray(small.train_x[0].numpy())
    plain = s5_transforms(train=False)(im)
    assert torch.allclose(plain, (small.train_x[:1].float()/255-MNIST_MEAN)/MNIST_STD, atol=1e-6)
    names = [type(t).__name__ for t in s5_transforms().transforms]
    assert names == ['RandomApply', 'Resize', 'RandomRotation', 'ToTensor', 'Normalize']


# --- shifts -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('most', [0, 1, 2, 3])
def test_shifts_are_whole_pixels_up_to_the_largest(most):
    x = torch.zeros(500, 1, 28, 28)
    x[:, 0, 10, 15] = 1
    at = random_shift(x, generator(), max_shift=most).nonzero()[:, 2:]-torch.tensor([10, 15])
    assert len(at) == 500 and {tuple(p) for p in at.tolist()} == {
        (i, j) for i in range(-most, most+1) for j in range(-most, most+1)}


def test_what_is_shifted_out_of_the_image_is_lost_and_0_comes_in():
    x = torch.ones(100, 1, 28, 28)
    shifted = random_shift(x, generator(), max_shift=2)
    assert {round(v) for v in shifted.sum((1, 2, 3)).tolist()} == {a*b for a in (26, 27, 28) for b in (26, 27, 28)}


def test_nine_views(x):
    views = shifted_views(x)
    assert len(views) == 9 and all(v.shape == x.shape for v in views) and views[4].equal(x)
    assert views[0][:, :, 1:, 1:].equal(x[:, :, :-1, :-1]) and views[5][:, :, :, :-1].equal(x[:, :, :, 1:])


def test_views_are_averaged_by_probability(small):
    torch.manual_seed(0)
    net, dl = init_weights(Net()), loaders(small, test_bs=50).test
    score = evaluate(ManyViews(net, lambda x: [x, x.flip(3)]), dl)
    x = torch.cat([x for x, _ in dl])
    with torch.no_grad():
        mean = (net(x).softmax(1)+net(x.flip(3)).softmax(1))/2
    assert torch.allclose(score.probs, mean, atol=1e-6)
    assert score.loss == pytest.approx(-mean[range(130), small.test_y].log().mean().item(), rel=1e-4)


# --- elastic distortion -----------------------------------------------------------------------------------------

def test_strength_scales_the_change(x):
    change = [(random_elastic(x, generator(), strength=s)-x).abs().mean() for s in (.1, .3, 1)]
    assert change[0] < change[1] < change[2]


def test_each_amount_has_its_limit():
    "A shift moves the centre of mass by at most so many pixels; a scale changes the area by at most its square"
    x = torch.zeros(200, 1, 28, 28)
    x[:, :, 10:18, 10:18] = 1
    none = dict(degrees=0, max_shift=0, log_scale=0, shear=0, elastic_sigma=0)
    at = torch.arange(28.)

    def centres(y): return torch.stack([(y.sum((1, 3))*at).sum(1), (y.sum((1, 2))*at).sum(1)])/y.sum((1, 2, 3))
    shifted = random_elastic(x, generator(), **none | dict(max_shift=3, mode='bilinear'))
    assert 2.8 < (centres(shifted)-13.5).abs().max() < 3.05
    scaled = random_elastic(x, generator(), **none | dict(log_scale=.2, mode='bilinear'))
    ratio = scaled.sum((1, 2, 3))/64
    assert 1.2 < ratio.max() < 1.55 and .65 < ratio.min() < .83 and (centres(scaled)-13.5).abs().max() < .1
