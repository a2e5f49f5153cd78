"""Scoring and training: honest counts, the same result from the same seed, errors that say what is wrong."""
import io
import math
import re
import sys

import pytest
import torch
from conftest import flat
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset


from s5_mnist.data import Batches, DigitData, loaders
from s5_mnist.model import Net, init_weights
from s5_mnist.training import EpochState, History, evaluate, fit, train_epoch, validate_batches
from s5_mnist.utils import set_seed


def as_dataset(b):
    "The images of a `Batches`, for torch's own DataLoader"
    return TensorDataset(torch.cat([x for x, _ in b]), b.y)


@pytest.fixture(scope='module')
def few(small):
    "Even fewer digits"
    return DigitData(small.train_x[:60], small.train_y[:60], small.test_x[:20], small.test_y[:20], 'few')


# --- counting ---------------------------------------------------------------------------------------------------

def test_images_are_counted_exactly_whatever_the_batch_size(small):
    net = init_weights(Net(), generator=set_seed(0))
    scores = [evaluate(net, Batches(small.test_x, small.test_y, bs)) for bs in (130, 64, 50, 7, 1)]
    for s in scores:
        assert s.n == 130 and s.correct == scores[0].correct
        assert s.confusion.equal(scores[0].confusion) and s.wrong.equal(scores[0].wrong)
        assert s.loss == pytest.approx(scores[0].loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.mnist
def test_evaluates_all_ten_thousand(mnist):
    s = evaluate(init_weights(Net(), generator=set_seed(0)), loaders(mnist, test_bs=999).test)
    assert s.n == 10_000 and s.correct+len(s.wrong) == 10_000
    assert s.confusion.sum(1).tolist() == mnist.test_y.bincount().tolist()


def test_a_network_that_is_always_right_and_one_that_never_is(small):
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
    batch = next(iter(loaders(small, bs=32).train))
    hist = fit(net, [batch], None, SGD(net.parameters(), lr=0.02, momentum=0.9), epochs=40)
    assert evaluate(net, [batch]).correct == hist.rows[-1]['train_correct'] == 32
    assert hist.train_losses[-1] < 0.03 < 2 < hist.train_losses[0]


def test_takes_a_torch_dataloader(small):
    "Training and scoring are the same on our batches and on torch's"
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


def test_a_network_with_nan_gets_no_score(small):
    net = Net()
    with torch.no_grad():
        net.fc2.bias[3] = float('nan')
    with pytest.raises(ValueError, match='the loss is nan: check the images and weights for NaN or infinity'):
        evaluate(net, loaders(small).test)


def test_no_epochs_are_refused(small):
    net = Net()
    with pytest.raises(ValueError, match='epochs must be an integer between 1 and 100,000, got 0'):
        fit(net, loaders(small).train, None, SGD(net.parameters(), lr=0.01), None, epochs=0)
    with pytest.raises(ValueError, match='sched must be a learning rate scheduler without a metric, got 3'):
        fit(net, loaders(small).train, None, SGD(net.parameters(), lr=0.01), 3)


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_a_loss_that_is_not_finite_ends_the_training(small, bad):
    net = init_weights(Net(), generator=set_seed(0))
    torch.nn.init.constant_(net.fc2.bias, bad)
    batch = (torch.zeros(4, 1, 28, 28), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match='the loss is (nan|inf) in epoch 1, step 1: lower the learning rate'):
        fit(net, [batch], None, SGD(net.parameters(), lr=0.01), None, epochs=2)


def test_empty_loader_is_refused():
    net = Net()
    with pytest.raises(ValueError, match='expected at least one image to train on, found none'):
        fit(net, [], None, SGD(net.parameters(), lr=0.01), None)
    with pytest.raises(ValueError, match='expected at least one image to score, found none'):
        evaluate(net, [])


def test_progress_is_shown_to_somebody_who_looks(few, monkeypatch, capsys):
    """In a terminal, a bar over the batches with loss and accuracy so far, unless TQDM_DISABLE is set; everywhere, one
    line per epoch"""
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    lines = []
    for stream, disabled in ((Terminal(), False), (io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, 'stderr', stream)
        if disabled:
            monkeypatch.setenv('TQDM_DISABLE', '1')
        net = init_weights(Net(), generator=set_seed(0))
        fit(net, loaders(few, bs=4).train, None, SGD(net.parameters(), lr=0.01), None, epochs=1)
        lines.append(capsys.readouterr().out.splitlines())
        shown = stream.getvalue()
        if stream.isatty() and not disabled:
            assert 'epoch 1/1' in shown and re.search(r'/15 .*loss \d\.\d+, +\d+\.\d\d %', shown), shown
        else:
            assert shown == ''
    assert [len(x) for x in lines] == [1, 1, 1]


# --- what may be passed -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('batch, message', [
    (torch.zeros(2, 1, 28, 28), 'a batch must be .images, labels., found Tensor; pass one loader'),
    ((1, 2, 3), 'a batch must be .images, labels., found tuple'),
    ((torch.zeros(2, 28, 28), torch.zeros(2, dtype=torch.int64)), 'x.unsqueeze.1. adds the channel')])
def test_what_is_not_a_batch_is_refused(batch, message):
    net = Net()
    for call in (lambda: list(validate_batches([batch])), lambda: evaluate(net, [batch]),
                 lambda: fit(net, [batch], None, SGD(net.parameters(), lr=.1))):
        with pytest.raises(ValueError, match=message):
            call()


