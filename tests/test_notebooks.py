"""The modules are what the notebooks export, and what is committed is clean."""
import ast
import re
import subprocess

import s5_mnist
from conftest import ROOT
from notebooks import MODULES, NOTEBOOKS, call, cells, source


def test_modules_are_what_the_notebooks_export(copy):
    made, kept = ({p.name: p.read_text() for p in (d/'s5_mnist').glob('*.py')} for d in (copy, ROOT))
    assert sorted(made) == sorted(kept) == sorted(['__init__.py', '_modidx.py', *(f'{m}.py' for m in MODULES)])
    assert not [name for name in made if made[name] != kept[name]], 'run nbdev_export'


def test_notebooks_are_clean(copy):
    before = {p.name: p.read_bytes() for p in (copy/'nbs').glob('*.ipynb')}
    call('from nbdev.clean import nbdev_clean; nbdev_clean.__wrapped__()', copy)
    assert not [n for n in before if before[n] != (copy/'nbs'/n).read_bytes()], 'run nbdev_clean'


def test_imports_stand_in_cells_of_their_own():
    "nbdev runs every cell with an import when it makes the pages, even one that is marked slow"
    for path in NOTEBOOKS:
        for i, cell in enumerate(cells(path)):
            if cell['cell_type'] == 'code' and 'nbdev_export' not in source(cell):
                code = re.sub(r'^[%!].*$', '', source(cell), flags=re.M)
                kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(code).body}
                assert kinds != {True, False}, f'{path.name} cell {i}'


def test_no_data_in_the_repository():
    files = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [f for f in files if 'ubyte' in f or f.endswith(('.ckpt', '.pt', '.gz'))]


def test_the_version_is_the_same_everywhere():
    version = re.search(r'^version = (.*)$', (ROOT/'settings.ini').read_text(), re.M)[1]
    assert s5_mnist.__version__ == version and f'## {version}' in (ROOT/'CHANGELOG.md').read_text()
    assert f'\nversion: {version}\n' in (ROOT/'CITATION.cff').read_text()
