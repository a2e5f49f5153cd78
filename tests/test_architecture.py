"""The structure of the package: imports point downward, private names stay private, and importing costs little.

`pytest tests/test_architecture.py -rP` prints the import graph."""
import ast
import importlib
import inspect
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import NOTEBOOKS, ROOT
from notebooks import CHAPTERS, MODULES, cells, marked, source, text

import s5_mnist

PACKAGE = ROOT/'s5_mnist'
BIN = Path(sysconfig.get_path('scripts'))
# From the lowest layer up: a module may import only modules to its left
ORDER = ('core device digits data model utils distributed training augment selection recipes checkpoints runs pretrained '
         'preprocessing typicality inference numbers widget timing benchmark validation sweeps cli').split()
MAX_LINES, MAX_WIDTH = 440, 88


# --- what a module imports --------------------------------------------------------------------------------------

def our_modules(node, known):
    "The modules of the package that an import statement names, as pairs (module, name taken from it or None)"
    if isinstance(node, ast.Import):
        return [(a.name.split('.')[1], None) for a in node.names if a.name.startswith('s5_mnist.')]
    inside = node.level == 1 or node.module and node.module.split('.')[0] == 's5_mnist'
    if not inside:
        return []
    path = (node.module or '').removeprefix('s5_mnist').strip('.')
    if path:
        return [(path.split('.')[0], a.name) for a in node.names]
    return [(a.name, None) for a in node.names if a.name in known] # from . import data


def imports(code, known=tuple(ORDER)):
    "What a module takes from other modules of the package, lazy imports included: pairs (module, name or None)"
    nodes = [n for n in ast.walk(ast.parse(code)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    return [pair for n in nodes for pair in our_modules(n, known)]


def import_graph(sources):
    "From each module to the modules that it imports; sources are given by module"
    return {name: sorted({m for m, _ in imports(code)}) for name, code in sources.items()}


def describe(graph, order):
    "One line per module, in layer order"
    return '\n'.join(f'{name} -> {", ".join(graph[name]) or "nothing"}' for name in order if name in graph)


def cycle(graph):
    "Modules that import each other in a circle, or None"
    def visit(name, path):
        if name in path:
            return path[path.index(name):]
        return next((c for m in graph.get(name, ()) if (c := visit(m, [*path, name]))), None)
    return next((c for name in graph if (c := visit(name, []))), None)


def upward(graph, order):
    "Imports of a module from a higher layer, or of one that is in no layer"
    layer = {name: i for i, name in enumerate(order)}
    return [f'{name} -> {m}' for name, found in graph.items() for m in found
            if name not in layer or m not in layer or layer[m] >= layer[name]]


def is_private(name): return bool(re.match(r'_(?!_)', name)) # Dunder names are public


def private_uses(code, known=tuple(ORDER)):
    "Private names that a module imports from another, or reads as attributes of another"
    tree, taken = ast.parse(code), imports(code, known)
    found = [f'{m}.{name}' for m, name in taken if name and is_private(name)]
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for a in node.names:
                whole = isinstance(node, ast.Import) and a.name.startswith('s5_mnist')
                part = isinstance(node, ast.ImportFrom) and a.name in known and a.name in [
                    m for m, name in our_modules(node, known) if name is None]
                if whole or part:
                    aliases[a.asname or a.name.split('.')[0]] = a.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in aliases:
                found.append(ast.unparse(node))
    return found


@pytest.fixture(scope='module')
def sources():
    "The code of each module"
    paths = (p for p in sorted(PACKAGE.glob('*.py')) if p.stem not in ('__init__', '_modidx'))
    return {p.stem: p.read_text(encoding='utf-8') for p in paths}


def test_the_layers_are_those_of_the_notebooks(sources):
    assert sorted(sources) == sorted(ORDER) == sorted(MODULES)
    numbered = [CHAPTERS[m].stem for m in ORDER if CHAPTERS[m].stem[0].isdigit()]
    assert numbered == sorted(numbered), 'the numbers of the chapters must follow the layers'


def test_imports_point_downward(sources):
    graph = import_graph(sources)
    print(describe(graph, ORDER))
    assert not cycle(graph) and not upward(graph, ORDER)
    assert sum(map(len, graph.values())) > 2*len(ORDER)           # The graph was really read


def test_private_names_stay_in_their_module(sources):
    found = {name: private_uses(code) for name, code in sources.items()}
    assert not any(found.values()), {k: v for k, v in found.items() if v}


def too_long(sources, limit=MAX_LINES):
    "Modules with more lines than the limit"
    lengths = {name: len(code.splitlines()) for name, code in sources.items()}
    return {name: n for name, n in lengths.items() if n > limit}


def test_no_module_is_too_long(sources):
    assert not too_long(sources)


def test_the_checks_see_what_is_wrong():
    "On made-up modules"
    lazy = ('import os, torch\nfrom .core import a, b as c\ndef f():\n    from s5_mnist.data import d\n'
            '    import s5_mnist.utils as u')
    assert imports(lazy) == [('core', 'a'), ('core', 'b'), ('data', 'd'), ('utils', None)]
    assert imports('from . import __version__, data\nfrom .data import x\nfrom s5_mnist import model') == [
        ('data', None), ('data', 'x'), ('model', None)]
    assert imports('import numpy.data\nfrom torch.utils.data import x\nfrom os import data') == []
    good = import_graph(dict(core='import os', data='from .core import x', model='def f(): from .data import x'))
    assert good == dict(core=[], data=['core'], model=['data'])
    assert describe(good, ORDER) == 'core -> nothing\ndata -> core\nmodel -> data'
    assert cycle(good) is None and upward(good, ORDER) == []
    assert set(cycle(dict(a=['b'], b=['c'], c=['b']))) == {'b', 'c'} and cycle(dict(a=['a'])) == ['a']
    assert upward(dict(data=['runs']), ORDER) == ['data -> runs'] == upward(import_graph(dict(
        data='def f(x:int=1):\n    class A:\n        from .runs import train')), ORDER)
    for bad in (dict(data=['data']), dict(data=['new']), dict(new=['data'])):
        assert upward(bad, ORDER)
    assert private_uses('from .core import _a, b, __version__') == ['core._a']
    assert private_uses('def f():\n    from s5_mnist import runs\n    return runs._save') == ['runs._save']
    assert private_uses('import s5_mnist.runs\ns5_mnist.runs._save()') == ['s5_mnist.runs._save']
    assert private_uses('import s5_mnist.runs as r\nr._save, r.__name__, r.save') == ['r._save']
    assert private_uses('from . import data as d\nd.x._y') == ['d.x._y']
    assert private_uses('import os\nos._exit, self._x\nfrom .core import a') == []
    assert too_long(dict(a='\n'*400, b='\n'*401)) == dict(b=401)


# --- annotations ------------------------------------------------------------------------------------------------

def allows_none(annotation):
    "Whether an annotation includes None"
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode='eval').body
    if isinstance(annotation, ast.BinOp):
        return allows_none(annotation.left) or allows_none(annotation.right)
    return ast.unparse(annotation) in ('None', 'Any') or ast.unparse(annotation).startswith('Optional[')


def parameters(function):
    "Pairs (parameter, default or None) of a function, without self, *args and **kwargs"
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None]*(len(positional)-len(a.defaults))+a.defaults
    found = [*zip(positional, defaults), *zip(a.kwonlyargs, a.kw_defaults)]
    static = any(ast.unparse(d) == 'staticmethod' for d in function.decorator_list)
    return found[1:] if found and found[0][0].arg in ('self', 'cls') and not static else found


