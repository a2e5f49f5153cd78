"""Scoring and training: honest counts, the same result from the same seed, a loop that takes what torch has."""
import io
import math
import sys
from functools import partial

import pytest
import torch
from conftest import flat
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from s5_mnist.augment import s5_augment
from s5_mnist.data import Batches, DigitData, loaders
from s5_mnist.model import Net, init_weights
from s5_mnist.training import History, evaluate, fit
from s5_mnist.utils import plot_accuracy_metrics, set_seed


@pytest.fixture(scope='module')
def few(small):
    "Even fewer digits"
    return DigitData(small.train_x[:60], small.train_y[:60], small.test_x[:20], small.test_y[:20], 'few')


def parts(lr=.01):
    "A network and its optimiser, the same each time"
    net = init_weights(Net(), 'orthogonal', set_seed(0))
    return net, SGD(net.parameters(), lr, momentum=.9)


def trained(data, *stages, look=False, sched=None):
    "The weights after some epochs; with `look`, after a look at a batch"
    (net, opt), dls = parts(), loaders(data, bs=20, augment=s5_augment, seed=4)
    sched = sched and sched(opt)
    for epochs in stages:
        if look: next(iter(dls.train))
        fit(net, dls.train, None, opt, sched, epochs, callback=None)
    return flat(net)


# --- counting ---------------------------------------------------------------------------------------------------

def test_images_are_counted_exactly_whatever_the_batch_size(small):
    net = init_weights(Net(), generator=set_seed(0))
    first, *others = (evaluate(net, Batches(small.test_x, small.test_y, bs)) for bs in (130, 50, 7))
    assert first.n == 130 and first.correct == first.confusion.diag().sum() == 130-len(first.wrong)
    for s in others:
        assert s.confusion.equal(first.confusion) and s.wrong.equal(first.wrong)
        assert s.loss == pytest.approx(first.loss, rel=1e-5)


