"""Runs: a folder that tells the truth, the same result from the same seed, and interruptions that cost nothing.
What takes other processes to test is in test_survival.py and test_distributed.py."""
import csv
import errno
import itertools
import json
import os
import shutil
import signal
import threading

import pytest
import survival
import torch
from conftest import QUICK, flat
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from survival import same_run
from systems import posix

from s5_mnist import runs
from s5_mnist.checkpoints import load_checkpoint
from s5_mnist.core import InputError
from s5_mnist.data import DigitData, loaders
from s5_mnist.device import COMPUTE_OPTIONS, native_bf16, pick_compute_options
from s5_mnist.model import Net
from s5_mnist.recipes import RECIPES, Recipe, StagedNet, build_training, get_recipe, make_optimizer
from s5_mnist.runs import Run, Stopped, dataset_kind, describe_score, load_run, resume, run_versions, train
from s5_mnist.training import EpochState, evaluate
from s5_mnist.utils import set_seed


# --- how long it takes ------------------------------------------------------------------------------------------

@pytest.mark.parametrize('pace, said', [(.1, None), (1., 'about 50 seconds in all'), (60., 'about 47 minutes in all')])
def test_a_long_run_says_what_it_will_take(monkeypatch, capsys, small, pace, said):
    "From the pace of its first steps, here by a clock that only they move"
    clock = itertools.count(step=pace)
    monkeypatch.setattr(runs.time, 'perf_counter', lambda: next(clock))
    recipe = get_recipe('s5', epochs=2, bs=20)
    parts = build_training(recipe, small, torch.device('cpu'), pick_compute_options(torch.device('cpu'), 'float32'))
    net = StagedNet(parts.net, recipe, recipe.epochs*len(parts.dls.train))
    runs._announce_duration(net, recipe, parts.dls)
    for step in range(25):
        net(torch.zeros(1, 1, 28, 28))
    assert capsys.readouterr().out.splitlines() == ([said] if said else []) # 30 steps, and the scoring


# --- the same again ---------------------------------------------------------------------------------------------

def test_the_same_seed_gives_the_same_weights(small, tmp_path):
    done = [train('fast', small, tmp_path/str(i), seed=seed, **QUICK) for i, seed in enumerate((4, 4, 5))]
    a, b, c = (flat(load_run(r.path, 'cpu').net) for r in done)
    assert a.equal(b) and not a.equal(c)
    assert {k: v for k, v in done[0].report.items() if k != 'seconds'} == \
        {k: v for k, v in done[1].report.items() if k != 'seconds'}


def test_the_global_generators_are_neither_used_nor_needed(small, tmp_path):
    torch.manual_seed(1)
    a = train('s5', small, tmp_path/'a', epochs=1, **QUICK)
    torch.rand(17)
    b = train('s5', small, tmp_path/'b', epochs=1, **QUICK)
    assert flat(a.net).equal(flat(b.net))


# --- the folder -------------------------------------------------------------------------------------------------

def test_folder(small_run, small):
    run = small_run
    assert sorted(os.listdir(run.path)) == ['config.json', 'curves.png', 'history.csv', 'last.ckpt',
                                            'model.safetensors', 'report.json']
    config, report = (json.loads((run.path/f'{n}.json').read_text()) for n in ('config', 'report'))
    assert Recipe(**config['recipe']) == run.recipe and config['data'] == small.name and config['version'] == 2
    rows = list(csv.DictReader(open(run.path/'history.csv')))
    assert [r['epoch'] for r in rows] == ['1', '2'] and rows[-1]['train_n'] == '126' # 0.7 of 180
    score = evaluate(run.net, loaders(small).test)
    assert (report['correct'], report['n']) == (score.correct, 130) == (int(rows[-1]['test_correct']), 130)
    assert report['halves'] == [[65-(score.wrong < 65).sum().item(), 65], [65-(score.wrong >= 65).sum().item(), 65]]
    assert report['changes'] == {'epochs': 2, 'lr': 0.02} and report['seed'] == 6
    assert report['held_out'] == f'{small.name}, test images' and report['seconds'] > 0
    assert report['versions'] == run_versions() and report['processes'] == 1
    assert (run.path/'curves.png').read_bytes().startswith(b'\x89PNG')
    assert not run.net.training and repr(run) == f'Run({run.path}: {score.correct}/130)'


