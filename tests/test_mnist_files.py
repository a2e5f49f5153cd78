"""MNIST's files: searched for in order, verified, and downloaded completely or not at all; Google Drive."""
import gzip
import io
import shutil
import socket
import sys
import threading
import time
import tracemalloc
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision.datasets import MNIST

from s5_mnist import data as data_module
from s5_mnist import mnist_files
from s5_mnist.data import load_data, load_mnist
from s5_mnist.digits import generate_digits
from s5_mnist.mnist_files import download_file, drive_folder, read_mnist_file

LABELS = 't10k-labels-idx1-ubyte'


def lay_out(folder, files, compressed=True):
    "Write files into a folder in torchvision's layout"
    raw = Path(folder)/'MNIST'/'raw'
    raw.mkdir(parents=True)
    for name, content in files.items():
        if not compressed:
            name, content = name.removesuffix('.gz'), gzip.decompress(content)
        (raw/name).write_bytes(content)
    return raw


def tree(folder):
    "All files under `folder`"
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob('*') if p.is_file())


# --- where the files are searched for ---------------------------------------------------------------------------

PACKED = {
    'as published': lambda name, raw, gz: {f'{name}.gz': gz},
    'unpacked': lambda name, raw, gz: {name: raw},
    'packed again': lambda name, raw, gz: {f'{name}.gz': gzip.compress(raw, 1, mtime=7)+gzip.compress(b'')},
    'unpacked, but called .gz': lambda name, raw, gz: {f'{name}.gz': raw},
    'packed, but not called .gz': lambda name, raw, gz: {name: gz},
    'beside an empty one': lambda name, raw, gz: {name: b'', f'{name}.gz': gz},
    'beside a damaged one': lambda name, raw, gz: {name: raw, f'{name}.gz': gz[:-1]},
    'beside a folder': lambda name, raw, gz: {f'{name}/x': b'', f'{name}.gz': gz}}


@pytest.mark.parametrize('packed', PACKED)
@pytest.mark.parametrize('place, spelling', [('MNIST/raw', '-idx'), ('MNIST', '.idx'), ('raw', '-idx'), ('.', '.idx')])
def test_mnist_is_known_by_its_content(tiny, tmp_path, place, spelling, packed):
    "Under each name and in each place that copies of it come with; nothing is written"
    for name, gz in tiny.items():
        name = name.removesuffix('.gz').replace('-idx', spelling)
        for n, content in PACKED[packed](name, gzip.decompress(gz), gz).items():
            path = tmp_path/'d'/place/n
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    before = tree(tmp_path)
    d = load_mnist(tmp_path/'d')
    assert d.name == 'MNIST' and tree(tmp_path) == before
    (x, y), (test_x, test_y) = generate_digits(30, 0), generate_digits(20, 1)
    assert all(a.dtype == b.dtype and a.equal(b) for a, b in zip(d, (x, y, test_x, test_y)))


def test_order_of_search(tiny, tmp_path, monkeypatch):
    "The argument, then the variable, then the cache; damaged copies show which were read"
    places = [tmp_path/k for k in ('argument', 'variable', 'cache/s5_mnist')]
    for folder in places:
        raw = lay_out(folder, tiny)
        (raw/f'{LABELS}.gz').write_bytes(b'')
    monkeypatch.setenv('S5_MNIST_DATA', str(places[1]))
    with pytest.raises(FileNotFoundError, match='argument.*variable.*cache'):
        load_mnist(places[0], download=False)
    (raw/f'{LABELS}.gz').write_bytes(tiny[f'{LABELS}.gz'])
    assert len(load_mnist(places[0], download=False).test_y) == 20
    for folder in places:
        shutil.rmtree(folder/'MNIST')
    with pytest.raises(FileNotFoundError, match='argument.*variable.*cache.*Allow the download'):
        load_mnist(places[0], download=False)


def test_read_only_folder(tiny, tmp_path):
    raw = lay_out(tmp_path/'d', tiny)
    before = tree(tmp_path)
    for p in [*raw.iterdir(), raw, raw.parent, raw.parent.parent]:
        p.chmod(0o555 if p.is_dir() else 0o444)
    assert len(load_mnist(tmp_path/'d').train_x) == 30
    assert tree(tmp_path) == before


