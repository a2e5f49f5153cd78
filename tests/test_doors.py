"""The doors: whatever a file that a user names holds, it is read or refused with a `ValueError`; nothing in it is executed,
and nothing that is not ours is replaced."""
import io
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK
from drawings import drawn, file_of
from PIL import Image

from s5_mnist.inference import export_network, predict
from s5_mnist.mnist_files import read_mnist_file
from s5_mnist.model import Net
from s5_mnist.numbers import read_numbers
from s5_mnist.preprocessing import preprocess
from s5_mnist.runs import load_history, load_pretrained, load_run, load_weights, pretrained_report, resume, train
from s5_mnist.sweeps import read_sweep, sweep
from s5_mnist.typicality import load_typicality_head

FILES = [lambda p: load_weights(Net(), p), load_pretrained, pretrained_report, load_typicality_head, load_history, read_sweep,
         preprocess, read_numbers, lambda p: preprocess(p.read_bytes())]


@pytest.fixture
def stopped(run_copy):
    "The folder of a run that was stopped just before its end"
    (run_copy/'report.json').unlink()
    return run_copy


# --- nothing is executed ----------------------------------------------------------------------------------------

class Evil:
    def __reduce__(self):
        return open, ('ran', 'w')


def evils():
    "Files that run code when they are loaded without care, in the formats that loaders know"
    plain, archive, legacy, array = pickle.dumps(Evil()), io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({'states': Evil()}, archive)
    torch.save({'states': Evil()}, legacy, _use_new_zipfile_serialization=False)
    np.save(array, np.array([Evil()], dtype=object), allow_pickle=True)
    return [plain, archive.getvalue(), legacy.getvalue(), array.getvalue(), b'#!/bin/sh\ntouch ran\n',
            struct.pack('<Q', len(plain))+plain, zlib.compress(plain)]


def test_nothing_is_executed(tmp_path, monkeypatch, run_copy, small):
    "By whatever function, under whatever name"
    monkeypatch.chdir(tmp_path)
    pickle.loads(evils()[0]).close()                              # Loaded without care, it does run
    Path('ran').unlink()
    report = (run_copy/'report.json').read_bytes()
    for evil in evils():
        Path('evil').write_bytes(evil)
        calls = [lambda f=f: f(Path('evil')) for f in FILES]
        calls.append(lambda: read_mnist_file(io.BytesIO(evil), 'train-images-idx3-ubyte'))
        for name in ('config.json', 'report.json', 'history.csv', 'model.safetensors', 'last.pt'):
            def call(name=name):
                good = (run_copy/name).read_bytes()
                (run_copy/name).write_bytes(evil)
                if name == 'last.pt': (run_copy/'report.json').unlink()
                try: resume(run_copy, small, device='cpu') if name == 'last.pt' else load_run(run_copy, 'cpu')
                finally:
                    (run_copy/name).write_bytes(good)
                    (run_copy/'report.json').write_bytes(report)
            calls.append(call)
        for call in calls:
            with pytest.raises(ValueError):
                call()
    assert not Path('ran').exists()


def test_a_picture_runs_no_program(tmp_path, monkeypatch):
    "PostScript would make Pillow call gs"
    monkeypatch.setattr(subprocess, 'Popen', lambda *args, **kwargs: pytest.fail(f'ran {args}'))
    eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n'
    (tmp_path/'x.png').write_bytes(eps)
    for source in (tmp_path/'x.png', eps, Image.open(tmp_path/'x.png')):
        with pytest.raises(ValueError, match='known format'):
            preprocess(source)


# --- damaged files ----------------------------------------------------------------------------------------------

WORDS = [b'\0', b'\xff', b'nan', b'-1', b'1e999', b'{', b'}', b'"', b',', b'\n', b'NaN', b'null', b'[]', b'9'*30, b'true']


def damaged(raw, chance):
    "Bytes with one or more faults"
    raw = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 4))):
        i, j = sorted(chance.randint(0, len(raw)) for _ in range(2))
        how, word = chance.randrange(5), chance.choice(WORDS)
        if how == 0: del raw[i:]
        elif how == 1: del raw[i:min(j, i+chance.choice((1, 8, 1000)))]
        elif how == 2: raw[i:i] = word
        elif how == 3: raw[i:i+len(word)] = word
        else: raw[i:i+1] = chance.randbytes(1)
    return bytes(raw)


def accepts(call, *args):
    "Whether damage goes unnoticed; any other error than these fails the test"
    try: call(*args)
    except (ValueError, OSError): return False
    return True


