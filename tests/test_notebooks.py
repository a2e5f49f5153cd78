"""The notebooks and the modules agree with each other, and keep to the house rules."""
import ast
import importlib
import inspect
import re
import subprocess

import pytest
from conftest import NOTEBOOKS, ROOT
from fastcore.docments import docments
from notebooks import CHAPTERS, MODULES, call, cells, marked, source


def test_modules_are_what_the_notebooks_export(copy):
    made, kept = ({p.name: p.read_text() for p in (d/'s5_mnist').glob('*.py')} for d in (copy, ROOT))
    assert sorted(made) == sorted(kept) == sorted(['__init__.py', '_modidx.py', *(f'{m}.py' for m in MODULES)])
    for name in made:
        assert made[name] == kept[name], f'{name} is out of step; run nbdev_export'


def test_notebooks_are_clean(copy):
    before = {p.name: p.read_bytes() for p in (copy/'nbs').glob('*.ipynb')}
    call('from nbdev.clean import nbdev_clean; nbdev_clean.__wrapped__()', copy)
    after = {p.name: p.read_bytes() for p in (copy/'nbs').glob('*.ipynb')}
    assert before.keys() == after.keys() and not [n for n in before if before[n] != after[n]], 'run nbdev_clean'


@pytest.mark.parametrize('name', MODULES)
def test_all_lists_what_the_notebook_exports(name):
    module, public = importlib.import_module(f's5_mnist.{name}'), set()
    for cell in cells(CHAPTERS[name]):
        if cell['cell_type'] == 'code' and marked(cell, 'export', 'exports'):
            for node in ast.parse(source(cell)).body:
                targets = [e for t in getattr(node, 'targets', [])
                           for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
                found = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else [
                    e.id for e in targets if isinstance(e, ast.Name)]
                public |= {n for n in found if not n.startswith('_')}
    assert set(module.__all__) == public


def undocumented(symbol, obj):
    "What is missing of the documentation of a class or function: docstring, fields, methods, parameters, result"
    missing, doc = [], (obj.__doc__ or '').strip()
    if not doc or doc.startswith(f'{symbol}('): missing.append(f'{symbol}: docstring')
    if '\n' in doc: missing.append(f'{symbol}: a docstring of one line')
    if inspect.isclass(obj):
        code = inspect.getsource(obj)
        tree, lines = ast.parse(code), code.splitlines()
        missing += [f'{symbol}.{n.target.id}' for n in tree.body[0].body if isinstance(n, ast.AnnAssign)
                    and '#' not in lines[n.lineno-1]]
        methods = [m for k, m in vars(obj).items()
                   if inspect.isfunction(m) and not k.startswith('_') and k != 'forward']
        missing += [f'{symbol}.{m.__name__}: docstring' for m in methods if not m.__doc__
                    and m.__code__.co_filename == inspect.getsourcefile(obj) and not commented(m)]
        if '__init__' not in vars(obj) or '@dataclass' in lines[0] or issubclass(obj, tuple):
            return missing
        obj = obj.__init__
    signature, docs = inspect.signature(obj), docments(obj, full=True)
    parameters = {p: v for p, v in signature.parameters.items() if p != 'self' and v.kind != v.VAR_KEYWORD}
    missing += [f'{symbol}({p})' for p in parameters if not docs[p].docment]
    if signature.return_annotation not in (inspect.Signature.empty, None) and not docs['return'].docment:
        missing.append(f'{symbol}: result')
    return missing


def commented(method):
    "Whether the line that defines a method ends in a comment, as for the parts of a network"
    return '#' in inspect.getsource(method).splitlines()[0]


@pytest.mark.parametrize('name', MODULES)
def test_public_symbols_are_documented(name):
    "A docstring each; a docment for each parameter, each result, each field"
    module = importlib.import_module(f's5_mnist.{name}')
    found = [m for s in module.__all__ if is_code(getattr(module, s))
             for m in undocumented(s, getattr(module, s))]
    assert not found, found


def is_code(obj):
    "Whether it is a class or function; declared types and constants are not"
    return inspect.isclass(obj) or inspect.isroutine(obj)


def test_missing_documentation_is_seen(tmp_path, monkeypatch):
    (tmp_path/'made_up.py').write_text('''
def good(
    a:int, # A number
)->int: # The same number
    "Return it"
def bad(a:int)->int:
    "Return it\\n\\nand more"
class Bad(tuple):
    x: int
    def method(self): pass
    def part(self, x): return x # [B]
''')
    monkeypatch.syspath_prepend(tmp_path)
    import made_up
    assert undocumented('good', made_up.good) == []
    assert undocumented('bad', made_up.bad) == ['bad: a docstring of one line', 'bad(a)', 'bad: result']
    assert undocumented('Bad', made_up.Bad) == ['Bad: docstring', 'Bad.x', 'Bad.method: docstring']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_house_style(path):
    "What can be counted: size, length of exported cells and of lines, imports in cells of their own"
    first, last = (source(cells(path)[i]) for i in (0, -1))
    assert re.match(r'# \S.*\n\n> \S', first), 'a notebook opens with a title and a > subtitle'
    if path in CHAPTERS.values():
        assert last == '#| hide\nimport nbdev; nbdev.nbdev_export()', 'a chapter closes with a hidden export'
    for i, cell in enumerate(cells(path)):
        if cell['cell_type'] != 'code':
            continue
        where, lines = f'{path.name} cell {i}', [x for x in source(cell).splitlines() if x.strip()]
        code = [x for x in lines if not x.startswith('#|')]
        assert max(map(len, code), default=0) <= 100, where
        if marked(cell, 'export', 'exports'):
            assert len(code) <= 40, f'{where}: {len(code)} lines'
        assert not re.search(r'^from \S+ import \*', source(cell), re.M), where
        kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(source(cell)).body}
        assert kinds != {True, False} or 'nbdev' in source(cell), f'{where}: imports stand in cells of their own'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_not_too_large(path):
    assert path.stat().st_size < 300_000


