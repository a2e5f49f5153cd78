"""MNIST's files: found in the right order, verified, downloaded whole or not at all."""
import gzip
import os
import shutil
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.datasets import MNIST

from s5_mnist import data as data_module
from s5_mnist.data import InputError, load_data, load_mnist, verified

LABELS = 't10k-labels-idx1-ubyte'


def lay_out(folder, files, packed=True):
    "Write `files` into `folder` in torchvision's layout"
    raw = Path(folder)/'MNIST'/'raw'
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw/(name if packed else name.removesuffix('.gz'))).write_bytes(content if packed else gzip.decompress(content))
    return raw


def tree(folder):
    "All files under `folder`"
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob('*') if p.is_file())


# --- where it is looked for -------------------------------------------------------------------------------------

@pytest.mark.parametrize('packed', [True, False])
def test_reads_packed_and_unpacked(tiny, tmp_path, packed):
    lay_out(tmp_path/'d', tiny, packed)
    d = load_mnist(tmp_path/'d', download=False)
    assert d.name == 'MNIST'
    assert d.train_x.shape == (30, 28, 28) and d.test_x.shape == (20, 28, 28)
    assert d.train_x.dtype == d.test_x.dtype == torch.uint8
    assert d.train_y.dtype == d.test_y.dtype == torch.int64
    from s5_mnist.data import generate_digits
    assert d.train_x.equal(generate_digits(30, 0)[0]) and d.test_y.equal(generate_digits(20, 1)[1])


def test_order_of_search(tiny, tmp_path, monkeypatch):
    "The argument, then the variable, then the cache: a damaged copy shows which one was taken"
    places = {k: tmp_path/k for k in ('argument', 'variable', 'cache/s5_mnist')}
    for name, folder in places.items():
        raw = lay_out(folder, tiny)
        (raw/f'{LABELS}.gz').write_bytes(tiny[f'{LABELS}.gz'][:-1])
    monkeypatch.setenv('S5_MNIST_DATA', str(places['variable']))
    for name, folder in places.items():
        with pytest.raises(InputError, match=name):
            load_mnist(places['argument'])
        shutil.rmtree(folder/'MNIST')
    with pytest.raises(FileNotFoundError, match='S5_MNIST_DATA'):
        load_mnist(places['argument'], download=False)


def test_bare_files_work_too(tiny, tmp_path):
    raw = lay_out(tmp_path/'d', tiny)
    assert len(load_mnist(raw, download=False).train_x) == 30


def test_read_only_folder(tiny, tmp_path):
    raw = lay_out(tmp_path/'d', tiny)
    before = tree(tmp_path)
    for p in [*raw.iterdir(), raw, raw.parent, raw.parent.parent]:
        p.chmod(0o555 if p.is_dir() else 0o444)
    assert len(load_mnist(tmp_path/'d').train_x) == 30
    assert tree(tmp_path) == before


# --- the faults -------------------------------------------------------------------------------------------------

