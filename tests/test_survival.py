"""Runs in processes of their own, killed or interrupted: nothing is lost, and the result is the same to the bit."""
import os
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import pytest
import survival
from conftest import QUICK
from survival import same_run
from systems import posix

from s5_mnist import cli, runs
from s5_mnist.core import InputError
from s5_mnist.runs import resume, train

KILLS = int(os.environ.get('S5_KILLS', 20))
pytestmark = [pytest.mark.slow, posix('SIGKILL')]


@pytest.fixture(scope='module')
def start():
    "A function that calls another in a new process, in which the package is loaded and nothing was computed"
    server = get_context('forkserver')
    server.set_forkserver_preload(['survival'])

    def start(function, *args, **kwargs):
        process = server.Process(target=function, args=args, kwargs=kwargs)
        process.start()
        return process
    return start


@pytest.fixture(scope='module')
def whole(start, tmp_path_factory):
    "A run that was never interrupted, and the seconds that its training took"
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


def test_killed_at_any_moment_and_resumed_it_is_the_same(start, whole, tmp_path):
    "SIGKILL, two runs at a time; half of them save after each batch, and every other one is killed twice"
    path, seconds = whole

    def kill(process, chance):
        time.sleep(chance.uniform(0, seconds))
        process.kill()
        process.join()
        return process.exitcode == -signal.SIGKILL

    def killed_and_resumed(i):
        "Whether it was killed before its end, the files in its folder then, and whether it is the same in the end"
        run, chance = tmp_path/str(i), random.Random(i)
        interval = chance.choice((0., 0., .05, 1.))
        process = start(survival.go, str(run), save_interval_s=interval)
        if i % 10:                                                # One in ten is killed before its training begins
            wait_for_training(process, run)
        early = kill(process, chance)
        names = sorted(p.name for p in run.iterdir()) if run.exists() else []
        if i % 2:                                                 # Killed again, after it was resumed
            kill(start(survival.go, str(run), again=True, save_interval_s=interval), chance)
        process = start(survival.go, str(run), again=True, save_interval_s=60.)
        process.join()
        assert process.exitcode == 0
        equal = same_run(path, run)
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
def test_ctrl_c_and_sigterm_save_the_run_and_say_how_to_continue_it(start, whole, tmp_path, number, status, at):
    process = start(survival.interrupted, str(tmp_path/'run'), number, at, str(tmp_path/'errors'))
    process.join()
    assert process.exitcode == status
    assert (tmp_path/'errors').read_text() == f's5_train: stopped; continue with: s5_train --resume {tmp_path}/run\n'
    process = start(survival.go, str(tmp_path/'run'), again=True)
    process.join()
    assert process.exitcode == 0 and same_run(whole[0], tmp_path/'run')


def test_a_folder_in_use_is_refused_until_its_process_is_dead(start, tmp_path):
    process = start(survival.hold, str(tmp_path/'run'), str(tmp_path/'ready'))
    try:
        while not (tmp_path/'ready').exists():
            assert process.is_alive()
            time.sleep(.02)
        with pytest.raises(InputError, match='is in use by another process'):
            resume(tmp_path/'run', survival.digits(), device='cpu')
        with pytest.raises(InputError, match='must be empty, found files in it'):
            train('fast', survival.digits(), tmp_path/'run', **QUICK)
    finally:
        process.kill()
        process.join()
    assert resume(tmp_path/'run', survival.digits(), device='cpu').history.rows[-1]['epoch'] == 3


def test_a_disk_that_is_really_full(start, tmp_path):
    "The system refuses to write files as large as a checkpoint"
    process = start(survival.limited, str(tmp_path/'run'), str(tmp_path/'errors'))
    process.join()
    lines = (tmp_path/'errors').read_text().splitlines()
    assert process.exitcode == 2 and sum('not saved, continuing' in line for line in lines) == 3
    assert lines[-1].startswith('s5_train: ') and 'File too large' in lines[-1]
    assert not [p.name for p in (tmp_path/'run').iterdir() if p.name.endswith('.tmp')]


@pytest.mark.parametrize('folder, interval', [('run', 1e9), ('elsewhere/run', 0.)])
def test_neither_saving_nor_process_nor_folder_changes_the_result(start, whole, tmp_path, folder, interval):
    "A checkpoint after each batch, or none within an epoch"
    process = start(survival.go, str(tmp_path/folder), save_interval_s=interval)
    process.join()
    assert process.exitcode == 0 and same_run(whole[0], tmp_path/folder)


def test_the_command_does_not_guess_the_data_of_a_run(start, tmp_path, monkeypatch, capsys):
    "A run on data that no name stands for can only be resumed from Python"
    process = start(survival.interrupted, str(tmp_path/'run'), signal.SIGTERM, (2, 2), str(tmp_path/'errors'))
    process.join()
    monkeypatch.setattr(runs, 'load_data', lambda *args: pytest.fail('it was loaded'))
    with pytest.raises(SystemExit) as done:
        cli.s5_train.main(['--resume', str(tmp_path/'run'), '--device', 'cpu'])
    assert done.value.code == 2
    err = capsys.readouterr().err
    assert "run was trained on 'generated digits (300 + 130, seed 0)', which cannot be loaded" in err
    assert (tmp_path/'run'/'last.ckpt').exists()
