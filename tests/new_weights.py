"""Everything that depends on the weights in s5_mnist/best.safetensors: `python tests/new_weights.py` makes it anew.
The typicality head, the network that the page to draw on loads, and the test images that its quiz shows, with what it
says of them. Ten minutes on two cores; tests/test_demo.py and tests/test_demo_parts.py compare the files with the weights."""
import csv
import hashlib
import json
from pathlib import Path

import torch
from PIL import Image

from s5_mnist.data import as_input, load_mnist
from s5_mnist.inference import export_onnx
from s5_mnist.mnist_files import MNIST_FILES
from s5_mnist.runs import load_pretrained, pretrained_report, save_weights
from s5_mnist.typicality import fit_typicality

ROOT = Path(__file__).parents[1]
HEAD, NETWORK = 's5_mnist/typicality.safetensors', 'nbs/demo/s5_mnist.onnx'
SPRITE, MODULE = 'nbs/demo/images.png', 'nbs/demo/images.js'
VOTES = ROOT/'tests'/'label_votes.csv'      # From github.com/cleanlab/label-errors, mturk/mnist_mturk.json
COLUMNS = 8


@torch.no_grad()
def measured(net, x):
    "Prediction and probability of each image"
    probs = torch.cat([net(as_input(part)).softmax(1) for part in x.split(500)])
    return probs.argmax(1), probs.max(1).values


def quiz_images(net, x, y):
    "Indices of the misread images, and of as many that are read with the lowest probability, both in order"
    predictions, probs = measured(net, x)
    misread = (predictions != y).nonzero().flatten()
    read = probs.masked_fill(predictions != y, 2).argsort(stable=True)[:len(misread)]
    return misread.tolist(), read.sort().values.tolist()


def votes():
    "How five people labelled some of the images, by index"
    with open(VOTES, newline='', encoding='utf-8') as f:
        return {int(row['index']): {k: int(v) for k, v in row.items()} for row in csv.DictReader(f)}


def sprite(x, indices):
    "Images side by side, eight a row, as a picture of grey levels"
    board = torch.zeros(-(-len(indices)//COLUMNS)*28, COLUMNS*28, dtype=torch.uint8)
    for i, index in enumerate(indices):
        top, left = i//COLUMNS*28, i % COLUMNS*28
        board[top:top+28, left:left+28] = x[index]
    return Image.fromarray(board.numpy())


def file_facts(data):
    "Length and SHA-256 of the two unpacked test files"
    facts = {}
    for kind, array, name in (('images', data.test_x, 't10k-images-idx3-ubyte'),
                              ('labels', data.test_y, 't10k-labels-idx1-ubyte')):
        shape = MNIST_FILES[name].shape
        header = bytes([0, 0, 8, len(shape)])+b''.join(n.to_bytes(4, 'big') for n in shape)
        raw = header+array.to(torch.uint8).numpy().tobytes()
        assert hashlib.md5(raw).hexdigest() == MNIST_FILES[name].md5 # The checksum that the package uses
        facts[kind] = dict(name=name, length=len(raw), header=len(header), sha256=hashlib.sha256(raw).hexdigest())
    return facts


def module(data):
    "The indices in the order of the sprite, and the text of images.js"
    x, y, known, report = data.test_x, data.test_y, votes(), pretrained_report()
    misread, read = quiz_images(load_pretrained(), x, y)
    examples = [(y == digit).nonzero()[0].item() for digit in range(10)]
    keys = ('other', 'for_label', 'for_other', 'for_neither')

    def row(index):
        more = dict(votes=[known[index][k] for k in keys]) if index in known else {}
        return dict(index=index, label=y[index].item(), **more)
    lines = lambda indices: ''.join(f'  {json.dumps(row(i))},\n' for i in indices)
    claim = {k: report[k] for k in ('recipe', 'seed', 'correct', 'n')}
    text = (
        "// Written by tests/new_weights.py from MNIST's test set and the package's weights; do not edit.\n\n"
        '// What was measured about the weights: the number that the results page claims\n'
        f'export const CLAIM = {json.dumps(claim)}\n\n'
        "// MNIST's test files, unpacked\n"
        f'export const FILES = {json.dumps(file_facts(data), indent=2)}\n\n'
        '// The tiles of images.png in order: misread, read with the lowest probability, and the first image of each\n'
        '// digit. Votes are those of five people: the other digit they were offered, then how many chose the label, the\n'
        '// other digit, and neither.\n'
        f'export const MISREAD = [\n{lines(misread)}]\n'
        f'export const READ = [\n{lines(read)}]\n'
        f'export const EXAMPLES = [\n{lines(examples)}]\n')
    return misread+read+examples, text


def make_all(data, root=ROOT, **options):
    "Write all files below a folder; options as for fit_typicality"
    net, (indices, text) = load_pretrained(), module(data)
    save_weights(fit_typicality(net, data, **options).half(), root/HEAD, dict(kind='typicality head'))
    export_onnx(net, root/NETWORK, maps=True, half=True) # With the score of the package's head, so after it
    sprite(data.test_x, indices).save(root/SPRITE, optimize=True)
    (root/MODULE).write_text(text, encoding='utf-8')


if __name__ == '__main__':
    make_all(load_mnist())
