"""Fixtures that several test files share."""
import gzip
import functools
import hashlib
import http.server
import json
import os
import shutil
import struct
import threading
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from notebooks import call

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


# --- the project as a whole -------------------------------------------------------------------------------------

@pytest.fixture(scope='session')
def copy(tmp_path_factory):
    "A copy of the project without its modules, into which the notebooks are exported anew"
    where = tmp_path_factory.mktemp('copy')
    for name in ('settings.ini', 'pyproject.toml', '_quarto.yml', 'README.md', 'CONTRIBUTING.md'):
        shutil.copy(ROOT/name, where)
    shutil.copytree(ROOT/'nbs', where/'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    (where/'s5_mnist').mkdir()
    shutil.copy(ROOT/'s5_mnist'/'__init__.py', where/'s5_mnist')
    call('from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()', where)
    return where


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@pytest.fixture(scope='session')
def serve():
    "Serve a folder as files, and return its address"
    servers = []

    def serve(folder):
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f'http://127.0.0.1:{server.server_port}'
    yield serve
    for server in servers:
        server.shutdown()


@pytest.fixture(scope='module')
def browser():
    "Chromium, by the module: while it is open, no other event loop can run"
    api = pytest.importorskip('playwright.sync_api')
    path = shutil.which('chromium') or shutil.which('google-chrome')
    if not path:
        pytest.skip('no chromium on the PATH')
    with api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield browser
        browser.close()
