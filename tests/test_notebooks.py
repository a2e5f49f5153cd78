"""The notebooks, the modules, README and the site agree with each other."""
import ast
import base64
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import NOTEBOOKS, ROOT
from fastcore.docments import docments
from notebooks import marked, source, text

MODULES = ('benchmark', 'data', 'inference', 'model', 'utils', 'training')


def cells(path):
    return json.loads(path.read_text())['cells']


@pytest.fixture(scope='session')
def copy(tmp_path_factory):
    "A copy of the project without its modules, into which the notebooks are exported anew"
    where = tmp_path_factory.mktemp('copy')
    for name in ('settings.ini', 'pyproject.toml', '_quarto.yml', 'README.md'):
        shutil.copy(ROOT/name, where)
    shutil.copytree(ROOT/'nbs', where/'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    (where/'s5_mnist').mkdir()
    shutil.copy(ROOT/'s5_mnist'/'__init__.py', where/'s5_mnist')
    call('from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()', where)
    return where


def call(code, cwd):
    env = {**os.environ, 'PYTHONPATH': str(cwd)}
    done = subprocess.run([sys.executable, '-c', code], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout+done.stderr
    return done


def test_modules_are_what_the_notebooks_export(copy):
    made, kept = ({p.name: p.read_text() for p in (d/'s5_mnist').glob('*.py')} for d in (copy, ROOT))
    assert sorted(made) == sorted(kept) == sorted(['__init__.py', '_modidx.py', *(f'{m}.py' for m in MODULES)])
    for name in made:
        assert made[name] == kept[name], f'{name} is out of step; run nbdev_export'


def test_notebooks_are_clean(copy):
    before = {p.name: p.read_bytes() for p in (copy/'nbs').glob('*.ipynb')}
    call('from nbdev.clean import nbdev_clean; nbdev_clean.__wrapped__()', copy)
    assert before == {p.name: p.read_bytes() for p in (copy/'nbs').glob('*.ipynb')}, 'run nbdev_clean'


@pytest.mark.parametrize('name', MODULES)
def test_all_lists_what_the_notebook_exports(name):
    module = importlib.import_module(f's5_mnist.{name}')
    path, = ROOT.glob(f'nbs/0?_{name}.ipynb')
    public = set()
    for cell in cells(path):
        if cell['cell_type'] == 'code' and marked(cell, 'export', 'exports'):
            for node in ast.parse(source(cell)).body:
                targets = [t for t in getattr(node, 'targets', [])]
                found = [getattr(node, 'name', None)] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else [
                    e.id for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
                public |= {n for n in found if not n.startswith('_')}
    assert set(module.__all__) == public


@pytest.mark.parametrize('name', MODULES)
def test_public_symbols_are_documented(name):
    "A docstring each; a docment for each parameter, each result, each field"
    module, missing = importlib.import_module(f's5_mnist.{name}'), []
    for symbol in module.__all__:
        obj = getattr(module, symbol)
        if not callable(obj):
            continue
        if not (obj.__doc__ or '').strip() or obj.__doc__.startswith(f'{symbol}('):
            missing.append(f'{symbol}: docstring')
        if inspect.isclass(obj):
            tree = ast.parse(inspect.getsource(obj))
            lines = inspect.getsource(obj).splitlines()
            missing += [f'{symbol}.{n.target.id}' for n in tree.body[0].body if isinstance(n, ast.AnnAssign)
                        and '#' not in lines[n.lineno-1]]
            methods = [m for k, m in vars(obj).items() if inspect.isfunction(m) and not k.startswith('_') and k != 'forward']
            missing += [f'{symbol}.{m.__name__}: docstring' for m in methods if not m.__doc__
                        and m.__code__.co_filename.endswith(f'{name}.py')]
            if '__init__' not in vars(obj) or '@dataclass' in lines[0] or issubclass(obj, tuple):
                continue
            obj = obj.__init__
        signature = inspect.signature(obj)
        docs = docments(obj, full=True)
        parameters = {p: v for p, v in signature.parameters.items() if p != 'self' and v.kind != v.VAR_KEYWORD}
        missing += [f'{symbol}({p})' for p in parameters if not docs[p].docment]
        if signature.return_annotation not in (inspect.Signature.empty, None) and not docs['return'].docment:
            missing.append(f'{symbol}: result')
    assert not missing, missing


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_house_style(path):
    "What can be counted: size, length of exported cells and of lines, imports in cells of their own"
    assert path.stat().st_size < 300_000
    first = source(cells(path)[0])
    assert re.match(r'# \S.*\n\n> \S', first), 'a notebook opens with a title and a > subtitle'
    for i, cell in enumerate(cells(path)):
        if cell['cell_type'] != 'code':
            continue
        where, lines = f'{path.name} cell {i}', [x for x in source(cell).splitlines() if x.strip()]
        code = [x for x in lines if not x.startswith('#|')]
        assert max(map(len, lines)) <= 100, where
        if marked(cell, 'export', 'exports'):
            assert len(code) <= 30, f'{where}: {len(code)} lines'
            assert not re.search(r'^from \S+ import \*', source(cell), re.M), where
        kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(source(cell)).body}
        assert kinds != {True, False} or 'nbdev' in source(cell), f'{where}: imports stand in cells of their own'


# --- README and the site ----------------------------------------------------------------------------------------

@pytest.fixture(scope='session')
def pages(copy):
    "Every notebook as nbdev hands it to Quarto"
    call('from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)', copy)
    return copy/'_proc'


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


def test_every_page_is_processed(pages):
    "Each exported symbol has its reference block; links between pages lead somewhere"
    assert sorted(p.name for p in pages.glob('*.ipynb')) == [p.name for p in NOTEBOOKS]
    for path in NOTEBOOKS:
        page = cells(pages/path.name)
        assert source(page[0]).startswith('---') and 'title:' in source(page[0])
        words = '\n'.join(source(c) for c in page if c['cell_type'] == 'markdown')
        for target in re.findall(r'\]\(([\w./-]+\.(?:ipynb|qmd))\)', words):
            assert (pages/target).exists(), f'{path.name} links to {target}'
    for name in MODULES:
        page, = pages.glob(f'0?_{name}.ipynb')
        shown = '\n'.join(text(c['outputs']) + ''.join(''.join(o.get('data', {}).get('text/markdown', ''))
                          for o in c['outputs']) for c in cells(page) if c['cell_type'] == 'code')
        module = importlib.import_module(f's5_mnist.{name}')
        for symbol in module.__all__:
            if callable(getattr(module, symbol)):
                assert re.search(rf'### {symbol}\b', shown), f'{name}: {symbol} has no reference block'


def test_the_page_to_draw_on_goes_out_with_all_that_it_needs(pages):
    kept = {p.name for p in (ROOT/'nbs'/'demo').iterdir()}
    assert {p.name for p in (pages/'demo').iterdir()} == kept == {'page.js', 'prepare.js', 'demo.css', 's5_mnist.onnx'}
    head = yaml.safe_load((pages/'demo.qmd').read_text().split('---')[1])
    assert head['resources'] == ['demo/*'] and all((pages/f).exists() for f in re.findall(
        r'(?:href|src)="([\w./]+)"', head['include-in-header'][0]['text']))


def test_site_configuration(copy):
    top, nbs, side = (yaml.safe_load((ROOT/p).read_text()) for p in ('_quarto.yml', 'nbs/_quarto.yml', 'nbs/sidebar.yml'))
    assert top['project'] == nbs['project'] == {'type': 'website'}
    assert nbs['metadata-files'] == ['../_quarto.yml', 'nbdev.yml', 'sidebar.yml']
    listed = set(re.findall(r"'([\w]+\.(?:ipynb|qmd))'", str([top, side])))
    assert listed == {p.name for p in NOTEBOOKS} | {'demo.qmd'}, 'every page is in the sidebar or the navbar, and no other'
    call('from nbdev.quarto import refresh_quarto_yml; refresh_quarto_yml()', copy)
    assert (copy/'nbs'/'nbdev.yml').read_text() == (ROOT/'nbs'/'nbdev.yml').read_text()
    assert (copy/'nbs'/'_quarto.yml').read_text() == (ROOT/'nbs'/'_quarto.yml').read_text()


@pytest.mark.skipif(not shutil.which('quarto'), reason='no quarto on the PATH')
def test_site_renders(pages):
    subprocess.run(['quarto', 'render', '--no-cache', '--no-execute'], cwd=pages, check=True)
    for path in NOTEBOOKS:
        assert list(Path(pages/'_docs').glob(f'*{path.stem.lstrip("0123456789_")}.html'))


# --- what goes out ----------------------------------------------------------------------------------------------

def test_no_data_in_the_repository():
    files = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [f for f in files if 'ubyte' in f or f.endswith(('.ckpt', '.pt', '.gz'))]


def test_version_is_one():
    import s5_mnist
    settings = (ROOT/'settings.ini').read_text()
    version = re.search(r'^version = (.*)$', settings, re.M)[1]
    assert s5_mnist.__version__ == version and f'## {version}' in (ROOT/'CHANGELOG.md').read_text()
