"""What the tests need to know of notebooks: which cells run, what they print, what a page is made of."""
import ast
import base64
import json
import os
import re
import struct
import subprocess
import sys

from execnb.nbio import read_nb
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory

MODULES = ('benchmark', 'data', 'inference', 'model', 'utils', 'training')
SKIPPED = ('slow', 'cuda', 'mnist', 'notest')


def call(code, cwd):
    "Run a few lines of Python on a copy of the project, by itself"
    env = {**os.environ, 'PYTHONPATH': str(cwd)}
    done = subprocess.run([sys.executable, '-c', code], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout+done.stderr
    return done


def cells(path):
    return json.loads(path.read_text(encoding='utf-8'))['cells']


def source(cell):
    return ''.join(cell['source'])


def marked(cell, *directives):
    "Does the cell bear one of these directives?"
    return any(re.search(rf'^#\|\s*{d}\b', source(cell), re.M) for d in directives)


def text(outputs):
    "What a cell printed or returned, as text"
    parts = []
    for o in outputs or []:
        data = o.get('text') or o.get('data', {}).get('text/plain', '')
        if 'image/png' not in o.get('data', {}):
            parts.append(''.join(data))
    return ''.join(parts)


def figures(outputs):
    "Width and height of each picture that a cell shows, in pixels"
    found = [o['data']['image/png'] for o in outputs or [] if 'image/png' in o.get('data', {})]
    return [struct.unpack('>II', base64.b64decode(''.join(png))[16:24]) for png in found]


def names(cell):
    "The names that a cell reads, and those that it assigns or hands to a call, which may change them"
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


def run(path, skip=SKIPPED):
    """Run a notebook's cells but those marked with `skip`; yield (index, cell, stored outputs, fresh outputs).
    Fresh is None for a cell that was skipped, or that depends on what a skipped cell would have made."""
    nb, shell, missing = read_nb(path), CaptureShell(path), set()
    with working_directory(path.parent):
        for i, cell in enumerate(nb.cells):
            if cell.cell_type != 'code' or 'nbdev_export' in source(cell):
                continue
            stored = cell.get('outputs', [])
            read, changed = names(cell)
            if marked(cell, *skip):
                missing |= changed
                yield i, cell, stored, None
                continue
            cell.outputs = [] # Or a cell that no longer prints would keep what is stored
            shell.cell(cell)
            fresh = cell.outputs
            if shell.exc:
                raise AssertionError(f'{path.name}, cell {i}:\n{source(cell)}') from shell.exc
            if read & missing:
                missing |= changed-{n for n in changed if callable(shell.user_ns.get(n))}
                yield i, cell, stored, None
            else:
                yield i, cell, stored, fresh
