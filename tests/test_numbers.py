"""Every digit in a picture: lines and gaps, digits that touch, and what is marked."""
import json

import numpy as np
import pytest
import torch
from drawings import beside, drawn, file_of, slow
from PIL import Image, ImageDraw
from torch.nn import functional as F

from s5_mnist.numbers import _best_path, _find_cuts, _split_numbers, read_numbers


def sheet(rows, size=(900, 500), paper=255):
    "Drawn digits on paper: rows of (digits, left, top), dark on light"
    im = Image.new('L', size, paper)
    for digits, left, top in rows:
        row = Image.fromarray(255-beside(digits))
        im.paste(row.resize((row.width//2, row.height//2)), (left, top))
    return im


# --- reading ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('inverted', [False, True])
def test_lines_and_gaps(net, inverted):
    im = sheet([('208', 20, 20), ('157', 500, 30), ('9364', 60, 260)])
    found = read_numbers(Image.fromarray(255-np.asarray(im)) if inverted else im, net)
    assert found.text == '208 157\n9364' and found.unsure == []
    assert [(d.line, d.number) for d in found.digits] == [(0, 0)]*3+[(0, 1)]*3+[(1, 0)]*4


def test_boxes_are_in_pixels_of_the_picture(net):
    im = sheet([('208', 40, 20)]).resize((2700, 1500))
    for source in (im, np.asarray(im), file_of(im)):
        left, top, right, bottom = read_numbers(source, net).digits[0].box
        ink = np.asarray(im)[:, :right+10] < 128
        rows, columns = ink.any(1).nonzero()[0], ink.any(0).nonzero()[0]
        assert max(abs(top-rows[0]), abs(bottom-rows[-1]), abs(left-columns[0])) < 15


def test_ink_that_is_no_digit_is_marked(net):
    im = sheet([('42', 100, 20)], (400, 180))
    ImageDraw.Draw(im).line((50, 84, 100, 84), fill=0, width=9)   # A minus
    found = read_numbers(im, net)
    minus = found.digits[0]
    assert found.text == '?42' and minus in found.unsure and minus.box[0] < 60 and 95 < minus.box[2] < 110
    assert [d['digit'] for d in found.as_dict()['digits']] == [None, 4, 2]


@pytest.mark.parametrize('digits', ['42', slow('83'), slow('96')])
def test_digits_that_touch_are_split_or_marked(digits, net):
    "A bar of ink joins them"
    a = beside(digits, 14, 6).copy()
    a[120:134, 120:200] = np.maximum(a[120:134, 120:200], 255*(a[120:134, 120:200].max() > 0))
    found = read_numbers(a, net)
    assert found.text == digits or found.unsure


def test_any_network_will_do(net):
    class Plain(torch.nn.Module):
        def forward(self, x): return net(x)
    found = read_numbers(sheet([('208', 40, 20)]), Plain())
    assert found.text == '208' and found.digits[0].typicality is None and found.digits[0].is_digit is None


# --- what it is made of -----------------------------------------------------------------------------------------

def test_the_best_path_and_its_lead():
    edges = [(0, 1, -1., 'a'), (1, 2, -1., 'b'), (0, 2, -5., 'ab')]
    assert [(e[3], lead) for e, lead in _best_path(2, edges)] == [('a', 3.), ('b', 3.)]
    assert [(e[3], lead) for e, lead in _best_path(2, [*edges, (0, 2, -1.5, 'whole')])] == [('whole', .5)]


def test_a_cut_avoids_ink():
    ink = np.zeros((40, 60))
    ink[:, 5:20] = ink[:, 40:55] = 1
    ink[18:22] = 1                                                # A bridge
    path, crossed = min(_find_cuts(ink, 40.), key=lambda c: c[1])
    assert ((path >= 19) & (path <= 40)).all() and .05 < crossed < .2


def test_gaps_split_numbers():
    def boxes(*lefts): return [(slice(0, 40), slice(x, x+30)) for x in lefts]
    assert _split_numbers(boxes(0, 35, 70, 140, 175), 40) == [0, 0, 0, 1, 1]
    assert _split_numbers(boxes(0, 50, 100, 150), 40) == [0, 0, 0, 0]
    assert _split_numbers(boxes(0), 40) == [0]


# --- what comes out ---------------------------------------------------------------------------------------------

def test_the_result(net):
    found = read_numbers(sheet([('208', 20, 20), ('57', 500, 30)]), net, at_least=1)
    assert len(found.unsure) == len(found.digits) == 5            # No confidence is 1
    assert '208 57' in str(found) and 'check by eye: 2 (' in str(found) and found._repr_png_().startswith(b'\x89PNG')
    read = json.loads(json.dumps(found.as_dict()))
    assert (read['file'], read['text'], read['unsure']) == ('the Image', '208 57', 5)
    assert read['digits'][3].keys() == {'file', 'digit', 'probs', 'typicality', 'is_digit', 'box', 'line', 'number',
                                        'confidence', 'is_sure'}
    ax = found.plot()
    assert len(ax.patches) == 5 and [t.get_text() for t in ax.texts] == list('20857')
    with pytest.raises(ValueError, match='at_least'):
        read_numbers(drawn('2'), net, at_least=90)


# --- MNIST ------------------------------------------------------------------------------------------------------

def written(images, g):
    "Digits side by side, dark on light or light on dark, in light that falls off to one side"
    row = torch.cat([F.pad(x, [int(torch.randint(3, (), generator=g))]*2) for x in images], 1)/255
    ink = F.pad(F.interpolate(row[None, None], scale_factor=2, mode='bicubic')[0, 0], [20]*4).clamp(0, 1)
    sheet = .3+.6*ink if torch.rand((), generator=g) < .5 else 1-.6*ink
    return (255*sheet*torch.linspace(.7, 1, ink.shape[1])).round().to(torch.uint8)


@pytest.mark.mnist
@pytest.mark.parametrize('n', [10, slow(200)])
def test_numbers_by_many_writers_are_read(n, mnist, net):
    g, right, marked = torch.Generator().manual_seed(0), 0, 0
    for _ in range(n):
        i = torch.randint(10_000, (int(torch.randint(3, 9, (), generator=g)),), generator=g)
        found = read_numbers(written(mnist.test_x[i], g), net)
        right += found.text.replace(' ', '') == ''.join(map(str, mnist.test_y[i].tolist()))
        marked += bool(found.unsure)
    assert right >= .9*n and marked <= .5*n
