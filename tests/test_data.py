"""MNIST's files, searched for in order, verified, and downloaded completely or not at all; and batches of images."""
import gzip
import io
import shutil
import socket
import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.datasets import MNIST

from s5_mnist import data as data_module
from s5_mnist.augment import s5_augment

from s5_mnist.data import Batches, check_digits, generated_data, load_data, load_mnist, loaders, parse_idx
from s5_mnist.mnist_files import read_mnist_file
from s5_mnist.digits import generate_digits

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


def real_content(name):
    "One of MNIST's files, unpacked"
    content = next(data_module._copies(name, data_module.data_folders())).read_bytes()
    return gzip.decompress(content) if content[:2] == b'\x1f\x8b' else content


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
@pytest.mark.parametrize('spelling', ['-idx', '.idx'])
@pytest.mark.parametrize('place', ['MNIST/raw', 'MNIST', 'raw', '.'])
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
    assert d.train_x.shape == (30, 28, 28) and d.test_x.shape == (20, 28, 28)
    assert d.train_x.dtype == d.test_x.dtype == torch.uint8
    assert d.train_y.dtype == d.test_y.dtype == torch.int64
    assert d.train_x.equal(generate_digits(30, 0)[0]) and d.test_y.equal(generate_digits(20, 1)[1])


def test_order_of_search(tiny, tmp_path, monkeypatch):
    "The argument, then the variable, then the cache; damaged copies show which were read"
    places = [tmp_path/k for k in ('argument', 'variable', 'cache/s5_mnist')]
    for folder in places:
        raw = lay_out(folder, tiny)
        (raw/f'{LABELS}.gz').write_bytes(b'')
    monkeypatch.setenv('S5_MNIST_DATA', str(places[1]))
    with pytest.raises(FileNotFoundError) as e:
        load_mnist(places[0], download=False)
    at = [str(e.value).index(str(folder)) for folder in places]
    assert at == sorted(at)
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


# --- damaged files ----------------------------------------------------------------------------------------------