def defined(cell):
    "The public functions and classes that a cell defines"
    return [n.name for n in ast.parse(source(cell)).body
            if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith('_')]


def misplaced(all_cells):
    """What goes wrong with sources on the page. nbdev moves an `exports` cell below the heading that follows it, so a cell
    must define one public symbol at most, and one that defines none must be followed by a sentence or a demonstration"""
    for i, cell in enumerate(all_cells):
        if cell['cell_type'] != 'code' or not marked(cell, 'export', 'exports'):
            continue
        if len(defined(cell)) > 1:
            yield f'cell {i} defines {defined(cell)}'
        if not marked(cell, 'exports') or defined(cell):
            continue
        for following in all_cells[i+1:]:
            if following['cell_type'] == 'markdown' or not marked(following, 'export', 'exports', 'hide'):
                break
            if marked(following, 'export', 'exports') and defined(following):
                yield f'cell {i} is shown as the source of {defined(following)}'
                break


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_each_source_is_shown_below_its_own_heading(path):
    assert not list(misplaced(cells(path)))


def test_misplaced_sources_are_seen():
    def code(*lines):
        return dict(cell_type='code', source='\n'.join(lines))
    bad = [code('#| exports', 'X = 1'), code('#| hide', '1'), code('#| export', 'def f(): pass'),
           code('#| exports', 'def g(): pass', 'def h(): pass')]
    assert list(misplaced(bad)) == ["cell 0 is shown as the source of ['f']", "cell 3 defines ['g', 'h']"]
    assert not list(misplaced([bad[0], dict(cell_type='markdown', source='A sentence.'), bad[2]]))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_no_symbol_is_inside_a_link(path):
    "nbdev links symbols by itself, and a link inside a link is shown as plain text"
    for i, cell in enumerate(cells(path)):
        if cell['cell_type'] == 'markdown':
            assert not re.search(r'\[`[A-Za-z_.]+`\]\(', source(cell)), f'{path.name} cell {i}'


# --- what is published ------------------------------------------------------------------------------------------

def test_no_data_in_the_repository():
    files = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [f for f in files if 'ubyte' in f or f.endswith(('.ckpt', '.pt', '.gz'))]


def test_the_version_is_the_same_everywhere():
    import s5_mnist
    settings = (ROOT/'settings.ini').read_text()
    version = re.search(r'^version = (.*)$', settings, re.M)[1]
    assert s5_mnist.__version__ == version and f'## {version}' in (ROOT/'CHANGELOG.md').read_text()
