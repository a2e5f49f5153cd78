"""Folds of the training images, paired comparisons, and the loss at the best temperature."""
import pytest
import torch
from torch.nn import functional as F


from s5_mnist.sweeps import best_logit_scale, fold_data, fold_positions, paired_difference


# --- folds ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('n, folds', [(60_000, 6), (600, 7), (10, 2)])
def test_folds_hold_each_image_once(n, folds):
    parts = fold_positions(n, folds)
    assert len(parts) == folds and max(map(len, parts))-min(map(len, parts)) <= 1
    assert torch.cat(parts).sort().values.equal(torch.arange(n))
    assert all(p.equal(p.sort().values) for p in parts)
    assert all(map(torch.equal, parts, fold_positions(n, folds)))           # Always the same
    assert (parts[0].float().mean()-n/2).abs() < n/4                        # Neither the first nor the last images


def test_the_fold_comes_last_and_nothing_is_lost(small):
    n = len(small.train_y)
    for fold in range(3):
        data, held = fold_data(small, 3, fold)
        assert held.equal(fold_positions(n, 3)[fold])
        assert data.train_x[-len(held):].equal(small.train_x[held])
        assert data.train_y[-len(held):].equal(small.train_y[held])
        rest = torch.ones(n, dtype=bool)
        rest[held] = False
        key = lambda x: sorted(map(bytes, x.numpy()))
        assert key(data.train_x[:-len(held)]) == key(small.train_x[rest])
        assert data.test_x is small.test_x and data.name == f'{small.name}, fold {fold+1} of 3'


@pytest.mark.parametrize('folds', [0, 1, 101, 2.5, '6'])
def test_a_number_of_folds_that_makes_no_sense_is_refused(folds):
    with pytest.raises(ValueError, match='folds must be an integer between 2 and 100'):
        fold_positions(600, folds)


# --- pairs ------------------------------------------------------------------------------------------------------

def test_a_paired_difference_counts_what_only_one_misreads():
    d = paired_difference({1, 2, 3, 4}, {3, 4, 5, 6, 7, 8}, 100)
    assert (d.n, d.first_only, d.second_only) == (100, 2, 4)
    assert d.difference == pytest.approx(2) and (d.low+d.high)/2 == pytest.approx(2)
    one_by_one = torch.tensor([-1.]*2+[1.]*4+[0.]*94)                        # The same as values of 100 images
    assert (d.high-d.low)/2 == pytest.approx(100*1.96*one_by_one.std(correction=0).item()/10, rel=1e-6)
    swapped = paired_difference({3, 4, 5, 6, 7, 8}, {1, 2, 3, 4}, 100)
    assert swapped.difference == -d.difference and (swapped.low, swapped.high) == (-d.high, -d.low)
    assert paired_difference({1}, {1}, 10)[3:] == (0, 0, 0)


def test_the_interval_of_a_paired_difference_holds_the_true_one():
    "Of 400 experiments with a known difference of 0.2 %, about 95 % have it in their interval"
    g, n, hits = torch.Generator().manual_seed(0), 5000, 0
    for _ in range(400):
        u = torch.rand(n, generator=g)
        first, second = u < .010, (.004 < u) & (u < .016)                    # 1.0 % and 1.2 %, most of them shared
        d = paired_difference(*(set(m.nonzero()[:,0].tolist()) for m in (first, second)), n)
        hits += d.low <= .2 <= d.high
    assert .92 < hits/400 < .98


def test_more_mistakes_than_images_are_refused():
    with pytest.raises(ValueError, match='at least the number of misread images'):
        paired_difference({1, 2}, {3}, 2)


# --- temperature ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('factor', [.5, 1., 2.])
def test_the_best_scale_is_the_one_that_was_divided_out(factor):
    g = torch.Generator().manual_seed(0)
    logits = 3*torch.randn(20_000, 10, generator=g)
    y = torch.multinomial(logits.softmax(1), 1, generator=g)[:,0]            # Labels as likely as the logits say
    scale, loss = best_logit_scale((logits/factor).softmax(1), y)
    assert scale == pytest.approx(factor, rel=.05)
    assert loss == pytest.approx(F.cross_entropy(logits, y).item(), abs=1e-3)


def test_certain_mistakes_do_not_make_the_loss_infinite():
    probs = torch.eye(10)
    scale, loss = best_logit_scale(probs, (torch.arange(10)+1) % 10)
    assert 0 < loss < 100 and scale == pytest.approx(.25)
