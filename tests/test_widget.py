"""The canvas for notebooks: Python's half without a browser, and the browser's half in Chromium."""
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from conftest import ROOT, STROKES
from drawings import apart
from pages import THEMES
from test_demo import draw

from s5_mnist import widget
from s5_mnist.preprocessing import preprocess
from s5_mnist.widget import DrawDigit, draw_strokes

# --- Python's half ----------------------------------------------------------------------------------------------

def test_what_is_drawn_is_read():
    canvas = DrawDigit()
    for digit, strokes in STROKES.items():
        canvas.strokes = strokes
        assert canvas.prediction.digit == int(digit) and canvas.prediction.image.equal(preprocess(canvas.image))
        answer = canvas.widget.answer
        assert answer['short'] == digit and answer['pixels'] == canvas.prediction.image.flatten().tolist()
    json.dumps(canvas.widget.get_state(['strokes', 'answer']))    # What goes to the browser
    data = canvas._repr_mimebundle_()
    assert 'application/vnd.jupyter.widget-view+json' in (data[0] if isinstance(data, tuple) else data)


def test_an_empty_canvas_is_none():
    canvas = DrawDigit()
    canvas.strokes = STROKES['3']
    canvas.strokes = []
    assert canvas.image is None and canvas.prediction is None
    assert canvas.widget.answer['pixels'] == []


def test_the_browser_sends_strokes():
    "As a message of the widget's protocol"
    canvas, seen = DrawDigit(), []
    canvas.widget.observe(lambda change: seen.append(canvas.prediction.digit), 'strokes')
    canvas.widget.set_state(dict(strokes=STROKES['4']))
    assert seen == [4] and canvas.widget.answer['short'] == '4' and canvas.strokes == STROKES['4']


def test_what_cannot_be_read_is_said():
    canvas = DrawDigit()
    canvas.strokes = [[[40, 60], [40, 200]], [[200, 60], [200, 200]]]
    with pytest.raises(ValueError, match='two shapes'):
        canvas.prediction
    assert 'two shapes' in canvas.widget.answer['text'] and canvas.widget.answer['short'] == '–'
    canvas.strokes = [[[40, 220], [128, 30], [216, 220]], [[70, 150], [186, 150]]] # An A
    assert not canvas.prediction.is_digit and 'Not sure' in canvas.widget.answer['text']


def test_a_network_of_ones_own():
    class Six(torch.nn.Module):
        def forward(self, x): return torch.eye(10)[[6]*len(x)]
    canvas = DrawDigit(Six())
    canvas.strokes = STROKES['1']
    assert canvas.prediction.digit == 6 and canvas.prediction.is_digit is None and canvas.widget.answer['short'] == '6'


@pytest.mark.parametrize('strokes', [3, 'x', [3], [[]], [[[1]]], [[[1, 2, 3]]], [[['a', 'b']]], [[[1, float('nan')]]],
                                     [[[1e9, 0]]], None])
def test_what_are_no_strokes_is_refused(strokes):
    canvas = DrawDigit()
    with pytest.raises(ValueError, match='^strokes'):
        canvas.strokes = strokes
    with pytest.raises(ValueError, match='^strokes'):
        draw_strokes(strokes)
    assert canvas.strokes == []


def test_without_the_extra(monkeypatch):
    widget._widget_class.cache_clear()
    monkeypatch.setitem(sys.modules, 'anywidget', None)
    with pytest.raises(ValueError, match='pip install'):
        DrawDigit()
    assert draw_strokes(STROKES['1']).size == (256, 256)


# --- the files --------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_wheel_contains_them(tmp_path):
    files = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split('\n')
    for name in filter(None, files):
        (tmp_path/'project'/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/'project'/name).write_bytes((ROOT/name).read_bytes())
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '-w', tmp_path,
                    tmp_path/'project'], check=True)
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as wheel:
        assert {f's5_mnist/{name}' for name in ('draw.js', 'draw.css', 'widget.js')} <= set(wheel.namelist())


# --- the browser's half -----------------------------------------------------------------------------------------

MODEL = """
window.model = { values: VALUES, heard: {}, sent: [],
  get(name) { return this.values[name] },
  set(name, value) {
    if (JSON.stringify(value) === JSON.stringify(this.values[name])) return
    this.values[name] = value
    for (const f of this.heard[`change:${name}`] ?? []) f()
  },
  save_changes() { const { strokes } = this.values; this.sent.push(structuredClone(strokes)); toPython(strokes) },
  on(name, f) { (this.heard[name] ??= []).push(f) },
  off(name, f) { this.heard[name] = this.heard[name].filter(g => g !== f) },
}
const views = [...document.querySelectorAll('.view')]
const url = URL.createObjectURL(new Blob([ESM], { type: 'text/javascript' }))
window.module = await import(url)
window.close = views.map(el => module.default.render({ model, el }))[0]
"""


