"""Selection: which images a linear classifier finds hardest."""
import pytest
import torch

from s5_mnist.data import generated_data
from s5_mnist.selection import hardest_images, linear_margins


def least_squares(x, y):
    "The same classifier by another way: least squares, with the penalty as further equations"
    small = torch.nn.functional.avg_pool2d(x.unsqueeze(1).double()/255, 2).flatten(1)
    inputs = torch.cat([small, torch.ones(len(x), 1)], 1)
    more = (1e-3*len(x))**.5*torch.eye(197, dtype=torch.float64)
    labels = torch.nn.functional.one_hot(y, 10).double()
    weights = torch.linalg.lstsq(torch.cat([inputs, more]), torch.cat([labels, torch.zeros(197, 10)])).solution
    return inputs@weights


def test_margins_are_those_of_ridge_regression(small):
    x, y = small.train_x, small.train_y
    scores, found = least_squares(x, y), linear_margins(x, y)
    for i, (row, label) in enumerate(zip(scores, y)):
        others = torch.cat([row[:label], row[label+1:]])
        assert found[i].item() == pytest.approx((row[label]-others.max()).item(), abs=1e-5)
    assert (found > 0).equal(scores.argmax(1) == y)


def test_a_large_set_is_judged_by_a_classifier_of_ten_thousand_of_its_images():
    data = generated_data(20_000, 10)
    x, y = data.train_x, data.train_y
    found, fitted = linear_margins(x, y), linear_margins(x[::2], y[::2])
    assert torch.allclose(found[::2], fitted, atol=1e-9) and len(found) == 20_000


def test_the_hardest_are_those_with_the_smallest_margins_in_order(small):
    x, y = small.train_x, small.train_y
    keep, margins = hardest_images(x, y, .3), linear_margins(x, y)
    assert len(keep) == 90 and keep.equal(keep.unique())
    left_out = torch.ones(300, dtype=bool)
    left_out[keep] = False
    assert margins[keep].max() < margins[left_out].min()
    assert hardest_images(x, y, 1.).equal(torch.arange(300)) and len(hardest_images(x[:2], y[:2], .1)) == 1


def test_the_choice_does_not_depend_on_the_number_of_threads(mnist):
    threads = torch.get_num_threads()
    found = []
    for n in (1, 2):
        torch.set_num_threads(n)
        found.append(hardest_images(mnist.train_x, mnist.train_y, .6))
    torch.set_num_threads(threads)
    assert found[0].equal(found[1]) and len(found[0]) == 36_000
