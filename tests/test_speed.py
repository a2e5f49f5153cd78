"""Fast must not mean different: every shortcut, several processes, sweeps and the benchmark."""
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.optim import SGD

from s5_mnist import benchmark, training
from s5_mnist.benchmark import RUNGS, read_sweep, s5_bench, sweep, sweep_line, time_command
from s5_mnist.data import InputError, loaders, s5_augment
from s5_mnist.model import Net, init_weights
from s5_mnist.training import (evaluate, get_recipe, load_run, make_optimizer, record_steps, s5_train, train,
                               train_epoch)
from s5_mnist.utils import SHORTCUTS, Speed, keep_pages, native_bf16, pick_speed, set_seed

ROOT = Path(__file__).parent.parent
QUICK = dict(device='cpu', precision='float32')


def loss_curve(data, speed, recipe='s5', small=0, device='cpu'):
    "The loss of every batch of an epoch"
    recipe, g = get_recipe(recipe, lr=0.01), torch.Generator().manual_seed(0)
    layout = torch.channels_last if speed.channels_last else torch.contiguous_format
    net = init_weights(Net(), 'orthogonal', g).to(device, memory_format=layout)
    opt, _ = make_optimizer(net, recipe, 1, speed.fused)
    if speed.keep_pages:
        keep_pages()
    dl = loaders(data, bs=32, augment=s5_augment, device=device, generator=g).train
    return torch.tensor([train_epoch(net, [b], opt, precision=speed.precision, small=small)[0] for b in dl])


# --- shortcuts -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('rung', [r for r in RUNGS if r.speed.precision == 'float32'][3:] + [
    RUNGS[-1]._replace(name=f'float32, {s}', speed=Speed(**{s: True})) for s in SHORTCUTS[:3]], ids=lambda r: r.name)
def test_float32_rungs_follow_the_plain_loss_curve(small, rung):
    "An epoch on every float32 rung: the same loss, batch for batch, up to rounding"
    plain, curve = loss_curve(small, Speed()), loss_curve(small, rung.speed)
    assert len(plain) == 10 and plain[-1] < 0.8*plain[0]
    torch.testing.assert_close(curve, plain, rtol=1e-3, atol=1e-4)


def test_bf16_stays_near_the_plain_loss_curve(small):
    plain, curve = loss_curve(small, Speed()), loss_curve(small, RUNGS[-1].speed)
    torch.testing.assert_close(curve, plain, rtol=0.05, atol=0.05)
    assert not curve.equal(plain)


def test_kept_pages_change_no_bit(small):
    assert loss_curve(small, Speed(keep_pages=True)).equal(loss_curve(small, Speed()))


