"""What a reader sees on a page: nothing is cut off, and every text stands out from its background, in both themes."""
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import NOTEBOOKS, ROOT

CUT_OFF = """() => [...document.querySelectorAll('main pre, main table, main .cell-output-display')]
    .filter(box => box.offsetParent && box.scrollWidth > box.clientWidth + 1)
    .map(box => box.innerText.split('\\n').sort((a, b) => b.length - a.length)[0].slice(0, 100))"""

FAINT = """() => { // Texts with a contrast below 4.5, as the Web Content Accessibility Guidelines define it (level AA)
    const color = text => (v => [v[0], v[1], v[2], v[3] ?? 1])(text.match(/[\\d.]+/g).map(Number))
    const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat([1])
    const linear = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4
    const luminance = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2])
    const above = function* (e) { for (; e; e = e.parentElement) yield getComputedStyle(e) }
    const faint = {}
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (texts.nextNode()) {
        const words = texts.currentNode.textContent.trim(), e = texts.currentNode.parentElement
        const box = e.getBoundingClientRect()
        if (!words || e.closest('script, style, noscript') || box.width < 2 || box.height < 2) continue
        if (!e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue
        let paper = [255, 255, 255, 1], opacity = 1
        for (const style of [...above(e)].reverse()) {
            paper = over(color(style.backgroundColor), paper)
            opacity *= +style.opacity
        }
        const ink = color(getComputedStyle(e).color)
        const [a, b] = [over([...ink.slice(0, 3), ink[3] * opacity], paper), paper].map(luminance)
        const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05)
        if (contrast < 4.5) faint[`${e.tagName} ${e.className}`] = [contrast.toFixed(2), words.slice(0, 40)]
    }
    return faint
}"""


def faults(browser, address, names):
    "Boxes that are cut off at 1280 pixels, and faint texts, in both themes at both widths"
    found = []
    for width in (1280, 390):
        for scheme in ('light', 'dark'):
            context = browser.new_context(viewport=dict(width=width, height=900), color_scheme=scheme)
            context.route(lambda url: not url.startswith(address), lambda route: route.abort())
            for name in names:
                page = context.new_page()
                page.goto(f'{address}/{name}', wait_until='load')
                where = f'{name}, {width} pixels, {scheme}'
                if width == 1280:
                    found += [f'{where}: cut off: {line}' for line in page.evaluate(CUT_OFF)]
                found += [f'{where}: faint: {k} {v}' for k, v in page.evaluate(FAINT).items()]
                page.close()
            context.close()
    return found


@pytest.mark.slow
def test_faults_are_found(browser, serve, tmp_path):
    "On a page with a line that is too long, and with black output on a dark background"
    head = ('<!doctype html><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
            '<style>pre { overflow-x: auto } @media (prefers-color-scheme: dark) '
            '{ body { background: #16191e; color: #d9dce1 } .bad { color: #000 } }</style><main>')
    (tmp_path/'good.html').write_text(f'{head}<pre>short</pre>'
                                      '<button style="color: inherit; background: none">Undo</button>')
    (tmp_path/'bad.html').write_text(f'{head}<pre>{"long "*99}</pre><pre class="bad">black</pre>'
                                     '<p style="opacity: .3">pale</p>')
    assert faults(browser, serve(tmp_path), ['good.html']) == []
    found = '\n'.join(faults(browser, serve(tmp_path), ['bad.html']))
    assert found.count('cut off: long') == 2 and found.count("'black'") == 2 and found.count("'pale'") == 4
    assert "light: faint: PRE bad" not in found


@pytest.mark.slow
def test_the_page_to_draw_on_is_legible_in_both_themes(browser, serve, tmp_path):
    "Its own HTML and CSS on the colours of the site"
    colors = {theme: dict(line.rstrip(';').split(': ') for line in
                          (ROOT/f'nbs/site/{theme}.scss').read_text().splitlines() if line.startswith('$'))
              for theme in ('light', 'dark')}
    body = (ROOT/'nbs'/'demo.qmd').read_text().split('```{=html}\n')[1].split('```')[0]
    style = ''.join('@media (prefers-color-scheme: %s) { body { background: %s; color: %s } }'
                    % (theme, c['$body-bg'], c['$body-color']) for theme, c in colors.items())
    (tmp_path/'demo.html').write_text(f'<!doctype html><meta name="viewport" content="width=device-width">'
                                      f'<link rel="icon" href="data:,"><link rel="stylesheet" href="demo.css">'
                                      f'<style>{style}</style><main>{body}</main>')
    shutil.copy(ROOT/'nbs'/'demo'/'demo.css', tmp_path)
    assert faults(browser, serve(tmp_path), ['demo.html']) == []


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('quarto'), reason='no quarto on the PATH')
def test_every_page_of_the_site_is_legible(copy, browser, serve):
    subprocess.run(['nbdev_docs'], cwd=copy, check=True, capture_output=True)
    names = sorted(p.name for p in (copy/'_docs').glob('*.html'))
    assert len(names) == len(NOTEBOOKS)+len(list((ROOT/'nbs').glob('*.qmd')))
    assert faults(browser, serve(copy/'_docs'), names) == []
    found = {e['objectID']: e['section'] for e in json.loads((copy/'_docs/search.json').read_text())}
    assert found['training.html#evaluate'] == 'evaluate' and found['model.html#net'] == 'Net'


def test_each_public_symbol_is_found_by_the_search(tmp_path):
    page = dict(objectID='training.html', href='training.html', title='Training', section='', text='', crumbs=['Book'])
    (tmp_path/'search.json').write_text(json.dumps([page]))
    (tmp_path/'training.html').write_text('<h3 data-anchor-id="evaluate"></h3><h3 data-anchor-id="fit"></h3>')
    subprocess.run([sys.executable, ROOT/'nbs/site/_search.py'], check=True, cwd=tmp_path,
                   env=os.environ | dict(QUARTO_PROJECT_OUTPUT_DIR=str(tmp_path)))
    entries = json.loads((tmp_path/'search.json').read_text())
    assert [e['section'] for e in entries] == ['', 'evaluate', 'fit'] and entries[0] == page
    assert entries[1] == page | dict(objectID='training.html#evaluate', href='training.html#evaluate',
                                     section='evaluate', text='Score a network on every image of a loader')


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_a_chapter_opens_with_prose_and_is_not_too_large(path):
    "After the badges, a reader first sees a sentence; imports are folded, hidden or further down"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    shown = [c for c in cells if c['cell_type'] == 'markdown' or not any(
        ''.join(c['source']).startswith(f'#| {d}') for d in ('hide', 'default_exp', 'export', 'echo: false'))]
    assert [c['cell_type'] for c in shown[:3]] == ['markdown']*3
    assert path.stat().st_size < 300_000
