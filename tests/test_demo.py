"""The page to draw on, in a real browser, and its steps compared with those of `preprocess`."""
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, STROKES
from drawings import apart, beside, drawn
from PIL import Image

from s5_mnist.inference import feature_maps, predict
from s5_mnist.preprocessing import preprocess
from s5_mnist.pretrained import load_pretrained
from s5_mnist.typicality import load_typicality_head

DEMO, WIDTHS = ROOT/'nbs'/'demo', (6, 14, 22, 40)
CODE = (DEMO/'page.js').read_text()
RUNTIME, = re.findall(r"RUNTIME = '(https://\S+/onnxruntime-web@[\d.]+/dist/)'", CODE)
FILES = dict(re.findall(r"'(ort\S+)': '(sha384-\S+)'", CODE))


# --- without a browser ------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    "Drawings of ten digits by four brushes, dark and light, and what the page makes of them"
    if not shutil.which('node'):
        pytest.skip('no node on the PATH')
    d = tmp_path_factory.mktemp('node')
    arrays = [np.asarray(drawn(k, w, paper=p, ink=255-p)) for k in STROKES for w in WIDTHS for p in (255, 0)]
    several = 255-np.asarray(Image.fromarray(beside('42')).resize((256, 256)))
    (d/'in.bin').write_bytes(b''.join(a.tobytes() for a in [several, *arrays]))
    shutil.copy(DEMO/'prepare.js', d/'prepare.mjs')
    (d/'run.mjs').write_text("""
        import fs from 'fs'
        import { preprocess } from './prepare.mjs'
        const all = fs.readFileSync('in.bin'), size = 256 * 256, out = []
        const read = i => preprocess({ h: 256, w: 256, v: Float32Array.from(all.subarray(i, i + size), t => t / 255) })
        for (let i = size; i < all.length; i += size) out.push(...read(i))
        const nothing = preprocess({ h: 256, w: 256, v: new Float32Array(size).fill(1) })
        process.stdout.write(JSON.stringify([out, nothing, read(0)]))""")
    done = subprocess.run(['node', 'run.mjs'], cwd=d, capture_output=True, text=True, check=True)
    out, *refused = json.loads(done.stdout)
    return arrays, torch.tensor(out).view(-1, 28, 28), refused


@pytest.mark.slow
def test_the_page_prepares_drawings_as_preprocess_does(prepared):
    arrays, theirs, refused = prepared
    assert len(theirs) == len(arrays) == 80
    assert refused == [None, None]                                # Blank paper, and two digits
    net = load_pretrained()
    for a, x in zip(arrays, theirs):
        assert apart(preprocess(a), x) < 2
    ours = [predict(a, net).digit for a in arrays]
    with torch.no_grad():
        logits = net((theirs[:, None]/255-.1307)/.3081)
    assert logits.argmax(1).tolist() == ours


def test_the_page_has_the_weights_of_the_package():
    onnxruntime = pytest.importorskip('onnxruntime')
    net, image = load_pretrained(), preprocess(drawn('8'))
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
    "The files of onnxruntime-web by name, from the folder in S5_ONNXRUNTIME_WEB or from npm"
    where = os.environ.get('S5_ONNXRUNTIME_WEB')
    if not where:
        if not shutil.which('npm'):
            pytest.skip('no npm on the PATH')
        d, package = tmp_path_factory.mktemp('npm'), RUNTIME.split('/')[-3]
        done = subprocess.run(['npm', 'pack', '--silent', package], cwd=d, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f'{package} cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}')
        subprocess.run(['tar', 'xzf', done.stdout.split()[-1]], cwd=d, check=True)
        where = d/'package'/'dist'
    return {name: (Path(where)/name).read_bytes() for name in FILES}


@pytest.mark.slow
def test_the_hashes_are_those_of_the_files(runtime):
    assert len(FILES) == 2
    for name, hash in FILES.items():
        assert hash == 'sha384-'+base64.b64encode(hashlib.sha384(runtime[name]).digest()).decode()


@pytest.fixture(scope='module')
def site(tmp_path_factory, serve):
    "The address of the page on a file server: its own HTML in a minimal frame"
    d = tmp_path_factory.mktemp('site')
    _, header, body = (ROOT/'nbs'/'demo.qmd').read_text().split('---\n', 2)
    head = '\n'.join(line.strip() for line in header.splitlines() if line.strip().startswith(('<link', '<script')))
    html = re.search(r'```\{=html\}\n(.*?)```', body, re.S)[1]
    (d/'demo.html').write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Draw a digit</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f'{head}</head><body style="margin: 1rem; font-family: sans-serif">{html}</body></html>')
    shutil.copytree(DEMO, d/'demo')
    return f'{serve(d)}/demo.html'


