"""The house: who imports whom, and what `import s5_mnist` offers and costs."""
import ast
import importlib
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from notebooks import CHAPTERS, MODULES

import s5_mnist

# Part 4 is the ground on which all parts stand, except for the commands, which import everything
ORDER = sorted(MODULES, key=lambda m: (CHAPTERS[m].stem[0] != '4' or m == 'cli', CHAPTERS[m].stem))


def imports(tree):
    "What a module takes from other modules of the package, inside functions too: pairs (module, name or None)"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.name.split('.')[1], None) for a in node.names if a.name.startswith('s5_mnist.'))
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or '').split('.')[0] == 's5_mnist'):
            module = (node.module or '').removeprefix('s5_mnist').strip('.')
            yield from ((module, a.name) if module else (a.name, None) for a in node.names if module or a.name in MODULES)


@pytest.mark.parametrize('name', ORDER)
def test_a_module_imports_what_comes_before_it(name):
    "Neither a later part nor a later chapter of its own part, so there is no circle; and no private name"
    tree = ast.parse((ROOT/'s5_mnist'/f'{name}.py').read_text(encoding='utf-8'))
    found = list(imports(tree))
    assert {m for m, _ in found} <= set(ORDER[:ORDER.index(name)])
    assert not [n for _, n in found if n and n.startswith('_')]
    whole = {m for m, n in found if n is None}
    assert not [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr.startswith('_')
                and not n.attr.startswith('__') and isinstance(n.value, ast.Name) and n.value.id in whole]


# --- the surface ------------------------------------------------------------------------------------------------

def loaded(code, *modules):
    "Which of some modules a process has imported after running some code"
    code = f'import sys\n{code}\nprint(*[m for m in {modules} if m in sys.modules], file=sys.stderr)'
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT).stderr.split()


def test_names_are_those_of_the_modules():
    names = [(module, name) for module, names in s5_mnist._MODULES.items() for name in names.split()]
    assert sorted(name for _, name in names) == s5_mnist.__all__ and set(s5_mnist.__all__) <= set(dir(s5_mnist))
    for module, name in names:
        there = importlib.import_module(f's5_mnist.{module}')
        assert name in there.__all__ and getattr(s5_mnist, name) is getattr(there, name), name
    with pytest.raises(AttributeError, match='nothing'):
        s5_mnist.nothing


def test_the_package_imports_nothing_until_it_is_used():
    assert loaded('import s5_mnist; dir(s5_mnist); s5_mnist.__version__', 'torch', 'numpy', 'fastcore') == []
    assert loaded('import s5_mnist; s5_mnist.train', 'torch', 'matplotlib', 'torchvision', 'scipy') == ['torch']
    assert loaded('from s5_mnist import *\nassert Net and train', 'torch') == ['torch']


def test_help_does_not_import_torch():
    code = ('from s5_mnist.cli import s5_train\ntry: s5_train.main(["--help"])\n'
            'except SystemExit as e: assert not e.code')
    assert loaded(code, 'torch', 'numpy', 'matplotlib') == []


@pytest.mark.parametrize('before, cpuinfo, expected', [
    ('', 'flags: avx2', 'PASSIVE'), ('', 'flags: avx512_bf16', 'None'), ('import torch; ', 'flags: avx2', 'None'),
    ('import os; os.environ["OMP_WAIT_POLICY"] = "ACTIVE"; ', 'flags: avx2', 'ACTIVE'),
    ('import os; os.environ["ATEN_CPU_CAPABILITY"] = "avx2"; ', 'flags: avx512_bf16', 'PASSIVE')])
def test_threads_wait_kindly_where_that_serves(before, cpuinfo, expected):
    code = (f'import builtins, io; real = open; builtins.open = lambda name, *a, **k: io.StringIO({cpuinfo!r}) '
            f'if name == "/proc/cpuinfo" else real(name, *a, **k); {before}import s5_mnist, os; '
            'print(os.environ.get("OMP_WAIT_POLICY"))')
    env = {k: v for k, v in os.environ.items() if k not in ('OMP_WAIT_POLICY', 'ATEN_CPU_CAPABILITY')}
    done = subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == expected