@pytest.fixture
def opened(browser):
    "A function that shows a widget in Chromium; what the browser sends goes to Python, and the answer back"
    pages = []

    def open_(canvas, views=1, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.errors = []
        page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda e: page.errors.append(str(e)))
        w = canvas.widget
        page.expose_function('toPython', lambda strokes: w.set_state(dict(strokes=strokes)) or w.answer)
        code = MODEL.replace('VALUES', json.dumps(dict(strokes=w.strokes, answer=w.answer))).replace(
            'ESM', json.dumps(w._esm)).replace('toPython(strokes)', 'toPython(strokes).then(a => this.set("answer", a))')
        page.set_content(f'<!doctype html><html lang="en"><style>{THEMES}{w._css}</style><main>'
                         f'{"<div class=view></div>"*views}</main><script type="module">{code}</script>')
        page.wait_for_function('() => window.close')
        return page
    yield open_
    for page in pages:
        page.close()


def says(page, start):
    "The status, once it starts with this"
    page.wait_for_function('t => document.querySelector(".drawing-answer").textContent.startsWith(t)', arg=start,
                           timeout=10_000)
    return page.inner_text('.drawing-answer')


def picture(page):
    "What is on the visible canvas, without its cursor, as [256,256]"
    page.evaluate('() => document.activeElement.blur()')
    values = page.evaluate("""() => {
        const c = Object.assign(document.createElement('canvas'), { width: 256, height: 256 }).getContext('2d')
        c.drawImage(document.querySelector('.drawing'), 0, 0, 256, 256)
        return [...c.getImageData(0, 0, 256, 256).data] }""")
    return np.array(values, np.uint8).reshape(256, 256, 4)[..., 0]


@pytest.mark.slow
def test_the_drawing_in_the_browser_is_that_of_python(opened):
    canvas = DrawDigit()
    page = opened(canvas)
    assert says(page, 'Draw') == 'Draw a digit.'
    for digit in STROKES:
        page.click('.clear')
        says(page, 'Draw a digit.')
        draw(page, digit)
        page.wait_for_timeout(400)                                # The last message
        assert says(page, f'{digit} (') == canvas.widget.answer['text']
        assert canvas.prediction.digit == int(digit) and page.inner_text('.view span') == digit
        ours = np.asarray(canvas.image)
        theirs = page.evaluate('strokes => [...module.pictureOf(strokes).data]', canvas.strokes) # What the page reads
        theirs = np.array(theirs, np.uint8).reshape(256, 256, 4)[..., 0]
        assert abs(ours-theirs.astype(float)).mean() < .6 and apart(preprocess(ours), preprocess(theirs)) < .6
        assert abs(ours-picture(page).astype(float)).mean() < 1
        seen = page.evaluate('() => [...document.querySelector("canvas[role=img]").getContext("2d")'
                             '.getImageData(0, 0, 28, 28).data]')[::4]
        assert seen == canvas.prediction.image.flatten().tolist()
    assert page.errors == []


@pytest.mark.slow
def test_undo_keyboard_and_the_number_of_messages(opened):
    canvas = DrawDigit()
    page = opened(canvas)
    page.keyboard.press('Tab')
    page.keyboard.press(' ')
    for _ in range(16):
        page.keyboard.press('ArrowDown')
    page.keyboard.press(' ')
    says(page, '1 (')
    now = '() => [performance.now(), model.sent.length]'
    start, before = page.evaluate(now)
    draw(page, '3')                                               # More than forty moves
    page.wait_for_timeout(300)
    end, after = page.evaluate(now)
    assert len(canvas.strokes) == 2 and 1 <= after-before <= 1+(end-start)/100 # Ten messages a second at most
    page.click('.undo')
    says(page, '1 (')
    page.click('.undo')
    says(page, 'Draw a digit.')
    assert canvas.strokes == [] and canvas.image is None and page.errors == []


@pytest.mark.slow
def test_what_python_and_other_views_draw_is_shown(opened):
    canvas = DrawDigit()
    canvas.strokes = STROKES['5']
    page = opened(canvas, views=2)
    assert says(page, '5 (') and (picture(page) < 128).sum() > 1000
    page.evaluate('strokes => model.set("strokes", strokes)', STROKES['7'])
    page.wait_for_timeout(300)
    says(page, '7 (')
    assert abs(picture(page)-np.asarray(draw_strokes(STROKES['7'])).astype(float)).mean() < 1
    page.locator('.clear').nth(1).click()                         # In the second view
    says(page, 'Draw a digit.')
    assert picture(page).min() == 255
    page.evaluate('() => close()')
    assert page.evaluate('() => model.heard["change:strokes"].length') == 1 and page.errors == []
