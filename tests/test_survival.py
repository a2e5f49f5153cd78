"""Runs in processes of their own, killed or interrupted: nothing is lost, and the result is the same bit for bit."""
import os
import random
import signal
import sys
import time
from multiprocessing import get_context

import pytest
import survival
from survival import same_run

KILLS = int(os.environ.get('S5_KILLS', 20))
pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='no SIGKILL on Windows')


@pytest.fixture(scope='module')
def start():
    "A function that calls another in a new process, in which the package is loaded and nothing was computed"
    server = get_context('forkserver')
    server.set_forkserver_preload(['survival'])

    def start(function, *args):
        process = server.Process(target=function, args=args)
        process.start()
        return process
    return start


@pytest.fixture(scope='module')
def whole(start, tmp_path_factory):
    "A run that was left alone, and the seconds that it took"
    path, began = tmp_path_factory.mktemp('whole')/'run', time.monotonic()
    process = start(survival.go, str(path))
    process.join()
    assert process.exitcode == 0
    return path, time.monotonic()-began


def killed_and_resumed(start, path, seconds=None):
    "Kill a run after so many seconds or its first save, unless it has ended, and continue it; whether it was killed"
    process = start(survival.go, str(path))
    if seconds is not None: time.sleep(seconds)
    while seconds is None and not (path/'last.pt').exists(): time.sleep(.01)
    process.kill()
    process.join()
    killed, process = process.exitcode == -signal.SIGKILL, start(survival.go, str(path))
    process.join()
    assert process.exitcode == 0
    return killed


def test_killed_once(start, whole, tmp_path):
    assert killed_and_resumed(start, tmp_path/'run') and same_run(whole[0], tmp_path/'run')


@pytest.mark.slow
def test_killed_at_any_moment(start, whole, tmp_path):
    path, seconds = whole
    chance = random.Random(0)
    killed = [killed_and_resumed(start, tmp_path/str(i), chance.uniform(0, seconds)) for i in range(KILLS)]
    assert all(same_run(path, tmp_path/str(i)) for i in range(KILLS)) and sum(killed) > .4*KILLS


def test_a_disk_that_is_really_full(start, tmp_path):
    "The system refuses to write files as large as the weights: the run goes on, and fails only at its end"
    process = start(survival.limited, str(tmp_path/'run'), str(tmp_path/'errors'))
    process.join()
    text = (tmp_path/'errors').read_text()
    assert process.exitcode == 1 and text.count('not saved, continuing') == 4
    assert text.splitlines()[-1].startswith('OSError') and 'File too large' in text
    assert sorted(p.name for p in (tmp_path/'run').iterdir()) == ['config.json', 'curves.png', 'history.csv']


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_says_how_to_continue(start, tmp_path):
    process = start(survival.command, str(tmp_path/'run'), str(tmp_path/'errors'))
    while not (tmp_path/'run'/'last.pt').exists(): time.sleep(.05)
    while process.exitcode is None: # An interrupt that arrives in a destructor is lost, as in any Python
        os.kill(process.pid, signal.SIGINT)
        process.join(10)
    assert process.exitcode == 130
    assert (tmp_path/'errors').read_text() == f'interrupted; continue with: s5_train --resume {tmp_path}/run\n'
