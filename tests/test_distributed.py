"""Several processes: each trains on its share of every batch, and together they do what one process does."""
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import torch
from conftest import QUICK, ROOT
from torch.nn import functional as F

from s5_mnist.core import InputError
from s5_mnist.data import Batches
from s5_mnist.distributed import (ShardedBatches, gather_batches, loss_divisor, process_group, rank, sum_over_ranks,
                                  world_size)
from s5_mnist.model import Net, init_weights
from s5_mnist.runs import load_run, train

COMMAND = Path(sysconfig.get_path('scripts'))/'s5_train'


# --- in one process ---------------------------------------------------------------------------------------------

def test_alone_there_is_one_process():
    assert (rank(), world_size()) == (0, 1)
    with process_group('cpu') as device:
        assert device == torch.device('cpu') and (rank(), world_size()) == (0, 1)
    with pytest.raises(InputError, match="device must be auto or one of .* got 'tpu'"):
        with process_group('tpu'):
            pass


@pytest.mark.parametrize('size', [1, 2, 3, 7])
def test_shares_make_up_each_batch(small, size):
    "Every image belongs to exactly one process, and merging the shares restores the order"
    dl = Batches(small.test_x, small.test_y, 43)                  # 3 batches of 43, and one image
    sharded = [ShardedBatches(dl, r, size) for r in range(size)]
    assert all(len(s) == len(dl) == 4 and s.validated for s in sharded)
    for (x, y), *parts in zip(dl, *sharded):
        assert max(len(p[1]) for p in parts)-min(len(p[1]) for p in parts) <= 1
        assert sharded[0].merge([p[0] for p in parts]).equal(x)
        assert sharded[-1].merge([p[1] for p in parts]).equal(y)


@pytest.mark.parametrize('number, size', [(-1, 2), (2, 2), (0, 0)])
def test_a_process_that_cannot_be_is_refused(small, number, size):
    with pytest.raises(InputError, match=f'rank must be between 0 and {size-1}, got {number}'):
        ShardedBatches(Batches(small.test_x, small.test_y), number, size)


@pytest.mark.parametrize('size', [2, 3])
def test_the_mean_gradient_of_the_shares_is_that_of_the_batch(small, size):
    "As DistributedDataParallel averages it; a process without any image adds nothing"
    net = init_weights(Net(), 'orthogonal', torch.Generator().manual_seed(0))

    def gradient(dl):
        for x, y in dl:
            net.zero_grad()
            (F.cross_entropy(net(x), y, reduction='sum')/loss_divisor(dl, y)).backward()
            yield torch.cat([p.grad.flatten() for p in net.parameters()])
    dl = Batches(small.test_x[:11], small.test_y[:11], 10)        # 10 images, and one
    whole = list(gradient(dl))
    shares = zip(*(gradient(ShardedBatches(dl, r, size)) for r in range(size)))
    for a, b in zip(whole, shares, strict=True):
        assert torch.allclose(a, sum(b)/size, atol=1e-5)


def test_sums_and_results_of_one_process_are_its_own(small):
    dl = Batches(small.test_x, small.test_y, 43)
    assert sum_over_ranks(dl, 1, 2.5) == [1, 2.5]
    assert gather_batches(dl, [y for _, y in dl]).equal(small.test_y)


# --- in several -------------------------------------------------------------------------------------------------

def torchrun(*args, processes=2, timeout=240, cwd=None):
    "The completed process of a job of torchrun"
    if sys.platform == 'win32':
        pytest.skip('needs POSIX: torchrun')
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes),
               *map(str, args)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, cwd=cwd)


