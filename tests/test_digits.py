"""Digits drawn from fonts, and the frame that MNIST puts around a digit."""
import pytest
import torch

from s5_mnist.digits import FONTS, fit_ink, frame_digit, generate_digits, resize_image


def centre(x):
    "Row and column of the centre of mass"
    return [((x.sum(1-d)*torch.arange(n)).sum()/x.sum()).item() for d, n in enumerate(x.shape)]


# --- generated digits -------------------------------------------------------------------------------------------

def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    x, _ = generate_digits(5, 1)
    assert torch.random.get_rng_state().equal(state)
    torch.manual_seed(9)
    assert generate_digits(5, 1)[0].equal(x)


def test_all_digits_occur_and_have_the_form_of_mnist():
    x, y = generate_digits(300, 0)
    assert y.unique().tolist() == list(range(10))
    for image in x:
        rows, columns = ((image > 127).any(d).nonzero()[:, 0] for d in (1, 0))
        assert max(rows[-1]-rows[0], columns[-1]-columns[0])+1 <= 20
        assert all(abs(c-14) < .75 for c in centre(image.float())) and image.max() > 200


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
