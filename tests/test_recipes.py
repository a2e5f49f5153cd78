"""Recipes: what they may hold, how a run is built from one, and the start on centre crops."""
from dataclasses import asdict

import pytest
import torch
from conftest import QUICK, flat
from torch.optim import SGD

from s5_mnist.augment import AUGMENTS
from s5_mnist.data import loaders
from s5_mnist.device import ComputeOptions
from s5_mnist.model import Net, init_weights
from s5_mnist.muon import Muon
from s5_mnist.recipes import (RECIPES, Recipe, StagedNet, build_training, get_recipe, make_optimizer, parse_changes,
                              zero_outer_weights)
from s5_mnist.runs import train
from s5_mnist.selection import hardest_images
from s5_mnist.training import evaluate, fit
from s5_mnist.utils import set_seed


# --- recipes ----------------------------------------------------------------------------------------------------

def test_the_default_is_the_assignment():
    r = RECIPES['s5']
    assert Recipe() == r and (r.epochs, r.bs, r.lr, r.momentum) == (20, 512, .01, .9)
    assert (r.augment, r.init, r.label_smoothing) == ('s5', 'default', 0)
    opt, sched = make_optimizer(Net(), r, 118)
    lrs = []
    for _ in range(20):
        lrs.append(round(opt.param_groups[0]['lr'], 6))
        opt.step()
        sched.step()
    assert lrs == [.01]*15+[.001]*5


@pytest.mark.parametrize('changes', [
    dict(epochs=0), dict(epochs=1.5), dict(epochs=True), dict(bs='x'), dict(lr=float('nan')), dict(lr=0),
    dict(seed=2**32), dict(subset_frac=0), dict(center_crop_frac=1.1), dict(logit_scale=0), dict(n_valid=-1),
    dict(schedule='cosine'), dict(augment='bend'), dict(name='../elsewhere'), dict(mild_epochs=1),
    dict(mild_epochs=3, epochs=3, augment='elastic')])
def test_bad_values_are_refused_by_name(changes):
    with pytest.raises(ValueError, match=f'{list(changes)[0]} must be'):
        get_recipe('s5', **changes)


def test_unknown_recipes_and_fields_are_refused():
    with pytest.raises(ValueError, match="'quick'"):
        get_recipe('quick')
    with pytest.raises(ValueError, match="'rl'"):
        get_recipe('s5', rl=1)


def test_other_numbers_of_epochs_keep_their_share_of_mild_ones():
    assert [get_recipe('best', epochs=n).mild_epochs for n in (1, 5, 11, 27, 54)] == [0, 0, 1, 2, 4]
    assert get_recipe('best', epochs=9, mild_epochs=5).mild_epochs == 5
    mostly = get_recipe('s5', augment='elastic', epochs=4, mild_epochs=3)
    assert get_recipe(mostly, epochs=1).mild_epochs == 0          # Some epoch keeps the full strength


def test_every_recipe_can_be_written_as_text():
    recipe = get_recipe('fast', epochs=3, lr=.07)
    text = ','.join(f'{k}={v}' for k, v in asdict(recipe).items())
    assert get_recipe('s5', **parse_changes(text)) == recipe
    assert parse_changes('') == {} == parse_changes(' , ')


@pytest.mark.parametrize('text', ['bs', 'rl=1', '=1', 'bs=x', 'bs=1.5'])
def test_bad_text_is_refused(text):
    with pytest.raises(ValueError, match='must be'):
        parse_changes(text)


# --- optimisers -------------------------------------------------------------------------------------------------

def test_muon_gets_the_large_weights_alone():
    net = Net()
    opt, _ = make_optimizer(net, RECIPES['fast'], 10)
    rest, large = opt.param_groups
    names = {id(p): k for k, p in net.named_parameters()}
    assert isinstance(opt, Muon) and large['muon'] and not rest['muon']
    assert {names[id(p)] for p in large['params']} == {f'{k}.weight' for k in ('conv2', 'conv3', 'conv4', 'fc1')}
    assert len(rest['params'])+len(large['params']) == len(list(net.parameters()))
    assert isinstance(make_optimizer(net, RECIPES['s5'], 10)[0], SGD)


def rates(recipe, steps):
    opt, sched = make_optimizer(Net(), recipe, steps)
    for _ in range(recipe.epochs*steps):
        yield [g['lr'] for g in opt.param_groups]
        opt.step()
        sched.step()


@pytest.mark.parametrize('schedule', ['onecycle', 'linear'])
def test_one_cycle_goes_up_and_down(schedule):
    recipe = get_recipe('fast', epochs=2, warmup_frac=.25, schedule=schedule)
    lrs = list(rates(recipe, 50))
    assert max(a for a, _ in lrs) == pytest.approx(recipe.lr, rel=.02)
    assert max(b for _, b in lrs) == pytest.approx(recipe.muon_lr, rel=.02)
    assert lrs.index(max(lrs)) in (24, 25) and lrs[-1][0] < .02*recipe.lr
    assert lrs[62][0]/recipe.lr == pytest.approx(.5, abs=.02)     # Halfway down
    assert lrs[43][0]/recipe.lr == pytest.approx(.75 if schedule == 'linear' else .854, abs=.02)


