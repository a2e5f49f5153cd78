"""Options and fixtures that several test files share."""
import functools
import gzip
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
from notebooks import NOTEBOOKS, ROOT, call # noqa: F401 (for the test files)

from s5_mnist import mnist_files
from s5_mnist.data import generated_data, load_mnist
from s5_mnist.digits import generate_digits
from s5_mnist.preprocessing import preprocess
from s5_mnist.runs import load_pretrained, train

matplotlib.use('Agg')
STROKES = json.loads((ROOT/'tests'/'strokes.json').read_text()) # Ten digits, as points on 256 by 256 pixels
QUICK = dict(device='cpu', precision='float32')                 # For runs that are compared with each other


# --- slow tests, and tests for a GPU ----------------------------------------------------------------------------

def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='run all tests, including those marked slow')


def pytest_report_header(config):
    return 'slow tests: included' if config.getoption('slow') else 'slow tests: left out (--slow runs them too)'


def pytest_collection_modifyitems(config, items):
    "Skip CUDA tests where there is no such device, and leave out slow tests unless --slow asks for them"
    for item in items:
        if 'cuda' in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason='no CUDA device'))
    if not config.getoption('slow'):
        slow = [item for item in items if 'slow' in item.keywords]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if 'slow' not in item.keywords]


@pytest.fixture(autouse=True)
def close_figures():
    "Leave no figure open, because the next notebook to run would show it"
    yield
    plt.close('all')


# --- data -------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='session')
def mnist():
    "The real MNIST; without it, skip the test, or fail if S5_REQUIRE_MNIST is set"
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


@pytest.fixture(scope='session')
def small_run(small, tmp_path_factory):
    "A finished run on a few generated digits; tests must not change its folder"
    return train('fast', small, tmp_path_factory.mktemp('runs')/'run', epochs=2, lr=0.02, seed=6, **QUICK)


@pytest.fixture
def run_copy(small_run, tmp_path):
    "The folder of a finished run, to be damaged at will"
    return Path(shutil.copytree(small_run.path, tmp_path/'copy'))


def idx_bytes(array):
    "An array of uint8 as an IDX file"
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape) + array.numpy().tobytes()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Four files of 30 and 20 images that pass for MNIST, because their checksums replace the published ones.
    Returns the compressed content of each by name."""
    arrays = [a.to(torch.uint8) for n, seed in ((30, 0), (20, 1)) for a in generate_digits(n, seed)]
    files, table = {}, {}
    for name, array in zip(mnist_files.MNIST_FILES, arrays):
        raw = idx_bytes(array)
        files[f'{name}.gz'] = gzip.compress(raw, mtime=0)
        table[name] = mnist_files.IdxFile(tuple(array.shape), hashlib.md5(raw).hexdigest())
    monkeypatch.setattr(mnist_files, 'MNIST_FILES', table)
    monkeypatch.delenv('S5_MNIST_DATA', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    (tmp_path/'d').mkdir()
    return files


# --- networks ---------------------------------------------------------------------------------------------------

def flat(net):
    "All parameters of a network, one after the other"
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.fixture(scope='session')
def net():
    "The network that comes with the package"
    return load_pretrained()


@pytest.fixture(scope='session')
def two():
    "A drawn 2 as the network sees it"
    from drawings import drawn # Which takes STROKES from here
    return preprocess(drawn('2'))


# --- the project as a whole -------------------------------------------------------------------------------------

@pytest.fixture(scope='session')
def copy(tmp_path_factory):
    "A copy of the project without its modules, into which the notebooks are exported"
    folder = tmp_path_factory.mktemp('copy')
    for name in ('settings.ini', 'pyproject.toml', '_quarto.yml', 'README.md', 'CONTRIBUTING.md'):
        shutil.copy(ROOT/name, folder)
    shutil.copytree(ROOT/'nbs', folder/'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    (folder/'s5_mnist').mkdir()
    shutil.copy(ROOT/'s5_mnist'/'__init__.py', folder/'s5_mnist')
    call('from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()', folder)
    return folder


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@pytest.fixture(scope='session')
def serve():
    "A function that serves a folder over HTTP and returns its address"
    servers = []

    def serve(folder):
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(QuietHandler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f'http://127.0.0.1:{server.server_port}'
    yield serve
    for server in servers:
        server.shutdown()


@pytest.fixture(scope='module')
def browser():
    "Chromium; one per module, because no other event loop can run while it is open"
    api = pytest.importorskip('playwright.sync_api')
    path = shutil.which('chromium') or shutil.which('google-chrome')
    if not path:
        pytest.skip('no chromium on the PATH')
    with api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield browser
        browser.close()