def test_a_result_is_described_with_what_it_belongs_to(small_run):
    s = small_run.history.score
    assert describe_score(s, 'these', small_run.report) == f'{s} of these; recipe fast, epochs=2, lr=0.02, seed=6'


def test_weights_carry_the_report(small_run):
    with safe_open(small_run.path/'model.safetensors', 'pt') as f:
        report = json.loads(f.metadata()['report'])
    assert len(report.pop('sha256')) == 64 and report == json.loads(json.dumps(small_run.report))
    state = load_file(small_run.path/'model.safetensors')
    assert torch.cat([state[k].flatten() for k, _ in small_run.net.named_parameters()]).equal(flat(small_run.net))


def test_load_run(small_run):
    again = load_run(small_run.path, 'cpu')
    assert isinstance(again, Run) and flat(again.net).equal(flat(small_run.net)) and again.recipe == small_run.recipe
    assert again.history.rows == small_run.history.rows and again.report == json.loads(json.dumps(small_run.report))
    assert not again.net.training and load_run(str(small_run.path), 'cpu').recipe == again.recipe


def test_the_last_checkpoint_is_of_the_last_epoch(small_run):
    net, g = Net(), set_seed(0)
    hist = load_checkpoint(small_run.path/'last.ckpt', net, *make_optimizer(net, small_run.recipe, 5), g)
    assert flat(net).equal(flat(small_run.net)) and hist.rows == small_run.history.rows


def swap(path, a, b, cut=0):
    "Replace some text in a file, or cut lines off its end"
    text = path.read_text()
    assert a in text
    path.write_text(''.join(text.replace(a, b, 1).splitlines(True)[:-cut or None]))


def flip(path, at):
    "Flip one bit of a file"
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize('change, message', [
    (lambda d: (d/'report.json').write_text('{}'), 'report.json: recipe must be text, got nothing'),
    (lambda d: (d/'config.json').unlink(), 'config.json does not exist; check the path'),
    (lambda d: (d/'config.json').write_text('{'), 'config.json is damaged'),
    (lambda d: (d/'config.json').write_bytes(b'\xff\xfe'), 'config.json is damaged'),
    (lambda d: (d/'config.json').write_text('[]'), 'config.json must be an object, got'),
    (lambda d: (d/'config.json').write_text('{"version": 3}'), 'config.json must be in format 2, found format 3'),
    (lambda d: (d/'config.json').write_text('{"version": 1, "recipe": {}}'), 'found format 1; s5_mnist 0.1.0 reads it'),
    (lambda d: (d/'config.json').write_text('{"version": 2}'), 'config.json: recipe must be an object, got nothing'),
    (lambda d: (d/'config.json').write_text('{"version": 2, "data": "x", "recipe": {"speed": 3}}'),
     "must be one of .*, got 'speed'"),
    (lambda d: swap(d/'config.json', '"bs": 128', '"bs": 64'), 'config.json does not belong to model.safetensors'),
    (lambda d: swap(d/'config.json', '"fused": true', '"fused": "no"'),
     "fused must be True or False, got 'no'"),
    (lambda d: swap(d/'config.json', '"seed": 6', '"seed": 7'), 'config.json does not belong to model.safetensors'),
    (lambda d: swap(d/'report.json', '"correct": ', '"correct": 1'),
     'report.json does not belong to model.safetensors'),
    (lambda d: swap(d/'history.csv', ',126,', ',126,', cut=1), 'history.csv does not belong to model.safetensors'),
    (lambda d: flip(d/'model.safetensors', -1000), 'model.safetensors is damaged: its checksum'),
    (lambda d: flip(d/'model.safetensors', 300), 'model.safetensors'),
    (lambda d: (d/'config.json').write_text('{"version": 2, "data": "x", "recipe": {"bs": "x"}}'),
     "bs must be an integer between .*, got 'x'"),
    (lambda d: (d/'history.csv').write_text('epoch\nx'), 'history.csv: row 1: epoch must be an integer'),
    (lambda d: (d/'history.csv').unlink(), 'history.csv does not exist'),
    (lambda d: (d/'report.json').unlink(), 'is not finished; continue with: s5_train --resume'),
    (lambda d: (d/'model.safetensors').unlink(), 'model.safetensors does not exist'),
    (lambda d: (d/'model.safetensors').write_bytes(b'junk'), 'model.safetensors is not a safetensors file'),
    (lambda d: save_file({'a': torch.zeros(2)}, d/'model.safetensors'), 'is of another model'),
    (lambda d: save_file({k: v*float('nan') for k, v in Net().state_dict().items()}, d/'model.safetensors'),
     'weights must be finite'),
])
def test_a_damaged_folder_is_refused(run_copy, change, message):
    change(run_copy)
    with pytest.raises(InputError, match=message):
        load_run(run_copy, 'cpu')


