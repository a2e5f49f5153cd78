"""Checkpoints, weights and histories: what is saved comes back, and what is damaged is refused by name."""
import hashlib
import io
import json
import os

import pytest
import torch
from conftest import flat
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from s5_mnist.checkpoints import check_weights, load_checkpoint, save_checkpoint, save_history
from s5_mnist.runs import load_history, load_weights, read_weights, save_weights

from s5_mnist.data import loaders
from s5_mnist.model import Net, init_weights
from s5_mnist.recipes import RECIPES, make_optimizer
from s5_mnist.training import History, fit
from s5_mnist.utils import set_seed

HEADER = b's5_mnist checkpoint 3 '


def seal(content):
    "A checkpoint file as save_checkpoint would have sealed it"
    data = io.BytesIO()
    torch.save(content, data)
    return HEADER+hashlib.sha256(data.getvalue()).hexdigest().encode()+b'\n'+data.getvalue()


def content_of(path):
    return torch.load(io.BytesIO(path.read_bytes().partition(b'\n')[2]), weights_only=True)


# --- checkpoints ------------------------------------------------------------------------------------------------

ROW = dict(epoch=1, lr=.1, train_loss=1e-7, train_correct=3, train_n=9, seconds=.5)


class Evil:
    "An object that runs a command when it is unpickled without care"
    def __init__(self, path): self.path = path

    def __reduce__(self): return os.system, (f'touch {self.path}',)


def test_files_that_are_no_checkpoint_of_this_training_are_refused(tmp_path):
    net, g = Net(), set_seed(0)
    opt, sched = make_optimizer(net, RECIPES['s5'], 3)
    save_checkpoint(tmp_path/'good', net, opt, sched, g, History([ROW]))
    assert load_checkpoint(tmp_path/'good', net, opt, sched, g).rows == [ROW]
    good, content = (tmp_path/'good').read_bytes(), content_of(tmp_path/'good')
    assert good.startswith(HEADER)
    (tmp_path/'cut').write_bytes(good[:1000])
    (tmp_path/'flipped').write_bytes(good[:5000]+bytes([good[5000] ^ 4])+good[5001:])
    (tmp_path/'version').write_bytes(good.replace(b'checkpoint 3 ', b'checkpoint 9 ', 1))
    (tmp_path/'earlier').write_bytes(good.replace(b'checkpoint 3 ', b'checkpoint 2 ', 1))
    (tmp_path/'header').write_bytes(good.replace(b'checkpoint 3 ', b'checkpoint 3  ', 1))
    torch.save({'version': 1}, tmp_path/'torch')
    torch.save(Evil(tmp_path/'ran'), tmp_path/'evil')
    (tmp_path/'folder').mkdir()
    for name, bad in dict(list=[1], sealed_evil=Evil(tmp_path/'ran'),
                          other=content | dict(net={'conv1.weight': torch.zeros(3)}),
                          lacking={k: v for k, v in content.items() if k != 'opt'},
                          odd=content | dict(generator=torch.zeros(3)),
                          nan=content | dict(net={k: v*float('nan') for k, v in content['net'].items()})).items():
        (tmp_path/name).write_bytes(seal(bad))
    before = flat(net).clone()
    for name, message in dict(
            missing='does not exist', folder='must be a file, found a folder', cut='is damaged: its checksum',
            flipped='is damaged: its checksum does not match its content', torch='is not a checkpoint of s5_mnist',
            version='must be in format 3, found format 9', earlier='found format 2; s5_mnist 0.1.0 reads it',
            header='is not a checkpoint of s5_mnist', evil='is not a checkpoint of s5_mnist',
            list='it holds no network', sealed_evil='is not a checkpoint: UnpicklingError',
            other='is of another model: expected conv1.bias to be',
            lacking="does not fit this training: KeyError 'opt'", odd='does not fit this training',
            nan='weights must be finite, found NaN or infinity in conv1.bias').items():
        with pytest.raises(ValueError, match=f'{name}.* {message}'):
            load_checkpoint(tmp_path/name, net, opt, sched, g)
    assert not (tmp_path/'ran').exists() and flat(net).equal(before)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    net, g = Net(), set_seed(0)
    opt, sched = make_optimizer(net, RECIPES['s5'], 3)
    save_checkpoint(tmp_path/'c', net, opt, sched, g, History(), run=dict(seed=1))
    load_checkpoint(tmp_path/'c', net, opt, sched, g, run=dict(seed=1))
    load_checkpoint(tmp_path/'c', net, opt, sched, g)
    with pytest.raises(ValueError, match="c belongs to another run: expected seed=2, found 1"):
        load_checkpoint(tmp_path/'c', net, opt, sched, g, run=dict(seed=2))


def test_in_the_middle_of_an_epoch_the_loader_is_needed(tmp_path, small):
    net, g = Net(), set_seed(0)
    opt, dl = SGD(net.parameters(), .1), loaders(small, bs=100, generator=g).train
    with pytest.raises(ValueError, match='dl must be given in the middle of an epoch, got None'):
        fit(net, dl, None, opt, epochs=1, hook=lambda h: save_checkpoint(tmp_path/'c', net, opt, None, g, h))
    assert os.listdir(tmp_path) == []


class Enough(Exception):
    "Raised by a hook to stop a training"


def prepare(small):
    "A network, 3 batches an epoch, SGD, a schedule, and a source of randomness"
    net, g = init_weights(Net(), generator=set_seed(0)), torch.Generator().manual_seed(1)
    opt = SGD(net.parameters(), .02, .9)
    fewer = small._replace(train_x=small.train_x[:100], train_y=small.train_y[:100])
    return net, loaders(fewer, bs=40, generator=g), opt, StepLR(opt, 1, .5), g


