"""The page to draw on and each live part on plain HTML pages, without Quarto; `python tests/pages.py` makes the still pictures
of the parts in nbs/site/parts anew. It needs Chromium, and onnxruntime-web in S5_ONNXRUNTIME_WEB or from the CDN."""
import functools
import http.server
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
DEMO, STILLS = ROOT/'nbs'/'demo', ROOT/'nbs'/'site'/'parts'
HEADER = ''.join(re.findall(r'include-in-header:.*\n\s+- text: (.*)\n', (ROOT/'_quarto.yml').read_text()))
PARTS = sorted(p.stem for p in DEMO.glob('*.js') if re.search(r'^export (async )?function mount\(', p.read_text(), re.M))


def theme(name):
    "The colours of the site's light or dark theme, as CSS"
    c = dict(line.rstrip(';').split(': ') for line in (ROOT/f'nbs/site/{name}.scss').read_text().splitlines()
             if line.startswith('$'))
    return (f'@media (prefers-color-scheme: {name}) {{ body {{ background: {c["$body-bg"]}; color: {c["$body-color"]};'
            f'--bs-body-bg: {c["$body-bg"]}; --bs-link-color: {c["$link-color"]} }} a {{ color: {c["$link-color"]} }} }}')


THEMES = theme('light')+theme('dark')
STYLE = 'body { margin: 1rem auto; max-width: 900px; padding: 0 .75rem; font: 17px/1.5 sans-serif } img { max-width: 100% }'


def frame(head, body):
    "A page of the site, without what Quarto puts around it"
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Draw a digit</title><link rel="icon" href="data:,">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">{head}<style>{THEMES}{STYLE}</style>'
            '<script>document.documentElement.dataset.bsTheme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"'
            f'</script></head><body><main>{body}</main></body></html>')


def build(d, runtime=None):
    "Write demo.html, and NAME.html for each part, into a folder, with all that they load; `runtime` holds onnxruntime-web"
    _, header, body = (ROOT/'nbs'/'demo.qmd').read_text().split('---\n', 2)
    head = '\n'.join(line.strip() for line in header.splitlines() if line.strip().startswith(('<link', '<script')))
    (d/'demo.html').write_text(frame(head, ''.join(re.findall(r'```\{=html\}\n(.*?)```', body, re.S))))
    for name in PARTS:
        still = f'<div class="s5-part" data-part="{name}"><img src="site/parts/{name}.png" alt="A still picture"></div>'
        (d/f'{name}.html').write_text(frame(HEADER, f'<h1>{name}</h1>{still}'))
    shutil.copytree(DEMO, d/'demo', dirs_exist_ok=True)
    shutil.copytree(STILLS, d/'site'/'parts', dirs_exist_ok=True)
    subprocess.run([sys.executable, ROOT/'nbs'/'site'/'_demo.py'], cwd=d, check=True, # As Quarto does
                   env={**os.environ, **(dict(S5_ONNXRUNTIME_WEB=str(runtime)) if runtime else {})})


WIDTHS = dict(preparation=924) # Pixels; its five steps stand side by side
GREY = ('body, a { color: #777b82 !important; background: none !important } h1 { display: none }'
        '.part { margin: 0; padding: 4px; --bs-link-color: #3f83c8; --accent: #3f83c8; --plus: #d9752b } html { background: none }')


def shrunk(png):
    "A picture of as many colours as fit into 60 kB, transparent where there is nothing"
    image = Image.open(io.BytesIO(png)).convert('RGBA')
    for colours in (128, 64, 48, 32):
        file = io.BytesIO()
        image.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, 'png', optimize=True)
        if file.tell() < 60_000:
            break
    return file.getvalue()


def learned(page):
    page.fill('#learn-rate', '2') # The rate 0.1
    page.click('.go')
    page.wait_for_function('() => parseInt(document.querySelector(".steps").textContent.match(/\\d+/)) >= 196')
    page.click('.go')


def stepped(page):
    page.fill('#slope-rate', '3') # The rate 2, which overshoots
    for _ in range(3):
        page.click('.take')


TELLING = dict(learn=learned, slope=stepped) # What to do for a state that tells something


def still(page, name):
    "A still picture of a part: grey words on nothing, which suit light and dark pages alike"
    page.add_init_script('let n = 0; Math.random = () => n++ * .618 % 1') # The same question, each time
    page.goto(f'{name}.html')
    page.wait_for_selector('[data-live]')
    page.add_style_tag(content=GREY) # After the part's own styles
    page.wait_for_function('() => !/loading|not been loaded/i.test(document.body.innerText)')
    TELLING.get(name, lambda page: None)(page)
    page.wait_for_timeout(1000)
    return shrunk(page.locator('.part').screenshot(omit_background=True))


def main(names):
    from playwright.sync_api import sync_playwright
    with tempfile.TemporaryDirectory() as d, sync_playwright() as p:
        build(Path(d))
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(http.server.SimpleHTTPRequestHandler, directory=d))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = p.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
        for name in names:
            width = WIDTHS.get(name, 744)
            page = browser.new_page(base_url=f'http://127.0.0.1:{server.server_port}', viewport=dict(width=width, height=900),
                                    device_scale_factor=1488/width, reduced_motion='reduce')
            (STILLS/f'{name}.png').write_bytes(still(page, name))
            page.close()
        browser.close()
        server.shutdown()


if __name__ == '__main__':
    main(sys.argv[1:] or PARTS)
