"""How much an image looks like a digit: calibrated on digits, and tried on images that are not digits."""
import numpy as np
import pytest
import torch
from conftest import STROKES
from drawings import drawn
from PIL import Image, ImageDraw

from s5_mnist.digits import generate_digits, printed_digits
from s5_mnist.inference import predict
from s5_mnist.model import Net
from s5_mnist.runs import load_pretrained
from s5_mnist.typicality import NON_DIGITS, TYPICAL, fit_typicality, load_typicality_head, make_non_digits, measure_typicality


def paste(*digits):
    "A picture, dark on light, of digits [28,28] at (x, y, size)"
    im = np.zeros((200, 200), np.uint8)
    for d, x, y, size in digits:
        part = np.asarray(Image.fromarray(d.numpy()).resize((size, size), Image.Resampling.BICUBIC))
        im[y:y+size, x:x+size] = np.maximum(im[y:y+size, x:x+size], part)
    return Image.fromarray(255-im)


def test_typicality_is_a_share():
    net, head = load_pretrained(), load_typicality_head()
    x = printed_digits(200, seed=3)[0]
    found = measure_typicality(net, head, x)
    assert found.shape == (200,) and 0 <= found.min() and found.max() <= 1 and (found < TYPICAL).sum() < 10
    assert found.equal(torch.cat([measure_typicality(net, head, x[:1]), measure_typicality(net, head, x[1:])]))


@pytest.mark.slow
def test_one_test_digit_in_two_hundred_is_flagged(mnist):
    found = measure_typicality(load_pretrained(), load_typicality_head(), mnist.test_x)
    assert 30 <= (found < TYPICAL).sum() <= 75
    assert abs(found.mean()-.5) < .08                            # Those it was calibrated on were bent


@pytest.mark.parametrize('kind, least', list(zip(NON_DIGITS, (.9, .85, .9, .75, .9))))
def test_each_kind_is_found(mnist, kind, least):
    x = (255*make_non_digits(mnist.test_x, mnist.test_y, 150, 77, (kind,))).round().byte()
    found = measure_typicality(load_pretrained(), load_typicality_head(), x)
    assert (found < TYPICAL).float().mean() > least


def test_two_digits_are_not_read_as_one(mnist):
    "Stacked and diagonal, close together"
    def is_read(picture):
        try:
            return predict(picture).is_digit
        except ValueError: # Refused
            return False
    read = 0
    for i in range(25):
        a, b = mnist.test_x[2*i], mnist.test_x[2*i+1]
        read += is_read(paste((a, 60, 15, 80), (b, 60, 90+i % 8, 80)))
        read += is_read(paste((a, 20, 20, 80), (b, 85+i % 8, 90, 80)))
    assert read <= 2


@pytest.mark.parametrize('width', [6, 22, 40])
def test_drawn_digits_are_digits(width):
    assert [(p.digit, p.is_digit) for p in predict([drawn(d, width) for d in STROKES])] == [(int(d), True) for d in STROKES]


def test_a_letter_is_doubted():
    im = Image.new('L', (200, 200), 255)
    pen = ImageDraw.Draw(im)
    for line in ([40, 170, 100, 30], [100, 30, 160, 170], [62, 115, 138, 115]):
        pen.line(line, 0, 14)
    p = predict(im)
    assert p.is_digit is False and p.as_dict()['is_digit'] is False and p.typicality < TYPICAL and 'not sure' in str(p)
    assert 'not sure' in p.plot().axes[0].get_xlabel() and predict(im, at_least=0).is_digit


def test_other_networks_have_no_typicality():
    p = predict(drawn('5'), Net().eval())
    assert p.typicality is None and p.is_digit is None and 'not sure' not in str(p)
    with pytest.raises(ValueError, match='at_least'):
        predict(drawn('5'), at_least=2)


@pytest.mark.slow
def test_fitting_repeats_and_finds_what_it_was_shown(small):
    net = load_pretrained()
    a, b = (fit_typicality(net, small, n=400, held_out=100, epochs=6) for _ in range(2))
    assert all(p.equal(q) for p, q in zip(a.state_dict().values(), b.state_dict().values())) and a.fits(net)
    others = (255*make_non_digits(*generate_digits(200, seed=5), 200, 9)).round().byte()
    assert (measure_typicality(net, a, others) < .05).float().mean() > .7
