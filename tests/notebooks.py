"""What the tests need to know about notebooks: which module each exports, which cells run, what a cell prints."""
import ast
import base64
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))
SKIPPED = ('slow', 'cuda', 'mnist', 'notest')
WIDGET = 'application/vnd.jupyter.widget-view+json'


def call(code, cwd):
    "Run a few lines of Python in a process of their own, on a copy of the project"
    env = {**os.environ, 'PYTHONPATH': str(cwd)}
    done = subprocess.run([sys.executable, '-c', code], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout+done.stderr
    return done


def cells(path):
    return json.loads(path.read_text(encoding='utf-8'))['cells']


def source(cell):
    return ''.join(cell['source'])


def exported_module(path):
    "The module that a notebook exports, or None"
    found = [re.search(r'^#\|\s*default_exp\s+(\w+)', source(c), re.M) for c in cells(path) if c['cell_type'] == 'code']
    return next((m[1] for m in found if m), None)


CHAPTERS = {exported_module(p): p for p in NOTEBOOKS if exported_module(p)} # From a module to its notebook
MODULES = tuple(CHAPTERS)


def marked(cell, *directives):
    "Whether a cell has one of these directives"
    return any(re.search(rf'^#\|\s*{d}\b', source(cell), re.M) for d in directives)


def text(outputs):
    "What a cell printed or returned, as text or Markdown, without figures and progress bars"
    parts = []
    for o in outputs or []:
        data = o.get('data', {})
        if not data.keys() & {'image/png', WIDGET}:
            parts.append(''.join(o.get('text') or data.get('text/markdown') or data.get('text/plain', '')))
    return ''.join(parts)


def figures(outputs):
    "Width and height of each picture that a cell shows, in pixels"
    found = [o['data']['image/png'] for o in outputs or [] if 'image/png' in o.get('data', {})]
    return [struct.unpack('>II', base64.b64decode(''.join(png))[16:24]) for png in found]


def names(cell):
    "The names that a cell reads, and those that it assigns or passes to a call that may change them"
    tree = ast.parse(re.sub(r'^[%!].*$', '', source(cell), flags=re.M))
    read, changed = set(), set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Name):
            (read if isinstance(n.ctx, ast.Load) else changed).add(n.id)
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)):
            changed.add(n.name)
        if isinstance(n, ast.Call):
            for a in [*n.args, *(k.value for k in n.keywords), n.func]:
                while isinstance(a, ast.Attribute):
                    a = a.value
                if isinstance(a, ast.Name) and not (a is n.func):
                    changed.add(a.id)
    return read, changed


class Jupyter:
    "A kernel as Jupyter would start it for a notebook in `folder`, with figures as sharp as they are stored"
    def __init__(self, folder):
        timeout = int(os.environ.get('S5_CELL_TIMEOUT', 600))     # Seconds
        self.client = NotebookClient(nbformat.v4.new_notebook(), timeout=timeout, kernel_name='python3',
                                     resources=dict(metadata=dict(path=str(folder))))

    def __enter__(self):
        env = {k: v for k, v in os.environ.items() if k != 'MPLBACKEND'} # With another backend, no figure is shown
        self.kernel = self.client.setup_kernel(env=env)
        self.kernel.__enter__()
        self('%config InlineBackend.figure_format = "retina"')
        return self

    def __exit__(self, *args):
        return self.kernel.__exit__(*args)

    def __call__(self, code):
        "The outputs of a cell; AssertionError with the traceback if it fails"
        self.client.nb.cells[:] = [nbformat.v4.new_code_cell(code)]
        try:
            return self.client.execute_cell(self.client.nb.cells[0], 0).outputs
        except CellExecutionError as e:
            raise AssertionError(str(e)) from None

    def value(self, code):
        "The value of an expression, made of numbers, strings and containers"
        return ast.literal_eval(text(self(f'print(repr(({code})))')))


def run(path, skip=SKIPPED):
    """Run a notebook's cells in Jupyter, except those marked with `skip`; yield (index, cell, stored outputs, fresh
    outputs). Fresh is None for a cell that was skipped, or that depends on what a skipped cell would have made."""
    missing = set()
    with Jupyter(path.parent) as jupyter:
        for i, cell in enumerate(cells(path)):
            if cell['cell_type'] != 'code' or 'nbdev_export' in source(cell):
                continue
            read, changed = names(cell)
            if marked(cell, *skip):
                missing |= changed
                yield i, cell, cell['outputs'], None
                continue
            try:
                fresh = jupyter(source(cell))
            except AssertionError as e:
                raise AssertionError(f'{path.name}, cell {i}: {e}') from None
            if read & missing:
                functions = jupyter.value(f'[n for n in {sorted(changed)} if callable(globals().get(n))]')
                missing |= changed-set(functions)
                yield i, cell, cell['outputs'], None
            else:
                yield i, cell, cell['outputs'], fresh
