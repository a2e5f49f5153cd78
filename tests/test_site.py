"""README and the site: what nbdev hands to Quarto, where each link leads, and, where there is Quarto, every page in a
browser."""
import base64
import importlib
import re
import shutil
import subprocess
from urllib.parse import unquote

import pytest
import yaml
from conftest import NOTEBOOKS, ROOT
from notebooks import MODULES, call, cells, source, text

SITE = 'https://s5-mnist.github.io/s5_mnist/'
REPO = 'https://github.com/s5-mnist/s5_mnist/blob/main/'


@pytest.fixture(scope='session')
def pages(copy):
    "Every notebook as nbdev hands it to Quarto"
    call('from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)', copy)
    return copy/'_proc'


def outputs(cell):
    "What a cell of a processed page shows, as markdown or text"
    return text(cell['outputs'])+''.join(''.join(o.get('data', {}).get('text/markdown', '')) for o in cell['outputs'])


def words(path):
    "All that a page says outside of code"
    if path.suffix == '.qmd':
        return path.read_text(encoding='utf-8')
    return '\n\n'.join(source(c) if c['cell_type'] == 'markdown' else outputs(c) for c in cells(path)
                       if c['cell_type'] != 'raw')


# --- README -----------------------------------------------------------------------------------------------------

def as_markdown(cells):
    "The words and the pictures of a processed notebook, in the order in which Quarto writes them"
    words, pictures, code = [], {}, 0
    for cell in cells:
        if cell['cell_type'] != 'code':
            words.append(re.sub(r'^---\n.*?^title: (.*?)$.*?^---$', r'# \1', source(cell), flags=re.S | re.M))
            continue
        code += 1 # Quarto counts code cells, and begins with 2
        options = dict(re.findall(r'^#\|\s*([\w-]+):\s*(.*)$', source(cell), re.M))
        if options.get('echo') != 'false':
            words.append('``` python\n'+re.sub(r'^#\|.*\n', '', source(cell), flags=re.M)+'\n```')
        for k, o in enumerate(cell['outputs']):
            if 'image/png' in o.get('data', {}):
                name = f'index_files/figure-commonmark/cell-{code+1}-output-{k+1}.png'
                words.append(f'![{yaml.safe_load(options.get("fig-cap", ""))}]({name})')
                pictures[name] = base64.b64decode(''.join(o['data']['image/png']))
            else:
                words.append(text([o]))
    return '\n\n'.join(words), pictures


def plain(markdown):
    "Markdown without its line breaks, table rules and the spelling of fences"
    markdown = re.sub(r'^(```+)\s*(\w*)$', r'``` \2', markdown, flags=re.M)
    markdown = re.sub(r'^\|?[\s|:-]+\|?$', '', markdown, flags=re.M)
    markdown = markdown.translate(str.maketrans('’‘“”', '\'\'""'))
    return ' '.join(markdown.replace('\\', '').split())


def test_readme_is_index(pages):
    "README.md says what index.ipynb says, and shows the same pictures"
    markdown, pictures = as_markdown(cells(pages/'index.ipynb'))
    assert plain((ROOT/'README.md').read_text()) == plain(markdown)
    assert pictures and {str(p.relative_to(ROOT)) for p in (ROOT/'index_files').rglob('*.png')} == set(pictures)
    for name, png in pictures.items():
        assert (ROOT/name).read_bytes() == png, name


def test_readme_opens_with_the_two_commands():
    readme = (ROOT/'README.md').read_text()
    for command in ('pip install . && s5_train', "pip install -e '.[dev]' && nbdev_test && pytest"):
        assert f'``` sh\n{command}\n```' in readme


# --- pages, before Quarto ---------------------------------------------------------------------------------------

