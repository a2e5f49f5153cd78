"""Digits drawn stroke by stroke and from fonts, and the frame that MNIST puts around a digit."""
import pytest
import torch

from s5_mnist.data import generated_data, loaders
from s5_mnist.digits import (FONTS, STROKES, fit_ink, frame_digit, generate_digits, ink_lines, printed_digits,
                             resize_image, write_digit)
from s5_mnist.shift import with_drawn


def centre(x):
    "Row and column of the centre of mass"
    return [((x.sum(1-d)*torch.arange(n)).sum()/x.sum()).item() for d, n in enumerate(x.shape)]


# --- generated digits -------------------------------------------------------------------------------------------

@pytest.mark.parametrize('draw', [generate_digits, printed_digits])
def test_the_global_generator_is_left_alone(draw):
    state = torch.random.get_rng_state()
    x, _ = draw(5, 1)
    assert torch.random.get_rng_state().equal(state)
    torch.manual_seed(9)
    assert draw(5, 1)[0].equal(x) and not draw(5, 2)[0].equal(x)


@pytest.mark.parametrize('draw', [generate_digits, printed_digits])
def test_all_digits_occur_and_have_the_form_of_mnist(draw):
    x, y = draw(300, 0)
    assert x.shape == (300, 28, 28) and x.dtype == torch.uint8 and y.dtype == torch.int64
    assert y.unique().tolist() == list(range(10))
    for image in x:
        rows, columns = ((image > 0).any(d).nonzero()[:, 0] for d in (1, 0))
        assert max(rows[-1]-rows[0], columns[-1]-columns[0])+1 <= 21
        assert all(abs(c-14) < .75 for c in centre(image.float())) and image.max() > 200


def test_one_digit_can_be_drawn_and_none_cannot():
    assert generate_digits(1, 3)[0].shape == (1, 28, 28)
    with pytest.raises(ValueError, match='at least 1, got 0'):
        generate_digits(0)


def test_writers_differ():
    g = torch.Generator().manual_seed(0)
    a, b = write_digit(1, 1000, g)
    stem, up = slice(0, 6), slice(6, 12)                          # Three points each, so six lines each
    length = (b-a).norm(dim=2)[:, up].sum(1)
    assert (length < .1).float().mean() > .04 and (length > .5).float().mean() > .2   # No upstroke, and long ones
    rise = (b[:, 11]-a[:, 6])[length > .4]
    angle = torch.atan2(-rise[:, 0], rise[:, 1]).rad2deg()        # From straight down to straight left
    assert angle.min() > 0 and angle.quantile(.1) < 30 and angle.quantile(.9) > 50 and angle.max() < 75
    assert (a[:, stem].amin((1, 2)) < -.4).all()                  # The stem starts at the top


def test_each_stroke_has_several_ways():
    assert sorted(STROKES) == list(range(10))
    assert all(len(ways) > 1 for strokes in STROKES.values() for ways in strokes)


def test_a_line_is_as_wide_as_the_pen():
    one = torch.ones(1, 1, 1)
    a, b = torch.tensor([[[14., 4.]]]), torch.tensor([[[14., 24.]]])              # Straight down, between two columns
    for pen in (1.5, 2, 4):
        x = ink_lines(a, b, pen*one, one)[0]
        assert abs(x[14].sum()-pen) < 1e-5 and x[14].equal(x[14].flip(0)) and x[:1].max() == 0


def test_the_fonts_differ_and_come_with_matplotlib():
    from matplotlib import get_data_path
    from pathlib import Path
    assert len(set(FONTS)) == len(FONTS) == 20
    assert all((Path(get_data_path())/'fonts'/'ttf'/f'{f}.ttf').exists() for f in FONTS)


# --- the frame --------------------------------------------------------------------------------------------------

def test_resizing_keeps_the_mean():
    x = torch.rand(40, 60, generator=torch.Generator().manual_seed(0))
    for size in ((20, 30), (40, 60), (80, 120), (7, 11)):
        small = resize_image(x, *size)
        assert small.shape == size and abs(small.mean()-x.mean()) < .02
    assert torch.allclose(resize_image(x, 40, 60), x, atol=1e-6) and resize_image(x, 0, 0).shape == (1, 1)


def test_fit_ink_crops_and_keeps_proportions_and_margin():
    x = torch.zeros(50, 70)
    x[10:30, 40:45] = 1                                           # 20 by 5
    assert fit_ink(x, 80).shape == (80, 20) and fit_ink(x, 80).min() > .9
    framed = fit_ink(x, 80, margin=2)
    assert framed.shape == (96, 36) and framed[:4].max() < .01    # 2 pixels are 8 after scaling
    assert fit_ink(x, 10).shape == (10, 3)


@pytest.mark.parametrize('size, ink', [((28, 28), (0, 0, 5, 3)), ((28, 28), (20, 8, 28, 28)),
                                       ((300, 200), (100, 0, 290, 40)), ((40, 400), (3, 5, 30, 390))])
def test_a_frame_is_centred_by_mass(size, ink):
    x = torch.zeros(size)
    top, left, bottom, right = ink
    x[top:bottom, left:right] = 1
    framed = frame_digit(x)
    rows, columns = ((framed > .5).any(d).sum().item() for d in (1, 0))
    assert framed.shape == (28, 28) and max(rows, columns) == 20 and 0 <= framed.min() and framed.max() <= 1+1e-6
    assert all(abs(c-14) <= .51 for c in centre(framed))


def test_a_frame_does_not_depend_on_where_the_digit_stands():
    x, moved = torch.zeros(100, 100), torch.zeros(100, 150)
    shape = torch.rand(30, 20, generator=torch.Generator().manual_seed(0)).add(.4).clamp(0, 1)
    x[5:35, 10:30] = shape
    moved[60:90, 120:140] = shape
    assert torch.allclose(frame_digit(x), frame_digit(moved), atol=1e-5)


# --- drawn digits among others ----------------------------------------------------------------------------------

def test_drawn_digits_join_the_training_images_in_front():
    data = generated_data(50, 20, seed=3)
    more, again = with_drawn(data, .1, seed=4), with_drawn(data, .1, seed=4)
    assert len(more.train_x) == len(more.train_y) == 55 and more.train_x.equal(again.train_x)
    assert more.train_x[5:].equal(data.train_x) and more.train_y[5:].equal(data.train_y)
    assert more.test_x is data.test_x and more.name != data.name
    assert loaders(more, n_valid=10).valid.x.equal(loaders(data, n_valid=10).valid.x)
    assert not with_drawn(data, .1, seed=5).train_x[:5].equal(more.train_x[:5])
