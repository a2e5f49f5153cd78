"""The page to draw on, in a real browser, and its steps compared with those of `preprocess`."""
import json
import os
import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, STROKES
from drawings import FLAGGED, apart, beside, drawn
from pages import DEMO, build
from PIL import Image

from s5_mnist.inference import feature_maps, predict
from s5_mnist.preprocessing import preprocess
from s5_mnist.typicality import load_typicality_head

WIDTHS = (6, 14, 22, 40)
CODE = (DEMO/'network.js').read_text()
CDN, = re.findall(r"CDN = '(https://\S+/onnxruntime-web@[\d.]+/dist/)'", CODE)


# --- without a browser ------------------------------------------------------------------------------------------

def node(d, code):
    "What a script prints as JSON that runs in a folder with the page's modules"
    if not shutil.which('node'):
        pytest.skip('no node on the PATH')
    for path in DEMO.glob('*.js'):
        shutil.copy(path, d)
    (d/'package.json').write_text('{"type": "module"}')
    (d/'run.js').write_text(code)
    return json.loads(subprocess.run(['node', 'run.js'], cwd=d, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_the_page_prepares_drawings_as_preprocess_does(net, tmp_path):
    "Ten digits by four brushes, dark and light; two digits and blank paper are refused"
    arrays = [np.asarray(drawn(k, w, paper=p, ink=255-p)) for k in STROKES for w in WIDTHS for p in (255, 0)]
    two = 255-np.asarray(Image.fromarray(beside('42')).resize((256, 256)))
    (tmp_path/'in.bin').write_bytes(b''.join(a.tobytes() for a in (*arrays, two, np.full_like(two, 255))))
    *theirs, no_digit, blank = node(tmp_path, """
        import fs from 'fs'
        import { preprocess } from './prepare.js'
        const all = fs.readFileSync('in.bin'), size = 256 * 256, out = []
        for (let i = 0; i < all.length; i += size)
            out.push(preprocess({ h: 256, w: 256, v: Float32Array.from(all.subarray(i, i + size), t => t / 255) }))
        process.stdout.write(JSON.stringify(out.map(x => x && [...x])))""")
    assert no_digit is None and blank is None
    theirs = torch.tensor(theirs).view(-1, 28, 28)
    assert max(apart(preprocess(a), x) for a, x in zip(arrays, theirs, strict=True)) < 2
    with torch.no_grad():
        logits = net((theirs[:, None]/255-.1307)/.3081)
    assert logits.argmax(1).tolist() == [p.digit for p in predict(arrays, net)]


def test_the_page_has_the_weights_of_the_package(net):
    onnxruntime = pytest.importorskip('onnxruntime')
    image = preprocess(drawn('8'))
    session = onnxruntime.InferenceSession(DEMO/'s5_mnist.onnx')
    names = [x.name for x in session.get_outputs()]
    found = dict(zip(names, session.run(None, dict(pixels=(image[None, None].float()/255).numpy()))))
    with torch.no_grad():
        logits = net((image[None, None]/255-.1307)/.3081)
    assert abs(found['logits']-logits.numpy()).max() < 1e-4
    for name, maps in feature_maps(net, image).items():
        assert abs(found[name][0]-maps.numpy()).max() < 1e-4
    with torch.no_grad():
        score = load_typicality_head()(net.features((image[None, None]/255-.1307)/.3081)[-1])
    assert abs(found['score']-score.numpy()).max() < 1e-2 and score > 0


# --- in a browser -----------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def runtime(tmp_path_factory):
    "The folder of onnxruntime-web that S5_ONNXRUNTIME_WEB names, or one from npm"
    if where := os.environ.get('S5_ONNXRUNTIME_WEB'):
        return Path(where)
    if not shutil.which('npm'):
        pytest.skip('no npm on the PATH')
    d, package = tmp_path_factory.mktemp('npm'), CDN.split('/')[-3]
    if subprocess.run(['npm', 'install', '--silent', '--no-audit', '--prefix', d, package]).returncode:
        pytest.skip(f'{package} cannot be downloaded')
    return d/'node_modules'/'onnxruntime-web'/'dist'


@pytest.fixture(scope='module')
def site(tmp_path_factory, serve, runtime):
    "The address of a file server with the page to draw on and each part on a page of its own"
    d = tmp_path_factory.mktemp('site')
    build(d, runtime)
    return serve(d)


@pytest.fixture
def opened(browser, site, runtime):
    """A function that opens a page and waits until the network is there. Addresses that match `refuse` cannot be reached, those that
    match `forged` hold another script; the CDN serves the files of npm's package. `page.asked` lists what the page asks for."""
    pages = []

    def cdn(route):
        file = runtime/route.request.url.rsplit('/', 1)[1]
        route.fulfill(path=file, headers={'Access-Control-Allow-Origin': '*'})

    def open_(name='demo', ready='[data-ready]', refuse=None, forged=None, motion='reduce', **options):
        page = browser.new_page(reduced_motion=motion, **options)
        pages.append(page)
        page.errors, page.asked = [], []
        page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda e: page.errors.append(str(e)))
        page.on('request', lambda r: page.asked.append(r.url))
        page.route(CDN+'**', cdn)
        if refuse:
            page.route(re.compile(refuse), lambda route: route.abort())
        if forged:
            page.route(forged, lambda route: route.fulfill(body='document.title = "stolen"', content_type='text/javascript'))
        page.goto(f'{site}/{name}.html')
        if ready:
            page.wait_for_selector(ready)
        return page
    yield open_
    for page in pages:
        page.close()


def draw(page, digit):
    "Draw the strokes of a digit with the mouse"
    box = page.locator('.drawing').bounding_box()
    k = box['width']/256
    for stroke in STROKES[digit]:
        x, y = stroke[0]
        page.mouse.move(box['x']+x*k, box['y']+y*k)
        page.mouse.down()
        for x, y in stroke[1:]:
            page.mouse.move(box['x']+x*k, box['y']+y*k)
        page.mouse.up()


def answer(page, digit):
    "The prediction, once all that was drawn has been read; `digit` is what to wait for"
    page.evaluate('() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')
    page.wait_for_function('d => !document.querySelector("[data-reading]") && document.querySelector(".read").textContent === d',
                           arg=digit, timeout=10_000)
    return page.inner_text('.read')


def shows(page, selector, text):
    "Wait until an element shows a text; the last value may be drawn a frame after the answer"
    page.wait_for_function('([place, text]) => document.querySelector(place)?.innerText.includes(text)',
                           arg=[selector, text], timeout=10_000)


def seen(page):
    "The image that the network sees according to the page, [28,28]"
    values = page.evaluate('() => [...document.querySelector(".seen").getContext("2d").getImageData(0,0,28,28).data]')
    return torch.tensor(values).view(28, 28, 4)[..., 0]


@pytest.mark.slow
def test_ten_digits_are_drawn_and_read(opened, net):
    page = opened()
    for digit in STROKES:
        page.click('.paper .clear')
        answer(page, '–')
        draw(page, digit)
        assert answer(page, digit) == digit
        shown = [float(t.split()[0]) for t in page.locator('.probs .percent').all_inner_texts()]
        image = torch.tensor(page.evaluate(
            "import('./demo/page.js').then(m => [...m.drawing.canvas.image().data])")).view(256, 256, 4)[..., 0]
        ours = predict(image.to(torch.uint8), net)
        assert ours.digit == int(digit) and max(abs(100*p-q) for p, q in zip(ours.probs.tolist(), shown)) < .2
        top = ours.image.max().item()                              # The page shows the brightest pixel as white
        assert apart(ours.image.float()*255/top, seen(page)) < 2
    assert page.errors == []


@pytest.mark.slow
def test_a_letter_is_doubted(opened):
    page = opened()
    page.evaluate("strokes => import('./demo/page.js').then(m => m.drawing.canvas.set(strokes))",
                  [[[40, 220], [128, 30], [216, 220]], [[70, 150], [186, 150]]])
    page.wait_for_selector('.read.unsure')
    assert 'Not sure' in page.inner_text('.status') and page.errors == []


def test_by_keyboard_alone(opened):
    page = opened()
    page.keyboard.press('Tab')
    assert page.evaluate('() => document.activeElement.className') == 'drawing'
    page.keyboard.press(' ')
    for _ in range(16):
        page.keyboard.press('ArrowDown')
    page.keyboard.press(' ')
    assert answer(page, '1') == '1'
    page.keyboard.press('Tab')
    page.keyboard.press('Enter')                                  # Undo
    answer(page, '–')
    assert seen(page).max() == 0 and page.errors == []


PHONE = dict(viewport=dict(width=360, height=740), has_touch=True, is_mobile=True)


@pytest.mark.slow
def test_by_finger_on_a_phone_with_the_palm_on_the_glass(opened):
    page = opened(**PHONE)
    page.evaluate("""() => {
        const canvas = document.querySelector('.drawing'), box = canvas.getBoundingClientRect(), k = box.width / 256
        canvas.setPointerCapture = () => {}
        const send = (type, pointerId, x, y) => canvas.dispatchEvent(new PointerEvent(type, { pointerId, pointerType: 'touch',
            bubbles: true, cancelable: true, clientX: box.left + x * k, clientY: box.top + y * k }))
        send('pointerdown', 1, 128, 40)
        send('pointerdown', 2, 20, 200)
        for (let y = 40; y <= 220; y += 20) { send('pointermove', 1, 128, y); send('pointermove', 2, 20, y) }
        send('pointerup', 2, 20, 200)
        send('pointermove', 1, 128, 225)
        send('pointercancel', 1, 128, 225)
        send('pointermove', 1, 20, 20)                             // In the air
    }""")
    assert answer(page, '1') == '1' and page.errors == []


@pytest.mark.slow
@pytest.mark.parametrize('refuse', [r'\.wasm$', r'\.onnx$', r'\.mjs$'])
def test_the_page_says_what_could_not_be_loaded(refuse, opened):
    page = opened(ready=None, refuse=refuse, viewport=dict(width=390, height=800))
    page.wait_for_selector('.status.failed')
    assert 'could not be loaded' in page.inner_text('.status')
    assert page.evaluate('document.documentElement.scrollWidth') <= 390 # However long the address
    draw(page, '3')                                               # Drawing still works
    page.wait_for_function('() => [...document.querySelector(".seen").getContext("2d")'
                           '.getImageData(0, 0, 28, 28).data].some((t, i) => i % 4 < 3 && t > 200)')
    page.focus('.drawing')
    page.keyboard.press(' ')
    page.wait_for_timeout(300)
    assert 'could not be loaded' in page.inner_text('.status') and page.inner_text('.read') == '–'


@pytest.mark.slow
def test_a_part_that_cannot_be_loaded_leaves_the_others_alone(opened):
    page = opened(refuse='/layers.js')
    draw(page, '3')
    assert answer(page, '3') == '3'
    shows(page, '#inside .failed', 'could not be loaded')
    shows(page, '#preparation .stages-answer', 'With all five steps: 3 (')


@pytest.mark.slow
def test_a_file_that_was_replaced_does_not_run(opened):
    page = opened(ready=None, forged='**/ort.wasm.bundle.min.mjs')
    page.wait_for_selector('.status.failed')
    assert page.title() == 'Draw a digit'


@pytest.mark.slow
@pytest.mark.parametrize('refuse', [None, '/demo/ort'])
def test_the_runtime_comes_with_the_site_and_else_from_a_cdn(refuse, opened):
    page = opened('digit', refuse=refuse)
    assert answer(page, '5') == '5'
    assert any(url.startswith(CDN) for url in page.asked) == bool(refuse)
    assert bool(page.errors) == bool(refuse)


# --- from pixels to answer --------------------------------------------------------------------------------------

POOLED = dict(pool1='conv2', pool2='conv4')


def sums(net, image):
    "Values of every layer for an image [28,28] uint8, before ReLU: {name: [maps, size, size]}"
    with torch.no_grad():
        x = (image[None, None]/255-.1307)/.3081
        features = net.features(x)
        values = {f'conv{i}': v[0] for i, v in enumerate(features, 1)} | {'image': x[0]}
        values |= {name: net.pool(values[name_of].relu()) for name, name_of in POOLED.items()}
        fc1 = net.fc1(values['pool2'].flatten())
        return values | {'fc1': fc1.view(-1, 1, 1), 'fc2': net.fc2(fc1.relu()).view(-1, 1, 1)}


def test_the_page_computes_values_as_the_network_does(net, two, tmp_path):
    "Its own reader of the ONNX file, and the terms of values of every layer"
    values = sums(net, two)
    g = torch.Generator().manual_seed(0)
    places = [(name, *(int(torch.randint(n, (), generator=g)) for n in v.shape)) for name, v in values.items()
              for _ in range(6)]
    maps = {name: dict(dims=[1, *values[name].shape], data=values[name].relu().flatten().tolist())
            for name in ('conv1', 'conv2', 'conv3', 'conv4')}
    (tmp_path/'in.json').write_text(json.dumps(dict(
        pixels=(two/255.).flatten().tolist(), found=maps | dict(logits=values['fc2'].flatten().tolist()), places=places)))
    shutil.copy(DEMO/'s5_mnist.onnx', tmp_path)
    weights, found = node(tmp_path, """
        import fs from 'fs'
        import { readWeights } from './onnx.js'
        import { allValues, explain, fieldOf, layerOf } from './explain.js'
        const file = fs.readFileSync('s5_mnist.onnx'), input = JSON.parse(fs.readFileSync('in.json'))
        const weights = readWeights(file.buffer.slice(file.byteOffset, file.byteOffset + file.length))
        for (const map of Object.values(input.found)) if (map.data) map.data = Float32Array.from(map.data)
        input.found.logits = Float32Array.from(input.found.logits)
        const values = allValues(Float32Array.from(input.pixels), input.found, weights)
        const out = input.places.map(([name, map, y, x]) => {
            const { value, total, bias, terms, patch } = explain(layerOf(name), map, y, x, values, weights)
            const { top, left, size } = fieldOf(layerOf(name), y, x)
            return { value, total, bias, sums: terms?.map(t => t.sum), patch: patch && [...patch], field: [top, left, size] }
        })
        const all = Object.fromEntries(Object.entries(weights).map(([name, w]) => [name, w.weight ? [[...w.weight], [...w.bias]] : w]))
        process.stdout.write(JSON.stringify([all, out]))""")
    assert weights.keys() == {'mean', 'std', 'conv1', 'conv2', 'conv3', 'conv4', 'fc1', 'fc2'}
    for name, layer in net.named_children():
        if name != 'pool':
            assert torch.tensor(weights[name][0]).equal(layer.weight.detach().flatten())
            assert torch.tensor(weights[name][1]).equal(layer.bias.detach())
    for (name, *at), got in zip(places, found):
        ours = values[name][tuple(at)].item()
        shown = ours if name in ('image', 'fc2') else max(ours, 0)
        assert abs(got['value']-shown) < 1e-4, (name, at)
        if 'sums' in got:
            assert abs(got['total']-ours) < 1e-4 and abs(sum(got['sums'])+got['bias']-ours) < 1e-4, (name, at)
            assert [abs(t) for t in got['sums']] == sorted((abs(t) for t in got['sums']), reverse=True)
        elif name != 'image':
            assert abs(max(got['patch'])-ours) < 1e-4
    check_fields(net, two, places, found)


def check_fields(net, image, places, found):
    "A value depends on all of its receptive field and on nothing else: shown by gradients of a network without ReLU"
    x = torch.zeros(1, 1, 28, 28, requires_grad=True)
    conv = lambda v, layer: torch.nn.functional.conv2d(v, layer.weight.detach().abs()+.1)
    pool = lambda v: torch.nn.functional.avg_pool2d(v, 2)
    v, values = x, {'image': x}
    for name in ('conv1', 'conv2', 'pool1', 'conv3', 'conv4', 'pool2'):
        v = values[name] = pool(v) if name in POOLED else conv(v, getattr(net, name))
    for (name, k, row, column), got in zip(places, found):
        if name in values:
            reached, = torch.autograd.grad(values[name][0, k, row, column], x, retain_graph=True)
            top, left, size = got['field']
            inside = torch.zeros(28, 28, dtype=torch.bool)
            inside[top:top+size, left:left+size] = True
            assert (reached[0, 0] > 0).equal(inside), (name, row, column)


def seen_exactly(page):
    "The image that the network sees, [28,28] uint8"
    values = page.evaluate("""async () => [...(await (await import('./demo/network.js')).prepare(
        (await import('./demo/page.js')).drawing.canvas.image())).image]""")
    return torch.tensor(values, dtype=torch.uint8).view(28, 28)


def open_map(page, layer, k):
    "Choose a layer and click one of its maps, or one of its values if it has no maps"
    page.click(f'#tab-{layer}')
    assert page.get_attribute(f'#tab-{layer}', 'aria-selected') == 'true'
    size = page.evaluate("name => import('./demo/explain.js').then(m => m.layerOf(name).size)", layer)
    board = page.locator('#inside .board canvas')
    columns, rows = (n//(size+1 if size > 1 else 9) for n in board.evaluate('c => [c.width, c.height]'))
    box = board.bounding_box()
    board.click(position=dict(x=(k % columns+.5)*box['width']/columns, y=(k//columns+.5)*box['height']/rows))
    return size


def explained(page):
    return page.evaluate("""() => { const { layer, map, y, x, total, value } = document.getElementById('inside').explained
        return { layer, map, y, x, total, value } }""")


@pytest.mark.slow
def test_numbers_of_every_layer_are_the_networks_own(opened, net):
    page = opened()
    draw(page, '2')
    answer(page, '2')
    values = sums(net, seen_exactly(page))
    for layer, k in dict(conv1=31, conv2=40, pool1=63, conv3=100, conv4=255, pool2=7, fc1=49, fc2=3).items():
        size = open_map(page, layer, k)
        if size > 1:
            view = page.locator('#inside .map canvas')
            step = view.bounding_box()['width']/size
            view.click(position=dict(x=2.5*step, y=1.5*step))
            page.mouse.move(0, 0)
            page.wait_for_function("() => { const { x, y } = document.getElementById('inside').explained; return x === 2 && y === 1 }")
        got = explained(page)
        ours = values[layer][k, got['y'], got['x']].item()
        assert (got['layer'], got['map']) == (layer, k) and abs(got['value']-(ours if layer == 'fc2' else max(ours, 0))) < 1e-3
        if layer not in POOLED:
            shown = float(page.locator('.value .sum strong').first.inner_text().replace('−', '-'))
            assert abs(got['total']-ours) < 1e-3 and abs(shown-ours) < .006
    assert page.errors == []


@pytest.mark.slow
def test_an_answer_is_followed_back_to_the_pixels(opened):
    "By keyboard: from the logit to a value of fc1, to maps, to the image"
    page = opened()
    draw(page, '8')
    answer(page, '8')
    page.focus('#tab-conv1')
    for _ in range(7):
        page.keyboard.press('ArrowRight')
    assert page.evaluate('() => document.activeElement.id') == 'tab-fc2'
    shows(page, '#inside h3', 'Digit 8: logit ')
    path = []
    while (now := explained(page))['layer'] != 'image':
        path.append(now['layer'])
        page.focus('.value .follow')
        page.keyboard.press('Enter')
    assert path == ['fc2', 'fc1', 'pool2', 'conv4', 'conv3', 'pool1', 'conv2', 'conv1']
    shows(page, '.value', 'This pixel is')
    page.keyboard.press('Shift+Tab')
    page.focus('#inside .map canvas')
    page.keyboard.press('ArrowDown')
    page.wait_for_function('y => document.getElementById("inside").explained.y === y+1', arg=now['y'])
    shows(page, '.layer-spoken', f'Row {now["y"]+1}, column {now["x"]}: ')
    assert page.errors == []


# --- what the preparation does ----------------------------------------------------------------------------------

@pytest.mark.slow
def test_each_step_has_an_example_that_fails_without_it(opened):
    page = opened()
    parts = page.evaluate("import('./demo/preparation.js').then(m => m.PARTS.map(p => [p.name, p.digit]))")
    steps = page.evaluate("import('./demo/prepare.js').then(m => m.STAGES)")
    assert [name for name, _ in parts] == steps and len(steps) == 5
    for name, digit in parts:
        item = page.locator(f'[data-stage={name}]')
        item.locator('.example').click()
        assert answer(page, str(digit)) == str(digit)
        shows(page, '.stages-answer', f'With all five steps: {digit} (')
        item.locator('input').uncheck()
        page.wait_for_function('d => document.querySelector(".stages-answer").textContent.startsWith("Without") '
                               '&& document.querySelector(".read").textContent !== d', arg=str(digit))
        item.locator('input').check()
        assert answer(page, str(digit)) == str(digit)
    assert page.errors == []


# --- as a whole -------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_it_opens_with_a_digit_that_draws_itself_until_the_reader_draws(opened):
    page = opened(motion='no-preference')
    points = "import('./demo/page.js').then(m => m.drawing.canvas.strokes.flat().length)"
    assert answer(page, '5') == '5'
    draw(page, '1')
    assert answer(page, '1') == '1' and page.evaluate(points) <= len(sum(STROKES['1'], []))+1
    page.click('.another')
    page.wait_for_function(points+'.then(n => n > 5)')
    page.focus('.drawing')
    page.keyboard.press(' ')                                      # By a key, too
    assert page.evaluate(points) == 1 and page.errors == []


@pytest.mark.slow
def test_the_visitor_s_drawing_can_be_distorted(opened):
    "Not the page's own digit"
    page = opened()
    mine = page.locator('#augment .digits [title="your drawing"]')
    page.evaluate("document.getElementById('augment').scrollIntoView()")
    page.wait_for_selector('#augment .digits button')
    assert mine.count() == 0
    page.evaluate("document.querySelector('.paper').scrollIntoView()")
    page.click('.paper .clear')
    draw(page, '4')
    answer(page, '4')
    page.evaluate("document.getElementById('augment').scrollIntoView()")
    mine.click()
    page.wait_for_selector('#augment .says:has-text("4 (")')
    assert not page.errors


FAINT = """() => { // Texts with a contrast below 4.5, as the Web Content Accessibility Guidelines define it (level AA)
  const channels = c => { const pen = new OffscreenCanvas(1, 1).getContext('2d'); pen.fillStyle = c; pen.fillRect(0, 0, 1, 1)
    return [...pen.getImageData(0, 0, 1, 1).data] }
  const over = (top, below) => top.slice(0, 3).map((t, i) => t * top[3] / 255 + below[i] * (1 - top[3] / 255))
  const light = c => c.map(t => t / 255).map(t => t <= 0.04045 ? t / 12.92 : ((t + 0.055) / 1.055) ** 2.4)
    .reduce((a, t, i) => a + t * [0.2126, 0.7152, 0.0722][i], 0)
  const ground = e => { const own = channels(getComputedStyle(e).backgroundColor)
    return own[3] === 255 || !e.parentElement ? over(own, [255, 255, 255]) : over(own, ground(e.parentElement)) }
  const faint = []
  for (const e of document.querySelectorAll('main *')) {
    if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue
    const behind = ground(e), text = over(channels(getComputedStyle(e).color), behind)
    const [a, b] = [light(behind), light(text)].sort((x, y) => y - x)
    if ((a + 0.05) / (b + 0.05) < 4.5 && !e.disabled) faint.push(e.textContent)
  }
  return faint }"""


def check_legible(page):
    "Texts in both themes, on a desktop and on a phone, where nothing is too wide either"
    for width, scheme in product((1280, 390), ('light', 'dark')):
        page.set_viewport_size(dict(width=width, height=900))
        page.evaluate('theme => { document.documentElement.dataset.bsTheme = theme }', scheme)
        page.emulate_media(color_scheme=scheme)
        page.evaluate('() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')
        assert page.evaluate(FAINT) == [] and page.evaluate('document.documentElement.scrollWidth') <= width, (width, scheme)


@pytest.mark.slow
def test_the_page_is_legible_and_fits(opened):
    page = opened()
    draw(page, '4')
    answer(page, '4')
    page.click('#quiz .pad button >> nth=0')
    page.wait_for_selector('#quiz .next:visible')
    for layer, k in dict(conv1=4, conv3=5, pool2=6, fc1=17, fc2=4).items():
        open_map(page, layer, k)
        check_legible(page)
    assert page.errors == []