def test_every_page_is_processed(pages):
    "Each has its title; each exported symbol has its reference block"
    assert sorted(p.name for p in pages.glob('*.ipynb')) == [p.name for p in NOTEBOOKS]
    for path in NOTEBOOKS:
        first = source(cells(pages/path.name)[0])
        assert first.startswith('---') and 'title:' in first and 'description:' in first
    for name in MODULES:
        page, = pages.glob(f'0?_{name}.ipynb')
        shown = words(page)
        module = importlib.import_module(f's5_mnist.{name}')
        for symbol in module.__all__:
            if callable(getattr(module, symbol)):
                assert re.search(rf'### {symbol}\b', shown), f'{name}: {symbol} has no reference block'


def anchors(path):
    "The names that one can link to on a page: a heading's words, or what it is told to be called"
    found = set()
    for title in re.findall(r'^#{1,5} (.+)$', words(path), re.M):
        named = re.search(r'\{#([\w-]+)', title)
        plain = re.sub(r'[^\w\s.-]', '', re.sub(r'\{.*?\}', '', title).replace('`', '')).strip().lower()
        found |= {named[1]} if named else set()
        found |= {re.sub(r'\s+', '-', re.sub(r'^[^a-z]+', '', plain)), title.split('(')[0].strip('` ')}
    return found


def where(target, page):
    "The page of the site that a link leads to and the place on it; None for the world outside"
    if target.startswith(SITE):
        name, _, place = target.removeprefix(SITE).partition('#')
        stem = name.removesuffix('.html') or 'index'
        found = [p for p in page.parent.glob('*.*') if re.sub(r'^\d+_', '', p.stem) == stem and p.suffix in ('.ipynb', '.qmd')]
        assert found, f'{page.name} links to {target}, which is no page'
        return found[0], place
    if re.match(r'[a-z]+:', target):
        return None
    name, _, place = target.partition('#')
    return (page.parent/unquote(name) if name else page), place


def test_every_link_and_image_leads_somewhere(pages):
    seen = 0
    for page in [*pages.glob('*.ipynb'), *pages.glob('*.qmd')]:
        said = re.sub(r'^(```+).*?^\1', '', words(page), flags=re.S | re.M)
        for target in re.findall(r'\]\(([^)\s]+)\)|(?:href|src)="([^"]+)"', said):
            target, seen = target[0] or target[1], seen+1
            if target.startswith(REPO):
                file = target.removeprefix(REPO).split('#')[0]
                assert (ROOT/file).exists(), f'{page.name} links to {target}'
            found = where(target, page)
            if found is None:
                continue
            file, place = found
            assert file.exists(), f'{page.name} links to {target}'
            assert not place or place in anchors(file), f'{page.name} links to {target}: no such heading'
    assert seen > 100


def test_every_figure_says_what_it_shows():
    for path in NOTEBOOKS:
        for i, cell in enumerate(cells(path)):
            if any('image/png' in o.get('data', {}) for o in cell.get('outputs', [])):
                told = re.search(r'^#\| fig-(alt|cap): "(.{20,})"$', source(cell), re.M)
                assert told, f'{path.name} cell {i} shows a figure and has no fig-alt'


def test_chapters_open_elsewhere():
    "In Colab and in Jupyter, by their own name; and what Colab runs first does nothing here"
    for path in NOTEBOOKS:
        if path.stem == 'index':
            continue
        badges, fetch = cells(path)[1:3]
        for there in ('colab.research.google.com/github/s5-mnist/s5_mnist/blob/main/nbs/',
                      'mybinder.org/v2/gh/s5-mnist/s5_mnist/main?labpath=nbs/'):
            assert f'(https://{there}{path.name})' in source(badges), path.name
        assert "'google.colab' in str(get_ipython())" in source(fetch) and not fetch['outputs']