@pytest.fixture
def opened(browser, runtime, site):
    "A function that opens the page; files of the network come from the npm package, or are refused"
    pages = []

    def answer(route):
        name = route.request.url.removeprefix(RUNTIME)
        kind = 'application/wasm' if name.endswith('wasm') else 'text/javascript'
        route.fulfill(body=runtime[name], content_type=kind, headers={'Access-Control-Allow-Origin': '*'})

    def open_(ready=True, refuse=None, **options):
        page = browser.new_page(**options)
        page.errors = []
        page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda e: page.errors.append(str(e)))
        page.route(RUNTIME+'**', answer)
        if refuse:
            page.route(refuse, lambda route: route.abort())
        page.goto(site)
        if ready:
            page.wait_for_selector('body[data-ready]')
        pages.append(page)
        return page
    yield open_
    for page in pages:
        page.close()


def draw(page, digit):
    "Draw the strokes of a digit with the mouse"
    box = page.locator('#draw').bounding_box()
    k = box['width']/256
    for stroke in STROKES[digit]:
        x, y = stroke[0]
        page.mouse.move(box['x']+x*k, box['y']+y*k)
        page.mouse.down()
        for x, y in stroke[1:]:
            page.mouse.move(box['x']+x*k, box['y']+y*k)
        page.mouse.up()


def answer(page, digit):
    page.wait_for_function('d => document.getElementById("answer").textContent === d', arg=digit, timeout=10_000)
    return page.inner_text('#answer')


def seen(page):
    "The image that the network sees according to the page, [28,28]"
    values = page.evaluate('() => [...document.getElementById("seen").getContext("2d").getImageData(0,0,28,28).data]')
    return torch.tensor(values).view(28, 28, 4)[..., 0]


@pytest.mark.slow
def test_ten_digits_are_drawn_and_read(opened):
    page, net = opened(), load_pretrained()
    for digit in STROKES:
        page.click('#clear')
        answer(page, '–')
        draw(page, digit)
        assert answer(page, digit) == digit
        assert page.inner_text('#status').startswith(f'{digit}, with ')
        shown = [float(t.split()[0]) for t in page.locator('#probs .percent').all_inner_texts()]
        image = torch.tensor(page.evaluate('() => [...document.getElementById("draw").getContext("2d")'
                                           '.getImageData(0, 0, 256, 256).data]')).view(256, 256, 4)[..., 0]
        ours = predict(image.to(torch.uint8), net)
        assert ours.digit == int(digit) and max(abs(100*p-q) for p, q in zip(ours.probs.tolist(), shown)) < .2
        top = ours.image.max().item()                              # The page shows the brightest pixel as white
        assert apart(ours.image.float()*255/top, seen(page)) < 2
        assert page.locator('.maps canvas').count() == 4
    assert page.errors == []


@pytest.mark.slow
def test_a_letter_is_doubted(opened):
    page = opened()
    box = page.locator('#draw').bounding_box()
    for points in ([(40, 220), (128, 30), (216, 220)], [(70, 150), (186, 150)]): # An A
        page.mouse.move(*(box[k]+v*box['width']/256 for k, v in zip('xy', points[0])))
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*(box[k]+v*box['width']/256 for k, v in zip('xy', point)), steps=5)
        page.mouse.up()
    page.wait_for_selector('#answer.unsure')
    assert page.inner_text('#status').startswith('Not sure this is a digit. If it is: ')
    page.click('#clear')
    answer(page, '–')
    assert 'unsure' not in (page.get_attribute('#answer', 'class') or '') and page.errors == []


@pytest.mark.slow
def test_clear_and_undo(opened):
    page = opened()
    draw(page, '1')
    answer(page, '1')
    box = page.locator('#draw').bounding_box()
    page.mouse.move(box['x']+20, box['y']+20)
    page.mouse.down()
    page.mouse.move(box['x']+box['width']-20, box['y']+box['height']-20)
    page.mouse.up()
    page.click('#undo')
    answer(page, '1')
    page.click('#undo')
    answer(page, '–')
    assert page.inner_text('#status') == 'Draw a digit.' and seen(page).max() == 0
    assert page.locator('.maps canvas').count() == 0 and page.errors == []


def test_by_keyboard_alone(opened):
    page = opened()
    page.keyboard.press('Tab')
    assert page.evaluate('() => document.activeElement.id') == 'draw'
    page.keyboard.press(' ')
    for _ in range(16):
        page.keyboard.press('ArrowDown')
    page.keyboard.press(' ')
    assert answer(page, '1') == '1'
    page.keyboard.press('Tab')
    page.keyboard.press('Enter')                                  # Undo
    answer(page, '–')
    assert page.errors == []


@pytest.mark.slow
def test_by_finger_on_a_phone(opened):
    page = opened(viewport=dict(width=360, height=740), has_touch=True, is_mobile=True)
    assert page.evaluate('() => document.documentElement.scrollWidth') <= 360
    page.evaluate("""strokes => {
        const canvas = document.getElementById('draw'), box = canvas.getBoundingClientRect(), k = box.width / 256
        const send = (type, [x, y]) => canvas.dispatchEvent(new PointerEvent(type, { pointerId: 1, pointerType: 'touch',
            isPrimary: true, bubbles: true, cancelable: true, clientX: box.left + x * k, clientY: box.top + y * k }))
        canvas.setPointerCapture = () => {}
        for (const stroke of strokes) {
            send('pointerdown', stroke[0])
            for (const point of stroke.slice(1)) send('pointermove', point)
            send('pointerup', stroke.at(-1))
        }
    }""", STROKES['4'])
    assert answer(page, '4') == '4' and page.errors == []
    assert page.evaluate('() => getComputedStyle(document.getElementById("draw")).touchAction') == 'none'