def test_what_is_named_must_be_a_folder(tiny, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    with pytest.raises(ValueError, match='root=.*file'):
        load_mnist(tmp_path/'file')
    for bad in ('file', 'missing'):
        monkeypatch.setenv('S5_MNIST_DATA', str(tmp_path/bad))
        with pytest.raises(ValueError, match=f'S5_MNIST_DATA=.*{bad}'):
            load_data('auto')


# --- damaged files ----------------------------------------------------------------------------------------------

def spoil(content, fault):
    "The content of a file with one fault"
    if fault == 'empty':
        return b''
    if fault == 'truncated':
        return content[:len(content)//2]
    if fault == 'longer':
        return content+b'x'
    at = {'first byte': 0, 'middle byte': len(content)//2, 'last byte': len(content)-1}[fault]
    return content[:at]+bytes([content[at] ^ 1])+content[at+1:]


@pytest.mark.parametrize('compressed', [True, False])
@pytest.mark.parametrize('fault', ['empty', 'truncated', 'longer', 'first byte', 'middle byte', 'last byte'])
def test_faults(tiny, tmp_path, fault, compressed):
    "Each fault in each file is refused with its path, what was expected, what was found and what to do"
    for name in tiny:
        raw = lay_out(tmp_path/name, tiny, compressed)
        path = raw/(name if compressed else name.removesuffix('.gz'))
        path.write_bytes(spoil(path.read_bytes(), fault))
        with pytest.raises(FileNotFoundError) as e:
            load_mnist(tmp_path/name, download=False)
        assert all(part in str(e.value) for part in (str(path), 'expected', 'found', 'S5_MNIST_DATA'))


@pytest.mark.parametrize('kind', ['bomb', 'huge', 'another file'])
def test_little_is_read_of_a_file_that_is_too_long(tiny, tmp_path, kind):
    "256 MB of zeros, in a small archive and as they are"
    path = lay_out(tmp_path/'d', tiny)/f'{LABELS}.gz'
    with open(path, 'wb') as f:
        if kind == 'huge': f.truncate(2**28)
        else: f.write(gzip.compress(bytes(2**28), 1) if kind == 'bomb' else tiny['train-labels-idx1-ubyte.gz'])
    tracemalloc.start()
    with pytest.raises(FileNotFoundError, match='found more'):
        load_mnist(tmp_path/'d', download=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


# --- the published files ----------------------------------------------------------------------------------------

@pytest.mark.mnist
def test_real_mnist(mnist, tmp_path):
    "torchvision reads the same tensors from copies of the same files"
    raw = tmp_path/'MNIST'/'raw'
    raw.mkdir(parents=True)
    for name in mnist_files.MNIST_FILES:
        content = next(mnist_files._copies(name, mnist_files.data_folders())).read_bytes()
        content = gzip.decompress(content) if content[:2] == b'\x1f\x8b' else content
        (raw/name).write_bytes(content)
    assert read_mnist_file(io.BytesIO(gzip.compress(content)), LABELS).equal(mnist.test_y.byte())
    for fault in ('truncated', 'middle byte'):
        with pytest.raises(ValueError, match='expected'):
            read_mnist_file(io.BytesIO(spoil(content, fault)), LABELS)
    train, test = MNIST(tmp_path, train=True), MNIST(tmp_path, train=False)
    assert train.data.equal(mnist.train_x) and train.targets.equal(mnist.train_y)
    assert test.data.equal(mnist.test_x) and test.targets.equal(mnist.test_y)


# --- downloads --------------------------------------------------------------------------------------------------

@pytest.fixture
def server(tiny, monkeypatch):
    "A local mirror; its function `behave` decides what happens to each file"
    class Handler(BaseHTTPRequestHandler):
        behave, asked = staticmethod(lambda name: 'serve'), []

        def do_GET(self):
            name = self.path.split('/')[-1]
            self.asked.append(self.path)
            how, content = self.behave(name), tiny[name]
            if how == 'refuse':
                return self.send_error(404)
            if how == 'stall':
                time.sleep(1)
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
    threading.Thread(target=httpd.serve_forever, args=(.02,), daemon=True).start()
    Handler.url = f'http://127.0.0.1:{httpd.server_port}/'
    for proxy in ('http_proxy', 'HTTP_PROXY'):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(MNIST, 'mirrors', [Handler.url])
    yield Handler
    httpd.shutdown()


def test_download(server, tiny, tmp_path):
    "A complete download is kept as it was served, and not repeated; a named folder is created"
    folder = tmp_path/'new'/'mnist'
    with pytest.raises(FileNotFoundError, match='new'):
        load_mnist(folder, download=False)
    assert not (tmp_path/'new').exists()
    d = load_mnist(folder)
    assert len(d.train_x) == 30 and len(server.asked) == 4
    assert {p.name: p.read_bytes() for p in (folder/'MNIST'/'raw').iterdir()} == tiny
    assert load_mnist(folder).train_x.equal(d.train_x) and len(server.asked) == 4
    load_mnist()                                                  # Without a name, into the cache
    assert len(tree(tmp_path/'cache'/'s5_mnist'/'MNIST'/'raw')) == 4


@pytest.mark.parametrize('name, beside', [(LABELS, True), (f'{LABELS}.gz', False)])
def test_a_damaged_file_is_named_and_never_replaced(server, tiny, tmp_path, capsys, name, beside):
    "A good copy is downloaded beside it; in the place of the download, it must be deleted first"
    path = lay_out(tmp_path/'d', {k: v for k, v in tiny.items() if LABELS not in k})/name
    path.write_bytes(b'damaged')
    if beside:
        assert len(load_mnist(tmp_path/'d').test_y) == 20 and len(server.asked) == 1
    else:
        with pytest.raises(FileNotFoundError) as e:
            load_mnist(tmp_path/'d')
        assert f'{path} was not used' in str(e.value) and f'Delete {path}' in str(e.value) and server.asked == []
    assert path.read_bytes() == b'damaged'
    assert (f'{path} was not used' in capsys.readouterr().out) == beside


def test_download_without_a_length(server, tmp_path):
    server.behave = staticmethod(lambda name: 'no length')
    assert len(load_mnist(tmp_path/'d').train_x) == 30


@pytest.mark.parametrize('how', ['cut off', 'corrupt', 'refuse', 'endless'])
def test_bad_download_leaves_nothing(server, tmp_path, how):
    "If the third file fails, the two before it are kept, nothing of it is, and the next call downloads the rest"
    server.behave = staticmethod(lambda name: how if name.startswith('t10k-images') else 'serve')
    with pytest.raises(FileNotFoundError, match='t10k-images.*could not be downloaded'):
        load_mnist(tmp_path/'d')
    assert [Path(p).name for p in tree(tmp_path)] == ['train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz']
    server.behave = staticmethod(lambda name: 'serve')
    assert len(load_mnist(tmp_path/'d').test_x) == 20
    assert len(server.asked) == 5


def test_second_mirror(server, tmp_path, monkeypatch):
    "After a mirror that fails, the next one is tried"
    monkeypatch.setattr(MNIST, 'mirrors', [server.url+'first/', server.url+'second/'])
    server.behave = staticmethod(lambda name: 'corrupt' if server.asked[-1].startswith('/first') else 'serve')
    assert len(load_mnist(tmp_path/'d').train_x) == 30
    assert [p.split('/')[1] for p in server.asked] == ['first', 'second']*4


def test_a_mirror_that_stalls(server, tmp_path):
    server.behave = staticmethod(lambda name: 'stall')
    with pytest.raises(FileNotFoundError, match='could not be downloaded'):
        download_file(LABELS, tmp_path/'d'/'x.gz', timeout=0.2)
    assert tree(tmp_path) == []


def test_no_connection(tiny, tmp_path, monkeypatch, capsys):
    "`mnist` fails; `auto` says in one line why it uses generated digits, and what files it found"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        monkeypatch.setattr(MNIST, 'mirrors', [f'http://127.0.0.1:{s.getsockname()[1]}/'])
    monkeypatch.setattr(data_module, 'generated_data', lambda: 'drawn')
    with pytest.raises(FileNotFoundError, match='S5_MNIST_DATA'):
        load_data('mnist')
    path = tmp_path/'d'/'train-images.idx3-ubyte'
    path.write_bytes(b'')
    capsys.readouterr()
    assert load_data('auto', tmp_path/'d') == 'drawn'
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith('Downloading')]
    assert len(lines) == 1 and 'generated digits' in lines[0] and f'{path} was not used' in lines[0]


def test_download_into_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path/'d'/'MNIST').write_text('in the way')
    with pytest.raises(OSError, match='MNIST'):
        load_mnist(tmp_path/'d')
    assert (tmp_path/'d'/'MNIST').read_text() == 'in the way'


# --- Google Drive -----------------------------------------------------------------------------------------------

def test_the_drive_is_mounted_on_colab_only(tmp_path, monkeypatch, capsys):
    assert drive_folder(mount=str(tmp_path)) is None
    colab = types.ModuleType('google.colab')
    colab.drive = types.SimpleNamespace(mount=lambda path: Path(path, 'MyDrive').mkdir())
    for name, module in (('google', types.ModuleType('google')), ('google.colab', colab)):
        module.__spec__, module.__path__ = types.SimpleNamespace(), []
        monkeypatch.setitem(sys.modules, name, module)
    assert drive_folder(False, str(tmp_path)) is None
    folder = drive_folder(mount=str(tmp_path))
    assert folder == tmp_path/'MyDrive'/'s5_mnist' and folder.is_dir()
    assert drive_folder(mount=str(tmp_path)) is None              # MyDrive is there: mounting fails
    assert 'local disk' in capsys.readouterr().out
