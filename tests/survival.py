"""Trainings for test_runs.py and test_survival.py, and functions that run them in a process that will be killed."""
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from s5_mnist.cli import one_line_errors
from s5_mnist.data import generated_data, loaders
from s5_mnist.runs import load_run, resume, train
from s5_mnist.training import EpochState, evaluate

# Everything that a run has to restore: an augmentation that changes, crops that end, a momentum, a schedule that goes
# back, and a mean of two networks
CHANGES = dict(epochs=3, cycles=2, cycle_epochs=1, bs=13, augment='elastic', mild_aug_epochs=1, center_crop_frac=.5)


def digits(): return generated_data(300, 130)


def same_run(a, b):
    "Assert that weights, histories and predictions of two runs are equal to the byte, except for the seconds"
    one, two = (load_file(p/'model.safetensors') for p in (a, b))
    assert one.keys() == two.keys()
    for k in one:
        assert one[k].numpy().tobytes() == two[k].numpy().tobytes(), k
    runs = [load_run(p, 'cpu') for p in (a, b)]
    rows = [[{k: v for k, v in r.items() if k != 'seconds'} for r in run.history.rows] for run in runs]
    assert rows[0] == rows[1]
    probs = [evaluate(r.net, loaders(digits()).test).probs for r in runs]
    assert probs[0].equal(probs[1])
    return True


# --- in another process -----------------------------------------------------------------------------------------

def go(path, again=False, save_interval_s=0., threads=1, quiet=True):
    "Train, or continue a training that was stopped"
    if quiet:
        sys.stdout = sys.stderr = open(os.devnull, 'w')
    torch.set_num_threads(threads)
    if again and (Path(path)/'config.json').exists():
        if not (Path(path)/'report.json').exists():
            resume(path, digits(), device='cpu', save_interval_s=save_interval_s)
    else:
        train('fast', digits(), path, device='cpu', precision='float32', save_interval_s=save_interval_s, **CHANGES)


def interrupted(path, number, at, errors):
    "Train as a command does, and receive a signal after so many epochs and steps"
    add = EpochState.add

    def add_and_signal(state, *args):
        add(state, *args)
        if (state.epoch, state.step) == at:
            os.kill(os.getpid(), number)
    EpochState.add = add_and_signal
    try:
        with one_line_errors('s5_train'):
            sys.stderr = open(errors, 'w', buffering=1)
            go(path, quiet=False)
    except SystemExit as e:
        os._exit(e.code)
    os._exit(0)


def hold(path, ready):
    "Stay in the middle of a training until the process is killed"
    def wait(state, *args):
        Path(ready).touch()
        signal.pause()
    EpochState.add = wait
    go(path)


def limited(path, errors):
    "Train where no file may become as large as a checkpoint"
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.stderr = open(errors, 'w', buffering=1)
    with one_line_errors('s5_train'):
        go(path, save_interval_s=60., quiet=False)