def test_site_configuration(copy):
    top, nbs, side = (yaml.safe_load((ROOT/p).read_text()) for p in ('_quarto.yml', 'nbs/_quarto.yml', 'nbs/sidebar.yml'))
    assert top['project']['type'] == nbs['project']['type'] == 'website'
    assert nbs['metadata-files'] == ['../_quarto.yml', 'nbdev.yml', 'sidebar.yml']
    listed = re.findall(r"'([\w]+\.(?:ipynb|qmd))'", str(side))
    assert sorted(listed) == sorted([*(p.name for p in NOTEBOOKS), 'demo.qmd']), 'every page is in the sidebar, once'
    assert set(re.findall(r"'([\w]+\.(?:ipynb|qmd))'", str(top))) <= set(listed)
    files = re.findall(r"'(site/[\w./-]+)'", str(top))
    assert len(set(files)) == 6 and all((ROOT/'nbs'/f).exists() for f in files)
    call('from nbdev.quarto import refresh_quarto_yml; refresh_quarto_yml()', copy)
    assert (copy/'nbs'/'nbdev.yml').read_text() == (ROOT/'nbs'/'nbdev.yml').read_text()
    assert (copy/'nbs'/'_quarto.yml').read_text() == (ROOT/'nbs'/'_quarto.yml').read_text()


def test_what_the_site_needs_goes_out_with_it(pages):
    "The page to draw on, the theme, the badges"
    for folder in ('demo', 'site'):
        kept = {p.name for p in (ROOT/'nbs'/folder).iterdir()}
        assert kept and {p.name for p in (pages/folder).iterdir()} == kept
    assert {p.name for p in (pages/'demo').iterdir()} == {'page.js', 'prepare.js', 'demo.css', 's5_mnist.onnx'}
    head = yaml.safe_load((pages/'demo.qmd').read_text().split('---')[1])
    assert head['resources'] == ['demo/*'] and all((pages/f).exists() for f in re.findall(
        r'(?:href|src)="([\w./]+)"', head['include-in-header'][0]['text']))


def lightness(color):
    "Relative luminance as the Web Content Accessibility Guidelines define it, of '#rrggbb'"
    parts = [int(color[i:i+2], 16)/255 for i in (1, 3, 5)]
    r, g, b = (v/12.92 if v <= .04045 else ((v+.055)/1.055)**2.4 for v in parts)
    return .2126*r+.7152*g+.0722*b


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_words_can_be_read_by_day_and_by_night(theme):
    "Contrast of 4.5 and more, as the guidelines ask for (level AA)"
    color = dict(re.findall(r'^\$([\w-]+): (#\w{6});$', (ROOT/f'nbs/site/{theme}.scss').read_text(), re.M))
    for ink, paper in (('body-color', 'body-bg'), ('link-color', 'body-bg'), ('link-color', 'code-bg'),
                       ('code-color', 'code-bg'), ('sidebar-fg', 'sidebar-bg'), ('navbar-fg', 'navbar-bg'),
                       ('navbar-hl', 'navbar-bg'), ('footer-fg', 'footer-bg'), ('body-color', 'code-block-bg')):
        a, b = sorted((lightness(color[ink]), lightness(color[paper])))
        assert (b+.05)/(a+.05) >= 4.5, f'{ink} on {paper}'


# --- the repository's own pages ---------------------------------------------------------------------------------

def test_workflows_and_templates_are_sound():
    "YAML that parses; actions pinned to a commit; no more rights than needed"
    for path in [*(ROOT/'.github').rglob('*.y*ml'), ROOT/'CITATION.cff']:
        assert yaml.safe_load(path.read_text()), path
    for path in (ROOT/'.github'/'workflows').iterdir():
        for used in re.findall(r'uses: (.*)', path.read_text()):
            assert re.fullmatch(r'[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+', used), f'{path.name}: {used}'
        assert yaml.safe_load(path.read_text())['permissions'] == {'contents': 'read'}, path.name
    settings = (ROOT/'settings.ini').read_text()
    for name, value in (('version', 'version'), ('repository-code', 'git_url')):
        told = yaml.safe_load((ROOT/'CITATION.cff').read_text())[name]
        want = re.search(rf'^{value} = (.*)$', settings, re.M)[1].replace('%(user)s', 's5-mnist').replace('%(repo)s', 's5_mnist')
        assert told == want


