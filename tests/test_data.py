"""Batches of images: every image once, and the same order from the same seed and epoch."""
import pytest
import torch
from torch.utils.data import SequentialSampler

from s5_mnist.augment import s5_augment
from s5_mnist.data import Batches, generated_data, load_data, loaders


def epoch(dl, n):
    "All images and labels of epoch `n`"
    dl.set_epoch(n)
    return tuple(torch.cat(t) for t in zip(*dl))


def same(a, b): return all(x.equal(y) for x, y in zip(a, b))


def test_every_image_comes_once_and_in_order_unless_shuffled(small):
    for bs in (1, 7, 130, 500):
        dl = Batches(small.test_x, small.test_y, bs)
        x, y = epoch(dl, 0)
        assert len(dl) == len(list(dl)) == -(-130//bs)
        assert y.equal(small.test_y) and x.equal((small.test_x[:, None]/255-.1307)/.3081)
    x, y = epoch(loaders(small, bs=64).train, 0)
    assert sorted(y.tolist()) == sorted(small.train_y.tolist()) and not y.equal(small.train_y)


def test_the_last_images_are_kept_for_validation(small):
    dls = loaders(small, n_valid=40, test_bs=7)
    assert [len(dl.y) for dl in dls] == [260, 40, 130]
    assert torch.cat([y for _, y in dls.valid]).equal(small.train_y[260:]) and loaders(small).valid is None
    for n in (300, -1):
        with pytest.raises(ValueError, match='n_valid'):
            loaders(small, n_valid=n)


def test_order_and_augmentation_follow_from_seed_and_epoch(small):
    make = lambda seed: loaders(small, bs=64, augment=s5_augment, seed=seed).train
    dl = make(1)
    one_by_one = [epoch(dl, n) for n in range(4)]
    assert same(epoch(make(1), 3), one_by_one[3])                 # Epoch 3 alone, and after 0 to 2
    assert same(epoch(dl, 0), one_by_one[0])                      # And back again
    assert not same(one_by_one[0], one_by_one[1]) and not same(epoch(make(2), 0), one_by_one[0])


def test_a_subset_is_drawn_anew_each_epoch(small):
    dl = Batches(small.train_x, torch.arange(300), 10, shuffle=True, subset_frac=.1)
    (_, a), (_, b) = epoch(dl, 0), epoch(dl, 1)
    assert len(dl) == 3 and len(set(a.tolist())) == len(a) == len(b) == 30 and set(a.tolist()) != set(b.tolist())


def test_a_sampler_decides_the_order(small):
    class Backwards(SequentialSampler):
        epochs = []

        def __iter__(self): return reversed(range(len(self.data_source)))
        def set_epoch(self, n): self.epochs.append(n)

    dl = Batches(small.test_x, small.test_y, 50, sampler=Backwards(small.test_y))
    assert epoch(dl, 5)[1].equal(small.test_y.flip(0)) and Backwards.epochs == [5]


def test_images_of_another_type_or_shape_are_refused(small):
    x, y = small.test_x, small.test_y
    for bad in ((x/255, y), (x[:, :20], y), (x[:, None], y), (x, y[:-1])):
        with pytest.raises(ValueError, match='found'):
            Batches(*bad)


def test_generated_data_says_how_it_was_made():
    a, b = generated_data(30, 20, seed=1), generated_data(30, 20, seed=1)
    assert a.name == 'generated digits (30 + 20, seed 1)' and same(a[:4], b[:4])
    assert not generated_data(30, 20).train_x.equal(a.train_x) and not a.test_x[:20].equal(a.train_x[:20])


def test_the_kind_of_data_must_be_known():
    with pytest.raises(ValueError, match='cifar'):
        load_data('cifar')


@pytest.mark.cuda
def test_batches_on_a_gpu(small):
    x, y = epoch(loaders(small, bs=64, augment=s5_augment, device='cuda').train, 0)
    assert x.is_cuda and y.is_cuda and y.bincount().cpu().equal(small.train_y.bincount())
