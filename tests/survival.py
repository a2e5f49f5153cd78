"A run for test_runs.py and test_survival.py, and functions that run it in a process that will be killed."
import os
import signal
import sys
from pathlib import Path

import torch

from s5_mnist import cli
from s5_mnist.data import generated_data
from s5_mnist.runs import load_run, resume, train

# All that a run has to restore: Muon, a one-cycle schedule, crops that end, layers that freeze, a mild end
CHANGES = dict(epochs=4, bs=30, mild_epochs=1, center_crop_frac=.4, frozen_frac=.3, device='cpu', precision='float32')


def digits(): return generated_data(300, 130)


def same_run(a, b):
    "Assert that weights and histories of two runs are equal bit for bit, and all else but the seconds"
    one, two = (load_run(p, 'cpu') for p in (a, b))
    for p, q in zip(one.net.parameters(), two.net.parameters(), strict=True): assert p.equal(q)
    for p, q in zip([*one.history.rows, one.report], [*two.history.rows, two.report], strict=True):
        assert p | dict(seconds=0) == q | dict(seconds=0)
    return True


# --- in another process -----------------------------------------------------------------------------------------

def go(path, errors=os.devnull):
    "Train, or continue a run that was stopped"
    sys.stdout, sys.stderr = open(os.devnull, 'w'), open(errors, 'w', buffering=1)
    torch.set_num_threads(1)
    if not (Path(path)/'config.json').exists(): train('best', digits(), path, **CHANGES)
    elif not (Path(path)/'report.json').exists(): resume(path, digits(), device='cpu')


def limited(path, errors):
    "Train where no file may become as large as the weights"
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    go(path, errors)


def command(path, errors):
    "Train by the command, on generated digits"
    sys.stderr = open(errors, 'w', buffering=1)
    cli.s5_train.main(['--data', 'digits', '--epochs', '99', '--bs', '2000', '--device', 'cpu', '--out', path])
