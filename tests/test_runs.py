"""Runs: weights, a folder that tells the truth, the same result from the same seed, interruptions that cost little, and
the network in the package. What takes other processes to test is in test_survival.py and test_distributed.py."""
import csv
import itertools
import json
import os
import shutil

import pytest
import survival
import torch
from conftest import QUICK, ROOT, flat
from safetensors.torch import load_file, save_file
from survival import same_run
from torch.optim.optimizer import register_optimizer_step_post_hook

from s5_mnist import runs
from s5_mnist.data import DigitData, generated_data, loaders
from s5_mnist.device import COMPUTE_OPTIONS, native_bf16, pick_compute_options
from s5_mnist.model import Net, init_weights
from s5_mnist.recipes import Recipe, StagedNet, build_training, get_recipe
from s5_mnist.runs import (PRETRAINED, Run, describe_score, load_history, load_network, load_pretrained, load_run,
                           load_weights, pretrained_report, read_weights, resume, save_pretrained, save_weights, train)
from s5_mnist.sweeps import read_sweep
from s5_mnist.training import evaluate
from s5_mnist.utils import set_seed


# --- weights ----------------------------------------------------------------------------------------------------

def test_weights_come_back_with_their_report(tmp_path):
    net = init_weights(Net(), generator=set_seed(0))
    save_weights(net, tmp_path/'w', dict(n=3))
    state, report = read_weights(tmp_path/'w')
    assert report == dict(n=3) and all(v.equal(state[k]) for k, v in net.state_dict().items())
    save_weights(net.half(), tmp_path/'half', {})
    assert {v.dtype for v in load_file(tmp_path/'half').values()} == {torch.float16}
    assert flat(load_weights(Net(), tmp_path/'half')).equal(flat(net).float())


def test_files_without_our_weights_are_refused(tmp_path):
    (tmp_path/'junk').write_bytes(b'junk')
    save_weights(Net(), tmp_path/'cut', {})
    (tmp_path/'cut').write_bytes((tmp_path/'cut').read_bytes()[:-1])
    save_file({'fc2.bias': torch.zeros(11)}, tmp_path/'other')
    for name, word in dict(junk='safetensors', cut='safetensors', other='another network', none='must be a file').items():
        with pytest.raises(ValueError, match=f'{name}.*{word}'):
            load_weights(Net(), tmp_path/name)


# --- the same again ---------------------------------------------------------------------------------------------

def test_the_same_seed_gives_the_same_run_whatever_the_global_generators_do(small, tmp_path):
    done = []
    for i, seed in enumerate((4, 4, 5)):
        torch.manual_seed(i)
        done.append(train('best', small, tmp_path/str(i), epochs=1, bs=100, seed=seed, **QUICK))
    assert same_run(done[0].path, done[1].path) and not flat(done[0].net).equal(flat(done[2].net))


# --- the folder -------------------------------------------------------------------------------------------------

def test_folder(small_run, small):
    run = small_run
    assert sorted(os.listdir(run.path)) == ['config.json', 'curves.png', 'history.csv', 'last.pt',
                                            'model.safetensors', 'report.json']
    config, report = (json.loads((run.path/f'{n}.json').read_text()) for n in ('config', 'report'))
    assert Recipe(**config['recipe']) == run.recipe and config['data'] == small.name
    rows = list(csv.DictReader(open(run.path/'history.csv')))
    assert [r['epoch'] for r in rows] == ['1', '2'] and rows[-1]['train_n'] == '126' # 0.7 of 180
    score = evaluate(run.net, loaders(small).test)
    assert (report['correct'], report['n']) == (score.correct, 130) == (int(rows[-1]['test_correct']), 130)
    assert report['halves'] == [[65-(score.wrong < 65).sum().item(), 65], [65-(score.wrong >= 65).sum().item(), 65]]
    assert report['changes'] == {'epochs': 2, 'lr': 0.02} and report['seed'] == 6
    assert report['held_out'] == f'{small.name}, test images' and report['seconds'] > 0 and report['processes'] == 1
    assert (run.path/'curves.png').read_bytes().startswith(b'\x89PNG')
    line = describe_score(run.history.score, 'these', report)
    assert line == f'{run.history.score} of these; recipe fast, epochs=2, lr=0.02, seed=6'


