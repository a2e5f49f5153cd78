"""Runs that are killed, interrupted, or find the disk full: nothing is lost, and the result is the same to the bit."""
import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import survival
from s5_mnist import training
from s5_mnist.data import InputError, loaders
from s5_mnist.training import Stopped, evaluate, load_checkpoint, load_run, make_optimizer, resume, train

KILLS = int(os.environ.get('S5_KILLS', 20))
QUICK = dict(device='cpu', precision='float32')
pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='no SIGKILL on Windows')


@pytest.fixture(scope='module')
def start():
    "Call a function in a new process, which has the package loaded and nothing computed"
    server = multiprocessing.get_context('forkserver')
    server.set_forkserver_preload(['survival'])

    def start(function, *args, **kwargs):
        process = server.Process(target=function, args=args, kwargs=kwargs)
        process.start()
        return process
    return start


@pytest.fixture(scope='module')
def whole(start, tmp_path_factory):
    "A run that nothing happened to, and how long its training took"
    path = tmp_path_factory.mktemp('whole')/'run'
    process = start(survival.go, str(path))
    wait_for_training(process, path)
    began = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return path, time.monotonic()-began


def wait_for_training(process, run):
    while process.is_alive() and not (run/'config.json').exists():
        time.sleep(.005)


def same(a, b):
    "Are the weights equal to the byte, and the histories and the answers, but for the seconds?"
    one, two = (load_file(p/'model.safetensors') for p in (a, b))
    assert one.keys() == two.keys()
    for k in one:
        assert one[k].numpy().tobytes() == two[k].numpy().tobytes(), k
    runs = [load_run(p, 'cpu') for p in (a, b)]
    rows = [[{k: v for k, v in r.items() if k != 'seconds'} for r in run.history.rows] for run in runs]
    assert rows[0] == rows[1]
    probs = [evaluate(r.net, loaders(survival.digits()).test).probs for r in runs]
    assert probs[0].equal(probs[1])
    return True


def test_killed_at_any_moment_and_resumed_it_is_the_same(start, whole, tmp_path):
    "SIGKILL, half of the runs saving after each batch, two at a time; every other one is killed twice"
    path, seconds = whole

    def kill(process, chance):
        time.sleep(chance.uniform(0, seconds))
        process.kill()
        process.join()
        return process.exitcode == -signal.SIGKILL

    def killed_and_resumed(i):
        "Was it killed before its end, with what in its folder, and is it the same in the end?"
        run, chance = tmp_path/str(i), random.Random(i)
        every = chance.choice((0., 0., .05, 1.))
        process = start(survival.go, str(run), every=every)
        if i%10: # And now and then before the training begins
            wait_for_training(process, run)
        early = kill(process, chance)
        names = sorted(p.name for p in run.iterdir()) if run.exists() else []
        if i%2: # Once more, on the way from where it was
            kill(start(survival.go, str(run), again=True, every=every), chance)
        process = start(survival.go, str(run), again=True, every=60.)
        process.join()
        assert process.exitcode == 0
        equal = same(path, run)
        assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in path.iterdir())
        shutil.rmtree(run)
        return early, names, equal

    with ThreadPoolExecutor(2) as pool:
        early, names, equal = zip(*pool.map(killed_and_resumed, range(KILLS)))
    print(f'{sum(equal)} of {KILLS} identical; {sum(early)} were killed before their end, '
          f'{sum("last.ckpt" in n for n in names)} after a checkpoint, '
          f'{sum(any(f.endswith(".tmp") for f in n) for n in names)} in the middle of a write')
    assert sum(equal) == KILLS and sum(early) > .7*KILLS


