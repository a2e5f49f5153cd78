"""The parts of the page to draw on, each where it stands alone and below the drawing, in a real browser."""
import gzip
import inspect
import json
import re

import numpy as np
import pytest
import torch
from conftest import idx_bytes
from new_weights import COLUMNS, HEAD, MODULE, NETWORK, ROOT, SPRITE, make_all, measured
from pages import PARTS, STILLS
from PIL import Image
from test_demo import ( # noqa: F401 (fixtures)
    answer, check_legible, draw, explained, node, open_map, opened, runtime, shows, site)

from s5_mnist.augment import random_elastic
from s5_mnist.inference import export_onnx
from s5_mnist.model import Net
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
    page = opened(ready=None, refuse=r'\.onnx$')
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


# --- on any page

def test_every_part_has_a_small_picture():
    for name in PARTS:
        file = STILLS/f'{name}.png'
        assert file.stat().st_size < 60_000 and Image.open(file).mode == 'P' and Image.open(file).width >= 1200, name


@pytest.mark.slow
@pytest.mark.parametrize('name', PARTS)
def test_a_part_takes_the_place_of_its_picture(name, opened): # noqa: F811
    "Legible in both themes, and no wider than a phone"
    page = opened(name, '[data-live]')
    assert page.locator('.s5-part img').count() == 0 and page.locator('.part :is(button, input, canvas)').count() > 3
    check_legible(page)
    nameless = """() => [...document.querySelectorAll('.part :is(button, input, canvas)')].filter(e => e.checkVisibility() && !e.closest('[aria-hidden=true]') &&
        !(e.ariaLabel || e.innerText || e.labels?.[0]?.innerText || e.querySelector?.('[aria-label]'))).map(e => e.outerHTML)"""
    assert page.evaluate(nameless) == [] and page.errors == []


@pytest.mark.slow
def test_a_part_that_fails_leaves_its_picture(opened): # noqa: F811
    page = opened('kernel', '.failed', refuse='/kernel.js', viewport=dict(width=390, height=800))
    assert page.is_visible('.s5-part img') and 'could not be brought to life' in page.inner_text('.failed')
    assert page.evaluate('document.documentElement.scrollWidth') <= 390


@pytest.mark.slow
def test_the_front_page_says_what_was_drawn(opened): # noqa: F811
    page = opened('digit', motion='no-preference')
    assert answer(page, '5') == '5'
    shows(page, '.status', 'This is a 5 (')
    draw(page, '8')
    assert answer(page, '8') == '8'
    shows(page, '.status', 'You drew an 8 (')
    assert not page.is_visible('#layer-panel')
    page.click('#tab-fc2')
    shows(page, '#layer-panel h3', 'Digit 8: logit ')
    assert page.errors == []