def spoil(content, fault):
    "The content of a file with one fault"
    if fault == 'empty':
        return b''
    if fault == 'truncated':
        return content[:len(content)//2]
    if fault == 'longer':
        return content+b'x'
    if fault == 'magic':
        return b'\0\0\x08\x07'+content[4:]
    at = {'first byte': 0, 'middle byte': len(content)//2, 'last byte': len(content)-1}[fault]
    return content[:at]+bytes([content[at] ^ 1])+content[at+1:]


FAULTS = ['empty', 'truncated', 'longer', 'magic', 'first byte', 'middle byte', 'last byte']


@pytest.mark.parametrize('compressed', [True, False])
@pytest.mark.parametrize('fault', FAULTS)
def test_faults(tiny, tmp_path, fault, compressed):
    "Each fault in each file is refused with its path, what was expected, what was found and what to do"
    for name in tiny:
        raw = lay_out(tmp_path/name, tiny, compressed)
        path = raw/(name if compressed else name.removesuffix('.gz'))
        path.write_bytes(spoil(path.read_bytes(), fault))
        with pytest.raises(FileNotFoundError) as e:
            load_mnist(tmp_path/name, download=False)
        assert all(part in str(e.value) for part in (str(path), 'expected', 'found', 'S5_MNIST_DATA'))
        assert ('an empty file' in str(e.value)) == (fault == 'empty')


def test_swapped_files(tiny, tmp_path):
    raw = lay_out(tmp_path/'d', tiny)
    shutil.copy(raw/'train-labels-idx1-ubyte.gz', raw/f'{LABELS}.gz')
    with pytest.raises(FileNotFoundError, match=f'{LABELS}.gz.*found more'):
        load_mnist(tmp_path/'d', download=False)


@pytest.mark.parametrize('kind', ['bomb', 'huge'])
def test_little_is_read_of_a_file_that_is_too_long(tiny, tmp_path, kind):
    "256 MB of zeros, in a small archive and as they are"
    path = lay_out(tmp_path/'d', tiny)/f'{LABELS}.gz'
    with open(path, 'wb') as f:
        f.write(gzip.compress(bytes(2**28), 1)) if kind == 'bomb' else f.truncate(2**28)
    tracemalloc.start()
    with pytest.raises(FileNotFoundError, match='found more'):
        load_mnist(tmp_path/'d', download=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


@pytest.mark.mnist
@pytest.mark.parametrize('fault', FAULTS)
def test_faults_in_the_real_files(mnist, fault):
    "The smallest of the real files, packed and unpacked"
    content = real_content(LABELS)
    for good in (content, gzip.compress(content)):
        assert read_mnist_file(io.BytesIO(good), LABELS) == content
        with pytest.raises(ValueError, match='expected'):
            read_mnist_file(io.BytesIO(spoil(good, fault)), LABELS)


# --- the published files ----------------------------------------------------------------------------------------

@pytest.mark.mnist
def test_real_mnist(mnist):
    assert mnist.train_x.shape == (60_000, 28, 28) and mnist.test_x.shape == (10_000, 28, 28)
    assert mnist.train_y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.test_y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.mnist
def test_same_as_torchvision(mnist, tmp_path):
    "torchvision reads the same tensors from copies of the same files"
    raw = tmp_path/'MNIST'/'raw'
    raw.mkdir(parents=True)
    for name in data_module.MNIST_FILES:
        (raw/name).write_bytes(real_content(name))
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
    threading.Thread(target=httpd.serve_forever, args=(.02,), daemon=True).start()
    Handler.url = f'http://127.0.0.1:{httpd.server_port}/'
    for proxy in ('http_proxy', 'HTTP_PROXY'):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(MNIST, 'mirrors', [Handler.url])
    yield Handler
    httpd.shutdown()


def test_download(server, tiny, tmp_path):
    "A complete download is kept as it was served, and not repeated"
    d = load_mnist(tmp_path/'d')
    assert len(d.train_x) == 30 and len(server.asked) == 4
    raw = tmp_path/'d'/'MNIST'/'raw'
    assert {p.name: p.read_bytes() for p in raw.iterdir()} == tiny
    assert load_mnist(tmp_path/'d').train_x.equal(d.train_x) and len(server.asked) == 4


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


def test_a_named_folder_is_created_by_the_download(server, tmp_path):
    with pytest.raises(FileNotFoundError, match='new'):
        load_mnist(tmp_path/'new'/'mnist', download=False)
    assert not (tmp_path/'new').exists()
    assert len(load_mnist(tmp_path/'new'/'mnist').test_y) == 20
    assert len(tree(tmp_path/'new'/'mnist'/'MNIST'/'raw')) == 4


def test_download_goes_to_the_cache(server, tmp_path):
    load_mnist()
    assert len(tree(tmp_path/'cache'/'s5_mnist'/'MNIST'/'raw')) == 4


def test_download_without_a_length(server, tmp_path):
    server.behave = staticmethod(lambda name: 'no length')
    assert len(load_mnist(tmp_path/'d').train_x) == 30


@pytest.mark.parametrize('how', ['cut off', 'corrupt', 'refuse', 'endless'])
def test_bad_download_leaves_nothing(server, tmp_path, how):
    "If the third file fails, the two before it are kept, nothing of it is, and the next call downloads the rest"
    server.behave = staticmethod(lambda name: how if name.startswith('t10k-images') else 'serve')
    with pytest.raises(FileNotFoundError, match='t10k-images-idx3-ubyte.gz could not be downloaded'):
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
        data_module.download_file(LABELS, tmp_path/'d'/'x.gz', timeout=0.2)
    assert tree(tmp_path) == []


def test_no_connection(tiny, tmp_path, monkeypatch, capsys):
    "`mnist` fails; `auto` says in one line why it uses generated digits, and what files it found"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        monkeypatch.setattr(MNIST, 'mirrors', [f'http://127.0.0.1:{s.getsockname()[1]}/'])
    monkeypatch.setattr(data_module, 'generated_data', lambda: 'drawn')
    with pytest.raises(FileNotFoundError, match='is in none of.*S5_MNIST_DATA'):
        load_data('mnist')
    path = tmp_path/'d'/'train-images.idx3-ubyte'
    path.write_bytes(b'')
    capsys.readouterr()
    assert load_data('auto', tmp_path/'d') == 'drawn'
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith('Downloading')]
    assert len(lines) == 1 and 'using generated digits instead' in lines[0]
    assert f'{path} was not used' in lines[0] and 'an empty file' in lines[0]


def test_download_into_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path/'d'/'MNIST').write_text('in the way')
    with pytest.raises(ValueError, match='must be a folder, but'):
        load_mnist(tmp_path/'d')
    assert (tmp_path/'d'/'MNIST').read_text() == 'in the way'


def test_what_is_named_must_be_a_folder(tiny, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    with pytest.raises(ValueError, match='root=.*file is not a folder'):
        load_mnist(tmp_path/'file')
    for bad in ('file', 'missing'):
        monkeypatch.setenv('S5_MNIST_DATA', str(tmp_path/bad))
        with pytest.raises(ValueError, match=f'S5_MNIST_DATA=.*{bad} is not a folder'):
            load_data('auto')


# --- IDX --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('raw, message', [
    (b'', 'found nothing'), (b'\0\0\x09\1', 'starts with 000008, found 00000901'),
    (b'\0\0\x08\3\0\0', 'found 00000803'),
    (b'\0\0\x08\1\0\0\0\3ab', 'the header promises 3 elements, found 2'),
    (b'\0\0\x08\2'+b'\xff'*8, 'the header promises 18,446,744,065,119,617,025 elements, found 0')])