@pytest.mark.parametrize('cases', [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(cases, run_copy, tmp_path, small):
    "Pictures, the files of a run, and tables"
    chance, picture = random.Random(1), tmp_path/'picture'
    sweep('fast', 1, tmp_path/'table.csv', small, **QUICK)
    pictures = [file_of(drawn('4'), kind) for kind in ('png', 'jpeg', 'bmp', 'gif', 'tiff', 'webp')]
    files = {name: (run_copy/name).read_bytes() for name in ('config.json', 'report.json', 'history.csv')}
    weights, table = ((p, p.read_bytes()[:3000]) for p in (run_copy/'model.safetensors', tmp_path/'table.csv'))
    for _ in range(cases):
        picture.write_bytes(damaged(chance.choice(pictures), chance))
        accepts(preprocess, picture)
        table[0].write_bytes(damaged(table[1], chance))
        accepts(read_sweep, table[0])
        weights[0].with_name('w').write_bytes(damaged(weights[1], chance))
        assert not accepts(load_weights, Net(), weights[0].with_name('w'))
        name = chance.choice(sorted(files))
        (run_copy/name).write_bytes(damaged(files[name], chance))
        accepts(load_run, run_copy, 'cpu')
        (run_copy/name).write_bytes(files[name])


@pytest.mark.parametrize('size', [0, 100, -100])
def test_a_damaged_save_is_refused_and_kept(stopped, small, size):
    "Cut off at either end"
    good = (stopped/'last.pt').read_bytes()
    bad = good[:size] if size >= 0 else good[size:]
    (stopped/'last.pt').write_bytes(bad)
    with pytest.raises(ValueError, match='last.pt'):
        resume(stopped, small, device='cpu')
    assert (stopped/'last.pt').read_bytes() == bad
    (stopped/'last.pt').write_bytes(good)
    assert resume(stopped, small, device='cpu').report['n'] == 130


# --- nothing that is not ours is replaced -----------------------------------------------------------------------

@pytest.mark.skipif(os.name == 'nt', reason='no links on Windows')
def test_what_is_there_is_not_replaced(tmp_path, small, monkeypatch):
    monkeypatch.setattr('s5_mnist.sweeps.train', lambda *args, **kwargs: pytest.fail('it trained'))
    (tmp_path/'text.txt').write_text('keep')
    (tmp_path/'link').symlink_to('text.txt')
    (tmp_path/'folder').mkdir()
    (tmp_path/'folder'/'notes').write_text('keep')
    before = {p: p.is_file() and p.read_text() for p in tmp_path.rglob('*')}
    for path in (tmp_path/'text.txt', tmp_path/'link', tmp_path/'folder', '/dev/null'):
        for call in (lambda: export_network('pretrained', 'safetensors', path), lambda: train('fast', small, path, **QUICK),
                     lambda: sweep('fast', 1, path, small, **QUICK)):
            with pytest.raises((ValueError, OSError)):
                call()
    assert {p: p.is_file() and p.read_text() for p in tmp_path.rglob('*')} == before


@pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux: /proc, a folder that nobody can write to')
def test_a_table_that_cannot_be_written_is_found_before_the_work(small, monkeypatch):
    monkeypatch.setattr('s5_mnist.sweeps.train', lambda *args, **kwargs: pytest.fail('it trained'))
    with pytest.raises((ValueError, OSError)):
        sweep('fast', 1, '/proc/x.csv', small, **QUICK)


# --- networks and images ----------------------------------------------------------------------------------------

@pytest.mark.parametrize('outputs', [1, 5, 11])
def test_a_network_for_other_than_ten_classes_is_refused(small, outputs):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, outputs))
    with pytest.raises(ValueError, match='net must'):
        predict(small.test_x[0], net)


@pytest.mark.parametrize('kind', [bool, np.uint8, np.int16, np.float32, np.float64, complex, 'U1', object])
@pytest.mark.parametrize('shape', [(), (0,), (3,), (0, 5), (30, 40), (30, 40, 3), (30, 40, 4), (3, 30, 40), (1, 1, 28, 28), (28, 28, 2)])
def test_any_array_is_a_digit_or_is_refused(kind, shape):
    values = np.random.default_rng(0).random(shape)*1.5-.1        # Some beyond what is allowed
    for array in (values > .9, values.clip(0, 1), values*200, values):
        with np.errstate(all='ignore'):
            array = np.asarray(array).astype(kind) if kind is not object else np.full(shape, None)
        try: image = preprocess(array)
        except ValueError: continue
        assert image.shape == (28, 28) and image.dtype == torch.uint8


def test_a_run_in_another_folder_is_the_same(small_run, tmp_path):
    moved = shutil.copytree(small_run.path, tmp_path/'moved')
    assert load_run(moved, 'cpu').report == small_run.report