def test_train_takes_what_the_machine_has_and_can_be_overruled(small, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(training, 'keep_pages', lambda: asked.append(1))
    run = train('fast', small, tmp_path/'all', device='cpu')
    cpu = pick_speed(torch.device('cpu'))
    assert run.report['precision'] == ('bf16' if native_bf16(torch.device('cpu')) else 'float32')
    assert {k: run.report[k] for k in cpu._fields} == cpu._asdict() and cpu.channels_last
    assert len(asked) == cpu.keep_pages
    config = json.loads((tmp_path/'all'/'config.json').read_text())
    assert config['channels_last'] and config['fused'] and not config['graphs']
    plain = train('fast', small, tmp_path/'plain', without=','.join(SHORTCUTS), **QUICK)
    assert not any(plain.report[s] for s in SHORTCUTS) and len(asked) == cpu.keep_pages
    assert plain.net.conv2.weight.is_contiguous()
    with pytest.raises(InputError, match="shortcut 'warp' is unknown; leave out some of channels_last"):
        train('fast', small, tmp_path/'x', without='warp')
    assert not (tmp_path/'x').exists()


def test_the_command_prints_its_choices_once(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, 'load_data', lambda *a: small)
    s5_train(device='cpu', precision='float32', without='fused', out=str(tmp_path/'run'))
    printed = capsys.readouterr().out
    speed = str(pick_speed(torch.device('cpu'), 'float32', 'fused'))
    assert printed.count(speed) == 1 and 'channels_last' in speed and 'fused' not in speed


# --- middles first ----------------------------------------------------------------------------------------------

def test_middles_cost_a_third_and_train_the_same_places(small):
    net = init_weights(Net(), 'orthogonal', set_seed(0)).start_small()
    outer = net.fc1.weight.detach().view(50, 256, 4, 4).clone()
    outer[..., 1:3, 1:3] = 0
    assert not outer.any()
    seen = []
    net.register_forward_pre_hook(lambda m, args: seen.append(tuple(args[0].shape[2:])))
    train_epoch(net, loaders(small, bs=100).train, SGD(net.parameters(), lr=0.01), small=2)
    assert seen == [(20, 20), (20, 20), (28, 28)]
    assert net.fc1.weight.detach().view(50, 256, 4, 4)[..., 0, 0].any() # Trained by the last batch


def test_middles_are_the_start_of_the_run_not_of_each_epoch(small, tmp_path, monkeypatch):
    asked = []

    def spy(*args, **kwargs):
        asked.append(kwargs['small'])
        return train_epoch(*args, **kwargs)

    monkeypatch.setattr(training, 'train_epoch', spy)
    train('fast', small, tmp_path/'run', part=1., bs=100, epochs=3, small=0.5, **QUICK) # 9 batches, 4 of them small
    assert asked == [4, 1, -2]


def test_a_middle_batch_leaves_the_outer_weights_alone(small):
    net = init_weights(Net(), 'orthogonal', set_seed(0))
    before = net.fc1.weight.detach().clone().view(50, 256, 4, 4)
    train_epoch(net, loaders(small, bs=100).train, SGD(net.parameters(), lr=0.01), small=3)
    after = net.fc1.weight.detach().view(50, 256, 4, 4)
    assert after[..., 0, :].equal(before[..., 0, :]) and not after[..., 1:3, 1:3].equal(before[..., 1:3, 1:3])


def test_part_draws_other_images_each_epoch(small):
    dl = loaders(small, bs=10, part=0.1).train
    a, b = (torch.cat([x for x, _ in dl]) for _ in range(2))
    assert len(a) == len(b) == 30 and not a.equal(b)


# --- several processes ------------------------------------------------------------------------------------------

def torchrun(*args, processes=2, timeout=240, cwd=None):
    "What torchrun says of a job"
    if sys.platform == 'win32':
        pytest.skip('torchrun is not tried on Windows')
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''}
    return subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes),
                           *map(str, args)], env=env, capture_output=True, text=True, timeout=timeout, cwd=cwd)


@pytest.mark.parametrize('processes', [2, 3])
def test_processes_follow_the_loss_curve_of_one(tmp_path, processes):
    "Ragged batches, and a last batch of one image, of which some processes have none"
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


def test_torchrun_trains_as_one_command_does(tmp_path, small, monkeypatch):
    "The command itself, twice: one folder, one set of lines, the same counts"
    args = ['--data', 'digits', '--recipe', 's5', '--epochs', '1', '--bs', '1000', '--device', 'cpu',
            '--precision', 'float32']
    done = torchrun('-m', 's5_mnist.training', *args, '--out', tmp_path/'two')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [x.split()[0] for x in lines] == ['s5', 'epoch', lines[-1].split()[0]] and 'saved in' in lines[-1]
    alone = subprocess.run([sys.executable, '-m', 's5_mnist.training', *args, '--out', tmp_path/'one'], cwd=ROOT,
                           capture_output=True, text=True)
    assert alone.returncode == 0 and alone.stderr == '' and len(alone.stdout.splitlines()) == 3
    one, two = (load_run(tmp_path/n, 'cpu') for n in ('one', 'two'))
    assert (one.report['processes'], two.report['processes']) == (1, 2)
    a, b = one.history.rows[0], two.history.rows[0]
    assert a['train_n'] == b['train_n'] == 10_000 and a['test_n'] == b['test_n'] == 2000
    for k in ('train_loss', 'test_loss'):
        assert a[k] == pytest.approx(b[k], rel=1e-3)
    assert abs(a['test_correct']-b['test_correct']) <= 10


def test_processes_agree_on_a_folder(tmp_path, small):
    "A new one beside those that are there, finished or not; or all of them refuse"
    train('fast', small, tmp_path/'runs/fast-0', **QUICK)
    shutil.copytree(tmp_path/'runs/fast-0', tmp_path/'runs/fast-0-2')
    (tmp_path/'runs/fast-0-2/report.json').unlink() # As if it had been stopped
    args = ['--data', 'digits', '--bs', '5000', '--device', 'cpu', '--precision', 'float32']
    done = torchrun('-m', 's5_mnist.training', *args, cwd=tmp_path)
    assert done.returncode == 0 and 'saved in runs/fast-0-3' in done.stdout, done.stderr
    assert load_run(tmp_path/'runs/fast-0-3', 'cpu').report['processes'] == 2
    done = torchrun('-m', 's5_mnist.training', *args, '--out', 'runs/fast-0-2', cwd=tmp_path)
    assert done.returncode != 0 and 'or go on with it: s5_train --resume runs/fast-0-2' in done.stderr


