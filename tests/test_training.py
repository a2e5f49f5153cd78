"""What a training promises: honest counts, the same result from the same seed, a folder that tells the truth."""
import csv
import hashlib
import io
import json
import os
import re
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from s5_mnist import training
from s5_mnist.data import Batches, DigitData, InputError, loaders, s5_augment
from s5_mnist.model import Net, init_weights
from s5_mnist.training import (RECIPES, Recipe, Run, evaluate, fit, get_recipe, load_checkpoint, load_run,
                               load_weights, make_optimizer, save_checkpoint, train)
from s5_mnist.utils import set_seed

QUICK = dict(device='cpu', precision='float32')


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def as_dataset(b):
    "The images of a `Batches`, for torch's own DataLoader"
    return TensorDataset(torch.cat([x for x, _ in b]), b.y)


# --- counting ---------------------------------------------------------------------------------------------------

def test_ragged_last_batch_counts_exactly(small):
    net = init_weights(Net(), generator=set_seed(0))
    scores = [evaluate(net, Batches(small.test_x, small.test_y, bs)) for bs in (130, 64, 50, 7, 1)]
    for s in scores:
        assert s.n == 130 and s.correct == scores[0].correct
        assert s.confusion.equal(scores[0].confusion) and s.wrong.equal(scores[0].wrong)
        assert s.loss == pytest.approx(scores[0].loss, rel=1e-5)


@pytest.mark.mnist
def test_evaluates_all_ten_thousand(mnist):
    s = evaluate(init_weights(Net(), generator=set_seed(0)), loaders(mnist, test_bs=999).test)
    assert s.n == 10_000 and s.correct+len(s.wrong) == 10_000
    assert s.confusion.sum(1).tolist() == mnist.test_y.bincount().tolist()