@pytest.mark.slow
@pytest.mark.parametrize('processes', [2, 3])
def test_processes_follow_the_loss_curve_of_one(tmp_path, processes):
    "With unequal shares, and a last batch of one image, of which some processes have none"
    script = ROOT/'tests'/'ranks.py'
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''}
    subprocess.run([sys.executable, script, tmp_path/'one.json'], check=True, env=env)
    done = torchrun(script, tmp_path/'many.json', processes=processes)
    assert done.returncode == 0, done.stderr
    one, many = (json.loads((tmp_path/f'{n}.json').read_text()) for n in ('one', 'many'))
    assert (one['world'], many['world']) == (1, processes)
    assert [n for _, _, n in many['losses']] == [30]*5 + [1] == [n for _, _, n in one['losses']]
    assert [c for _, c, _ in many['losses']] == [c for _, c, _ in one['losses']]
    assert [x for x, _, _ in many['losses']] == pytest.approx([x for x, _, _ in one['losses']], rel=1e-3)
    assert many['weights'] == pytest.approx(one['weights'], rel=0.02, abs=0.02)
    for k in ('correct', 'n', 'wrong', 'confusion'):
        assert many[k] == one[k]
    assert many['n'] == 31 and many['loss'] == pytest.approx(one['loss'], rel=1e-3)


@pytest.mark.slow
def test_torchrun_trains_as_one_command_does(tmp_path):
    "The command in two processes: one folder, one set of lines, the same counts as in one process"
    args = ['--data', 'digits', '--recipe', 's5', '--epochs', '1', '--bs', '1000', '--device', 'cpu',
            '--precision', 'float32']
    done = torchrun('--no-python', COMMAND, *args, '--out', tmp_path/'two')
    assert done.returncode == 0, done.stderr
    alone = subprocess.run([COMMAND, *args, '--out', tmp_path/'one'], capture_output=True, text=True)
    assert alone.returncode == 0 and alone.stderr == ''
    lines, words = done.stdout.splitlines(), [line.split()[:1] for line in alone.stdout.splitlines()]
    assert [line.split()[:1] for line in lines][:3] == words[:3] and len(lines) == len(words) == 5
    assert lines[0] == 's5 on generated digits' and 'saved in' in lines[-1]
    one, two = (load_run(tmp_path/n, 'cpu') for n in ('one', 'two'))
    assert (one.report['processes'], two.report['processes']) == (1, 2)
    a, b = one.history.rows[0], two.history.rows[0]
    assert a['train_n'] == b['train_n'] == 10_000 and a['test_n'] == b['test_n'] == 2000
    for k in ('train_loss', 'test_loss'):
        assert a[k] == pytest.approx(b[k], rel=1e-3)
    assert abs(a['test_correct']-b['test_correct']) <= 10


@pytest.mark.slow
def test_processes_agree_on_a_folder(tmp_path, small):
    "They use a new one beside those that exist, finished or not; or all of them refuse the one that was named"
    train('fast', small, tmp_path/'runs/fast-0', **QUICK)
    shutil.copytree(tmp_path/'runs/fast-0', tmp_path/'runs/fast-0-2')
    (tmp_path/'runs/fast-0-2/report.json').unlink()               # As if it had been stopped
    args = ['--data', 'digits', '--bs', '5000', '--device', 'cpu', '--precision', 'float32']
    done = torchrun('--no-python', COMMAND, *args, cwd=tmp_path)
    assert done.returncode == 0 and 'saved in runs/fast-0-3' in done.stdout, done.stderr
    assert load_run(tmp_path/'runs/fast-0-3', 'cpu').report['processes'] == 2
    done = torchrun('--no-python', COMMAND, *args, '--out', 'runs/fast-0-2', cwd=tmp_path)
    assert done.returncode != 0
    assert 'or continue the run in it: s5_train --resume runs/fast-0-2' in done.stderr


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job(tmp_path):
    start = time.monotonic()
    done = torchrun(ROOT/'tests'/'ranks.py', tmp_path/'out.json', 'die')
    assert done.returncode != 0 and time.monotonic()-start < 120
    assert 'SIGKILL' in done.stderr or 'exitcode:-9' in done.stderr.replace(' ', '')
    assert not (tmp_path/'out.json').exists()