def test_load_run(small_run):
    again = load_run(str(small_run.path), 'cpu')
    assert isinstance(again, Run) and flat(again.net).equal(flat(small_run.net)) and again.recipe == small_run.recipe
    assert again.history.rows == small_run.history.rows and again.report == json.loads(json.dumps(small_run.report))
    assert not again.net.training and read_weights(again.path/'model.safetensors')[1] == again.report


@pytest.mark.parametrize('name, content, word', [
    ('config.json', None, 'config.json'), ('config.json', b'{', 'damaged'), ('config.json', b'{}', 'version'),
    ('config.json', b'{"recipe": {"speed": 3}}', 'version'), ('history.csv', None, 'history.csv'),
    ('history.csv', b'epoch\nx', 'invalid'), ('history.csv', b'epoch\n1,2\n', 'damaged'),
    ('report.json', None, 'not finished'), ('model.safetensors', b'junk', 'safetensors')])
def test_a_damaged_folder_is_refused(run_copy, name, content, word):
    if content is None: (run_copy/name).unlink()
    else: (run_copy/name).write_bytes(content)
    with pytest.raises(ValueError, match=word):
        load_run(run_copy, 'cpu')


def test_a_folder_with_files_is_left_alone(run_copy, small):
    before = {p.name: p.read_bytes() for p in run_copy.iterdir()}
    with pytest.raises(ValueError, match='must be empty.*folder$'):
        train('fast', small, run_copy, **QUICK)
    with pytest.raises(ValueError, match='finished'):
        resume(run_copy, small, device='cpu')
    assert before == {p.name: p.read_bytes() for p in run_copy.iterdir()}
    (run_copy/'report.json').unlink()
    with pytest.raises(ValueError, match='--resume .*copy$'):
        train('fast', small, run_copy, **QUICK)


def test_default_folders_are_new(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(train('fast', small, seed=1, bs=150, **QUICK).path) for _ in range(3)] == \
        ['runs/fast-1', 'runs/fast-1-2', 'runs/fast-1-3']


def test_validation_leaves_the_test_set_alone(small, tmp_path, capsys):
    "With n_valid, all that is said is about the last training images, and the test images are never looked at"
    poisoned = DigitData(*small[:2], torch.zeros_like(small.test_x), small.test_y, small.name)
    a, b = (train('fast', d, tmp_path/n, n_valid=100, **QUICK) for n, d in (('a', small), ('b', poisoned)))
    assert a.report['held_out'] == f'{small.name}, last 100 training images' and a.report['n'] == 100
    assert a.report['loss'] == b.report['loss'] and a.history.rows[-1]['train_n'] == 84 # 0.7 of 120
    assert 'validation_n' in (a.path/'history.csv').read_text() and 'test' not in (a.path/'history.csv').read_text()
    assert 'validation loss' in (said := capsys.readouterr().out) and 'test loss' not in said
    assert load_run(a.path, 'cpu').history.rows == a.history.rows and a.history.test_acc == [a.report['accuracy']]


def test_a_run_reads_pictures(small_run, small):
    assert small_run.predict(small.test_x[0]).digit in range(10)


# --- how it is computed -----------------------------------------------------------------------------------------

