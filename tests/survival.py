"""Trainings in processes of their own, to be killed at any moment by test_survival.py."""
import os
import signal
import sys
from pathlib import Path

import torch

from s5_mnist import training
from s5_mnist.data import generated_data

CHANGES = dict(epochs=3, bs=20, augment='warp', calm=1, small=.5, drop=.1)


def digits(): return generated_data(300, 130)


def go(path, again=False, every=0., threads=1, quiet=True):
    "Train, or go on where a training was stopped"
    if quiet:
        sys.stdout = sys.stderr = open(os.devnull, 'w')
    torch.set_num_threads(threads)
    if again and (Path(path)/'config.json').exists():
        if not (Path(path)/'report.json').exists():
            training.resume(path, digits(), device='cpu', every=every)
    else:
        training.train('fast', digits(), path, device='cpu', precision='float32', every=every, **CHANGES)


def interrupted(path, number, at, told):
    "Train, and get a signal after so many steps"
    add = training.Partway.add

    def add_and_signal(now, *args):
        add(now, *args)
        if (now.epoch, now.step) == at:
            os.kill(os.getpid(), number)
    training.Partway.add = add_and_signal
    try:
        with training.one_line_errors('s5_train'):
            sys.stderr = open(told, 'w', buffering=1)
            go(path, quiet=False)
    except SystemExit as e:
        os._exit(e.code)
    os._exit(0)


def hold(path, ready):
    "Be in the middle of a training for as long as it takes"
    def wait(now, *args):
        Path(ready).touch()
        signal.pause()
    training.Partway.add = wait
    go(path)
