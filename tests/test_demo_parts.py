"""The sections below the drawing: the quiz, augmentation by hand, and the check of the test set, in a real browser."""
import gzip
import inspect
import json
import re

import numpy as np
import pytest
import torch
from conftest import idx_bytes
from new_weights import COLUMNS, HEAD, MODULE, NETWORK, ROOT, SPRITE, make_all, measured
from PIL import Image
from test_demo import node, opened, runtime, site # noqa: F401 (fixtures)

from s5_mnist.augment import random_elastic
from s5_mnist.runs import load_pretrained, pretrained_report
from s5_mnist.typicality import load_typicality_head

ANEW = 'python tests/new_weights.py writes it anew'
# --- without a browser ------------------------------------------------------------------------------------------

def constant(name):
    "A constant of images.js"
    return json.loads(re.sub(r',\s*\]', ']', re.search(rf'^export const {name} = (.*?)\n(?=\n|export|//|\Z)',
                                                       (ROOT/MODULE).read_text(), re.S | re.M)[1]))


@pytest.fixture(scope='module')
def tiles():
    "Rows of images.js in the order of the sprite"
    return constant('MISREAD')+constant('READ')+constant('EXAMPLES')


def test_every_tile_is_an_image_of_mnist(tiles, mnist):
    board = np.asarray(Image.open(ROOT/SPRITE))
    assert board.dtype == np.uint8 and board.shape == (-(-len(tiles)//COLUMNS)*28, COLUMNS*28)
    for i, row in enumerate(tiles):
        top, left = i//COLUMNS*28, i % COLUMNS*28
        assert (board[top:top+28, left:left+28] == mnist.test_x[row['index']].numpy()).all(), f'tile {i}: {ANEW}'
        assert mnist.test_y[row['index']] == row['label'], f'tile {i}: {ANEW}'
    report = pretrained_report()
    assert constant('CLAIM') == {k: report[k] for k in ('recipe', 'seed', 'correct', 'n')}, ANEW


@pytest.mark.slow
def test_one_command_makes_all_that_depends_on_the_weights(mnist, tmp_path):
    "The same files again; but the head, which is fitted to fewer images here"
    few = mnist._replace(train_x=mnist.train_x[:600], train_y=mnist.train_y[:600])
    make_all(few, tmp_path, n=300, held_out=100, epochs=1)
    assert load_typicality_head(tmp_path/HEAD).fits(load_pretrained())
    assert (tmp_path/NETWORK).stat().st_size == pytest.approx((ROOT/NETWORK).stat().st_size, rel=.01)
    assert (tmp_path/MODULE).read_text() == (ROOT/MODULE).read_text(), ANEW
    assert Image.open(tmp_path/SPRITE).tobytes() == Image.open(ROOT/SPRITE).tobytes(), ANEW


@pytest.mark.parametrize('strength', [1., 4.])
def test_the_page_distorts_as_random_elastic_does(strength, mnist, tmp_path):
    x, n = mnist.test_x[:20, None]/255, 20
    expected = random_elastic(x, torch.Generator().manual_seed(5), strength=strength)
    g = torch.Generator().manual_seed(5)                          # The numbers that random_elastic draws
    r, points = torch.rand(6, n, generator=g)*2-1, torch.randn(n, 2, 5, 5, generator=g)
    limits = {k: v.default*strength for k, v in inspect.signature(random_elastic).parameters.items()
              if isinstance(v.default, float)}
    names = dict(angle=np.radians(limits['degrees']), slant=limits['shear'], width=limits['log_scale'],
                 height=limits['log_scale'], right=limits['max_shift'], down=limits['max_shift'])
    jobs = [dict(image=x[i].flatten().tolist(), points=points[i].flatten().tolist(),
                 amounts={k: limit*r[j, i].item() for j, (k, limit) in enumerate(names.items())}
                 | dict(elastic=limits['elastic_sigma'])) for i in range(n)]
    (tmp_path/'jobs.json').write_text(json.dumps(jobs))
    found = node(tmp_path, """
        import fs from 'fs'
        import { distort, TRAINING } from './elastic.js'
        const jobs = JSON.parse(fs.readFileSync('jobs.json'))
        const out = jobs.map(({ image, amounts, points }) => [...distort(Float32Array.from(image), amounts, points)])
        console.log(JSON.stringify({ out, TRAINING }))""")
    ours = torch.tensor(found['out']).view(n, 1, 28, 28)
    assert (ours-expected).abs().max() < 1e-4 and (x-expected).abs().max() > .5
    assert found['TRAINING'] == {k: v/strength for k, v in limits.items() if k != 'strength'}


# --- in a browser -----------------------------------------------------------------------------------------------

def tile(page, selector):
    "The 784 values of a small canvas, 0 to 255"
    values = page.evaluate('s => [...document.querySelector(s).getContext("2d").getImageData(0,0,28,28).data]', selector)
    return torch.tensor(values, dtype=torch.uint8).view(28, 28, 4)[..., 0]


def asked(page, tiles, mnist):
    "The row of images.js whose image the quiz shows, bit by bit"
    seen = tile(page, '.card-quiz canvas')
    row, = [row for row in tiles[:-10] if mnist.test_x[row['index']].equal(seen)]
    return row


def test_one_question_by_keyboard(opened, tiles, mnist): # noqa: F811
    page = opened()
    page.wait_for_selector('.card-quiz')
    row = asked(page, tiles, mnist)
    page.focus('.pad button')
    page.keyboard.press(str(row['label']))
    said = page.locator('.verdict:not(:empty)').inner_text()
    digit, prob = (t.item() for t in measured(load_pretrained(), mnist.test_x[[row['index']]]))
    assert f'network says {digit} (' in said
    assert float(re.search(r'([\d.]+) %', said)[1]) == pytest.approx(100*prob, abs=.06)
    assert ('Five people' in page.inner_text('.votes')) == ('votes' in row)
    assert page.inner_text('.score') == f'You 1 of 1, the network {int(digit == row["label"])} of 1.'
    page.keyboard.press('3')                                       # One guess an image
    assert page.inner_text('.score').startswith('You 1 of 1')
    page.keyboard.press('Enter')                                   # On "Next image", which has the focus
    assert page.inner_text('.verdict') == '' and asked(page, tiles, mnist)['index'] != row['index']
    page.keyboard.press('Control+3')
    assert page.inner_text('.verdict') == '' and page.errors == []


@pytest.mark.slow
def test_a_whole_quiz(opened, tiles, mnist): # noqa: F811
    page, order, n = opened(), [], len(tiles)-10
    page.wait_for_selector('.card-quiz')
    page.focus('.pad button')
    for i in range(n):
        row = asked(page, tiles, mnist)
        order.append(row['index'])
        page.keyboard.press(str((row['label']+(i < 3)) % 10))      # Three wrong guesses
        page.wait_for_selector('.verdict:not(:empty)')
        page.keyboard.press('Enter')
    assert sorted(order) == sorted(row['index'] for row in tiles[:n]) != order
    assert page.inner_text('.score') == f'Score: You {n-3} of {n}, the network {n//2} of {n}.'
    assert page.locator('.summary canvas').count() == 3 and not page.is_visible('.card-quiz')
    page.click('text=Again')
    assert page.inner_text('.score') == '' and page.is_visible('.card-quiz') and page.errors == []


@pytest.mark.slow
def test_parts_without_the_network(opened, mnist, tmp_path): # noqa: F811
    page = opened(ready=None, refuse='**/*.onnx')
    page.click('.pad button >> nth=0')
    page.wait_for_selector('#quiz >> text=The network could not be loaded')
    page.wait_for_selector('#augment .says.failed')
    page.locator('#augment-angle').fill('40')                     # The picture still moves
    assert not tile(page, '.pair canvas:last-child').equal(tile(page, '.pair canvas'))
    page.set_input_files('#check-files', test_files(mnist, tmp_path))
    page.wait_for_selector('text=The images could not be scored')
    assert not [e for e in page.errors if 'net::ERR_FAILED' not in e]


# --- augmentation by hand

def test_a_turned_digit_is_read_as_torch_says(opened, mnist): # noqa: F811
    page = opened()
    page.wait_for_selector('#augment .probs .best')
    three = next(x for x, y in zip(mnist.test_x, mnist.test_y) if y == 3)
    assert page.get_attribute('#augment .digits [aria-pressed=true]', 'title') == '3'
    assert tile(page, '.pair canvas:last-child').equal(three)
    page.locator('#augment-angle').fill('60')
    page.wait_for_timeout(500)
    shown = [float(t.split()[0]) for t in page.locator('#augment .probs .percent').all_inner_texts()]
    x = three[None, None]/255
    angle = torch.tensor(-60.).deg2rad()
    maps = torch.tensor([[[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]]])
    grid = torch.nn.functional.affine_grid(maps, [1, 1, 28, 28], align_corners=False)
    moved = torch.nn.functional.grid_sample(x, grid, mode='bicubic', align_corners=False).clamp(0, 1)
    with torch.no_grad():
        probs = load_pretrained()((moved-.1307)/.3081).softmax(1)[0]
    assert max(abs(100*p-q) for p, q in zip(probs.tolist(), shown)) < .2
    assert page.get_attribute('#augment-angle', 'aria-valuetext') == '+60°' and page.errors == []


# --- the check of the test set

def test_files(mnist, folder):
    "The two test files in a folder, compressed and under names of no meaning"
    paths = folder/'b.bin', folder/'a.gz'
    paths[0].write_bytes(idx_bytes(mnist.test_y.to(torch.uint8)))
    paths[1].write_bytes(gzip.compress(idx_bytes(mnist.test_x), 1))
    return list(paths)


test_files.__test__ = False


def test_wrong_files_are_refused(opened, mnist, tmp_path): # noqa: F811
    page = opened()
    labels, images = test_files(mnist, tmp_path)
    raw = images.read_bytes()
    changed = mnist.test_y.clone().to(torch.uint8)
    changed[0] = 3
    for content, message in (
            (b'', 'empty'), (b'a picture of a digit', 'is not one of'), (raw[:1000], 'damaged'),
            (labels.read_bytes()[:-1], '10,007'), (idx_bytes(torch.zeros(60_000, dtype=torch.uint8)), 'training labels'),
            (idx_bytes(changed), 'checksum')):
        (tmp_path/'x.bin').write_bytes(content)
        page.set_input_files('#check-files', [tmp_path/'x.bin'])
        page.wait_for_function('m => document.querySelector("ul.failed").textContent.includes(m)', arg=message)
        page.evaluate('() => document.querySelector("ul.failed").replaceChildren()')
    page.set_input_files('#check-files', [labels])
    page.wait_for_selector('text=t10k-images-idx3-ubyte')
    assert not page.is_visible('progress') and page.errors == []


@pytest.mark.slow
def test_the_browser_counts_what_the_package_counts(opened, mnist, tmp_path): # noqa: F811
    page, claim = opened(), constant('CLAIM')
    page.set_input_files('#check-files', test_files(mnist, tmp_path))
    page.wait_for_selector('.confusion', timeout=600_000)
    said = page.inner_text('.outcome')
    halves = [f'{a:,} of {b:,}' for a, b in pretrained_report()['halves']]
    assert all(count in said for count in (f'{claim["correct"]:,} of {claim["n"]:,}', *halves))
    table = [[int(t.replace(',', '')) for t in row.locator('td').all_inner_texts()]
             for row in page.locator('.confusion tbody tr').all()]
    predictions = measured(load_pretrained(), mnist.test_x)[0]
    expected = torch.bincount(10*mnist.test_y+predictions, minlength=100).view(10, 10)
    assert torch.tensor(table).equal(expected)
    assert page.locator('.confusion .wrong').count() == (expected-expected.diag().diag() > 0).sum()
    assert page.errors == []


# --- on a phone, and in both themes


@pytest.mark.slow
def test_scoring_can_be_stopped_and_started_again(opened, mnist, tmp_path): # noqa: F811
    page = opened()
    for path in test_files(mnist, tmp_path):                      # One after the other
        page.set_input_files('#check-files', [path])
        page.wait_for_selector('#check >> text=t10k')
    for button in ('Stop', 'Score again'):
        page.wait_for_function('() => document.querySelector("progress").value > 100')
        page.click(f'#check >> text={button}')
    page.wait_for_selector('#check >> text=Scoring')
    assert page.errors == []
