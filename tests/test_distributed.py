"""Several processes: together they reach what one reaches."""
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from conftest import QUICK, ROOT, flat

from s5_mnist.distributed import process_group, rank, sum_over_processes, world_size
from s5_mnist.recipes import build_training, get_recipe
from s5_mnist.runs import load_run, train

COMMAND = Path(sysconfig.get_path('scripts'))/'s5_train'


def test_alone_there_is_one_process():
    with process_group('cpu') as device:
        assert device == torch.device('cpu') and (rank(), world_size()) == (0, 1)
    assert sum_over_processes([1, 2.5], device) == [1, 2.5]


def test_processes_share_the_images(small):
    "Each gets as many, another share in each epoch, augmented at random by itself; together they get all"
    shares = [build_training(get_recipe('s5', bs=30), small, rank=r, processes=3) for r in range(3)]
    for parts in shares: parts.dls.train.set_epoch(1)
    assert [len(p.dls.train) for p in shares] == [10]*3 and len({len(p.dls.test.x) for p in shares}) == 1
    assert {len(y) for p in shares for _, y in p.dls.train} == {10} # Of 30 images in a step
    orders = [list(p.dls.train.sampler) for p in shares]
    assert sorted(sum(orders, [])) == list(range(300))
    shares[0].dls.train.set_epoch(2)
    assert list(shares[0].dls.train.sampler) != orders[0]
    assert all(flat(p.net).equal(flat(shares[0].net)) for p in shares)


def torchrun(*args, processes=2, cwd=None):
    "The completed process of a job of torchrun"
    if sys.platform == 'win32':
        pytest.skip('needs POSIX: torchrun')
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes),
               *map(str, args)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, cwd=cwd)


@pytest.mark.slow
def test_two_processes_reach_what_one_reaches(tmp_path):
    "The command: one folder, one set of lines, all images, with Muon, crops and frozen layers"
    args = ['--data', 'digits', '--recipe', 'fast', '--epochs', '2', '--device', 'cpu', '--precision', 'float32']
    done = torchrun('--no-python', COMMAND, *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    alone = subprocess.run([COMMAND, *args, '--out', tmp_path/'one'], capture_output=True, text=True)
    assert alone.returncode == 0 and alone.stderr == ''
    assert done.stdout.count('epoch  2') == alone.stdout.count('epoch  2') == 1
    assert done.stdout.endswith('saved in runs/fast-0\n')
    one, two = (load_run(tmp_path/n, 'cpu') for n in ('one', 'runs/fast-0'))
    assert (one.report['processes'], two.report['processes']) == (1, 2)
    assert [r['train_n'] for r in one.history.rows] == [r['train_n'] for r in two.history.rows] == [4200]*2
    assert two.report['n'] == 2000 and abs(two.report['accuracy']-one.report['accuracy']) < 3
    assert two.report['accuracy'] > 90
    (tmp_path/'runs/fast-0/report.json').unlink()                 # As if it had been stopped after its last epoch
    done = torchrun('--no-python', COMMAND, '--resume', 'runs/fast-0', '--device', 'cpu', cwd=tmp_path)
    assert done.returncode == 0 and load_run(tmp_path/'runs/fast-0', 'cpu').report['loss'] == two.report['loss']


@pytest.mark.slow
def test_processes_agree_on_a_folder(tmp_path, small):
    "They use a new one beside those that exist, finished or not; or all of them refuse the one that was named"
    train('fast', small, tmp_path/'runs/fast-0', **QUICK)
    shutil.copytree(tmp_path/'runs/fast-0', tmp_path/'runs/fast-0-2')
    (tmp_path/'runs/fast-0-2/report.json').unlink()               # As if it had been stopped
    args = ['--data', 'digits', '--bs', '5000', '--device', 'cpu', '--precision', 'float32']
    done = torchrun('--no-python', COMMAND, *args, cwd=tmp_path)
    assert done.returncode == 0 and 'saved in runs/fast-0-3' in done.stdout, done.stderr
    done = torchrun('--no-python', COMMAND, *args, '--out', 'runs/fast-0-2', cwd=tmp_path)
    assert done.returncode != 0 and '--resume runs/fast-0-2' in done.stderr


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job(tmp_path):
    done = torchrun(ROOT/'tests'/'ranks.py', tmp_path/'run')
    assert done.returncode != 0 and 'SIGKILL' in done.stderr
    assert not (tmp_path/'run'/'report.json').exists()