@pytest.mark.slow
def test_resizing_keeps_the_drawing(opened):
    page = opened(viewport=dict(width=1200, height=800))
    draw(page, '7')
    answer(page, '7')
    before = seen(page)
    page.set_viewport_size(dict(width=400, height=800))
    assert seen(page).equal(before) and page.inner_text('#answer') == '7'
    page.click('#undo')
    answer(page, '–')
    draw(page, '7')                                               # The same place on a canvas of another size
    assert answer(page, '7') == '7' and apart(seen(page), before) < 5
    page.click('#clear')
    draw(page, '2')
    assert answer(page, '2') == '2' and page.errors == []


@pytest.mark.slow
def test_two_fingers_a_mouse_and_the_keyboard_do_not_mix(opened):
    page = opened()
    page.evaluate("""() => {
        const canvas = document.getElementById('draw'), box = canvas.getBoundingClientRect()
        canvas.setPointerCapture = () => {}
        const send = (type, id, x, y) => canvas.dispatchEvent(new PointerEvent(type, { pointerId: id, bubbles: true,
            cancelable: true, clientX: box.left + x * box.width / 256, clientY: box.top + y * box.height / 256 }))
        send('pointerdown', 1, 128, 40)
        send('pointerdown', 2, 20, 200)                            // The palm
        for (let y = 40; y <= 220; y += 20) { send('pointermove', 1, 128, y); send('pointermove', 2, 20, y) }
        send('pointerup', 2, 20, 200)
        send('pointermove', 1, 128, 225)
        send('pointercancel', 1, 128, 225)
        send('pointermove', 1, 20, 20)                             // In the air
    }""")
    assert answer(page, '1') == '1'
    page.click('#clear')
    page.focus('#draw')
    page.keyboard.press(' ')
    box = page.locator('#draw').bounding_box()
    page.mouse.move(box['x']+10, box['y']+10)                     # Draws nothing: no button is down
    page.mouse.click(box['x']+box['width']/2, box['y']+box['height']/2)
    page.keyboard.press('ArrowRight')                             # The click has lifted the pen
    assert page.inner_text('#pen').startswith('Pen up, ') and page.errors == []


@pytest.mark.slow
def test_a_canvas_full_of_ink_does_not_keep_the_prediction_before(opened):
    page = opened()
    draw(page, '1')
    answer(page, '1')
    box = page.locator('#draw').bounding_box()
    page.mouse.move(box['x']+2, box['y']+2)
    page.mouse.down()
    for y in range(2, int(box['height']), 8):
        page.mouse.move(box['x']+2, box['y']+y)
        page.mouse.move(box['x']+box['width']-2, box['y']+y)
    page.mouse.up()
    answer(page, '–')
    assert page.inner_text('#status') == 'This does not look like a single digit.' and page.errors == []


@pytest.mark.slow
@pytest.mark.parametrize('refuse', ['**/*.wasm', '**/*.onnx', '**/*.mjs'])
def test_the_page_says_what_could_not_be_loaded(refuse, opened):
    page = opened(ready=False, refuse=refuse)
    page.wait_for_selector('#status.failed')
    assert 'could not be loaded' in page.inner_text('#status')
    draw(page, '3')                                               # Drawing still works
    page.wait_for_function('() => [...document.getElementById("seen").getContext("2d")'
                           '.getImageData(0, 0, 28, 28).data].some((t, i) => i % 4 < 3 && t > 200)')
    page.focus('#draw')
    page.keyboard.press(' ')
    page.wait_for_timeout(300)
    assert 'could not be loaded' in page.inner_text('#status') and page.inner_text('#answer') == '–'


@pytest.mark.slow
def test_the_page_says_if_a_script_could_not_be_loaded(opened):
    page = opened(ready=False, refuse='**/prepare.js')
    assert page.inner_text('#status') == 'This page needs its scripts, which have not been loaded.'


@pytest.mark.slow
def test_a_file_that_was_replaced_does_not_run(opened, runtime, monkeypatch):
    monkeypatch.setitem(runtime, 'ort.wasm.bundle.min.mjs', b'document.title = "stolen"')
    page = opened(ready=False)
    page.wait_for_selector('#status.failed')
    assert page.title() == 'Draw a digit'


@pytest.mark.slow
def test_for_screen_readers(opened):
    page = opened()
    status = page.locator('#status')
    assert (status.get_attribute('role'), status.get_attribute('aria-live')) == ('status', 'polite')
    assert all(page.locator(f'#p{d} meter').get_attribute('aria-label') == f'Probability of {d}' for d in range(10))
    assert page.locator('[role=status], output').count() == 2     # The prediction and the pen, nothing else
    assert 'Arrow keys' in page.locator('#draw').get_attribute('aria-label')
    for name in ('#seen', '#draw'):
        assert page.locator(name).get_attribute('aria-label')
