"""The digits that the part "Watch it learn" learns from: `python tests/sprite.py WRITERS.csv` makes nbs/demo/digits.png and
nbs/demo/labels.js anew. The table has a row for each training image of MNIST, in order, whose column `writer` says who wrote
it (from QMNIST, https://arxiv.org/abs/1905.10498); nobody who wrote a held-out digit wrote one of the others."""
import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from s5_mnist.data import load_mnist

ROOT = Path(__file__).parents[1]
SPRITE, LABELS = 'nbs/demo/digits.png', 'nbs/demo/labels.js'
TRAINING, HELD_OUT = 80, 30 # Of each digit
COLUMNS, LEVELS = 40, 16    # Digits in a row of the sprite; grey levels, so that a pixel takes four bits


def chosen(y, writers, seed=0):
    "Indices of the training digits and of the held-out digits, each in a random order, as many of each class"
    g = np.random.default_rng(seed)
    some = g.permutation(np.unique(writers))[:400]
    def pick(of, k): return g.permutation(np.concatenate([g.choice(np.flatnonzero(of & (y == d)), k, False) for d in range(10)]))
    mine = np.isin(writers, some)
    return pick(mine, TRAINING), pick(~mine, HELD_OUT)


def levels(x):
    "Grey levels from 0 to 15 of images from 0 to 255"
    return ((x.astype(np.uint16)*(LEVELS-1)+127)//255).astype(np.uint8)


def sprite(x):
    "Images side by side as a picture of 16 grey levels"
    board = np.zeros((-(-len(x)//COLUMNS), COLUMNS, 28, 28), np.uint8)
    board.reshape(-1, 28, 28)[:len(x)] = levels(x)
    board = board.swapaxes(1, 2).reshape(-1, COLUMNS*28)
    picture = Image.frombytes('P', board.shape[::-1], board.tobytes())
    picture.putpalette([v for k in range(LEVELS) for v in [k*255//(LEVELS-1)]*3])
    return picture


def make(data, writers, root=ROOT):
    "Write both files"
    x, y = data.train_x.numpy(), data.train_y.numpy()
    parts = chosen(y, writers)
    sprite(x[np.concatenate(parts)]).save(root/SPRITE, bits=4, optimize=True)
    def lines(indices):
        text = ''.join(map(str, y[indices]))
        return ' +\n'.join(f"  '{text[i:i+100]}'" for i in range(0, len(text), 100))
    (root/LABELS).write_text(
        "// Written by tests/sprite.py from MNIST's training set; do not edit. The labels of the digits in digits.png, in order:\n"
        '// those to learn from, then those that are held out, which other people wrote.\n'
        f'export const TRAINING =\n{lines(parts[0])}\nexport const HELD_OUT =\n{lines(parts[1])}\n')


if __name__ == '__main__':
    with open(sys.argv[1], newline='') as f:
        make(load_mnist(), np.array([int(row['writer']) for row in csv.DictReader(f)]))