def test_a_folder_with_a_run_is_left_alone(run_copy, small):
    before = {n: (run_copy/n).read_bytes() for n in os.listdir(run_copy)}
    with pytest.raises(InputError, match='copy must be empty, found files in it; choose another folder$'):
        train('fast', small, run_copy, **QUICK)
    assert before == {n: (run_copy/n).read_bytes() for n in os.listdir(run_copy)}
    (run_copy/'report.json').unlink()
    with pytest.raises(InputError, match='or continue the run in it: s5_train --resume .*copy$'):
        train('fast', small, run_copy, **QUICK)


def test_nothing_of_somebody_else_s_is_overwritten(small, tmp_path):
    (tmp_path/'report.json').write_text('mine')
    with pytest.raises(InputError, match='must be empty, found files in it; choose another folder'):
        train('fast', small, tmp_path, **QUICK)
    assert (tmp_path/'report.json').read_text() == 'mine' and os.listdir(tmp_path) == ['report.json']


def test_default_folders_are_new(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(train('fast', small, seed=1, bs=150, **QUICK).path) for _ in range(3)] == \
        ['runs/fast-1', 'runs/fast-1-2', 'runs/fast-1-3']


def test_unwritable_folder(small, tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(InputError, match='run must be a folder, but .*; name another folder'):
        train('fast', small, tmp_path/'file'/'run', **QUICK)


def test_validation_leaves_the_test_set_alone(small, tmp_path):
    "With n_valid, the report is about the last training images, and the test images are never looked at"
    poisoned = DigitData(*small[:2], torch.zeros_like(small.test_x), small.test_y, small.name)
    a, b = (train('fast', d, tmp_path/n, n_valid=100, **QUICK) for n, d in (('a', small), ('b', poisoned)))
    assert a.report['held_out'] == f'{small.name}, last 100 training images'
    assert a.report['n'] == 100 and a.history.rows[-1]['train_n'] == 84 # 0.7 of 120
    assert a.report['correct'] == b.report['correct'] and a.report['loss'] == b.report['loss']
    assert 'validation_n' in a.history.rows[0] and 'test_n' not in a.history.rows[0]
    assert load_run(a.path, 'cpu').history.test_acc == a.history.test_acc == [a.report['accuracy']]


# --- how it is computed -----------------------------------------------------------------------------------------

def test_train_uses_what_the_machine_has_unless_it_is_disabled(small, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(runs, 'retain_freed_memory', lambda: calls.append(1))
    run = train('fast', small, tmp_path/'all', device='cpu')
    cpu = pick_compute_options(torch.device('cpu'))
    assert run.report['precision'] == ('bf16' if native_bf16(torch.device('cpu')) else 'float32')
    assert {k: run.report[k] for k in cpu._fields} == cpu._asdict() and cpu.channels_last
    assert len(calls) == cpu.retain_freed_memory
    config = json.loads((tmp_path/'all'/'config.json').read_text())
    assert config['channels_last'] and config['fused'] and not config['deterministic']
    plain = train('fast', small, tmp_path/'plain', disable=','.join(COMPUTE_OPTIONS), **QUICK)
    assert not any(plain.report[s] for s in COMPUTE_OPTIONS) and len(calls) == cpu.retain_freed_memory
    assert plain.net.conv2.weight.is_contiguous()
    with pytest.raises(InputError, match="must name some of channels_last, retain_freed_memory, fused, got 'warp'"):
        train('fast', small, tmp_path/'x', disable='warp')
    assert not (tmp_path/'x').exists()


def test_the_options_are_printed_once(small, tmp_path, capsys):
    train('fast', small, tmp_path/'run', disable='fused', **QUICK)
    printed = capsys.readouterr().out
    options = str(pick_compute_options(torch.device('cpu'), 'float32', 'fused'))
    assert printed.count(options) == 1 and 'channels_last' in options and 'fused' not in options
    assert printed.splitlines()[0] == f'fast on {small.name}'


def test_deterministic_ends_with_the_run(small, tmp_path):
    run = train('fast', small, tmp_path/'run', deterministic=True, **QUICK)
    assert run.report['deterministic'] and not torch.are_deterministic_algorithms_enabled()


# --- interruptions ----------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The folder of a run that was never interrupted"
    path = tmp_path_factory.mktemp('whole')/'run'
    return train('fast', survival.digits(), path, save_interval_s=1e9, **QUICK, **survival.CHANGES).path


def stop_at(monkeypatch, *at, number=signal.SIGINT):
    "Send this process a signal after so many epochs and steps"
    add = EpochState.add

    def add_and_signal(state, *args):
        add(state, *args)
        if (state.epoch, state.step) == at:
            signal.raise_signal(number)
    monkeypatch.setattr(EpochState, 'add', add_and_signal)


@posix('SIGINT that arrives where it is raised')
def test_stopped_three_times_and_resumed_it_is_the_same(whole, tmp_path):
    "Within the first epoch, within the second after it was resumed, and at its last but one batch"
    digits, before = survival.digits(), signal.getsignal(signal.SIGINT)
    for k, at in enumerate([(1, 3), (2, 2), (2, 9)]):
        with pytest.MonkeyPatch.context() as m:
            stop_at(m, *at)
            with pytest.raises(Stopped, match='stopped; continue with: s5_train --resume .*run') as stopped:
                if k: resume(tmp_path/'run', digits, device='cpu')
                else: train('fast', digits, tmp_path/'run', **QUICK, **survival.CHANGES)
        assert stopped.value.signal_number == signal.SIGINT and isinstance(stopped.value, KeyboardInterrupt)
        with pytest.raises(InputError, match='is not finished; continue with: s5_train --resume .*run'):
            load_run(tmp_path/'run')
    resume(tmp_path/'run', digits, device='cpu')
    assert same_run(whole, tmp_path/'run') and signal.getsignal(signal.SIGINT) is before


def test_saving_changes_nothing(whole, tmp_path):
    "A checkpoint after each batch, or none within an epoch"
    run = train('fast', survival.digits(), tmp_path/'run', save_interval_s=0., **QUICK, **survival.CHANGES)
    assert same_run(whole, run.path)


def test_a_run_in_a_thread_leaves_signals_alone(small, tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(train('fast', small, tmp_path/'run', bs=200, **QUICK)))
    thread.start()
    thread.join()
    assert done and load_run(tmp_path/'run', 'cpu').report['n'] == 130


def stopped_run(path, **changes):
    "A run that was stopped after its last epoch, before its end"
    with pytest.MonkeyPatch.context() as m:
        m.setattr(runs, '_save_run', lambda run: run)
        train('fast', survival.digits(), path, **QUICK, **{**dict(bs=100), **changes})
    return path


def test_a_folder_in_use_is_refused(small, tmp_path):
    stopped_run(tmp_path/'run')
    with FileLock(tmp_path/'run'/'.lock'):
        with pytest.raises(InputError, match='run is in use by another process'):
            resume(tmp_path/'run', small, device='cpu')
    assert resume(tmp_path/'run', small, device='cpu').report['n'] == 130


def test_a_finished_run_is_not_resumed(run_copy, small):
    before = {p.name: p.read_bytes() for p in run_copy.iterdir()}
    with pytest.raises(InputError, match='copy is finished; s5_eval scores it, load_run loads it'):
        resume(run_copy, small, device='cpu')
    assert before == {p.name: p.read_bytes() for p in run_copy.iterdir()} and '.lock' not in before


def test_a_folder_without_a_run_is_not_resumed(small, tmp_path):
    with pytest.raises(InputError, match='nothing is not a run; name the folder of a stopped run'):
        resume(tmp_path/'nothing', small)
    assert not (tmp_path/'nothing').exists()


def test_files_of_another_run_are_refused(small, tmp_path):
    a, b = stopped_run(tmp_path/'a'), stopped_run(tmp_path/'b', seed=1)
    shutil.copy(b/'last.ckpt', a/'last.ckpt')
    with pytest.raises(InputError, match='last.ckpt belongs to another run: expected seed=.*, found '):
        resume(a, small, device='cpu')
    data = (b/'last.ckpt').read_bytes()
    (b/'last.ckpt').write_bytes(data[:-1])
    with pytest.raises(InputError, match='last.ckpt is damaged: its checksum does not match its content'):
        resume(b, small, device='cpu')
    with pytest.raises(InputError, match='b needs the data it started with: expected generated .*, found others'):
        resume(b, small._replace(name='others'), device='cpu')
    with pytest.raises(InputError, match="b was trained on 'generated digits .*', which cannot be loaded by name"):
        resume(b, device='cpu')


def test_data_sets_that_can_be_loaded_by_name():
    assert [dataset_kind(n, 'x') for n in ('MNIST', 'generated digits')] == ['mnist', 'digits']
    for name in ('mine', None, ''):
        message = f'x was trained on {name!r}, which cannot be loaded by name; choose a data set'
        with pytest.raises(InputError, match=message):
            dataset_kind(name, 'x')


@pytest.mark.parametrize('fault', [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_costs_no_training_and_no_checkpoint(fault, small, tmp_path, monkeypatch, capfd):
    "The second save fails, and leaves the first checkpoint complete; the third works again"
    save, calls = runs.save_checkpoint, []

    def full(path, net, opt, sched, generator, hist, **kwargs):
        calls.append(len(hist.rows))
        if len(calls) == 2: raise OSError(fault, os.strerror(fault), str(path))
        if len(calls) == 3:
            other, g = Net(), torch.Generator()
            assert len(load_checkpoint(path, other, *make_optimizer(other, RECIPES['fast'], 2), g).rows) == 1
        save(path, net, opt, sched, generator, hist, **kwargs)
    monkeypatch.setattr(runs, 'save_checkpoint', full)
    run = train('fast', small, tmp_path/'run', epochs=3, **QUICK)
    assert calls == [1, 2, 3] and len(load_run(run.path, 'cpu').history.rows) == 3
    assert f'not saved, continuing: [Errno {fault}] {os.strerror(fault)}' in capfd.readouterr().err


@posix('removing a folder that holds an open file')
def test_a_folder_that_vanishes_comes_back(small, tmp_path, monkeypatch):
    save = runs.save_history

    def vanish(hist, path):
        if len(hist.rows) == 1: shutil.rmtree(tmp_path/'run')
        save(hist, path)
    monkeypatch.setattr(runs, 'save_history', vanish)
    run = train('fast', small, tmp_path/'run', epochs=3, **QUICK)
    assert len(load_run(run.path, 'cpu').history.rows) == 3


def test_a_training_that_diverges_keeps_the_checkpoint_before(small, tmp_path):
    with pytest.raises(InputError, match='the loss is .*; .*last.ckpt holds the last good state'):
        train('s5', small, tmp_path/'run', epochs=9, lr=300., save_interval_s=0., **QUICK)
    other, g = Net(), torch.Generator()
    opt, sched = make_optimizer(other, RECIPES['s5'], 1)
    load_checkpoint(tmp_path/'run'/'last.ckpt', other, opt, sched, g, loaders(small).train)
    assert all(p.isfinite().all() for p in other.parameters())


def test_the_save_interval_has_a_range(small, tmp_path):
    for interval in (-1., float('nan')):
        with pytest.raises(InputError, match=f'save_interval_s must be a number between 0 and .*, got {interval}'):
            train('fast', small, tmp_path/str(interval), save_interval_s=interval, **QUICK)
        assert not (tmp_path/str(interval)).exists()


# --- CUDA -------------------------------------------------------------------------------------------------------

@pytest.mark.cuda
def test_on_cuda(small, tmp_path):
    "The same batches, and a result close to the CPU's"
    a, b = (train('fast', small, tmp_path/d, bs=16, device=d, precision='float32') for d in ('cpu', 'cuda'))
    assert a.history.train_losses[0] == pytest.approx(b.history.train_losses[0], rel=0.05)


@pytest.mark.cuda
def test_with_all_options_on_cuda_it_learns_the_same(small, tmp_path):
    fast, plain = (train('fast', small, tmp_path/n, device='cuda', bs=32, lr=0.02, epochs=3, disable=d)
                   for n, d in (('fast', ''), ('plain', ','.join(COMPUTE_OPTIONS))))
    assert fast.report['fused'] and not plain.report['fused']
    assert fast.history.train_losses[-1] == pytest.approx(plain.history.train_losses[-1], abs=0.2)
