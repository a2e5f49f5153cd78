"""Input that means no good, or no thing at all: an answer, or an error with a name."""
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

from s5_mnist.data import Batches, InputError, check_digits, generated_data, load_mnist, loaders, parse_idx, verified
from s5_mnist.inference import preprocess
from s5_mnist.model import Net
from s5_mnist.training import (Recipe, evaluate, fit, get_recipe, load_checkpoint, load_history, load_run,
                               load_weights, make_optimizer, parse_changes)

CALM = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_two_thousand_cases_of_the_fuzzer():
    fuzz = pytest.importorskip('fuzz', exc_type=ImportError) # Windows doesn't tell how much memory was used
    assert not fuzz.main(2000, seed=1)


# --- properties -------------------------------------------------------------------------------------------------

@CALM
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6)), st.binary(max_size=4))
def test_idx_gives_back_what_was_written_and_takes_nothing_else(array, more):
    raw = idx_bytes(torch.from_numpy(array))
    assert parse_idx(raw).equal(torch.from_numpy(array))
    for bad in (raw+b'x'+more, raw[:-1]):
        with pytest.raises(InputError):
            parse_idx(bad)


@CALM
@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_are_refused(raw):
    with pytest.raises(InputError, match='the bytes'):
        preprocess(raw)


@CALM
@given(hnp.arrays(st.sampled_from([np.uint8, np.int16, np.float32, np.float64, bool, np.complex64]),
                  hnp.array_shapes(min_dims=0, max_dims=4, max_side=12)))
def test_any_array_is_a_digit_or_is_refused(array):
    try:
        image = preprocess(array)
    except InputError as e:
        assert 'the ndarray' in str(e)
    else:
        assert image.shape == (28, 28) and image.dtype == torch.uint8 and image.max() > 100


@CALM
@given(st.text(max_size=40))
def test_any_text_is_a_change_of_a_recipe_or_is_refused(text):
    try:
        recipe = get_recipe('fast', **parse_changes(text))
    except InputError:
        return
    assert isinstance(recipe, Recipe)


@CALM
@given(st.dictionaries(st.sampled_from(['epochs', 'bs', 'lr', 'part', 'calm', 'augment', 'seed', 'drop', 'x']),
                       st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans()), max_size=3))
def test_any_value_of_a_recipe_is_in_range_or_is_refused(changes):
    try:
        r = get_recipe('fast', **changes)
    except InputError:
        return
    assert 1 <= r.epochs <= 100_000 and 1 <= r.bs <= 60_000 and 0 < r.lr <= 1e3 and 0 < r.part <= 1 and 0 <= r.drop < 1


# --- one check at every door ------------------------------------------------------------------------------------

X, Y = torch.zeros(4, 28, 28, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
BAD = {
    'label 10': (X, Y+10), 'label -1': (X, Y-1), 'int32': (X, Y.int()), 'labels must be': (X, Y[:3]),
    'float': (X, Y.float()), 'images must be': (X[:, :20], Y), 'no images': (X[:0], Y[:0]), 'found ndarray': (X.numpy(), Y)}


@pytest.mark.parametrize('said', BAD)
def test_what_is_no_set_of_digits_is_refused_at_every_door(said):
    x, y = BAD[said]
    batch = (x[:, None].float() if isinstance(x, torch.Tensor) else x, y)
    opt = torch.optim.SGD(Net().parameters(), lr=.1)
    doors = [lambda: check_digits(x, y), lambda: Batches(x, y), lambda: loaders(generated_data(4, 4)._replace(train_x=x, train_y=y)),
             lambda: evaluate(Net(), [batch]), lambda: fit(Net(), [batch], None, opt, None, 1)]
    for door in doors:
        with pytest.raises(InputError, match=said):
            door()


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_pixels_that_are_no_numbers_are_refused_at_every_door(bad):
    x = torch.zeros(4, 1, 28, 28)
    x[2, 0, 5, 5] = bad
    opt = torch.optim.SGD(Net().parameters(), lr=.1)
    for door in (lambda: evaluate(Net(), [(x, Y)]), lambda: fit(Net(), [(x, Y)], None, opt, None, 1)):
        with pytest.raises(InputError, match='batch: some pixels are no numbers'):
            door()
    with pytest.raises(InputError, match='values from'):
        preprocess(x[2])


# --- nothing that a stranger's file says is done ---------------------------------------------------------------

class Evil:
    def __reduce__(self):
        return open, ('ran', 'w')


def evils():
    "What runs code when it is loaded without care, in the forms that loaders know"
    plain, archive = pickle.dumps(Evil()), io.BytesIO()
    torch.save({'net': Evil()}, archive)
    legacy = io.BytesIO()
    torch.save({'net': Evil()}, legacy, _use_new_zipfile_serialization=False)
    array = io.BytesIO()
    np.save(array, np.array([Evil()], dtype=object), allow_pickle=True)
    return [plain, archive.getvalue(), legacy.getvalue(), array.getvalue(), b'#!/bin/sh\ntouch ran\n',
            struct.pack('<Q', len(plain))+plain, zlib.compress(plain)]


def test_nothing_is_run(tmp_path, monkeypatch, small):
    "Under each name that we read"
    from s5_mnist.benchmark import read_sweep
    from s5_mnist.training import train
    run = train('fast', small, tmp_path/'run', device='cpu', precision='float32')
    monkeypatch.chdir(tmp_path)
    net, g = Net(), torch.Generator()
    opt, sched = make_optimizer(net, run.recipe, 2)
    with pytest.raises(InputError), monkeypatch.context() as m:   # The bait would be taken by one without care
        m.setattr(pickle, 'Unpickler', pickle.Unpickler)
        pickle.loads(evils()[0]).close()
        assert (tmp_path/'ran').exists()
        (tmp_path/'ran').unlink()
        raise InputError
    for evil in evils():
        (tmp_path/'evil').write_bytes(evil)
        doors = [lambda: load_checkpoint('evil', net, opt, sched, g), lambda: load_weights(net, 'evil'),
                 lambda: load_history('evil'), lambda: read_sweep('evil'), lambda: preprocess('evil'),
                 lambda: preprocess(evil), lambda: parse_idx(evil), lambda: verified(evil, 'train-images-idx3-ubyte', 'x')]
        for name in sorted(p.name for p in run.path.iterdir()):
            if name in ('curves.png', 'last.ckpt'):
                continue

            def open_run(name=name):
                good = (run.path/name).read_bytes()
                (run.path/name).write_bytes(evil)
                try: load_run(run.path, 'cpu')
                finally: (run.path/name).write_bytes(good)
            doors.append(open_run)
        for door in doors:
            with pytest.raises(InputError):
                door()
        raw = tmp_path/'MNIST'/'raw'
        raw.mkdir(parents=True, exist_ok=True)
        (raw/'train-images-idx3-ubyte.gz').write_bytes(evil)
        with pytest.raises((InputError, FileNotFoundError)):
            load_mnist(tmp_path, download=False)
    assert not (tmp_path/'ran').exists()