def test_a_rank_that_dies_ends_the_job(tmp_path):
    start = time.monotonic()
    done = torchrun(ROOT/'tests'/'ranks.py', tmp_path/'out.json', 'die')
    assert done.returncode != 0 and time.monotonic()-start < 120
    assert 'SIGKILL' in done.stderr or 'exitcode: -9' in done.stderr.replace(' ', '') or 'exitcode  : -9' in done.stderr
    assert not (tmp_path/'out.json').exists()


# --- sweeps -----------------------------------------------------------------------------------------------------

def test_a_sweep_keeps_a_row_a_seed_and_goes_on(small, tmp_path, monkeypatch):
    path, runs = tmp_path/'fast.csv', []
    monkeypatch.setattr(benchmark, 'train', lambda *a, **kw: runs.append(kw['seed']) or train(*a, **kw))
    first = sweep('fast', 1, path, small, **QUICK)
    text = path.read_text()
    rows = sweep('fast', 3, path, small, **QUICK)
    assert runs == [0, 1, 2] and path.read_text().startswith(text) # The first is neither lost nor run again
    assert [r['seed'] for r in rows] == ['0', '1', '2'] and rows[0] == first[0] and read_sweep(path) == rows
    for r in rows:
        assert int(r['first_half'])+int(r['second_half']) == int(r['test_correct']) <= int(r['test_n']) == 130
        assert r['validation_n'] == '' and r['precision'] == 'float32' and r['torch'] == torch.__version__
        assert float(r['seconds']) > 0 and r['data'] == small.name and 'thread' in r['device']
    right = [100*int(r['test_correct'])/130 for r in rows]
    assert sweep_line(rows).startswith(f'test: mean {sum(right)/3:.3f} % (95 % interval ')
    assert ', n = 3;' in sweep_line(rows)


def test_a_sweep_by_validation_never_meets_the_test_set(small, tmp_path):
    rows = sweep('fast', 1, tmp_path/'v.csv', small, valid=100, **QUICK)
    assert rows[0]['validation_n'] == '100' and rows[0]['test_n'] == rows[0]['test_correct'] == ''
    assert sweep_line(rows).startswith('validation: mean ') and 'deviation' not in sweep_line(rows)


def test_a_sweep_refuses_rows_of_another(small, tmp_path):
    path = tmp_path/'fast.csv'
    sweep('fast', 1, path, small, **QUICK)
    before = path.read_bytes()
    for kw in (dict(bs=32), dict(valid=50)):
        with pytest.raises(InputError, match='has rows of fast on generated digits .* with other settings'):
            sweep('fast', 2, path, small, **QUICK, **kw)
    assert path.read_bytes() == before
    for text in ('a,b\n1,2\n', '', before.decode()+'1,2\n', before.decode().replace('fast', 'fast,', 2)):
        path.write_text(text)
        with pytest.raises(InputError, match='is no table of a sweep'):
            sweep('fast', 2, path, small, **QUICK)
    path.write_text(before.decode().replace('"{', '"['))
    with pytest.raises(InputError, match='is no table of a sweep'):
        sweep('fast', 2, path, small, **QUICK)
    with pytest.raises(InputError, match='seeds=0: run at least one'):
        sweep('fast', 0, tmp_path/'new.csv', small)


def test_a_sweep_outlives_a_new_field_with_its_default(small, tmp_path):
    "Rows are compared as recipes, not as text"
    path = tmp_path/'fast.csv'
    first = sweep('fast', 1, path, small, **QUICK)
    path.write_text(path.read_text().replace(', ""sharpen"": 1.0', ''))
    rows = sweep('fast', 2, path, small, **QUICK)
    assert [r['seed'] for r in rows] == ['0', '1'] and 'sharpen' not in rows[0]['settings'] != first[0]['settings']


def test_a_sweep_keeps_its_runs_where_it_is_told(small, tmp_path):
    row, = sweep('fast', 1, tmp_path/'fast.csv', small, keep=tmp_path/'runs', **QUICK)
    assert load_run(tmp_path/'runs/fast-0', 'cpu').report['correct'] == int(row['test_correct'])


# --- the benchmark ----------------------------------------------------------------------------------------------