def spoil(content, fault):
    "A file's content with one fault"
    if fault == 'empty':
        return b''
    if fault == 'truncated':
        return content[:len(content)//2]
    if fault == 'longer':
        return content+b'\0'
    if fault == 'magic':
        return b'\0\0\x08\x07'+content[4:]
    at = {'first byte': 0, 'middle byte': len(content)//2, 'last byte': len(content)-1}[fault]
    return content[:at]+bytes([content[at] ^ 1])+content[at+1:]


FAULTS = ['empty', 'truncated', 'longer', 'magic', 'first byte', 'middle byte', 'last byte']


@pytest.mark.parametrize('packed', [True, False])
@pytest.mark.parametrize('fault', FAULTS)
def test_faults(tiny, tmp_path, fault, packed):
    "Each fault in each of the files is refused with its name, what was expected and what was found"
    for name in tiny:
        folder = tmp_path/name
        raw = lay_out(folder, tiny, packed)
        path = raw/(name if packed else name.removesuffix('.gz'))
        path.write_bytes(spoil(path.read_bytes(), fault))
        for call in (lambda: load_mnist(folder), lambda: load_data('auto', folder)):
            with pytest.raises(InputError) as e:
                call()
            message = str(e.value)
            assert str(path) in message and 'expected' in message and 'found' in message and 'Delete' in message
        if fault == 'magic' and not packed:
            assert 'magic number' in message and '2055' in message
        if fault == 'empty':
            assert 'an empty file' in message


def test_packed_file_with_a_wrong_magic_number(tiny):
    raw = gzip.decompress(tiny[f'{LABELS}.gz'])
    with pytest.raises(InputError, match='magic number: expected 2049, found 2055'):
        verified(gzip.compress(spoil(raw, 'magic')), f'{LABELS}.gz')


def test_swapped_files(tiny, tmp_path):
    raw = lay_out(tmp_path/'d', tiny)
    shutil.copy(raw/'train-labels-idx1-ubyte.gz', raw/f'{LABELS}.gz')
    with pytest.raises(InputError, match=LABELS):
        load_mnist(tmp_path/'d')


def test_nothing_is_unpacked_before_it_is_verified(tiny, tmp_path, monkeypatch):
    "An archive of 256 MB of zeros behind a right magic number is refused for its bytes, without growing"
    raw = lay_out(tmp_path/'d', tiny)
    (raw/f'{LABELS}.gz').write_bytes(gzip.compress(b'\0\0\x08\x01'+bytes(2**28)))
    load = gzip.decompress
    monkeypatch.setattr(gzip, 'decompress', lambda b: load(b) if len(b) < 10_000 else pytest.fail('it was unpacked'))
    with pytest.raises(InputError, match=f'{LABELS}.gz: wrong length'):
        load_mnist(tmp_path/'d')


@pytest.mark.mnist
@pytest.mark.parametrize('fault', FAULTS)
def test_faults_in_the_real_files(mnist, tmp_path, fault):
    "The smallest of the real files, packed and unpacked"
    path = data_module._find(LABELS, data_module.data_folders())
    raw = path.read_bytes()
    content = gzip.decompress(raw) if path.suffix == '.gz' else raw
    for name, good in {(path.name, raw), (LABELS, content)}:
        assert verified(good, name) == content
        with pytest.raises(InputError, match=name):
            verified(spoil(good, fault), name)


# --- the real thing ---------------------------------------------------------------------------------------------

@pytest.mark.mnist
def test_real_mnist(mnist):
    assert mnist.train_x.shape == (60_000, 28, 28) and mnist.test_x.shape == (10_000, 28, 28)
    assert mnist.train_y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.test_y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.mnist
def test_same_as_torchvision(mnist, tmp_path):
    "torchvision reads the same tensors from the same files, copied to a folder that it may write to"
    raw = tmp_path/'MNIST'/'raw'
    raw.mkdir(parents=True)
    for name in data_module.MNIST_FILES:
        path = data_module._find(name, data_module.data_folders())
        content = path.read_bytes()
        (raw/name).write_bytes(gzip.decompress(content) if path.suffix == '.gz' else content)
    train, test = MNIST(tmp_path, train=True), MNIST(tmp_path, train=False)
    assert train.data.equal(mnist.train_x) and train.targets.equal(mnist.train_y)
    assert test.data.equal(mnist.test_x) and test.targets.equal(mnist.test_y)


# --- downloads --------------------------------------------------------------------------------------------------

@pytest.fixture
def server(tiny, monkeypatch):
    "A local mirror; `behave` decides what it does with each file"
    class Handler(BaseHTTPRequestHandler):
        behave, asked = staticmethod(lambda name: 'serve'), []

        def do_GET(self):
            name = self.path.split('/')[-1]
            self.asked.append(self.path)
            how, content = self.behave(name), tiny[name]
            if how == 'refuse':
                return self.send_error(404)
            if how == 'stall':
                time.sleep(3)
                return None
            if how == 'corrupt':
                content = spoil(content, 'middle byte')
            self.send_response(200)
            if how != 'no length':
                self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            if how == 'endless':
                try:
                    while True:
                        self.wfile.write(bytes(2**16))
                except OSError:
                    return None
            self.wfile.write(content[:len(content)//2] if how == 'cut off' else content)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    Handler.url = f'http://127.0.0.1:{httpd.server_port}/'
    for proxy in ('http_proxy', 'HTTP_PROXY'):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(MNIST, 'mirrors', [Handler.url])
    yield Handler
    httpd.shutdown()


def test_download(server, tiny, tmp_path):
    "Served whole: kept as served, and not asked for a second time"
    d = load_mnist(tmp_path/'d')
    assert len(d.train_x) == 30 and len(server.asked) == 4
    raw = tmp_path/'d'/'MNIST'/'raw'
    assert {p.name: p.read_bytes() for p in raw.iterdir()} == tiny
    assert load_mnist(tmp_path/'d').train_x.equal(d.train_x) and len(server.asked) == 4


def test_download_goes_to_the_cache(server, tmp_path):
    load_mnist()
    assert len(tree(tmp_path/'cache'/'s5_mnist'/'MNIST'/'raw')) == 4


def test_download_without_a_length(server, tmp_path):
    server.behave = staticmethod(lambda name: 'no length')
    assert len(load_mnist(tmp_path/'d').train_x) == 30


@pytest.mark.parametrize('how', ['cut off', 'corrupt', 'refuse', 'endless'])
def test_bad_download_leaves_nothing(server, tmp_path, how):
    "The third file fails: the two before it are kept, nothing of it is, and the next call gets the rest"
    server.behave = staticmethod(lambda name: how if name.startswith('t10k-images') else 'serve')
    with pytest.raises(FileNotFoundError, match='t10k-images-idx3-ubyte.gz could not be downloaded'):
        load_mnist(tmp_path/'d')
    assert [Path(p).name for p in tree(tmp_path)] == ['train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz']
    server.behave = staticmethod(lambda name: 'serve')
    assert len(load_mnist(tmp_path/'d').test_x) == 20
    assert len(server.asked) == 5


def test_second_mirror(server, tmp_path, monkeypatch):
    "A mirror that fails is passed over"
    monkeypatch.setattr(MNIST, 'mirrors', [server.url+'first/', server.url+'second/'])
    server.behave = staticmethod(lambda name: 'corrupt' if server.asked[-1].startswith('/first') else 'serve')
    assert len(load_mnist(tmp_path/'d').train_x) == 30
    assert [p.split('/')[1] for p in server.asked] == ['first', 'second']*4


def test_a_mirror_that_stalls(server, tmp_path):
    server.behave = staticmethod(lambda name: 'stall')
    with pytest.raises(FileNotFoundError, match='could not be downloaded'):
        data_module.download_file(f'{LABELS}.gz', tmp_path/'d', timeout=0.2)
    assert tree(tmp_path) == []


def test_no_connection(tiny, tmp_path, monkeypatch, capsys):
    "`mnist` fails, `auto` says so in one line and draws digits"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        monkeypatch.setattr(MNIST, 'mirrors', [f'http://127.0.0.1:{s.getsockname()[1]}/'])
    monkeypatch.setattr(data_module, 'generated_data', lambda: 'drawn')
    with pytest.raises(FileNotFoundError, match='S5_MNIST_DATA'):
        load_data('mnist')
    capsys.readouterr()
    assert load_data('auto') == 'drawn'
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith('Downloading')]
    assert len(said) == 1 and 'using generated digits instead' in said[0]


def test_download_into_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path/'d'/'MNIST').write_text('in the way')
    with pytest.raises(InputError, match='cannot be written'):
        load_mnist(tmp_path/'d')
    assert (tmp_path/'d'/'MNIST').read_text() == 'in the way'


@pytest.mark.parametrize('bad', ['missing', 'file'])
def test_a_folder_that_is_named_must_be_there(tiny, tmp_path, monkeypatch, bad):
    (tmp_path/'file').write_text('')
    with pytest.raises(InputError, match=f'root=.*{bad} is no folder'):
        load_mnist(tmp_path/bad)
    monkeypatch.setenv('S5_MNIST_DATA', str(tmp_path/bad))
    with pytest.raises(InputError, match=f'S5_MNIST_DATA=.*{bad} is no folder'):
        load_data('auto')


def test_replacing_keeps_the_old_file(tmp_path):
    path = tmp_path/'f'
    path.write_text('old')
    with pytest.raises(ZeroDivisionError):
        with data_module.replacing(path) as temp:
            temp.write_text('new')
            1/0
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['f']


def test_wrong_magic_in_a_hand_made_file():
    raw = struct.pack('>II', 2051, 10_000)+bytes(10_000)
    with pytest.raises(InputError, match='expected 2049, found 2051'):
        verified(raw, LABELS)
