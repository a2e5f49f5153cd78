"""The sections below the drawing: the quiz, augmentation by hand, and the check of the test set, in a real browser."""
import gzip
import inspect
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import idx_bytes
from new_weights import COLUMNS, MODULE, SPRITE, measured, module, votes
from PIL import Image
from test_demo import DEMO, FAINT, PHONE, THEMES, new_page, runtime # noqa: F401 (fixtures)

from s5_mnist.augment import random_elastic
from s5_mnist.runs import load_pretrained, pretrained_report

ANEW = 'python tests/new_weights.py writes it anew'
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Parts</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="demo/parts.css"><style>THEMES</style></head><body><main id="place"></main><script type="module">
import { loadNetwork } from './demo/network.js'
import { MOUNT } from './demo/FILE.js'
window.part = MOUNT(document.getElementById('place'), loadNetwork())
</script></body></html>"""
MOUNTS = dict(quiz='mountQuiz', augment='mountAugment', check='mountCheck')


# --- without a browser ------------------------------------------------------------------------------------------

def constant(name):
    "A constant of images.js"
    return json.loads(re.sub(r',\s*\]', ']', re.search(rf'^export const {name} = (.*?)\n(?=\n|export|//|\Z)',
                                                       MODULE.read_text(), re.S | re.M)[1]))


@pytest.fixture(scope='module')
def tiles():
    "Rows of images.js in the order of the sprite"
    return constant('MISREAD')+constant('READ')+constant('EXAMPLES')


def test_every_tile_is_an_image_of_mnist(tiles, mnist):
    board = np.asarray(Image.open(SPRITE))
    assert board.dtype == np.uint8 and board.shape == (-(-len(tiles)//COLUMNS)*28, COLUMNS*28)
    for i, row in enumerate(tiles):
        top, left = i//COLUMNS*28, i % COLUMNS*28
        assert (board[top:top+28, left:left+28] == mnist.test_x[row['index']].numpy()).all(), f'tile {i}: {ANEW}'
        assert mnist.test_y[row['index']] == row['label'], f'tile {i}: {ANEW}'
    report = pretrained_report()
    assert constant('CLAIM') == {k: report[k] for k in ('recipe', 'seed', 'correct', 'n')}, ANEW


@pytest.mark.slow
def test_the_sprite_and_its_lists_are_written_anew_to_the_same(mnist, tiles):
    indices, text = module(mnist)
    assert [row['index'] for row in tiles] == indices and MODULE.read_text() == text, ANEW


def test_votes_are_of_images_with_the_same_label(mnist, tiles):
    known = votes()
    for index, row in known.items():
        assert mnist.test_y[index] == row['label'] != row['other']
        assert row['for_label']+row['for_other']+row['for_neither'] == 5
    asked = [row for row in tiles if 'votes' in row]
    assert len(asked) > 20 and all(row['index'] in known for row in asked)


@pytest.mark.parametrize('strength', [1., 4.])
def test_the_page_distorts_as_random_elastic_does(strength, mnist, tmp_path):
    if not shutil.which('node'):
        pytest.skip('no node on the PATH')
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
    shutil.copy(DEMO/'elastic.js', tmp_path/'elastic.mjs')
    (tmp_path/'run.mjs').write_text("""
        import fs from 'fs'
        import { distort, TRAINING } from './elastic.mjs'
        const jobs = JSON.parse(fs.readFileSync('jobs.json'))
        const out = jobs.map(({ image, amounts, points }) => [...distort(Float32Array.from(image), amounts, points)])
        console.log(JSON.stringify({ out, TRAINING }))""")
    done = subprocess.run(['node', 'run.mjs'], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    ours = torch.tensor(found['out']).view(n, 1, 28, 28)
    assert (ours-expected).abs().max() < 1e-4 and (x-expected).abs().max() > .5
    assert found['TRAINING'] == {k: v/strength for k, v in limits.items() if k != 'strength'}


# --- in a browser -----------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def site(tmp_path_factory, serve):
    "The address of a file server with one small page for each part"
    d = tmp_path_factory.mktemp('parts')
    shutil.copytree(DEMO, d/'demo')
    for name, mount in MOUNTS.items():
        (d/f'{name}.html').write_text(PAGE.replace('THEMES', THEMES).replace('MOUNT', mount).replace('FILE', name))
    return serve(d)


@pytest.fixture
def opened(new_page, site): # noqa: F811
    "A function that opens the page of a part"
    def open_(part, refuse=None, **options):
        page = new_page(refuse, **options)
        page.set_default_timeout(120_000)                          # For machines with other work
        page.goto(f'{site}/{part}.html')
        return page
    return open_


def tile(page, selector):
    "The 784 values of a small canvas, 0 to 255"
    values = page.evaluate('s => [...document.querySelector(s).getContext("2d").getImageData(0,0,28,28).data]', selector)
    return torch.tensor(values, dtype=torch.uint8).view(28, 28, 4)[..., 0]


def asked(page, tiles, mnist):
    "The row of images.js whose image the quiz shows, bit by bit"
    seen = tile(page, '.card-quiz canvas')
    row, = [row for row in tiles[:-10] if mnist.test_x[row['index']].equal(seen)]
    return row


def test_one_question_by_keyboard(opened, tiles, mnist):
    page = opened('quiz')
    page.wait_for_selector('.card-quiz')
    row = asked(page, tiles, mnist)
    page.focus('.pad button')
    page.keyboard.press(str(row['label']))
    said = page.locator('.verdict:not(:empty)').inner_text()
    digit, prob = (t.item() for t in measured(load_pretrained(), mnist.test_x[[row['index']]]))
    assert f'network says {digit}, ' in said
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
def test_a_whole_quiz(opened, tiles, mnist):
    page, order, n = opened('quiz'), [], len(tiles)-10
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
@pytest.mark.parametrize('part', MOUNTS)
def test_parts_without_the_network(part, opened, mnist, tmp_path):
    page = opened(part, refuse='**/*.onnx')
    if part == 'quiz':
        page.click('.pad button >> nth=0')
        page.wait_for_selector('text=The network could not be loaded')
        assert page.inner_text('.score').endswith('the network not loaded.')
    elif part == 'augment':
        page.wait_for_selector('.says.failed')
        page.locator('input[type=range]').first.fill('40')         # The picture still moves
        assert not tile(page, '.pair canvas:last-child').equal(tile(page, '.pair canvas'))
    else:
        page.set_input_files('#check-files', test_files(mnist, tmp_path))
        page.wait_for_selector('text=The images could not be scored')
    assert not [e for e in page.errors if 'net::ERR_FAILED' not in e]


# --- augmentation by hand

def test_a_turned_digit_is_read_as_torch_says(opened, mnist):
    page = opened('augment')
    page.wait_for_selector('.bars .best')
    three = next(x for x, y in zip(mnist.test_x, mnist.test_y) if y == 3)
    assert page.get_attribute('.digits [aria-pressed=true]', 'title') == '3'
    assert tile(page, '.pair canvas:last-child').equal(three)
    page.locator('#augment-angle').fill('60')
    page.wait_for_timeout(500)
    shown = [float(t.split()[0]) for t in page.locator('.bars .percent').all_inner_texts()]
    x = three[None, None]/255
    angle = torch.tensor(-60.).deg2rad()
    maps = torch.tensor([[[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]]])
    grid = torch.nn.functional.affine_grid(maps, [1, 1, 28, 28], align_corners=False)
    moved = torch.nn.functional.grid_sample(x, grid, mode='bicubic', align_corners=False).clamp(0, 1)
    with torch.no_grad():
        probs = load_pretrained()((moved-.1307)/.3081).softmax(1)[0]
    assert max(abs(100*p-q) for p, q in zip(probs.tolist(), shown)) < .2
    assert page.get_attribute('#augment-angle', 'aria-valuetext') == '+60°' and page.errors == []


@pytest.mark.slow
def test_sliders_move_the_picture_as_they_say(opened):
    page = opened('augment')
    page.wait_for_selector('.bars .best')
    page.click('.digits [title="0"]')
    ys, xs = torch.meshgrid(torch.arange(28.), torch.arange(28.), indexing='ij')

    def moments():
        ink = tile(page, '.pair canvas:last-child').float()
        x, y = (ink*xs).sum()/ink.sum(), (ink*ys).sum()/ink.sum()
        return [x, y, (ink*(xs-x)**2).sum()/ink.sum(), (ink*(ys-y)**2).sum()/ink.sum()]
    before = moments()
    for name, value, changed in (('right', 4, 0), ('down', 4, 1), ('width', .2, 2), ('height', .2, 3)):
        page.locator(f'#augment-{name}').fill(str(value))
        assert [a > b*1.1 for a, b in zip(moments(), before)] == [i == changed for i in range(4)], name
        page.click('text=Reset')
    assert moments() == before and page.errors == []


# --- the check of the test set

def test_files(mnist, folder):
    "The two test files in a folder, compressed and under names of no meaning"
    paths = folder/'b.bin', folder/'a.gz'
    paths[0].write_bytes(idx_bytes(mnist.test_y.to(torch.uint8)))
    paths[1].write_bytes(gzip.compress(idx_bytes(mnist.test_x), 1))
    return list(paths)


test_files.__test__ = False


def test_wrong_files_are_refused(opened, mnist, tmp_path):
    page = opened('check')
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
def test_the_browser_counts_what_the_package_counts(opened, mnist, tmp_path):
    page, claim = opened('check'), constant('CLAIM')
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


@pytest.mark.slow
def test_scoring_can_be_stopped_and_started_again(opened, mnist, tmp_path):
    page = opened('check')
    labels, images = test_files(mnist, tmp_path)
    page.set_input_files('#check-files', [images])
    page.wait_for_selector('text=t10k-labels')
    dropped = page.evaluate_handle('''bytes => { const data = new DataTransfer()
        data.items.add(new File([new Uint8Array(bytes)], 'labels'))
        return data }''', list(labels.read_bytes()))
    page.dispatch_event('.drop', 'drop', dict(dataTransfer=dropped))
    page.wait_for_function('() => document.querySelector("progress").value > 100')
    page.click('text=Stop')
    assert page.inner_text('.outcome') == 'Stopped.' and not page.is_visible('progress')
    page.click('text=Score again')
    page.wait_for_function('() => document.querySelector("progress").value > 100')
    assert page.inner_text('.outcome') == 'Scoring …' and page.errors == []



# --- on a phone, and in both themes

@pytest.mark.slow
@pytest.mark.parametrize('theme', ['light', 'dark'])
@pytest.mark.parametrize('part', MOUNTS)
def test_on_a_phone_in_both_themes(part, theme, opened, tmp_path):
    page = opened(part, color_scheme=theme, **PHONE)
    if part == 'quiz':
        page.wait_for_selector('.card-quiz')
        page.tap('.pad button >> nth=0')
        page.wait_for_selector('.next:visible')
    elif part == 'augment':
        page.wait_for_selector('.bars .best')
    else:
        (tmp_path/'x.bin').write_bytes(b'?')
        page.set_input_files('#check-files', [tmp_path/'x.bin'])
        page.wait_for_selector('ul.failed li')
    assert page.evaluate('() => document.documentElement.scrollWidth') <= 360
    assert page.evaluate(FAINT) == [] and page.errors == []