def public_functions(code):
    "Names and definitions of the public functions of a module, and of the methods of its public classes"
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith('_'):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            for m in node.body:
                if isinstance(m, ast.FunctionDef) and (m.name == '__init__' or not m.name.startswith('_')):
                    yield f'{node.name}.{m.name}', m


def bad_annotations(code):
    "Parameters without an annotation, and those whose default is None where the annotation does not include it"
    missing, narrow = [], []
    for name, function in public_functions(code):
        for p, default in parameters(function):
            if p.annotation is None:
                missing.append(f'{name}({p.arg})')
            elif isinstance(default, ast.Constant) and default.value is None and not allows_none(p.annotation):
                narrow.append(f'{name}({p.arg})')
    return missing, narrow


def test_every_public_parameter_is_annotated(sources):
    missing, narrow = set(), set()
    for name, code in sources.items():
        found = bad_annotations(code)
        missing |= {f'{name}.{p}' for p in found[0]}
        narrow |= {f'{name}.{p}' for p in found[1]}
    assert not missing and not narrow, (missing, narrow)


def test_bad_annotations_are_seen():
    code = '''
def f(a, b:int, c:int=None, d:'int|None'=None, e:int|str|None=None, *args, g:Optional[int]=None, h=2, **kw): pass
def g(i:'Figure'=None): pass
def _private(a): pass
class C:
    def __init__(self, a, b:int=None): pass
    def method(self, a): pass
    @staticmethod
    def static(a:int): pass
    def _hidden(self, a): pass
    def __call__(self, a): pass
class _D:
    def method(self, a): pass
'''
    assert bad_annotations(code) == (
        ['f(a)', 'f(h)', 'C.__init__(a)', 'C.method(a)'], ['f(c)', 'g(i)', 'C.__init__(b)'])


@pytest.mark.parametrize('name', ORDER)
def test_annotations_can_be_evaluated(name):
    "As nbdev's show_doc does, in the names of the module"
    module = importlib.import_module(f's5_mnist.{name}')
    for symbol in (getattr(module, s) for s in module.__all__):
        for f in [symbol, *vars(symbol).values()] if inspect.isclass(symbol) else [symbol]:
            if inspect.isfunction(f) or inspect.isclass(f):
                inspect.get_annotations(f, eval_str=True)


