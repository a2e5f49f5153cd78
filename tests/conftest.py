"""Fixtures that several test files share."""
import gzip
import hashlib
import json
import os
import struct
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from s5_mnist import data as data_module
from s5_mnist.data import IdxFile, generate_digits, generated_data, load_mnist

matplotlib.use('Agg')
ROOT = Path(__file__).parent.parent
STROKES = json.loads((ROOT/'tests'/'strokes.json').read_text()) # Ten digits, as points on 256 by 256 pixels
NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))


def pytest_collection_modifyitems(items):
    "Skip CUDA tests where there is no such device"
    for item in items:
        if 'cuda' in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason='no CUDA device'))


@pytest.fixture(autouse=True)
def closed():
    "Leave no figure open, lest a notebook that is run later shows it"
    yield
    plt.close('all')


@pytest.fixture(scope='session')
def mnist():
    "The real MNIST; where it is not at hand, skip, or fail if S5_REQUIRE_MNIST says that it must be"
    try:
        return load_mnist(download=False)
    except FileNotFoundError as e:
        if os.environ.get('S5_REQUIRE_MNIST'):
            pytest.fail(f'S5_REQUIRE_MNIST is set, but {e}')
        pytest.skip('MNIST is not at hand')


@pytest.fixture(scope='session')
def small():
    "A few generated digits"
    return generated_data(300, 130)


def idx_bytes(array):
    "An array of uint8 as an IDX file"
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape) + array.numpy().tobytes()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Four files of 30 and 20 images that pass for MNIST: the table of checksums is replaced by theirs.
    Returns the packed content of each by name."""
    arrays = [a.to(torch.uint8) for n, seed in ((30, 0), (20, 1)) for a in generate_digits(n, seed)]
    files, table = {}, {}
    for name, array in zip(data_module.MNIST_FILES, arrays):
        raw = idx_bytes(array)
        packed = gzip.compress(raw, mtime=0)
        files[f'{name}.gz'] = packed
        table[name] = IdxFile(tuple(array.shape), len(packed), hashlib.md5(packed).hexdigest(),
                              hashlib.md5(raw).hexdigest())
    monkeypatch.setattr(data_module, 'MNIST_FILES', table)
    monkeypatch.delenv('S5_MNIST_DATA', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    (tmp_path/'d').mkdir()
    return files