@pytest.mark.parametrize('schedule', ['onecycle', 'linear'])
@pytest.mark.parametrize('warmup_frac', [.01, .5, .99])
def test_a_run_of_any_length_has_a_schedule(schedule, warmup_frac):
    recipe = get_recipe('fast', schedule=schedule, warmup_frac=warmup_frac)
    for steps in (1, 2, 3, 9, 10, 19, 101):
        assert all(0 < lr <= recipe.lr*1.0001 for lr, _ in rates(recipe, steps))


# --- stages -----------------------------------------------------------------------------------------------------

def test_centre_crops_come_first_and_leave_the_outer_weights_alone(small):
    net = zero_outer_weights(init_weights(Net(), 'orthogonal', set_seed(0)))
    outer, seen, zero = net.fc1.weight.detach().view(50, 256, 4, 4)[..., 0, :], [], []
    net.conv1.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape[-1]) or zero.append(not outer.any()))
    staged = StagedNet(net, Recipe(center_crop_frac=.5), 4)       # 2 epochs of 2 batches
    fit(staged, loaders(small, bs=150).train, None, SGD(net.parameters(), lr=.01), epochs=2, callback=None)
    assert seen == [20, 20, 28, 28] and zero == [True, True, True, False]
    assert staged.eval()(torch.zeros(1, 1, 28, 28)).equal(net(torch.zeros(1, 1, 28, 28)))


def test_early_layers_are_frozen_at_the_end_and_free_again_after_it(small, tmp_path):
    net, seen = init_weights(Net(), 'orthogonal', set_seed(0)), []
    staged, opt = StagedNet(net, Recipe(frozen_frac=.5), 4), Muon([dict(params=net.parameters(), lr=.01)])
    opt.register_step_post_hook(lambda *_: seen.append([p.detach().clone() for p in net.parameters()]))
    fit(staged, loaders(small, bs=75).train, None, opt, epochs=1, callback=None)
    moved = [[not p.equal(q) for p, q in zip(a, b)] for a, b in zip(seen, seen[1:])]
    assert moved == [[True]*12, [False]*4+[True]*8, [False]*4+[True]*8] # The first two layers have four tensors
    run = train('fast', small, tmp_path/'run', bs=50, **QUICK)
    assert all(p.requires_grad for p in run.net.parameters())


def test_mild_augmentation_comes_at_the_end_and_only_there(small, tmp_path):
    kw = dict(augment='elastic', bs=100, **QUICK)
    runs = {n: train('s5', small, tmp_path/str(n), epochs=2, mild_epochs=n, **kw).history.rows for n in (0, 1)}
    losses = {n: [r['train_loss'] for r in rows] for n, rows in runs.items()}
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]


# --- what a run is built from -----------------------------------------------------------------------------------

def test_build_training_makes_what_fit_takes(small):
    recipe = get_recipe('fast', n_valid=40, bs=64)
    parts = build_training(recipe, small, torch.device('cpu'), ComputeOptions(channels_last=True))
    assert parts.net.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    hard = hardest_images(small.train_x[:260], small.train_y[:260], 1-recipe.skip_easy_frac)
    assert parts.dls.train.x.equal(small.train_x[:260][hard]) and parts.dls.train.y.equal(small.train_y[:260][hard])
    assert parts.dls.train.n == round(len(hard)*recipe.subset_frac)
    assert parts.dls.valid.x.equal(small.train_x[260:])           # Whatever is left out, they are held out
    assert parts.dls.train.augment is AUGMENTS['shift1'] and isinstance(parts.opt, Muon)
    again = build_training(recipe, small)
    assert flat(again.net).sort().values.equal(flat(parts.net).sort().values)
    assert not parts.net.fc1.weight.view(50, 256, 4, 4)[..., 0, 0].any() # fast starts on centre crops
    assert build_training(RECIPES['s5'], small).net.fc1.weight.all()


def test_training_needs_no_augmentation(small, tmp_path):
    assert train('s5', small, tmp_path/'run', epochs=1, augment='none', **QUICK).report['n'] == 130


def test_scaling_the_logits_changes_probabilities_and_no_prediction(small, tmp_path):
    plain, scaled = (train('fast', small, tmp_path/str(f), logit_scale=f, bs=20, **QUICK) for f in (1., 2.))
    a, b = (evaluate(r.net, loaders(small).test) for r in (plain, scaled))
    assert torch.allclose((a.probs.log()*2).softmax(1), b.probs, atol=1e-5)
    assert scaled.report['loss'] == pytest.approx(b.loss) and scaled.report['correct'] == plain.report['correct']
    assert scaled.history.rows[-1]['test_loss'] == pytest.approx(plain.history.rows[-1]['test_loss'])