def test_the_benchmark_measures_all_it_names(tmp_path, capsys):
    s5_bench(data='digits', device='cpu', reps=1, batches=1, jobs=1, out=str(tmp_path/'bench'))
    said = capsys.readouterr().out
    found = json.loads((tmp_path/'bench'/'bench.json').read_text())
    rungs = [r.name for r in RUNGS if r.speed.precision == 'float32' or native_bf16(torch.device('cpu'))]
    assert list(found['epochs']) == rungs
    for name, seconds in found['epochs'].items():
        assert len(seconds) == 1 and 1 < seconds[0] < 3600, name
        assert said.count(name) >= 2
    assert found['work'] == benchmark.training_work() and found['peaks']['float32'][0] > 1e9
    assert found['jobs'][0]['n'] == 2000 and found['jobs'][0]['wall'] > found['jobs'][0]['seconds']
    assert found['jobs'][0]['peak_bytes'] > 200e6
    assert all(v[0] > 0 for part in ('inference', 'startup') for v in found[part].values())
    with open(tmp_path/'bench'/'bench.csv') as f:
        rows = list(csv.DictReader(f))
    assert {r['part'] for r in rows} == {'epochs', 'peaks', 'inference', 'startup', 'scoring', 'job'}
    assert (tmp_path/'bench'/'ladder.png').stat().st_size > 5000


@pytest.mark.parametrize('kw, said', [(dict(reps=0), 'reps=0: give 1 to'), (dict(batches=0), 'batches=0: give 1 to'),
                                      (dict(jobs=-1), 'jobs=-1: give 0 to'), (dict(out=__file__), 'is a file'),
                                      (dict(recipe='slow'), "recipe 'slow' is unknown")])
def test_the_benchmark_refuses_before_it_measures(kw, said, capsys):
    with pytest.raises(SystemExit):
        s5_bench(data='digits', device='cpu', **{'jobs': 0, **kw})
    assert said in capsys.readouterr().err


def test_a_failed_command_is_no_measurement():
    with pytest.raises(InputError, match='(?s)failed: .*ModuleNotFoundError'):
        time_command('-c', 'import nothing_of_this_name')


# --- CUDA -------------------------------------------------------------------------------------------------------

@pytest.mark.cuda
def test_recorded_steps_follow_the_eager_ones(small):
    "Two shapes and a ragged batch, which runs as before"
    curves = []
    for graphs in (False, True):
        g = torch.Generator('cuda').manual_seed(0)
        net = init_weights(Net(), 'orthogonal', torch.Generator().manual_seed(0)).cuda().to(memory_format=torch.channels_last)
        if graphs:
            record_steps(net.train(), [(32, 1, 28, 28), (32, 1, 20, 20)], 'float32')
        opt = SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
        dl = loaders(small, bs=32, augment=s5_augment, device='cuda', generator=g).train
        curves.append([train_epoch(net, [b], opt, small=i % 2)[0] for i, b in enumerate(dl)])
        score = evaluate(net, loaders(small, device='cuda').test)
        assert score.n == 130
    assert curves[1] == pytest.approx(curves[0], rel=1e-2)


@pytest.mark.cuda
def test_an_epoch_never_waits_for_the_gpu(small):
    "From the second batch to the last, CUDA is told to refuse whatever synchronises"
    def watched(dl):
        for i, batch in enumerate(dl):
            if i == 1:
                torch.cuda.set_sync_debug_mode('error')
            yield batch
        torch.cuda.set_sync_debug_mode('default')

    for recipe in ('s5', 'fast'):
        recipe = get_recipe(recipe)
        net = Net().cuda().to(memory_format=torch.channels_last)
        opt, sched = make_optimizer(net, recipe, 10, fused=True)
        g = torch.Generator('cuda').manual_seed(0)
        dl = loaders(small, 32, training.AUGMENTS[recipe.augment], device='cuda', generator=g).train
        try:
            train_epoch(net, watched(dl), opt, sched, precision='bf16')
        finally:
            torch.cuda.set_sync_debug_mode('default')


@pytest.mark.cuda
def test_train_on_cuda_learns_what_it_learns_elsewhere(small, tmp_path):
    fast, plain = (train('fast', small, tmp_path/n, device='cuda', bs=32, lr=0.02, epochs=3, without=w)
                   for n, w in (('fast', ''), ('plain', ','.join(SHORTCUTS))))
    assert fast.report['graphs'] and not plain.report['graphs'] and 'forward' not in vars(fast.net)
    assert fast.history.train_losses[-1] == pytest.approx(plain.history.train_losses[-1], abs=0.2)