def test_a_network_that_is_always_right_and_one_that_never_is(small):
    class Oracle(torch.nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.shift, self.p, self.at = shift, torch.nn.Parameter(torch.zeros(1)), 0

        def forward(self, x):
            y = small.test_y[self.at:self.at+len(x)]
            self.at += len(x)
            return F.one_hot((y+self.shift) % 10, 10)*30.

    s = evaluate(Oracle(0), loaders(small, test_bs=50).test)
    assert s.correct == 130 and str(s) == '130/130 = 100.00 %'
    s = evaluate(Oracle(1), loaders(small, test_bs=50).test)
    assert s.correct == 0 and s.wrong.tolist() == list(range(130)) and s.loss == pytest.approx(30, rel=1e-3)


def test_evaluate_leaves_weights_and_mode_alone(few):
    net = Net().eval()
    before = flat(net).clone()
    evaluate(net, loaders(few).test)
    assert flat(net).equal(before) and not net.training
    evaluate(net.train(), loaders(few).test)
    assert net.training


@pytest.mark.slow
@pytest.mark.mnist
def test_evaluates_all_ten_thousand(mnist):
    s = evaluate(init_weights(Net(), generator=set_seed(0)), loaders(mnist, test_bs=999).test)
    assert s.n == 10_000 and s.confusion.sum(1).tolist() == mnist.test_y.bincount().tolist()


# --- the same bits ----------------------------------------------------------------------------------------------

def test_the_same_seed_gives_the_same_weights_and_a_look_changes_nothing(few):
    whole = trained(few, 3)
    assert trained(few, 1, range(1, 3), look=True).equal(whole)   # Continued, and looked at before each stage
    assert not trained(few, range(1, 4)).equal(whole)             # Other epochs have other orders
    sched = partial(StepLR, step_size=1, gamma=.5)
    assert trained(few, 2, range(2, 3), sched=sched).equal(trained(few, 3, sched=sched))


def test_a_torch_dataloader_does_the_same(few):
    ours, theirs = [], []
    for hists, wrap in ((ours, lambda dl: dl),
                        (theirs, lambda dl: DataLoader(TensorDataset(torch.cat([x for x, _ in dl]), dl.y), dl.bs))):
        net, opt = parts()
        train, test = (wrap(Batches(x, y, 25)) for x, y in (few[:2], few[2:4]))
        hists += [fit(net, train, test, opt, epochs=2, callback=None).rows, flat(net)]
    assert ours[1].equal(theirs[1])
    for a, b in zip(ours[0], theirs[0]):
        assert {k: a[k] for k in a if k != 'seconds'} == {k: b[k] for k in b if k != 'seconds'}


def test_overfits_one_batch(small):
    (net, opt), batch = parts(), next(iter(loaders(small, bs=32).train))
    hist = fit(net, [batch], None, opt, epochs=30, callback=None)
    assert evaluate(net, [batch]).correct == hist.rows[-1]['train_correct'] == 32
    assert hist.train_losses[-1] < .03 < 2 < hist.train_losses[0]


# --- the record -------------------------------------------------------------------------------------------------

def test_the_recorded_loss_is_the_mean_over_images_and_not_smoothed(few):
    "With a learning rate of 0, batches of 50 and 10 images, and a loss that is smoothed"
    net, opt = parts(lr=0)
    batches = Batches(few.train_x, few.train_y, 50)
    hist = fit(net, batches, batches, opt, epochs=1, loss_func=partial(F.cross_entropy, label_smoothing=.2), callback=None)
    r = hist.rows[0]
    assert r['train_loss'] == pytest.approx(r['test_loss'], rel=1e-5)
    assert (r['train_correct'], r['train_n']) == (r['test_correct'], r['test_n']) == (hist.score.correct, 60)


def test_the_loss_function_is_used(few):
    "And the schedule is stepped after each epoch"
    (net, opt), before = parts(), flat(parts()[0])
    dl = loaders(few, bs=30).train
    hist = fit(net, dl, None, opt, StepLR(opt, 1, gamma=.5), 3, lambda logits, y: 0*logits.sum(), None)
    assert flat(net).equal(before) and hist.column('lr') == [.01, .005, .0025]


def test_without_a_test_set_each_panel_has_one_curve(few):
    net, opt = parts()
    hist = fit(net, loaders(few).train, None, opt, epochs=range(5, 7), callback=None)
    assert hist.test_acc == hist.test_losses == [] and hist.score is None and hist.column('epoch') == [6, 7]
    fig = plot_accuracy_metrics(hist.train_losses, hist.train_acc, hist.test_losses, hist.test_acc)
    assert [len(ax.lines) for ax in fig.axes] == [1, 1]


def test_the_callback_sees_every_epoch(few):
    (net, opt), dls, seen = parts(), loaders(few), []
    hist = fit(net, dls.train, dls.test, opt, epochs=2, callback=lambda h: seen.append((len(h.rows), str(h), h.score)))
    assert [n for n, *_ in seen] == [1, 2] and seen[1][1].startswith('epoch  2: train loss') and seen[1][2] is hist.score
    assert hist.test_acc == [100*r['test_correct']/20 for r in hist.rows] and repr(History()) == 'History(no epochs)'


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(few, bad):
    net, opt = parts()
    torch.nn.init.constant_(net.fc2.bias, bad)
    with pytest.raises(ValueError, match='epoch 1; lower the learning rate'):
        fit(net, loaders(few).train, None, opt, callback=None)


def test_weights_that_are_not_finite_after_the_last_step_end_the_run(few):
    net, opt = parts(lr=math.inf)
    with pytest.raises(ValueError, match='lower the learning rate'):
        fit(net, loaders(few).train, loaders(few).test, opt, epochs=1)


def test_progress_is_shown_to_somebody_who_looks(few, monkeypatch, capsys):
    "A line per epoch, and in a terminal a bar, unless TQDM_DISABLE is set; without a callback, nothing"
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def shown(stream, callback=print):
        monkeypatch.setattr(sys, 'stderr', stream)
        net, opt = parts()
        fit(net, loaders(few, bs=4).train, None, opt, epochs=1, callback=callback)
        return len(capsys.readouterr().out.splitlines()), '/15' in stream.getvalue()

    monkeypatch.delenv('TQDM_DISABLE', raising=False)
    assert shown(Terminal()) == (1, True) and shown(io.StringIO()) == (1, False)
    assert shown(Terminal(), None) == (0, False)
    monkeypatch.setenv('TQDM_DISABLE', '1')
    assert shown(Terminal()) == (1, False)


@pytest.mark.cuda
def test_no_batch_waits_for_the_gpu(few):
    net = parts()[0].cuda()
    opt, batches, hist = SGD(net.parameters(), .01), list(loaders(few, bs=10, device='cuda').train), History()
    fit(net, batches, None, opt, epochs=1, callback=None)         # Warms up
    hist.begin(1, .01)
    torch.cuda.set_sync_debug_mode('error')
    try:
        for x, y in batches:
            logits = net(x)
            loss = F.cross_entropy(logits, y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            hist.count(logits, y)
    finally: torch.cuda.set_sync_debug_mode('default')
    hist.end(None)
    assert hist.column('train_n') == [60]