def test_bad_idx_files_are_refused(raw, message):
    with pytest.raises(ValueError, match=f'labels: .*{message}'):
        parse_idx(raw, 'labels')


# --- batches ----------------------------------------------------------------------------------------------------

def test_every_image_comes_once_and_in_order_unless_shuffled(small):
    for bs in (1, 7, 130, 500):
        dl = Batches(small.test_x, small.test_y, bs)
        x, y = (torch.cat(t) for t in zip(*dl))
        assert len(dl) == len(list(dl)) == -(-130//bs)
        assert y.equal(small.test_y) and x.equal((small.test_x[:, None]/255-.1307)/.3081)
    x, y = (torch.cat(t) for t in zip(*loaders(small, bs=64).train))
    assert sorted(y.tolist()) == sorted(small.train_y.tolist()) and not y.equal(small.train_y)


def test_the_last_images_are_kept_for_validation(small):
    dls = loaders(small, n_valid=40, test_bs=7)
    assert [len(dl.y) for dl in dls] == [260, 40, 130] and dls.valid.y.equal(small.train_y[260:])
    assert torch.cat([y for _, y in dls.valid]).equal(small.train_y[260:])
    assert loaders(small).valid is None


def test_shuffling_differs_by_epoch_and_repeats_by_seed(small):
    def orders(seed):
        dls = loaders(small, bs=64, augment=s5_augment, generator=torch.Generator().manual_seed(seed))
        return [torch.cat([x for x, _ in dls.train]) for _ in range(3)]
    a, b, c = orders(1), orders(1), orders(2)
    assert all(x.equal(y) for x, y in zip(a, b))
    assert not a[0].equal(a[1]) and not a[1].equal(a[2]) and not a[0].equal(c[0])


def test_a_subset_is_drawn_anew_each_epoch(small):
    dl = loaders(small, bs=10, subset_frac=0.1).train
    a, b = (torch.cat([x for x, _ in dl]) for _ in range(2))
    assert len(a) == len(b) == 30 and not a.equal(b)


def test_a_resumed_loader_begins_where_it_is_told(small):
    dl = loaders(small, bs=50).train
    labels = [y for _, y in dl]
    dl.start = 4
    assert [y.tolist() for _, y in dl] == [y.tolist() for y in labels[4:]]
    assert len(list(dl)) == 6                                     # And the epoch after that is complete


@pytest.mark.parametrize('change, message', [
    (dict(bs=0), 'bs must be at least 1, got 0'), (dict(test_bs=0), 'bs must be at least 1, got 0'),
    (dict(subset_frac=0), 'subset_frac must be > 0 and <= 1, got 0'), (dict(subset_frac=1.5), 'got 1.5'),
    (dict(n_valid=300), 'n_valid must be 0 to 299, got 300'), (dict(n_valid=-1), 'n_valid must be 0 to 299, got -1')])
def test_bad_settings_of_loaders_are_refused(small, change, message):
    with pytest.raises(ValueError, match=message):
        loaders(small, **change)


def test_what_is_not_a_data_set_is_refused(small):
    with pytest.raises(ValueError, match='data must be a DigitData, as from load_data; found tuple'):
        loaders(tuple(small))


def test_an_error_names_the_data_as_it_is_told_to(small):
    check_digits(small.train_x, small.train_y)
    with pytest.raises(ValueError, match='mine: expected a tensor, found list; use torch.as_tensor'):
        check_digits([1], small.train_y, 'mine')


def test_generated_data_says_how_it_was_made():
    a, b = generated_data(30, 20, seed=1), generated_data(30, 20, seed=1)
    assert a.name == 'generated digits (30 + 20, seed 1)' and a.train_x.equal(b.train_x)
    assert not generated_data(30, 20).train_x.equal(a.train_x) and not a.test_x[:20].equal(a.train_x[:20])


def test_the_kind_of_data_must_be_known():
    with pytest.raises(ValueError, match="data must be one of auto, mnist, digits, got 'cifar'"):
        load_data('cifar')
