"""nbdev 3 and fastcore 2, in an environment of their own: the same modules, and notebooks that pass."""
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def nbdev3(tmp_path_factory, copy):
    """A function that runs a command in an environment with nbdev 3 and what it needs, on a copy of the project; torch
    and the other packages are those of this environment"""
    folder = tmp_path_factory.mktemp('nbdev3')
    subprocess.run([sys.executable, '-m', 'venv', folder/'venv'], check=True)
    commands = folder/'venv'/('Scripts' if os.name == 'nt' else 'bin')
    pip = subprocess.run([commands/'python', '-m', 'pip', 'install', '--quiet', 'nbdev>=3,<4'], capture_output=True,
                         text=True)
    if pip.returncode:
        pytest.skip(f'nbdev 3 cannot be installed: {pip.stderr.strip().splitlines()[-1]}')
    packages = subprocess.run([commands/'python', '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'],
                              capture_output=True, text=True, check=True).stdout.strip()
    (Path(packages)/'others.pth').write_text(sysconfig.get_path('purelib'))
    project = shutil.copytree(copy, folder/'project', ignore=shutil.ignore_patterns('_proc', '_docs'))
    for path in (ROOT/'s5_mnist').iterdir():
        if path.suffix in ('.safetensors', '.js', '.css'):
            shutil.copy(path, project/'s5_mnist')

    def run(command, *args):
        env = {**os.environ, 'PYTHONPATH': str(project), 'MPLBACKEND': 'Agg'}
        done = subprocess.run([commands/command, *map(str, args)], cwd=project, env=env, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout+done.stderr)[-6000:]
        return done.stdout
    run.project = project
    return run


def test_it_is_another_nbdev(nbdev3):
    versions = nbdev3('python', '-c', 'import nbdev, fastcore; print(nbdev.__version__, fastcore.__version__)').split()
    assert [v.split('.')[0] for v in versions] == ['3', '2']


def without_settings(index):
    return re.sub(r"'settings': \{.*?\}", '', index, flags=re.S)


def test_it_exports_the_same_modules(nbdev3):
    kept = {p.name: p.read_text() for p in (ROOT/'s5_mnist').glob('*.py')}
    for name in kept.keys()-{'__init__.py'}:
        (nbdev3.project/'s5_mnist'/name).unlink()
    nbdev3('nbdev-export')
    made = {p.name: p.read_text() for p in (nbdev3.project/'s5_mnist').glob('*.py')}
    assert made.keys() == kept.keys()
    for name in kept:
        a, b = (re.sub(r'^(# %% \S+).*$', r'\1', without_settings(m[name]), flags=re.M) for m in (made, kept))
        assert ''.join(a.split()) == ''.join(b.split()) if name == '_modidx.py' else a == b, name


def test_the_notebooks_pass(nbdev3):
    for name in ('00_data', '05_recipes', '06_checkpoints', '09_inference', 'cli'): # All of them would take five minutes
        nbdev3('nbdev-test', f'nbs/{name}.ipynb')


def test_the_commands_work(nbdev3):
    "With fastcore 2, whose docments are others"
    def command(name, *args): # As pip writes it
        (nbdev3.project/f'{name}.py').write_text(f'import sys\nfrom s5_mnist.cli import {name}\n'
                                                 f'if __name__ == "__main__": sys.exit({name}.main())\n')
        return nbdev3('python', f'{name}.py', *args)
    out = command('s5_train', '--data', 'digits', '--epochs', 1, '--device', 'cpu', '--out', 'run')
    assert re.search(r'^\d+/\d+ = [\d.]+ %', out, re.M) and (nbdev3.project/'run'/'model.safetensors').exists()
    assert re.search(r'^\d+/\d+ = [\d.]+ %', command('s5_eval', 'run', '--device', 'cpu'))
    assert command('s5_predict', 'nbs/site/favicon.png').startswith('nbs/site/favicon.png: 5 (')
    words = ' '.join(command('s5_train', '--help').split())
    assert '--n-valid VALID' in words and 'Recipe; s5 is the assignment' in words and 'default: fast' in words
    assert 'an integer between 0 and 59,999' in words