def test_annotations_that_cannot_be_evaluated_are_seen():
    def f(x: 'Figure|None'): pass # noqa: F821
    with pytest.raises(NameError, match='Figure'):
        inspect.get_annotations(f, eval_str=True)


# --- what importing costs ---------------------------------------------------------------------------------------

def loaded(code, *modules):
    "Which of some modules a process has imported after running some code"
    code = f'import sys\n{code}\nprint(*[m for m in {modules} if m in sys.modules], file=sys.stderr)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stderr.split()


def test_what_a_process_has_imported_is_seen():
    assert loaded('import csv', 'csv', 'sqlite3') == ['csv']


def test_the_package_imports_nothing_until_it_is_used():
    assert loaded('import s5_mnist', 'torch', 'numpy', 'matplotlib', 'fastcore') == []
    assert loaded('import s5_mnist; dir(s5_mnist); s5_mnist.__version__', 'torch') == []
    assert loaded('import s5_mnist; s5_mnist.Net', 'torch', 'matplotlib') == ['torch']
    assert loaded('from s5_mnist import InputError', 'torch', 's5_mnist.core') == ['s5_mnist.core']


@pytest.mark.parametrize('module', ['model', 'training', 'runs', 'inference'])
def test_modules_are_light_to_import(module):
    "matplotlib, torchvision and scipy are imported where they are used"
    assert loaded(f'import s5_mnist.{module}', 'matplotlib', 'torchvision', 'scipy') == []


@pytest.mark.parametrize('option', ['--help', '--version'])
def test_help_does_not_import_torch(option):
    code = (f'from s5_mnist.cli import s5_train\ntry: s5_train.main(["{option}"])\n'
            'except SystemExit as e: assert not e.code')
    assert loaded(code, 'torch', 'numpy', 'matplotlib') == []
    done = subprocess.run([BIN/'s5_train', option], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and 's5_' in done.stdout and done.stderr == ''


@pytest.mark.parametrize('module', s5_mnist._MODULES)
def test_names_of_the_package_are_those_of_its_modules(module):
    "In whatever order they are asked for: here, all modules have been imported before"
    for other in s5_mnist._MODULES:
        importlib.import_module(f's5_mnist.{other}')
    there = importlib.import_module(f's5_mnist.{module}')
    for name in s5_mnist._MODULES[module].split():
        assert name in there.__all__ and getattr(s5_mnist, name) is getattr(there, name), name


def test_all_names_are_listed():
    names = [name for names in s5_mnist._MODULES.values() for name in names.split()]
    assert sorted(names) == sorted(set(names)) == s5_mnist.__all__ and len(names) > 40
    assert set(s5_mnist.__all__) <= set(dir(s5_mnist))
    assert {'train', 'predict', 'Net', 'loaders', 'fit', 'load_mnist'} <= set(s5_mnist.__all__)
    assert loaded(f'from s5_mnist import *\nassert {set(names)} <= set(globals())', 'torch') == ['torch']


@pytest.mark.parametrize('name', ['nothing', '_private', 'torch'])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(AttributeError, match=f"module 's5_mnist' has no attribute '{name}'"):
        getattr(s5_mnist, name)


# --- widths -----------------------------------------------------------------------------------------------------

def is_visible(cell):
    "Whether a page shows the code of a cell"
    hidden = re.search(r'^#\|\s*(echo|include):\s*false', source(cell), re.M)
    return cell['cell_type'] == 'code' and not marked(cell, 'hide') and not hidden


def too_wide(cell, limit=MAX_WIDTH):
    "Lines of code that a page shows, and of stored printed output, that are longer than the limit"
    code = [x for x in source(cell).splitlines() if not x.startswith('#|')] if is_visible(cell) else []
    printed = [o for o in cell.get('outputs', []) if 'text/markdown' not in o.get('data', {})
               and 'text/html' not in o.get('data', {})]          # Those become tables
    return [x for x in [*code, *text(printed).splitlines()] if len(x) > limit]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_pages_are_not_too_wide(path):
    found = [f'cell {i}: {x}' for i, cell in enumerate(cells(path)) if cell['cell_type'] == 'code'
             for x in too_wide(cell)]
    assert not found, '\n'.join([path.name, *found])


def test_wide_lines_are_seen():
    def cell(code, *outputs): return dict(cell_type='code', source=code, outputs=list(outputs))
    wide, fits = 'x'*89, 'x'*88
    assert too_wide(cell(wide)) == [wide] and too_wide(cell(fits)) == []
    for code in (f'#| fig-alt: {wide}\n1', f'#| hide\n{wide}', f'#| echo: false\n{wide}'):
        assert too_wide(cell(code)) == []
    assert too_wide(cell('1', dict(output_type='stream', text=[wide+'\n', fits]))) == [wide]
    assert too_wide(cell('#| hide\n1', dict(data={'text/plain': [wide]}))) == [wide]
    assert too_wide(cell('1', dict(data={'text/plain': ['<Markdown>'], 'text/markdown': [wide]}))) == []