def test_train_uses_what_the_machine_has_unless_it_is_disabled(small, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(runs, 'retain_freed_memory', lambda: calls.append(1))
    run = train('fast', small, tmp_path/'all', device='cpu', deterministic=True)
    cpu = pick_compute_options(torch.device('cpu'), deterministic=True)
    assert run.report['precision'] == ('bf16' if native_bf16(torch.device('cpu')) else 'float32')
    assert {k: run.report[k] for k in cpu._fields} == cpu._asdict() and cpu.channels_last
    assert len(calls) == cpu.retain_freed_memory and not torch.are_deterministic_algorithms_enabled()
    assert capsys.readouterr().out.count(str(cpu)) == 1
    plain = train('fast', small, tmp_path/'plain', disable=','.join(COMPUTE_OPTIONS), **QUICK)
    assert not any(plain.report[s] for s in COMPUTE_OPTIONS) and len(calls) == cpu.retain_freed_memory
    with pytest.raises(ValueError, match='warp'):
        train('fast', small, tmp_path/'x', disable='warp')
    assert not (tmp_path/'x').exists()


@pytest.mark.parametrize('pace, said', [(.1, None), (1., 'about 30 seconds in all'), (60., 'about 34 minutes in all')])
def test_a_long_run_says_what_it_will_take(monkeypatch, capsys, small, pace, said):
    "From the pace of its first steps, here by a clock that only they move"
    clock = itertools.count(step=pace)
    monkeypatch.setattr(runs.time, 'perf_counter', lambda: next(clock))
    recipe = get_recipe('s5', epochs=2, bs=20)
    parts = build_training(recipe, small)
    net = StagedNet(parts.net, recipe, recipe.epochs*len(parts.dls.train))
    runs._announce_duration(net, recipe, parts.dls)
    for step in range(25):
        net(torch.zeros(1, 1, 28, 28))
    assert capsys.readouterr().out.splitlines() == ([said] if said else []) # 30 steps, and the scoring


# --- interruptions ----------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The folder of a run that was left alone"
    return train('best', survival.digits(), tmp_path_factory.mktemp('whole')/'run', **survival.CHANGES).path


def press_ctrl_c(after):
    "Raise what Ctrl-C raises, after so many steps from now"
    left = iter(range(after-1, -1, -1))

    def count(*_):
        if not next(left):
            handle.remove()
            raise KeyboardInterrupt
    handle = register_optimizer_step_post_hook(count)


def test_interrupted_four_times_and_resumed_it_is_the_same(whole, tmp_path, capsys):
    "In its first epoch, which starts again, and, of 6 steps each, in the second, the third and the mild one"
    for i, after in enumerate((3, 7, 8, 9)):
        press_ctrl_c(after)
        with pytest.raises(KeyboardInterrupt):
            if i: resume(tmp_path/'run', survival.digits(), device='cpu')
            else: train('best', survival.digits(), tmp_path/'run', **survival.CHANGES)
        assert capsys.readouterr().err.endswith(f'continue with: s5_train --resume {tmp_path/"run"}\n')
    assert len(load_history(tmp_path/'run'/'history.csv').rows) == 3
    resume(tmp_path/'run', survival.digits(), device='cpu')
    assert same_run(whole, tmp_path/'run')


def test_a_run_that_lacks_only_its_report_is_finished(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path/'run')
    for name in ('report.json', 'model.safetensors', 'curves.png'): (run/name).unlink()
    resume(run, survival.digits(), device='cpu')
    assert same_run(whole, run)


class Evil:
    "An object that runs a command when it is unpickled without care"
    def __init__(self, path): self.path = path

    def __reduce__(self): return os.system, (f'touch {self.path}',)


def test_what_cannot_be_resumed_says_why(whole, tmp_path, small):
    run = shutil.copytree(whole, tmp_path/'run')
    (run/'report.json').unlink()
    with pytest.raises(ValueError, match='expected generated .*, found others'):
        resume(run, small._replace(name='others'), device='cpu')
    good = (run/'last.pt').read_bytes()
    torch.save(Evil(tmp_path/'ran'), tmp_path/'evil')
    for bad in (good[:-1], b'', (tmp_path/'evil').read_bytes()):
        (run/'last.pt').write_bytes(bad)
        with pytest.raises(ValueError, match='last.pt is damaged'):
            resume(run, survival.digits(), device='cpu')
    assert not (tmp_path/'ran').exists()
    with pytest.raises(ValueError, match='nothing'):
        resume(tmp_path/'nothing', small)
    assert not (tmp_path/'nothing').exists()


def test_a_run_that_diverges_says_so(small, tmp_path):
    with pytest.raises(ValueError, match='lower the learning rate'):
        train('s5', small, tmp_path/'run', epochs=9, bs=30, lr=300., **QUICK)
    assert not (tmp_path/'run'/'model.safetensors').exists()


# --- the network in the package ---------------------------------------------------------------------------------

def test_the_network_in_the_package_says_what_it_is():
    net, report = load_pretrained(), pretrained_report()
    assert isinstance(net, Net) and not net.training and {p.dtype for p in net.parameters()} == {torch.float32}
    assert report['recipe'] == 'best' and report['changes'] == {} and report['held_out'] == 'MNIST, test images'
    row, = (r for r in read_sweep(ROOT/'nbs/runs/best.csv') if int(r['seed']) == report['seed'])
    assert int(row['test_correct']) == report['correct_in_training'] and report['versions']['s5_mnist']


@pytest.mark.slow
@pytest.mark.mnist
def test_the_network_in_the_package_scores_what_it_says(mnist):
    net, report, data = load_network('pretrained', 'cpu')
    score = evaluate(net, loaders(mnist).test)
    assert (score.correct, score.n, data) == (report['correct'], report['n'], 'MNIST') and score.correct == 9976
    assert score.loss == pytest.approx(report['loss'], rel=1e-4)


def test_save_pretrained_reports_what_the_file_scores(small, small_run, tmp_path):
    report = save_pretrained(small_run, tmp_path/'w.safetensors', loaders(small).test)
    net = load_pretrained(tmp_path/'w.safetensors')
    assert json.loads(json.dumps(report)) == pretrained_report(tmp_path/'w.safetensors')
    assert evaluate(net, loaders(small).test).correct == report['correct'] == sum(c for c, _ in report['halves'])
    assert report['correct_in_training'] == small_run.report['correct'] and report['settings']['epochs'] == 2
    for p, q in zip(net.parameters(), small_run.net.parameters()): assert p.equal(q.half().float())


def test_networks_by_name_and_files_without_a_report(small, small_run, tmp_path):
    net, report, data = load_network(str(small_run.path), 'cpu')
    assert report['seed'] == 6 and data == small.name and flat(net).equal(flat(small_run.net))
    with pytest.raises(ValueError, match='nowhere'):
        load_network('nowhere')
    save_weights(Net(), tmp_path/'w', {})
    with pytest.raises(ValueError, match='no report'):
        pretrained_report(tmp_path/'w')
    validated = train('fast', small, tmp_path/'run', n_valid=40, bs=200, **QUICK)
    with pytest.raises(ValueError, match='n_valid'):
        save_pretrained(validated, tmp_path/'x', loaders(small).test)
    assert not (tmp_path/'x').exists() and PRETRAINED.stat().st_size < 1.3e6


# --- CUDA -------------------------------------------------------------------------------------------------------

@pytest.mark.cuda
def test_on_cuda(tmp_path):
    "A result close to the CPU's, with all options and without"
    data = generated_data(2000, 500)
    done = [train('fast', data, tmp_path/f'{i}', bs=32, lr=.02, epochs=3, **kw) for i, kw in enumerate((
        QUICK, dict(device='cuda', precision='float32', disable=','.join(COMPUTE_OPTIONS)), dict(device='cuda')))]
    assert [r.history.train_losses[-1] for r in done] == pytest.approx([done[0].history.train_losses[-1]]*3, abs=.2)
    deterministic = [train('fast', data, tmp_path/n, device='cuda', deterministic=True) for n in 'ab']
    assert same_run(*(r.path for r in deterministic))