@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md'])
def test_links_of_the_repository_lead_somewhere(name, pages):
    for target in re.findall(r'\]\(([^)\s]+)\)', (ROOT/name).read_text()):
        if target.startswith(SITE):
            file, place = where(target, pages/'index.ipynb')
            assert not place or place in anchors(file), f'{name}: {target}'
        else:
            file = ROOT/(target.removeprefix(REPO) if target.startswith(REPO) else target)
            assert re.match(r'https://(?!github.com/s5-mnist/s5_mnist/blob)', target) or file.exists(), f'{name}: {target}'


# --- pages, in a browser ----------------------------------------------------------------------------------------

def faults(browser, address, names, widths=(390, 1280)):
    "What is wrong with pages: errors on the console, links that lead nowhere, boxes wider than the screen"
    found, links = [], {}
    for width in widths:
        context = browser.new_context(viewport=dict(width=width, height=900))
        context.route(lambda url: not url.startswith(address), lambda route: route.abort()) # Nothing from outside
        for name in names:
            page, url = context.new_page(), f'{address}/{name}'
            page.on('pageerror', lambda e, at=(name, width): found.append((*at, f'error: {e}')))
            page.on('response', lambda r, at=(name, width): found.append((*at, f'{r.status} for {r.url}'))
                    if r.status >= 400 else None)
            page.goto(url, wait_until='load')
            wide = page.evaluate('document.documentElement.scrollWidth-document.documentElement.clientWidth')
            if wide > 1: found.append((name, width, f'{wide} pixels too wide'))
            for alt in page.eval_on_selector_all('main img', 'all => all.filter(i => !i.alt).map(i => i.src.slice(-60))'):
                found.append((name, width, f'no alt text: {alt}'))
            links[name] = page.eval_on_selector_all('a[href]', 'all => all.map(a => a.href)')
            page.close()
        context.close()
    context = browser.new_context()
    page, ids = context.new_page(), {}
    for name in names:
        for link in links[name]:
            at, _, place = link.partition('#')
            if not at.startswith(address): continue
            if at not in ids:
                answer = page.request.get(at)
                ids[at] = set(re.findall(r'id="([^"]+)"', answer.text())) if answer.ok else None
            if ids[at] is None: found.append((name, 0, f'broken link {link}'))
            elif place and unquote(place) not in ids[at]: found.append((name, 0, f'no such place {link}'))
    context.close()
    return found


def test_the_browser_finds_what_is_wrong(browser, serve, tmp_path):
    "On two pages, one of them full of faults"
    head = '<!doctype html><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><main>'
    (tmp_path/'good.html').write_text(head+'<h1 id="a">Good</h1><a href="bad.html">on</a><a href="#a">up</a>')
    (tmp_path/'bad.html').write_text(head+'<p style="width:700px">wide</p><img src="data:,"><a href="none.html">x</a>'
                                     '<a href="good.html#b">y</a><script>undefined.x</script><script src="gone.js"></script>')
    assert not faults(browser, serve(tmp_path), ['good.html'])
    found = {(width, what.split(' ')[0]) for _, width, what in faults(browser, serve(tmp_path), ['good.html', 'bad.html'])}
    assert found >= {(390, 'error:'), (390, '404'), (390, 'no'), (0, 'broken'), (0, 'no'), (1280, 'error:')}
    assert any(w == 390 and 'too' in what for _, w, what in faults(browser, serve(tmp_path), ['bad.html']))


@pytest.mark.skipif(not shutil.which('quarto'), reason='no quarto on the PATH')
def test_the_site_in_a_browser(copy, browser, serve):
    "nbdev_docs as shipped; then each page at the width of a phone and of a desk"
    subprocess.run(['nbdev_docs'], cwd=copy, check=True)
    docs = copy/'_docs'
    names = [p.name for p in sorted(docs.glob('*.html'))]
    assert len(names) == len(NOTEBOOKS)+1
    for name in names:
        html = (docs/name).read_text(encoding='utf-8')
        assert 'property="og:image"' in html and 'rel="icon"' in html, name
    assert not faults(browser, serve(docs), names)
