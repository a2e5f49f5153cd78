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


@pytest.fixture(scope='module')
def three(tmp_path_factory, copy):
    """Run a command of an environment that has nbdev 3 and what it needs; torch and the rest are those of this one.
    It works on a copy of the project"""
    where = tmp_path_factory.mktemp('nbdev3')
    subprocess.run([sys.executable, '-m', 'venv', where/'venv'], check=True)
    there = where/'venv'/('Scripts' if os.name == 'nt' else 'bin')
    pip = subprocess.run([there/'python', '-m', 'pip', 'install', '--quiet', 'nbdev>=3,<4'], capture_output=True, text=True)
    if pip.returncode:
        pytest.skip(f'nbdev 3 cannot be installed: {pip.stderr.strip().splitlines()[-1]}')
    found = subprocess.run([there/'python', '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'],
                           capture_output=True, text=True, check=True).stdout.strip()
    (Path(found)/'others.pth').write_text(sysconfig.get_path('purelib'))
    project = shutil.copytree(copy, where/'project')
    shutil.copy(ROOT/'s5_mnist'/'best.safetensors', project/'s5_mnist')

    def run(command, *args):
        env = {**os.environ, 'PYTHONPATH': str(project), 'MPLBACKEND': 'Agg'}
        done = subprocess.run([there/command, *map(str, args)], cwd=project, env=env, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout+done.stderr)[-6000:]
        return done.stdout
    run.project = project
    return run


def test_it_is_another_nbdev(three):
    versions = three('python', '-c', 'import nbdev, fastcore; print(nbdev.__version__, fastcore.__version__)').split()
    assert [v.split('.')[0] for v in versions] == ['3', '2']


def without_settings(index):
    return re.sub(r"'settings': \{.*?\}", '', index, flags=re.S)


def test_it_exports_the_same_modules(three):
    kept = {p.name: p.read_text() for p in (ROOT/'s5_mnist').glob('*.py')}
    for name in kept.keys()-{'__init__.py'}:
        (three.project/'s5_mnist'/name).unlink()
    three('nbdev-export')
    made = {p.name: p.read_text() for p in (three.project/'s5_mnist').glob('*.py')}
    assert made.keys() == kept.keys()
    for name in kept:
        a, b = (re.sub(r'^(# %% \S+).*$', r'\1', without_settings(m[name]), flags=re.M) for m in (made, kept))
        assert ''.join(a.split()) == ''.join(b.split()) if name == '_modidx.py' else a == b, name


def test_the_notebooks_pass(three):
    three('nbdev-test')


def test_the_commands_work(three):
    "With fastcore 2, which has another `call_parse`"
    said = three('python', '-m', 's5_mnist.training', '--data', 'digits', '--epochs', 1, '--device', 'cpu', '--out', 'run')
    assert re.search(r'\d+/\d+ = [\d.]+ %', said) and (three.project/'run'/'model.safetensors').exists()
    for module, command in (('training', 's5_eval'), ('inference', 's5_predict')): # As pip writes them
        (three.project/f'{command}.py').write_text(f'import sys\nfrom s5_mnist.{module} import {command}\n'
                                                   f'if __name__ == "__main__": sys.exit({command}())\n')
    assert re.search(r'^\d+/\d+ = [\d.]+ %', three('python', 's5_eval.py', 'run', '--device', 'cpu'))
    assert three('python', 's5_predict.py', 'nbs/site/favicon.png').startswith('nbs/site/favicon.png: 5 (')