def test_our_batches_are_checked_once(small, monkeypatch):
    from s5_mnist import training
    seen = []
    monkeypatch.setattr(training, 'check_digits', lambda *args, **kwargs: seen.append(1))
    list(validate_batches(loaders(small, test_bs=100).test))
    assert not seen
    list(validate_batches(list(loaders(small, test_bs=100).test)))
    assert len(seen) == 2


def test_evaluate_leaves_weights_and_modes_alone(small):
    net = Net()
    net.conv2.eval()
    before, modes = flat(net).clone(), [m.training for m in net.modules()]
    evaluate(net, loaders(small).test)
    assert flat(net).equal(before) and [m.training for m in net.modules()] == modes
    with pytest.raises(ValueError):
        evaluate(net, [(torch.zeros(1), torch.zeros(1))])
    assert [m.training for m in net.modules()] == modes           # Not after an error either


def test_a_score_describes_itself(small):
    s = evaluate(init_weights(Net(), generator=set_seed(0)), loaders(small).test)
    assert str(s) == f'{s.correct}/130 = {s.accuracy:.2f} %' and repr(s) == f'Score({s})'
    assert s.accuracy == 100*s.correct/130 and [n for _, n in s.halves] == [65, 65]
    assert sum(c for c, _ in s.halves) == s.correct == s.confusion.diagonal().sum()
    assert s.halves[0][0] == 65-(s.wrong < 65).sum()
    assert s.probs.shape == (130, 10) and s.probs.sum(1).allclose(torch.ones(130))


def test_loss_of_an_epoch_is_the_mean_over_images_not_batches():
    "With one batch of 4 images and one of 1, and a learning rate of 0"
    x, y = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 1, 4, 1, 5])
    net = init_weights(Net(), generator=set_seed(0))
    loss, correct, n = train_epoch(net, [(x[:4], y[:4]), (x[4:], y[4:])], SGD(net.parameters(), lr=0.))
    with torch.no_grad():
        logits = net(x)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, y).item(), rel=1e-5)
    assert (correct, n) == ((logits.argmax(1) == y).sum().item(), 5)


def test_label_smoothing_is_torch_s():
    x, y = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 1, 4, 1])
    net = init_weights(Net(), generator=set_seed(0))
    loss, _, _ = train_epoch(net, [(x, y)], SGD(net.parameters(), lr=0.), label_smoothing=.2)
    with torch.no_grad():
        theirs = torch.nn.functional.cross_entropy(net(x), y, label_smoothing=.2)
    assert loss == pytest.approx(theirs.item(), rel=1e-5)


# --- the record -------------------------------------------------------------------------------------------------

def test_a_scheduler_is_stepped_by_the_batch_or_by_the_epoch(few):
    class Counter:
        n = 0

        def step(self): self.n += 1

    for per_batch, expected in ((True, 2*2), (False, 2)):
        net, sched = Net(), Counter()
        fit(net, loaders(few, bs=30).train, None, SGD(net.parameters(), lr=.01), sched, 2, step_per_batch=per_batch)
        assert sched.n == expected


def test_the_hook_sees_every_batch_and_every_epoch(few):
    net, seen = Net(), []
    fit(net, loaders(few, bs=30).train, None, SGD(net.parameters(), lr=.01), epochs=2,
        hook=lambda h: seen.append((len(h.rows), h.state and h.state.step)))
    assert seen == [(0, 1), (0, 2), (1, None), (1, 1), (1, 2), (2, None)]


def test_a_history_is_continued(few):
    net = init_weights(Net(), generator=set_seed(0))
    opt, dls = SGD(net.parameters(), lr=.01), loaders(few, bs=20)
    hist = fit(net, dls.train, dls.test, opt, epochs=1)
    assert fit(net, dls.train, dls.test, opt, epochs=3, hist=hist) is hist and hist.column('epoch') == [1, 2, 3]
    assert str(hist).startswith('epoch  3: train loss ') and repr(History()) == 'History(no epochs)'
    assert hist.score.correct == hist.rows[-1]['test_correct']
    assert hist.test_acc == [100*r['test_correct']/20 for r in hist.rows]


def test_progress_within_an_epoch_is_counted():
    state = EpochState(epoch=2)
    state.add(torch.tensor(6.), torch.tensor(2), 4)
    state.add(torch.tensor(2.), torch.tensor(1), 1)
    assert (float(state.loss_sum), int(state.correct), state.n, state.step) == (8, 3, 5, 2)
    with pytest.raises(ValueError, match='the loss is inf in epoch 2, step 3: lower the learning rate'):
        state.add(torch.tensor(math.inf), torch.tensor(0), 1)


def test_fit_scores_in_the_precision_that_it_trains_in(small):
    net, dls = init_weights(Net(), 'orthogonal', set_seed(0)), loaders(small, bs=100)
    opt = torch.optim.SGD(net.parameters(), lr=.01)
    hist = fit(net, dls.train, dls.test, opt, epochs=1, precision='bf16')
    exact, rounded = (evaluate(net, dls.test, p) for p in ('float32', 'bf16'))
    assert hist.score.probs.equal(rounded.probs) and not rounded.probs.equal(exact.probs)
