"""Hostile and meaningless input: a result, or an ValueError that names it."""
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import idx_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from s5_mnist.checkpoints import load_checkpoint
from s5_mnist.runs import load_history, load_weights

from s5_mnist.data import Batches, check_digits, generated_data, loaders, parse_idx
from s5_mnist.mnist_files import read_mnist_file
from s5_mnist.model import Net
from s5_mnist.preprocessing import preprocess
from s5_mnist.recipes import Recipe, get_recipe, make_optimizer, parse_changes
from s5_mnist.runs import load_run
from s5_mnist.sweeps import read_sweep
from s5_mnist.training import evaluate, fit

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize('cases', [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_cases_of_the_fuzzer(cases):
    fuzz = pytest.importorskip('fuzz', exc_type=ImportError) # On Windows, Python cannot tell how much memory was used
    assert not fuzz.main(cases, seed=1)


# --- properties -------------------------------------------------------------------------------------------------

@MANY
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6)), st.binary(max_size=4))
def test_idx_returns_what_was_written_and_accepts_nothing_else(array, more):
    raw = idx_bytes(torch.from_numpy(array))
    assert parse_idx(raw).equal(torch.from_numpy(array))
    for bad in (raw+b'x'+more, raw[:-1]):
        with pytest.raises(ValueError):
            parse_idx(bad)


@MANY
@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_are_refused(raw):
    with pytest.raises(ValueError, match='the bytes'):
        preprocess(raw)


@MANY
@given(hnp.arrays(st.sampled_from([np.uint8, np.int16, np.float32, np.float64, bool, np.complex64]),
                  hnp.array_shapes(min_dims=0, max_dims=4, max_side=12)))
def test_any_array_is_a_digit_or_is_refused(array):
    try:
        image = preprocess(array)
    except ValueError as e:
        assert 'the ndarray' in str(e)
    else:
        assert image.shape == (28, 28) and image.dtype == torch.uint8 and image.max() > 100


@MANY
@given(st.text(max_size=40))
def test_any_text_is_a_change_of_a_recipe_or_is_refused(text):
    try:
        recipe = get_recipe('fast', **parse_changes(text))
    except ValueError:
        return
    assert isinstance(recipe, Recipe)


@MANY
@given(st.dictionaries(
    st.sampled_from(['epochs', 'bs', 'lr', 'subset_frac', 'mild_aug_epochs', 'augment', 'seed', 'gamma', 'x']),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans()), max_size=3))
def test_any_value_of_a_recipe_is_in_range_or_is_refused(changes):
    try:
        r = get_recipe('fast', **changes)
    except ValueError:
        return
    assert 1 <= r.epochs <= 100_000 and 1 <= r.bs <= 60_000 and 0 < r.lr <= 1e3
    assert 0 < r.subset_frac <= 1 and 0 < r.gamma <= 1


# --- one check wherever data comes in ---------------------------------------------------------------------------

X, Y = torch.zeros(4, 28, 28, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
BAD = {
    'labels must be 0 to 9, found 10': (X, Y+10), 'labels must be 0 to 9, found -1': (X, Y-1), 'int32': (X, Y.int()),
    'labels must be int64': (X, Y[:3]), 'float': (X, Y.float()), 'images must be': (X[:, :20], Y),
    'at least one image, found none': (X[:0], Y[:0]), 'found ndarray': (X.numpy(), Y)}


@pytest.mark.parametrize('message', BAD)
def test_what_is_no_set_of_digits_is_refused_everywhere(message):
    x, y = BAD[message]
    batch = (x[:, None].float() if isinstance(x, torch.Tensor) else x, y)
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=.1)
    data = generated_data(4, 4)._replace(train_x=x, train_y=y)
    calls = [lambda: check_digits(x, y), lambda: Batches(x, y), lambda: loaders(data),
             lambda: evaluate(net, [batch]), lambda: fit(net, [batch], None, opt, None, 1)]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_pixels_that_are_not_finite_are_refused_everywhere(bad):
    x = torch.zeros(4, 1, 28, 28)
    x[2, 0, 5, 5] = bad
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=.1)
    for call in (lambda: evaluate(net, [(x, Y)]), lambda: fit(net, [(x, Y)], None, opt, None, 1)):
        with pytest.raises(ValueError, match='batch: pixels must be finite, found NaN or infinity'):
            call()
    with pytest.raises(ValueError, match=r'must hold values in .0,1. or .0,255., found .*(nan|inf)'):
        preprocess(x[2])


# --- nothing in a file is executed ------------------------------------------------------------------------------

class Evil:
    def __reduce__(self):
        return open, ('ran', 'w')


def evils():
    "Files that run code when they are loaded without care, in the formats that loaders know"
    plain, archive = pickle.dumps(Evil()), io.BytesIO()
    torch.save({'net': Evil()}, archive)
    legacy = io.BytesIO()
    torch.save({'net': Evil()}, legacy, _use_new_zipfile_serialization=False)
    array = io.BytesIO()
    np.save(array, np.array([Evil()], dtype=object), allow_pickle=True)
    return [plain, archive.getvalue(), legacy.getvalue(), array.getvalue(), b'#!/bin/sh\ntouch ran\n',
            struct.pack('<Q', len(plain))+plain, zlib.compress(plain)]


def test_nothing_is_executed(tmp_path, monkeypatch, run_copy, small_run):
    "By whatever function, under whatever name"
    monkeypatch.chdir(tmp_path)
    net, g = Net(), torch.Generator()
    opt, sched = make_optimizer(net, small_run.recipe, 2)
    with pytest.raises(ValueError), monkeypatch.context() as m:   # Loaded without care, it does run
        m.setattr(pickle, 'Unpickler', pickle.Unpickler)
        pickle.loads(evils()[0]).close()
        assert (tmp_path/'ran').exists()
        (tmp_path/'ran').unlink()
        raise ValueError
    for evil in evils():
        (tmp_path/'evil').write_bytes(evil)
        calls = [lambda: load_checkpoint('evil', net, opt, sched, g), lambda: load_weights(net, 'evil'),
                 lambda: load_history('evil'), lambda: read_sweep('evil'), lambda: preprocess('evil'),
                 lambda: preprocess(evil), lambda: parse_idx(evil),
                 lambda: read_mnist_file(io.BytesIO(evil), 'train-images-idx3-ubyte')]
        for name in sorted(p.name for p in run_copy.iterdir()):
            if name in ('curves.png', 'last.ckpt'):
                continue

            def open_run(name=name):
                good = (run_copy/name).read_bytes()
                (run_copy/name).write_bytes(evil)
                try: load_run(run_copy, 'cpu')
                finally: (run_copy/name).write_bytes(good)
            calls.append(open_run)
        for call in calls:
            with pytest.raises(ValueError):
                call()
    assert not (tmp_path/'ran').exists()