@pytest.fixture(scope='module')
def uninterrupted(small):
    "The weights and the history of a training that nothing happened to"
    net, dls, opt, sched, _ = prepare(small)
    hist = fit(net, dls.train, dls.test, opt, sched, 2)
    return flat(net), hist


@pytest.mark.filterwarnings('ignore:Detected call of `lr_scheduler.step')
@pytest.mark.parametrize('stop', [(0, 1), (0, 3), (1, None), (1, 2)])
def test_a_training_of_one_s_own_continues_to_the_bit(tmp_path, small, uninterrupted, stop):
    "Without train or resume, stopped by a hook within an epoch, at its last batch, or after it"
    def save(hist):
        save_checkpoint(tmp_path/'c', net, opt, sched, g, hist, dls.train)
        if (len(hist.rows), hist.state and hist.state.step) == stop: raise Enough

    net, dls, opt, sched, g = prepare(small)
    with pytest.raises(Enough):
        fit(net, dls.train, dls.test, opt, sched, 2, hook=save)
    net, dls, opt, sched, g = prepare(small)
    g.manual_seed(99)
    hist = load_checkpoint(tmp_path/'c', net, opt, sched, g, dls.train)
    fit(net, dls.train, dls.test, opt, sched, 2, hist=hist)
    assert flat(net).equal(uninterrupted[0])
    for a, b in zip(uninterrupted[1].rows, hist.rows, strict=True):
        assert a | dict(seconds=0) == b | dict(seconds=0)


# --- weights ----------------------------------------------------------------------------------------------------

def test_weights_come_back_with_their_report(tmp_path):
    net = init_weights(Net(), generator=set_seed(0))
    save_weights(net, tmp_path/'w', dict(n=3))
    state, report = read_weights(tmp_path/'w')
    assert report == dict(n=3) and all(v.equal(state[k]) for k, v in net.state_dict().items())
    assert flat(load_weights(Net(), tmp_path/'w')).equal(flat(net))
    with safe_open(tmp_path/'w', 'pt') as f:
        assert len(json.loads(f.metadata()['report'])['sha256']) == 64
    save_weights(net.half(), tmp_path/'half', {})
    assert {v.dtype for v in load_file(tmp_path/'half').values()} == {torch.float16}
    assert flat(load_weights(Net(), tmp_path/'half')).equal(flat(net).float())


def test_the_same_weights_make_the_same_file(tmp_path):
    for name in 'ab':
        save_weights(init_weights(Net(), generator=set_seed(0)), tmp_path/name, dict(n=3, m=4))
    assert (tmp_path/'a').read_bytes() == (tmp_path/'b').read_bytes()


def test_weights_that_were_changed_are_refused(tmp_path):
    save_weights(Net(), tmp_path/'w', dict(n=3))
    good = (tmp_path/'w').read_bytes()
    other_report, flipped = good.replace(b'n\\": 3', b'n\\": 4', 1), good[:-100]+bytes([good[-100] ^ 1])+good[-99:]
    for bad in (other_report, flipped, good[:-1], b'', b'junk'):
        assert bad != good
        (tmp_path/'w').write_bytes(bad)
        with pytest.raises(ValueError, match='w is (damaged|not a safetensors file)'):
            load_weights(Net(), tmp_path/'w')
    for path in (tmp_path, tmp_path/'none', tmp_path/'w'/'x'):
        with pytest.raises(ValueError, match='is not a safetensors file|must be a file|does not exist'):
            read_weights(path)


def test_weights_of_another_shape_leave_the_network_alone(tmp_path):
    net = Net()
    before = flat(net)
    save_file({**net.state_dict(), 'fc2.bias': torch.zeros(11)}, tmp_path/'w')
    with pytest.raises(ValueError, match=r'w is of another model: expected fc2.bias to be \[10\], found \[11\]'):
        load_weights(net, tmp_path/'w')
    save_file({**net.state_dict(), 'fc2.bias': torch.full((10,), float('inf'))}, tmp_path/'w')
    with pytest.raises(ValueError, match='w: weights must be finite, found NaN or infinity in fc2.bias'):
        load_weights(net, tmp_path/'w')
    assert flat(net).equal(before)


def test_weights_with_a_name_too_few_or_too_many_are_refused():
    net = Net()
    state = net.state_dict()
    check_weights(state, net, 'w')
    with pytest.raises(ValueError, match=r'expected fc2.bias to be \[10\], found nothing'):
        check_weights({k: v for k, v in state.items() if k != 'fc2.bias'}, net, 'w')
    with pytest.raises(ValueError, match=r'expected x to be nothing, found \[1\]'):
        check_weights({**state, 'x': torch.zeros(1)}, net, 'w')


# --- histories --------------------------------------------------------------------------------------------------

def test_a_history_comes_back(tmp_path):
    for split in ('test', 'validation'):
        rows = [ROW | {'epoch': i, 'lr': .1/i, f'{split}_correct': 5, f'{split}_n': 7, f'{split}_loss': .5} for i in (1, 2)]
        save_history(History(rows), tmp_path/'h.csv')
        hist = load_history(tmp_path/'h.csv')
        assert hist.rows == rows and hist.held_out == split and hist.test_acc == [500/7]*2


@pytest.mark.parametrize('text, message', [('epoch\nx', 'row 1: epoch must be'), ('epoch\n1,2\n', 'row 1'),
                                           ('a,b\n1\n', 'row 1'), (None, 'does not exist')])
def test_a_damaged_history_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path/'h.csv').write_text(text)
    with pytest.raises(ValueError, match=f'h.csv:? {message}'):
        load_history(tmp_path/'h.csv')