@pytest.mark.parametrize('name, choice', [('kernel', 'Top edges'), ('kernel', 'Filter 5 of conv1')])
def test_a_filter_slides_as_conv2d_does(name, choice, opened, mnist): # noqa: F811
    "Each number shown, and the colours of the map; by buttons, by key, and without ONNX Runtime"
    page, x = opened(name, '[data-live]'), mnist.test_x[:1, None]/255 # A 7
    if choice.startswith('Filter'):
        page.click('text=The 32 filters')
        net = load_pretrained()
        image, weight, bias = (x-.1307)/.3081, net.conv1.weight[5:6].detach(), net.conv1.bias[5:6].detach()
    else:
        image, weight, bias = x, torch.tensor([-1., -1, -1, 0, 0, 0, 1, 1, 1]).view(1, 1, 3, 3), torch.zeros(1)
    page.click(f'[aria-label="{choice}"]')
    assert page.get_attribute(f'[aria-label="{choice}"]', 'aria-pressed') == 'true'
    sums = torch.nn.functional.conv2d(image, weight, bias)[0, 0]
    page.click('text=Clear')

    def check(row, column):
        page.wait_for_function('text => document.querySelector(".sum").innerText.startsWith(text)', arg=f'Row {row}, column {column}:')
        number = lambda text: float(text.replace('−', '-').rstrip('.'))
        blocks = [torch.tensor([number(t) for t in block.locator('span').all_inner_texts()]) for block in page.locator('.block').all()]
        patch = image[0, 0, row:row+3, column:column+3].flatten()
        for ours, shown in zip((patch, weight.flatten(), patch*weight.flatten()), blocks, strict=True):
            assert (ours-shown).abs().max() < .0051
        shown = re.findall(r'[−\d.]*\d', page.inner_text('.sum'))[-1]
        assert abs(number(shown)-sums[row, column]) < .0051
    check(0, 0)
    page.click('text=Step')
    check(0, 1)
    page.focus('.sums canvas')
    for key in ['ArrowDown']*18+['ArrowRight']*11:
        page.keyboard.press(key)
    check(18, 12)
    page.focus('.sheet .cells canvas')
    page.keyboard.press('ArrowLeft')
    check(18, 11)
    page.click('text=Play')
    page.wait_for_function('document.querySelector(".sum").innerText.startsWith("Row 19")')
    page.click('text=Pause')
    page.click('text=Whole map')
    colours = torch.tensor(page.evaluate("""() => { const c = document.querySelector('.sums canvas')
        return [...c.getContext('2d').getImageData(0, 0, 26, 26).data] }""")).view(26, 26, 4).float()
    red, blue = colours[..., 0], colours[..., 2]
    assert (colours[..., 3] == 255).all()
    assert (torch.where(red > blue, red, -blue)/255-sums/sums.abs().max()).abs().max() < .01
    page.check('text=ReLU')
    assert not [url for url in page.asked if 'ort' in url.rsplit('/')[-1]] and page.errors == []


# --- your own network

@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    "An untrained network, and its files: as s5_export --maps writes it, without maps, with other layers, and no network at all"
    pytest.importorskip('onnxscript')
    d = tmp_path_factory.mktemp('exported')
    torch.manual_seed(1)
    net, other = Net().eval(), Net().eval()
    other.fc1, other.fc2 = torch.nn.Linear(4096, 40), torch.nn.Linear(40, 10)
    export_onnx(net, d/'mine.onnx', maps=True)
    export_onnx(net, d/'plain.onnx')
    export_onnx(other, d/'other.onnx', maps=True)
    (d/'picture.onnx').write_bytes((STILLS/'quiz.png').read_bytes())
    (d/'empty.onnx').write_bytes(b'')
    return net, d


@pytest.mark.slow
def test_your_own_network_reads_the_drawing(opened, exported): # noqa: F811
    page, (net, files) = opened(), exported
    draw(page, '2')
    answer(page, '2')
    pixels = torch.tensor(page.evaluate("""async () => [...(await (await import('./demo/network.js')).prepare(
        (await import('./demo/page.js')).drawing.canvas.image())).image]""")).view(1, 1, 28, 28)
    page.set_input_files('#own-file', files/'mine.onnx')
    shows(page, '#own [role=status]', 'mine.onnx reads your drawing')
    with torch.no_grad():
        x = (pixels/255-.1307)/.3081
        conv3, logits = net.features(x)[2][0].relu(), net(x)[0]
    assert answer(page, str(logits.argmax().item()))
    open_map(page, 'conv3', 100)
    got = explained(page)
    assert abs(got['value']-conv3[100, got['y'], got['x']]) < 1e-3 and got['value'] > 0
    for name, message in dict(plain='--maps', other='40×4096', picture='s5_export', empty='s5_export').items():
        page.set_input_files('#own-file', files/f'{name}.onnx')
        shows(page, '#own .failed', f'{name}.onnx cannot be used')
        assert message in page.inner_text('#own .failed')
    page.click('text=Back to the built-in network')
    assert answer(page, '2') == '2' and page.errors == []
