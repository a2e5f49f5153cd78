"""Pictures for the tests: digits as a paint program draws them, files in memory, and how far two images are apart."""
import io

import numpy as np
import pytest
from conftest import STROKES
from PIL import Image, ImageDraw


def slow(*values):
    "A parameter of a test that runs only with --slow"
    return pytest.param(*values, marks=pytest.mark.slow)


def drawn(digit, width=22, size=256, paper=255, ink=0):
    "A digit as a paint program draws it; `width` is that of the pen on 256 by 256 pixels"
    im = Image.new('L', (size, size), paper)
    pen, k = ImageDraw.Draw(im), size/256
    for stroke in STROKES[digit]:
        points = [(x*k, y*k) for x, y in stroke]
        pen.line(points, fill=ink, width=round(width*k), joint='curve')
        for x, y in (points[0], points[-1]):
            r = width*k/2
            pen.ellipse((x-r, y-r, x+r, y+r), fill=ink)
    return im


def beside(digits, width=22, gap=10):
    "Digits side by side with `gap` pixels of paper between them, light on dark"
    ink = [255-np.asarray(drawn(d, width)) for d in digits]
    cut = [a[:, a.any(0).nonzero()[0][0]:a.any(0).nonzero()[0][-1]+1] for a in ink]
    between = np.zeros((256, gap), np.uint8)
    return np.pad(np.concatenate([x for a in cut for x in (a, between)][:-1], 1), ((0, 0), (30, 30)))


def noise(*size):
    "Random bytes"
    return np.random.default_rng(0).integers(0, 256, size, np.uint8)


def file_of(im, kind='png', **options):
    "The bytes of an image file"
    f = io.BytesIO()
    im.save(f, kind, **options)
    return f.getvalue()


def apart(a, b):
    "Mean difference between two images, in grey levels"
    return (a.float()-b.float()).abs().mean().item()