@pytest.mark.parametrize('number, status', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize('at', [(1, 1), (2, 4), (3, 10)])
def test_ctrl_c_and_sigterm_save_say_how_to_go_on_and_exit(start, whole, tmp_path, number, status, at):
    process = start(survival.interrupted, str(tmp_path/'run'), number, at, str(tmp_path/'told'))
    process.join()
    said = (tmp_path/'told').read_text()
    assert process.exitcode == status
    assert said == f's5_train: stopped; go on with: s5_train --resume {tmp_path}/run\n'
    process = start(survival.go, str(tmp_path/'run'), again=True)
    process.join()
    assert process.exitcode == 0 and same(whole[0], tmp_path/'run')


def test_stopped_twice_and_resumed_twice(start, whole, tmp_path):
    "Once more after it was resumed, in another epoch"
    small, seen, before = survival.digits(), [], signal.getsignal(signal.SIGINT)

    def stop_at(*at):
        add = training.Partway.add

        def add_and_stop(now, *args):
            add(now, *args)
            if (now.epoch, now.step) == at:
                signal.raise_signal(signal.SIGINT)
        return pytest.MonkeyPatch.context(), add_and_stop
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for k, at in enumerate([(1, 3), (2, 2), (2, 9)]):
            context, add = stop_at(*at)
            with context as m:
                m.setattr(training.Partway, 'add', add)
                with pytest.raises(Stopped) as stopped:
                    if k: resume(tmp_path/'run', small, device='cpu')
                    else: train('fast', small, tmp_path/'run', **QUICK, **survival.CHANGES)
            seen.append(stopped.value.number)
        resume(tmp_path/'run', small, device='cpu')
    finally:
        torch.set_num_threads(threads)
    assert seen == [signal.SIGINT]*3 and same(whole[0], tmp_path/'run')
    assert signal.getsignal(signal.SIGINT) is before


def test_a_folder_in_use_is_refused_until_its_run_is_dead(start, tmp_path):
    process = start(survival.hold, str(tmp_path/'run'), str(tmp_path/'ready'))
    try:
        while not (tmp_path/'ready').exists():
            assert process.is_alive()
            time.sleep(.02)
        with pytest.raises(InputError, match='is in use by another run'):
            resume(tmp_path/'run', survival.digits(), device='cpu')
        with pytest.raises(InputError, match='is not empty'):
            train('fast', survival.digits(), tmp_path/'run', **QUICK)
    finally:
        process.kill()
        process.join()
    assert resume(tmp_path/'run', survival.digits(), device='cpu').history.rows[-1]['epoch'] == 3


def test_a_finished_run_is_not_gone_on_with(whole):
    before = {p.name: p.read_bytes() for p in whole[0].iterdir()}
    with pytest.raises(InputError, match='is finished: s5_eval scores it'):
        resume(whole[0], survival.digits(), device='cpu')
    assert before == {p.name: p.read_bytes() for p in whole[0].iterdir()} and '.lock' not in before


def test_another_run_s_files_are_refused(start, tmp_path):
    def stopped(name, **changes):
        with pytest.MonkeyPatch.context() as m:
            m.setattr(training, '_save_run', lambda run: run)
            train('fast', survival.digits(), tmp_path/name, **QUICK, **{**survival.CHANGES, **changes})
    stopped('a')
    stopped('b', seed=1)
    shutil.copy(tmp_path/'b'/'last.ckpt', tmp_path/'a'/'last.ckpt')
    with pytest.raises(InputError, match='last.ckpt belongs to another run'):
        resume(tmp_path/'a', survival.digits(), device='cpu')
    data = (tmp_path/'b'/'last.ckpt').read_bytes()
    (tmp_path/'b'/'last.ckpt').write_bytes(data[:-1])
    with pytest.raises(InputError, match='last.ckpt is damaged: its checksum'):
        resume(tmp_path/'b', survival.digits(), device='cpu')
    with pytest.raises(InputError, match='was begun on generated digits .*, and this is'):
        resume(tmp_path/'b', survival.digits()._replace(name='others'), device='cpu')


@pytest.mark.parametrize('fault', [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_costs_no_training_and_no_checkpoint(fault, small, tmp_path, monkeypatch, capfd):
    "Saves fail from the second on, and work again at the end"
    save, calls = training.save_checkpoint, []

    def full(path, net, opt, sched, generator, hist, **kwargs):
        calls.append(len(hist.rows))
        if len(calls) == 2: raise OSError(fault, os.strerror(fault), str(path))
        if len(calls) == 3:                                       # The first is still whole
            other = training.Net()
            g = torch.Generator()
            assert len(load_checkpoint(path, other, *make_optimizer(other, training.RECIPES['fast'], 2), g).rows) == 1
        save(path, net, opt, sched, generator, hist, **kwargs)
    monkeypatch.setattr(training, 'save_checkpoint', full)
    run = train('fast', small, tmp_path/'run', epochs=3, **QUICK)
    assert calls == [1, 2, 3] and len(load_run(run.path, 'cpu').history.rows) == 3
    assert f'not saved, going on: [Errno {fault}] {os.strerror(fault)}' in capfd.readouterr().err


def test_a_disk_that_is_really_full(start, tmp_path):
    "The system refuses to write files as large as a checkpoint"
    process = start(limited, str(tmp_path/'run'), str(tmp_path/'told'))
    process.join()
    said = (tmp_path/'told').read_text()
    assert process.exitcode == 2 and said.count('not saved, going on') == 3
    assert said.splitlines()[-1].startswith('s5_train: ') and 'File too large' in said.splitlines()[-1]
    assert not [p.name for p in (tmp_path/'run').iterdir() if p.name.endswith('.tmp')]


def limited(path, told):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.stderr = open(told, 'w', buffering=1)
    with training.one_line_errors('s5_train'):
        survival.go(path, every=60., quiet=False)


def test_a_folder_that_vanishes_comes_back(small, tmp_path):
    save = training.save_history

    def vanish(hist, path):
        if len(hist.rows) == 1: shutil.rmtree(tmp_path/'run')
        save(hist, path)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(training, 'save_history', vanish)
        run = train('fast', small, tmp_path/'run', epochs=3, **QUICK)
    assert len(load_run(run.path, 'cpu').history.rows) == 3


def test_what_diverges_keeps_the_checkpoint_before(small, tmp_path):
    with pytest.raises(InputError, match='last.ckpt holds what was before'):
        train('s5', small, tmp_path/'run', epochs=9, lr=300., every=0., **QUICK)
    other, g = training.Net(), torch.Generator()
    load_checkpoint(tmp_path/'run'/'last.ckpt', other, *make_optimizer(other, training.RECIPES['s5'], 1), g,
                    loaders(small).train)
    assert all(p.isfinite().all() for p in other.parameters())


def test_saving_changes_nothing(start, whole, tmp_path):
    "A checkpoint after each batch, or none inside an epoch"
    process = start(survival.go, str(tmp_path/'run'), every=1e9)
    process.join()
    assert process.exitcode == 0 and same(whole[0], tmp_path/'run')


def test_the_same_in_another_process_and_another_folder(start, whole, tmp_path):
    process = start(survival.go, str(tmp_path/'elsewhere'/'run'))
    process.join()
    assert process.exitcode == 0 and same(whole[0], tmp_path/'elsewhere'/'run')


def test_the_same_batches_by_any_number_of_threads():
    "What the loaders make; the sums of a gradient are another matter"
    threads, seen = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            for augment in training.AUGMENTS.values():
                g = torch.Generator().manual_seed(0)
                seen.append(torch.cat([x for x, _ in loaders(survival.digits(), augment=augment, generator=g).train]))
    finally:
        torch.set_num_threads(threads)
    assert all(a.equal(b) for a, b in zip(seen[:len(seen)//2], seen[len(seen)//2:])) and len(seen) == 14


def test_every_has_a_range(small, tmp_path):
    for every in (-1., float('nan')):
        with pytest.raises(InputError, match='every='):
            train('fast', small, tmp_path/str(every), every=every, **QUICK)


def test_the_command_resumes(start, tmp_path, monkeypatch, capsys):
    process = start(survival.interrupted, str(tmp_path/'run'), signal.SIGTERM, (2, 2), str(tmp_path/'told'))
    process.join()
    monkeypatch.setattr(training, 'load_data', lambda *args: survival.digits())
    config = json.loads((tmp_path/'run'/'config.json').read_text())
    (tmp_path/'run'/'config.json').write_text(json.dumps(config))
    with pytest.raises(SystemExit) as done:                       # Made by hand: no name that load_data knows
        training.s5_train(resume=str(tmp_path/'run'), device='cpu')
    assert done.value.code == 2 and 'was trained on' in capsys.readouterr().err
    assert Path(tmp_path/'run'/'last.ckpt').exists()