def test_a_perfect_and_a_hopeless_network(small):
    class Oracle(torch.nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.shift, self.p, self.at = shift, torch.nn.Parameter(torch.zeros(1)), 0

        def forward(self, x):
            y = small.test_y[self.at:self.at+len(x)]
            self.at += len(x)
            return torch.nn.functional.one_hot((y+self.shift) % 10, 10)*30.

    assert evaluate(Oracle(0), loaders(small, test_bs=50).test).correct == 130
    s = evaluate(Oracle(1), loaders(small, test_bs=50).test)
    assert s.correct == 0 and s.wrong.tolist() == list(range(130)) and s.loss == pytest.approx(30, rel=1e-3)


def test_overfits_one_batch(small):
    net = init_weights(Net(), 'orthogonal', set_seed(0))
    batch = next(iter(loaders(small, bs=64).train))
    hist = fit(net, [batch], [batch], SGD(net.parameters(), lr=0.01, momentum=0.9), None, epochs=60)
    assert hist.rows[-1]['test_correct'] == 64
    assert hist.train_losses[-1] < 0.03 < 2 < hist.train_losses[0]


def test_takes_a_torch_dataloader(small):
    "The loop and the score are the same over our batches and over torch's"
    dls = loaders(small, bs=50)
    ours, theirs = (init_weights(Net(), generator=set_seed(3)) for _ in range(2))
    hists = []
    for net, dl, test in ((ours, Batches(small.train_x, small.train_y, 50), dls.test),
                          (theirs, DataLoader(as_dataset(Batches(small.train_x, small.train_y, 50)), 50),
                           DataLoader(as_dataset(dls.test), 33))):
        hists.append(fit(net, dl, test, SGD(net.parameters(), lr=0.01), None, epochs=1).rows[0])
    assert flat(ours).equal(flat(theirs))
    for k in ('train_correct', 'train_n', 'test_correct', 'test_n'):
        assert hists[0][k] == hists[1][k]


# --- the same again ---------------------------------------------------------------------------------------------

def test_same_seed_same_weights(small, tmp_path):
    runs = [train('fast', small, tmp_path/str(i), seed=seed, **QUICK) for i, seed in enumerate((4, 4, 5))]
    a, b, c = (flat(load_run(r.path, 'cpu').net) for r in runs)
    assert a.equal(b) and not a.equal(c)
    assert {k: v for k, v in runs[0].report.items() if k != 'seconds'} == \
        {k: v for k, v in runs[1].report.items() if k != 'seconds'}


def test_the_global_generators_are_neither_used_nor_needed(small, tmp_path):
    "What the caller does with torch's global generator changes nothing"
    torch.manual_seed(1)
    a = train('s5', small, tmp_path/'a', epochs=1, **QUICK)
    torch.rand(17)
    b = train('s5', small, tmp_path/'b', epochs=1, **QUICK)
    assert flat(a.net).equal(flat(b.net))


def test_shuffling_differs_by_epoch_and_repeats_by_seed(small):
    def orders(seed):
        dls = loaders(small, bs=64, augment=s5_augment, generator=torch.Generator().manual_seed(seed))
        return [torch.cat([x for x, _ in dls.train]) for _ in range(3)]
    a, b, c = orders(1), orders(1), orders(2)
    assert all(x.equal(y) for x, y in zip(a, b))
    assert not a[0].equal(a[1]) and not a[1].equal(a[2]) and not a[0].equal(c[0])


def test_checkpoint_refuses_what_it_is_not(small, tmp_path):
    net, g = Net(), set_seed(0)
    opt, sched = make_optimizer(net, RECIPES['s5'], 3)
    save_checkpoint(tmp_path/'good', net, opt, sched, g, training.History([{'epoch': 1}]))
    assert load_checkpoint(tmp_path/'good', net, opt, sched, g).rows == [{'epoch': 1}]
    good = (tmp_path/'good').read_bytes()
    (tmp_path/'cut').write_bytes(good[:1000])
    (tmp_path/'flipped').write_bytes(good[:5000]+bytes([good[5000] ^ 4])+good[5001:])
    (tmp_path/'version').write_bytes(good.replace(b'checkpoint 2 ', b'checkpoint 9 ', 1))
    torch.save({'version': 1}, tmp_path/'older')

    def sealed(name, state):
        "As save_checkpoint would have sealed it"
        data = io.BytesIO()
        torch.save(state, data)
        seal = hashlib.sha256(data.getvalue()).hexdigest()
        (tmp_path/name).write_bytes(f's5_mnist checkpoint 2 {seal}\n'.encode()+data.getvalue())
    sealed('list', [1])

    class Evil:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/ran',)
    torch.save(Evil(), tmp_path/'evil')
    sealed('sealed_evil', Evil())
    state = training._sealed(tmp_path/'good')
    sealed('other', dict(state, net={'conv1.weight': torch.zeros(3)}))
    sealed('lacking', {k: v for k, v in state.items() if k != 'opt'})
    sealed('odd', dict(state, generator=torch.zeros(3)))
    sealed('nan', dict(state, net={k: v*float('nan') for k, v in state['net'].items()}))
    for name in ('missing', 'cut', 'flipped', 'version', 'older', 'list', 'evil', 'sealed_evil', 'other', 'lacking',
                 'odd', 'nan'):
        with pytest.raises(InputError, match=name):
            load_checkpoint(tmp_path/name, net, opt, sched, g)
    assert not (tmp_path/'ran').exists()


# --- the folder -------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def run(small, tmp_path_factory):
    return train('fast', small, tmp_path_factory.mktemp('runs')/'run', epochs=2, lr=0.02, seed=6, **QUICK)


def test_folder(run, small):
    assert sorted(os.listdir(run.path)) == ['config.json', 'curves.png', 'history.csv', 'last.ckpt',
                                            'model.safetensors', 'report.json']
    config, report = (json.loads((run.path/f'{n}.json').read_text()) for n in ('config', 'report'))
    assert Recipe(**config['recipe']) == run.recipe and config['data'] == small.name
    rows = list(csv.DictReader(open(run.path/'history.csv')))
    assert [r['epoch'] for r in rows] == ['1', '2'] and rows[-1]['train_n'] == '200' # Two thirds of 300
    score = evaluate(run.net, loaders(small).test)
    assert (report['correct'], report['n']) == (score.correct, 130) == (int(rows[-1]['test_correct']), 130)
    assert report['halves'] == [[65-(score.wrong < 65).sum().item(), 65], [65-(score.wrong >= 65).sum().item(), 65]]
    assert report['changes'] == {'epochs': 2, 'lr': 0.02} and report['seed'] == 6
    assert report['held_out'] == f'{small.name}, test images' and report['seconds'] > 0
    assert (run.path/'curves.png').read_bytes().startswith(b'\x89PNG')
    assert not run.net.training


def test_weights_carry_what_they_are(run):
    from safetensors import safe_open
    with safe_open(run.path/'model.safetensors', 'pt') as f:
        report = json.loads(f.metadata()['report'])
    assert len(report.pop('sha256')) == 64 and report == json.loads(json.dumps(run.report))
    assert torch.cat([load_file(run.path/'model.safetensors')[k].flatten() for k, _ in run.net.named_parameters()]
                     ).equal(flat(run.net))


def test_load_run(run):
    again = load_run(run.path, 'cpu')
    assert isinstance(again, Run) and flat(again.net).equal(flat(run.net)) and again.recipe == run.recipe
    assert again.history.rows == run.history.rows and again.report == json.loads(json.dumps(run.report))


def test_last_checkpoint_is_the_last_epoch(run):
    net, g = Net(), set_seed(0)
    hist = load_checkpoint(run.path/'last.ckpt', net, *make_optimizer(net, run.recipe, 5), g)
    assert flat(net).equal(flat(run.net)) and hist.rows == run.history.rows


def swap(path, a, b, cut=0):
    "Other text in a file, or lines less at its end"
    text = path.read_text()
    assert a in text
    path.write_text(''.join(text.replace(a, b, 1).splitlines(True)[:-cut or None]))


def flip(path, at):
    "One bit of a file"
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize('change, said', [
    (lambda d: (d/'report.json').write_text('{}'), 'report.json is no report'),
    (lambda d: (d/'config.json').unlink(), 'config.json is not there'),
    (lambda d: (d/'config.json').write_text('{'), 'config.json is damaged'),
    (lambda d: (d/'config.json').write_bytes(b'\xff\xfe'), 'config.json is damaged'),
    (lambda d: (d/'config.json').write_text('[]'), 'no JSON object'),
    (lambda d: (d/'config.json').write_text('{"version": 2}'), 'a recipe in version 1'),
    (lambda d: (d/'config.json').write_text('{"version": 1}'), 'a recipe in version 1'),
    (lambda d: (d/'config.json').write_text('{"version": 1, "recipe": {"speed": 3}}'), "'speed' is no field"),
    (lambda d: swap(d/'config.json', '"bs": 128', '"bs": 64'), 'config.json is not of the run in model.safetensors'),
    (lambda d: swap(d/'config.json', '"fused": true', '"fused": "no"'), "fused='no' is no value for it"),
    (lambda d: swap(d/'config.json', '"seed": 6', '"seed": 7'), 'config.json is not of the run'),
    (lambda d: swap(d/'report.json', '"correct": ', '"correct": 1'), 'report.json is no report of the run'),
    (lambda d: swap(d/'history.csv', ',200,', ',200,', cut=1), 'history.csv is not of the run'),
    (lambda d: flip(d/'model.safetensors', -1000), 'model.safetensors is damaged: its checksum'),
    (lambda d: flip(d/'model.safetensors', 300), 'model.safetensors'),
    (lambda d: (d/'config.json').write_text('{"version": 1, "recipe": {"bs": "x"}}'), "bs='x' must be int"),
    (lambda d: (d/'history.csv').write_text('epoch\nx'), 'history.csv is damaged'),
    (lambda d: (d/'model.safetensors').unlink(), 'model.safetensors is not there'),
    (lambda d: (d/'model.safetensors').write_bytes(b'junk'), 'no safetensors file'),
    (lambda d: save_file({'a': torch.zeros(2)}, d/'model.safetensors'), 'of another model'),
    (lambda d: save_file({k: v*float('nan') for k, v in Net().state_dict().items()}, d/'model.safetensors'),
     'no numbers'),
])
def test_a_spoilt_folder_is_refused(run, tmp_path, change, said):
    for name in os.listdir(run.path):
        (tmp_path/name).write_bytes((run.path/name).read_bytes())
    change(tmp_path)
    with pytest.raises(InputError, match=said):
        load_run(tmp_path, 'cpu')


def test_a_folder_with_a_run_is_left_alone(run, small):
    before = {n: (run.path/n).read_bytes() for n in os.listdir(run.path)}
    with pytest.raises(InputError, match='is not empty'):
        train('fast', small, run.path, **QUICK)
    assert before == {n: (run.path/n).read_bytes() for n in os.listdir(run.path)}


def test_default_folders_are_new(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(train('fast', small, seed=1, bs=150, **QUICK).path) for _ in range(3)] == \
        ['runs/fast-1', 'runs/fast-1-2', 'runs/fast-1-3']


def test_unwritable_folder(small, tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(InputError, match='cannot be written'):
        train('fast', small, tmp_path/'file'/'run', **QUICK)


def test_validation_leaves_the_test_set_alone(small, tmp_path):
    "With `valid`, the report speaks of the last training images, and the test images are never touched"
    poisoned = DigitData(*small[:2], torch.zeros_like(small.test_x), small.test_y, small.name)
    a, b = (train('fast', d, tmp_path/n, valid=100, **QUICK) for n, d in (('a', small), ('b', poisoned)))
    assert a.report['held_out'] == f'{small.name}, last 100 training images'
    assert a.report['n'] == 100 and a.history.rows[-1]['train_n'] == 133 # Two thirds
    assert a.report['correct'] == b.report['correct'] and a.report['loss'] == b.report['loss']
    assert 'validation_n' in a.history.rows[0] and 'test_n' not in a.history.rows[0]
    assert load_run(a.path, 'cpu').history.test_acc == a.history.test_acc == [a.report['accuracy']]


def test_progress_is_shown_to_somebody_who_looks(small, monkeypatch, capsys):
    """A bar over batches in a terminal, with loss and running accuracy, but not with TQDM_DISABLE; one line an epoch
    in any case"""
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    lines = []
    for stream, disabled in ((Terminal(), False), (io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, 'stderr', stream)
        if disabled:
            monkeypatch.setenv('TQDM_DISABLE', '1')
        net = init_weights(Net(), generator=set_seed(0))
        fit(net, loaders(small, bs=20).train, None, SGD(net.parameters(), lr=0.01), None, epochs=1)
        lines.append(capsys.readouterr().out.splitlines())
        shown = stream.getvalue()
        if stream.isatty() and not disabled:
            assert 'epoch 1/1' in shown and re.search(r'/15 .*loss \d\.\d+, +\d+\.\d\d %', shown), shown
        else:
            assert shown == ''
    assert [len(x) for x in lines] == [1, 1, 1]


def test_nothing_of_somebody_elses_is_overwritten(small, tmp_path):
    (tmp_path/'report.json').write_text('mine')
    with pytest.raises(InputError, match='is not empty'):
        train('fast', small, tmp_path, **QUICK)
    assert (tmp_path/'report.json').read_text() == 'mine' and os.listdir(tmp_path) == ['report.json']


def test_weights_that_are_no_numbers_get_no_score(small):
    net = Net()
    with torch.no_grad():
        net.fc2.bias[3] = float('nan')
    with pytest.raises(InputError, match='loss nan'):
        evaluate(net, loaders(small).test)


def test_names_of_recipes_stay_in_their_folder():
    with pytest.raises(InputError, match='must be a word'):
        get_recipe('s5', name='../elsewhere')


def test_no_epochs_are_refused(small):
    net = Net()
    with pytest.raises(InputError, match='epochs=0'):
        fit(net, loaders(small).train, None, SGD(net.parameters(), lr=0.01), None, epochs=0)
    with pytest.raises(InputError, match='sched=3: give a scheduler'):
        fit(net, loaders(small).train, None, SGD(net.parameters(), lr=0.01), 3)


def test_recipes_are_the_ones_described():
    r = RECIPES['s5']
    assert (r.epochs, r.bs, r.lr, r.momentum, r.schedule, r.step_at, r.gamma, r.augment, r.init, r.smoothing) == \
        (20, 512, 0.01, 0.9, 'step', 15, 0.1, 's5', 'default', 0)
    opt, sched = make_optimizer(Net(), r, 118)
    lrs = []
    for _ in range(20):
        lrs.append(round(opt.param_groups[0]['lr'], 6))
        opt.step()
        sched.step()
    assert lrs == [0.01]*15+[0.001]*5
    assert RECIPES['fast'].epochs <= 2 and RECIPES['fast'].init == 'orthogonal'


def test_calm_weakens_the_augmentation_at_the_end_and_only_there(small, tmp_path):
    "Epochs before it are those of a run without; what comes then gets 0.3 of the amounts"
    kw = dict(augment='warp', **QUICK)
    without, calm = (train('s5', small, tmp_path/str(c), epochs=3, calm=c, **kw).history.rows for c in (0, 1))
    figures = [k for k in calm[0] if k != 'seconds']
    assert [[r[k] for k in figures] for r in calm[:2]] == [[r[k] for k in figures] for r in without[:2]]
    assert calm[2]['train_loss'] != without[2]['train_loss']

    dl = loaders(small, augment=training.AUGMENTS['warp']).train
    seen = [(end, dl.augment.keywords if hasattr(dl.augment, 'keywords') else {})
            for end in training._phases(get_recipe('s5', augment='warp', epochs=9, calm=2), dl)]
    assert seen == [(7, {}), (9, {'strength': .3})]


@pytest.mark.parametrize('changes, said', [
    (dict(augment='s5', calm=1), 'calm=1 needs warp, affine or blurred, not s5'),
    (dict(augment='warp', epochs=3, calm=3), 'calm=3 is not below epochs'),
    (dict(augment='bend'), "augment='bend' is unknown; choose none, s5, shift, shift1, warp, affine, blurred")])
def test_augmentations_that_do_not_go_together(changes, said):
    with pytest.raises(InputError, match=said):
        get_recipe('s5', **changes)


def test_other_numbers_of_epochs_keep_the_share_of_calm():
    assert [get_recipe('best', epochs=n).calm for n in (1, 2, 4, 15, 30, 60)] == [0, 0, 1, 2, 4, 8]
    assert get_recipe('best', epochs=9, calm=5).calm == 5 and get_recipe('fast', epochs=9).calm == 0


def test_recipe_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        get_recipe('s5').epochs = 3


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_a_loss_that_is_no_number_stops(small, bad):
    net = init_weights(Net(), generator=set_seed(0))
    torch.nn.init.constant_(net.fc2.bias, bad)
    batch = (torch.zeros(4, 1, 28, 28), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(InputError, match='in epoch 1, step 1: it diverged'):
        fit(net, [batch], None, SGD(net.parameters(), lr=0.01), None, epochs=2)


def test_empty_loader_is_refused():
    net = Net()
    with pytest.raises(InputError, match='empty'):
        fit(net, [], None, SGD(net.parameters(), lr=0.01), None)


def test_weights_of_another_shape_leave_the_net_alone(tmp_path):
    net = Net()
    before = flat(net)
    save_file({**net.state_dict(), 'fc2.bias': torch.zeros(11)}, tmp_path/'w')
    with pytest.raises(InputError, match=r'fc2.bias should be \[10\], found \[11\]'):
        load_weights(net, tmp_path/'w')
    assert flat(net).equal(before)


@pytest.mark.cuda
def test_on_cuda(small, tmp_path):
    "The same batches, and a result close to the CPU's"
    a, b = (train('fast', small, tmp_path/d, bs=16, device=d, precision='float32') for d in ('cpu', 'cuda'))
    assert a.history.train_losses[0] == pytest.approx(b.history.train_losses[0], rel=0.05)
