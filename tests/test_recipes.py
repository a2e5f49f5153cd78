"""Recipes: what they may hold, how a training is built from one, Muon, and the start on centre crops."""
from dataclasses import asdict

import pytest
import torch
from conftest import QUICK, flat
from torch.nn import functional as F
from torch.optim import SGD

from s5_mnist import recipes
from s5_mnist.augment import AUGMENTS

from s5_mnist.data import loaders
from s5_mnist.device import ComputeOptions
from s5_mnist.model import Net, init_weights
from s5_mnist.recipes import NEWTON_SCHULZ, RECIPES, Muon, Recipe, StagedNet, build_training, end_cycle, first_cycle, get_recipe, make_optimizer, parse_changes, scale_logits, training_phases, zero_outer_weights
from s5_mnist.muon import newton_schulz
from s5_mnist.runs import train
from s5_mnist.selection import hardest_images
from s5_mnist.training import History, evaluate, train_epoch
from s5_mnist.utils import set_seed


# --- recipes ----------------------------------------------------------------------------------------------------

def test_recipes_are_the_ones_described():
    r = RECIPES['s5']
    assert (r.epochs, r.bs, r.lr, r.momentum) == (20, 512, 0.01, 0.9)
    assert (r.schedule, r.step_size, r.gamma) == ('step', 15, 0.1)
    assert (r.augment, r.init, r.label_smoothing) == ('s5', 'default', 0)
    opt, sched = make_optimizer(Net(), r, 118)
    lrs = []
    for _ in range(20):
        lrs.append(round(opt.param_groups[0]['lr'], 6))
        opt.step()
        sched.step()
    assert lrs == [0.01]*15+[0.001]*5
    assert RECIPES['fast'].epochs <= 2 and RECIPES['fast'].init == 'orthogonal'
    assert list(RECIPES) == ['s5', 'fast', 'best'] and Recipe() == r
    assert all(RECIPES[name].name == name for name in RECIPES)


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        get_recipe('s5').epochs = 3


def test_names_of_recipes_stay_in_their_folder():
    with pytest.raises(ValueError, match="name must be a single word of at most 60 characters, got '../elsewhere'"):
        get_recipe('s5', name='../elsewhere')


@pytest.mark.parametrize('changes, message', [
    (dict(epochs=0), 'epochs must be an integer between 1 and 100,000, got 0'), (dict(epochs=-1), 'got -1'),
    (dict(epochs=1.5), 'epochs must be an integer between .*, got 1.5'),
    (dict(epochs=True), 'epochs must be an integer between .*, got True'), (dict(bs='x'), "bs must be an integer between .*, got 'x'"),
    (dict(lr=float('nan')), 'lr must be a number between 1e-09 and 1000, got nan'), (dict(lr=float('inf')), 'got inf'),
    (dict(lr=0), 'lr must be a number between'), (dict(seed=-1), 'seed must be an integer between 0 and'),
    (dict(seed=2**32), 'got 4294967296'), (dict(subset_frac=0), 'subset_frac must be a number between 0.0001 and 1, got 0'),
    (dict(center_crop_frac=1.1), 'center_crop_frac must be a number between 0 and 1, got 1.1'),
    (dict(logit_scale=0), 'logit_scale must be a number between 0.1 and 10, got 0'),
    (dict(n_valid=-1), 'n_valid must be an integer between'),
    (dict(schedule='cosine'), "schedule must be one of step, onecycle, linear, got 'cosine'"),
    (dict(nesterov=1), 'nesterov must be True or False, got 1'),
    (dict(rl=1), 'a field must be one of name, epochs, bs, '),
    (dict(drop=.1), "got 'drop'"), (dict(dropout=.1), "got 'dropout'"),
    (dict(augment='s5', mild_aug_epochs=1), 'mild_aug_epochs must be 0 unless augment is one of elastic, affine, '
                                            'affine_bilinear; got 1 with s5'),
    (dict(augment='elastic', epochs=3, mild_aug_epochs=3), 'mild_aug_epochs must be below 3, the epochs of the first '
                                                            'cycle; got 3'),
    (dict(cycles=2, cycle_epochs=1), 'cycles must be 1 with the schedule step, got 2; choose onecycle or linear'),
    (dict(cycles=3, cycle_epochs=2, epochs=6, schedule='linear'),
     'epochs must be enough for a first cycle and 2 shorter ones of cycle_epochs >= 1, got epochs=6, cycle_epochs=2'),
    (dict(cycles=2, schedule='linear'), 'got epochs=20, cycle_epochs=0'),
    (dict(augment='bend'),
     "augment must be one of none, s5, shift2, shift1, elastic, affine, affine_bilinear, got 'bend'")])
def test_bad_fields_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        get_recipe('s5', **changes)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="recipe must be one of s5, fast, best, got 'quick'"):
        get_recipe('quick')


def test_other_numbers_of_epochs_keep_their_share_of_the_total():
    shares = [(first_cycle(r), r.cycles, r.cycle_epochs, r.mild_aug_epochs)
              for r in (get_recipe('best', epochs=n) for n in (1, 5, 6, 11, 27, 54))]
    assert shares == [(1, 1, 0, 0), (5, 1, 0, 0), (3, 4, 1, 0), (5, 4, 2, 1), (12, 4, 5, 2), (24, 4, 10, 4)]
    assert get_recipe('best', epochs=9, mild_aug_epochs=5).mild_aug_epochs == 5
    assert get_recipe('fast', epochs=9).mild_aug_epochs == 0
    mostly = get_recipe('s5', augment='elastic', epochs=4, mild_aug_epochs=3)
    assert get_recipe(mostly, epochs=1).mild_aug_epochs == 0      # Some epoch keeps the full strength


def test_changes_are_read_from_text():
    assert parse_changes('') == {} == parse_changes(' , ')
    assert parse_changes('bs=128,nesterov=False lr=1e-3, augment=elastic') == dict(
        bs=128, nesterov=False, lr=.001, augment='elastic')
    recipe = get_recipe('fast', epochs=3, lr=.07)
    text = ','.join(f'{k}={v}' for k, v in asdict(recipe).items())
    assert get_recipe('s5', **parse_changes(text)) == recipe


@pytest.mark.parametrize('text, message', [
    ('bs', "a change must be field=value, got 'bs'"), ('rl=1', "a field must be one of .*, got 'rl'"), ('=1', "got ''"),
    ('bs=x', "bs must be an integer between .*, got 'x'"), ('nesterov=maybe', "nesterov must be True or False, got 'maybe'"),
    ('bs=1.5', "bs must be an integer between .*, got '1.5'")])
def test_bad_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_changes(text)


# --- optimisers -------------------------------------------------------------------------------------------------

def test_newton_schulz_brings_singular_values_near_1():
    for shape in ((50, 30), (30, 50), (32, 9)):
        m = torch.randn(shape, generator=torch.Generator().manual_seed(0))*7
        five = newton_schulz(m, NEWTON_SCHULZ['jordan3'][:1]*5)
        values = torch.linalg.svdvals(five)
        assert .6 < values.min() and values.max() < 1.35
        u, _, v = torch.linalg.svd(m, full_matrices=False)
        assert F.cosine_similarity(five.flatten(), (u@v).flatten(), 0) > .97


@pytest.mark.parametrize('name', NEWTON_SCHULZ)
@pytest.mark.parametrize('shape', [(50, 300), (300, 50), (64, 64)])
@pytest.mark.parametrize('dtype, bound', [(torch.float32, 1e-3), (torch.bfloat16, .04)])
def test_newton_schulz_applies_its_polynomials_to_each_singular_value(name, shape, dtype, bound):
    "By way of the Gram matrix, as they would be in double precision"
    m = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    u, s, v = torch.linalg.svd(m/m.norm(), full_matrices=False)
    for a, b, c in NEWTON_SCHULZ[name]: s = a*s + b*s**3 + c*s**5
    expected = u@s.diag()@v
    found = newton_schulz(m.to(dtype), NEWTON_SCHULZ[name])
    assert found.dtype == dtype and (found.double()-expected).norm() < bound*expected.norm()


def test_muon_multiplies_in_bf16_only_where_it_is_native(monkeypatch):
    seen = []
    monkeypatch.setattr(recipes, 'newton_schulz', lambda m, steps: seen.append(m.dtype) or m)
    for native in (True, False):
        monkeypatch.setattr(recipes, 'native_bf16', lambda device: native)
        p = torch.nn.Parameter(torch.ones(4, 3))
        p.grad = torch.ones(4, 3)
        Muon([dict(params=[p], lr=.1, muon=True)]).step()
    assert seen == [torch.bfloat16, torch.float32]


def test_muon_takes_a_closure_as_torch_s_optimisers_do():
    p = torch.nn.Parameter(torch.ones(4, 3))
    opt = Muon([dict(params=[p], lr=.1, muon=True)])

    def closure():
        opt.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss
    losses = [opt.step(closure).item() for _ in range(3)]
    assert losses[0] == 12 and losses == sorted(losses, reverse=True) and len(set(losses)) == 3


def test_muon_is_the_same_in_either_memory_layout():
    nets = [init_weights(Net(), 'orthogonal', set_seed(0)).to(memory_format=layout)
            for layout in (torch.contiguous_format, torch.channels_last)]
    x, y = torch.randn(8, 1, 28, 28), torch.arange(8)
    for net in nets:
        before = flat(net)
        opt = make_optimizer(net, get_recipe('fast'), 10)[0]
        F.cross_entropy(net(x), y).backward()
        opt.step()
    a, b = ([p.detach().contiguous() for p in net.parameters()] for net in nets)
    assert not flat(nets[0]).equal(before)
    for p, q in zip(a, b): assert torch.allclose(p, q, atol=1e-4)


def test_muon_without_its_groups_is_sgd_with_nesterov_momentum():
    a, b = (torch.nn.Parameter(torch.linspace(-1, 1, 6).view(2, 3)) for _ in range(2))
    ours = Muon([dict(params=[a], lr=.1)], momentum=.8, weight_decay=.01)
    theirs = SGD([b], lr=.1, momentum=.8, weight_decay=.01, nesterov=True)
    for step in range(4):
        for p, opt in ((a, ours), (b, theirs)):
            p.grad = torch.sin(p.detach()*3+step)
            opt.step()
    assert torch.allclose(a, b, atol=1e-6)


def test_muon_s_decay_is_decoupled():
    "It multiplies the weights by 1 - lr * decay, whatever the gradient"
    p = torch.nn.Parameter(torch.ones(4, 3))
    opt = Muon([dict(params=[p], lr=.1, muon=True)], muon_weight_decay=.5)
    p.grad = torch.zeros(4, 3)
    opt.step()
    assert torch.allclose(p, torch.full((4, 3), .95))


def test_muon_gets_the_large_weights_alone():
    net = Net()
    opt, _ = make_optimizer(net, RECIPES['fast'], 10)
    rest, large = opt.param_groups
    names = {id(p): k for k, p in net.named_parameters()}
    assert isinstance(opt, Muon) and large['muon'] and not rest['muon']
    assert {names[id(p)] for p in large['params']} == {f'{k}.weight' for k in ('conv2', 'conv3', 'conv4', 'fc1')}
    assert len(rest['params'])+len(large['params']) == len(list(net.parameters()))
    assert isinstance(make_optimizer(net, RECIPES['s5'], 10)[0], SGD)


@pytest.mark.parametrize('schedule', ['onecycle', 'linear'])
def test_one_cycle_goes_up_and_down(schedule):
    recipe = get_recipe('fast', epochs=2, warmup_frac=.25, schedule=schedule)
    opt, sched = make_optimizer(Net(), recipe, 50)
    lrs = []
    for _ in range(100):
        lrs.append([g['lr'] for g in opt.param_groups])
        opt.step()
        sched.step()
    assert max(a for a, _ in lrs) == pytest.approx(recipe.lr, rel=.02)
    assert max(b for _, b in lrs) == pytest.approx(recipe.muon_lr, rel=.02)
    assert lrs.index(max(lrs)) in (24, 25) and lrs[-1][0] < .02*recipe.lr
    middle = lrs[62][0]/recipe.lr                                 # Halfway down
    assert middle == pytest.approx(.5, abs=.02)
    quarter = lrs[43][0]/recipe.lr
    assert quarter == pytest.approx(.75 if schedule == 'linear' else .854, abs=.02)


@pytest.mark.parametrize('schedule', ['onecycle', 'linear'])
@pytest.mark.parametrize('warmup_frac', [.01, .1, .5, .99])
def test_a_run_of_any_length_has_a_schedule(schedule, warmup_frac):
    recipe = get_recipe('fast', schedule=schedule, warmup_frac=warmup_frac)
    for steps in (1, 2, 3, 9, 10, 19, 101):
        opt, sched = make_optimizer(Net(), recipe, steps)
        lrs = []
        for _ in range(steps):
            lrs.append(opt.param_groups[0]['lr'])
            opt.step()
            sched.step()
        assert all(0 < lr <= recipe.lr*1.0001 for lr in lrs)


CROPS = Recipe(center_crop_frac=1.)


# --- the start on centre crops ----------------------------------------------------------------------------------

def test_centre_crops_come_first_and_train_the_inner_places_only(small):
    net = zero_outer_weights(init_weights(Net(), 'orthogonal', set_seed(0)))
    outer = net.fc1.weight.detach().view(50, 256, 4, 4).clone()
    outer[..., 1:3, 1:3] = 0
    assert not outer.any()
    seen = []
    net.conv1.register_forward_pre_hook(lambda m, args: seen.append(tuple(args[0].shape[2:])))
    train_epoch(StagedNet(net, CROPS, 2), loaders(small, bs=100).train, SGD(net.parameters(), lr=0.01))
    assert seen == [(20, 20), (20, 20), (28, 28)]
    assert net.fc1.weight.detach().view(50, 256, 4, 4)[..., 0, 0].any() # Trained by the last batch


def test_centre_crops_are_the_start_of_the_run_not_of_each_epoch(small, tmp_path, monkeypatch):
    seen, features = [], Net.features

    def spy(net, x):
        if net.training: seen.append(x.shape[-1])
        return features(net, x)

    monkeypatch.setattr(Net, 'features', spy)
    train('fast', small, tmp_path/'run', skip_easy_frac=0., subset_frac=1., bs=100, epochs=3, center_crop_frac=0.5, **QUICK)
    assert seen == [20]*4+[28]*5                                  # 9 batches; half of them, rounded to even


def test_a_batch_of_centre_crops_leaves_the_outer_weights_alone(small):
    net = init_weights(Net(), 'orthogonal', set_seed(0))
    before = net.fc1.weight.detach().clone().view(50, 256, 4, 4)
    train_epoch(StagedNet(net, CROPS, 3), loaders(small, bs=100).train, SGD(net.parameters(), lr=0.01))
    after = net.fc1.weight.detach().view(50, 256, 4, 4)
    assert after[..., 0, :].equal(before[..., 0, :]) and not after[..., 1:3, 1:3].equal(before[..., 1:3, 1:3])


def test_with_outer_weights_of_0_the_logits_are_those_of_the_whole_image(small):
    "Every feature that a crop computes is one of the whole image's, and the other features count for nothing"
    net = zero_outer_weights(init_weights(Net(), 'orthogonal', set_seed(0)))
    x = torch.randn(3, 1, 28, 28, generator=set_seed(0))
    start = StagedNet(net, CROPS, 1).train()
    assert torch.allclose(start(x), net(x), atol=1e-4)
    assert start.step == 1 and start(x).equal(net(x)) and start.step == 2
    assert StagedNet(net, CROPS, 9).eval()(x).equal(net(x))              # Scoring is always on whole images
    assert StagedNet(net, CROPS, 9, step=9).train()(x).equal(net(x))     # A resumed run counts on


# --- what a training is built from ------------------------------------------------------------------------------

def test_build_training_makes_what_fit_takes(small):
    recipe = get_recipe('fast', n_valid=40, bs=64)
    parts = build_training(recipe, small, torch.device('cpu'), ComputeOptions(channels_last=True))
    assert [type(dl).__name__ for dl in parts.dls] == ['Batches']*3 and parts.dls.train.generator is parts.generator
    assert parts.net.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert len(parts.dls.train.x) == round(260*(1-recipe.skip_easy_frac)) and len(parts.dls.valid.x) == 40
    assert parts.dls.train.n == round(len(parts.dls.train.x)*recipe.subset_frac)
    hard = hardest_images(small.train_x[:260], small.train_y[:260], 1-recipe.skip_easy_frac)
    assert parts.dls.train.x.equal(small.train_x[:260][hard]) and parts.dls.train.y.equal(small.train_y[:260][hard])
    assert parts.dls.valid.x.equal(small.train_x[260:])           # Whatever is left out, they are held out
    assert parts.dls.train.augment is AUGMENTS['shift1'] and isinstance(parts.opt, Muon)
    again = build_training(recipe, small, torch.device('cpu'), ComputeOptions())
    assert flat(again.net).sort().values.equal(flat(parts.net).sort().values)
    assert not parts.net.fc1.weight.view(50, 256, 4, 4)[..., 0, 0].any() # fast starts on centre crops
    assert build_training(RECIPES['s5'], small, torch.device('cpu'), ComputeOptions()).net.fc1.weight.all()


def test_early_layers_are_frozen_at_the_end_and_free_again_after_it(small, tmp_path):
    net, recipe = init_weights(Net(), 'orthogonal', set_seed(0)), Recipe(frozen_frac=.5)
    staged, opt = StagedNet(net, recipe, 4), Muon([dict(params=net.parameters(), lr=.01)])
    history, dl = [], loaders(small, bs=75).train
    train_epoch(staged, dl, opt, on_step=lambda: history.append([p.detach().clone() for p in net.parameters()]))
    moved = [[not p.equal(q) for p, q in zip(a, b)] for a, b in zip(history, history[1:])]
    assert moved == [[True]*12, [False]*4+[True]*8, [False]*4+[True]*8] # The first two layers have four tensors
    run = train('fast', small, tmp_path/'run', bs=50, **QUICK)
    assert all(p.requires_grad for p in run.net.parameters())
    whole = init_weights(Net(), 'orthogonal', set_seed(0))
    train_epoch(whole, loaders(small, bs=75).train, Muon([dict(params=whole.parameters(), lr=.01)]))
    assert not flat(whole).equal(flat(net))


def test_mild_augmentation_comes_at_the_end_and_only_there(small, tmp_path):
    "Epochs before it are those of a run without it; the epochs after get 0.3 of the amounts"
    kw = dict(augment='elastic', **QUICK)
    without, mild = (train('s5', small, tmp_path/str(n), epochs=2, mild_aug_epochs=n, **kw).history.rows
                     for n in (0, 1))
    columns = [k for k in mild[0] if k != 'seconds']
    assert [mild[0][k] for k in columns] == [without[0][k] for k in columns]
    assert mild[1]['train_loss'] != without[1]['train_loss']

    recipe = get_recipe('s5', augment='elastic', epochs=9, mild_aug_epochs=2)
    parts = build_training(recipe, small, torch.device('cpu'), ComputeOptions())
    seen = [(end, getattr(parts.dls.train.augment, 'keywords', {}))
            for end in training_phases(recipe, parts, History())]
    assert seen == [(7, {}), (9, {'strength': .3})]


def test_training_needs_no_augmentation(small, tmp_path):
    assert train('s5', small, tmp_path/'run', epochs=1, augment='none', **QUICK).report['n'] == 130


def test_cycles_end_in_the_mean_of_their_networks(small, tmp_path):
    "The end of the schedule is repeated, rates and all, and what is saved is the mean of what each cycle ended with"
    ends = []

    def look(recipe, parts, k):
        ends.append([p.detach().clone() for p in parts.net.parameters()])
        end_cycle(recipe, parts, k)
    kw = dict(epochs=7, cycles=3, cycle_epochs=2, bs=20, center_crop_frac=.5, frozen_frac=0., **QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('s5_mnist.recipes.end_cycle', look)
        run = train('fast', small, tmp_path/'run', **kw)
    for p, *three in zip(run.net.parameters(), *ends):
        assert torch.allclose(p, torch.stack(three).mean(0), atol=1e-6) and not p.equal(three[2])
    rates = [r['lr'] for r in run.history.rows]
    assert len(ends) == 3 and rates[1:3] == rates[3:5] == rates[5:7] and rates[1] > rates[2]
    first = train('fast', small, tmp_path/'first', **kw | dict(epochs=3, cycles=1, cycle_epochs=0))
    assert all(p.equal(q) for p, q in zip(first.net.parameters(), ends[0]))
    assert run.report['loss'] == pytest.approx(evaluate(run.net, loaders(small).test).loss)


def test_scaling_the_logits_changes_probabilities_and_no_prediction(small, tmp_path):
    kw = dict(bs=20, epochs=2, **QUICK)
    plain, scaled = (train('fast', small, tmp_path/str(f), logit_scale=f, **kw) for f in (1., 2.))
    test_dl = loaders(small).test
    a, b = (evaluate(r.net, test_dl) for r in (plain, scaled))
    assert a.probs.argmax(1).equal(b.probs.argmax(1)) and b.probs.max(1).values.mean() > a.probs.max(1).values.mean()
    assert torch.allclose((a.probs.log()*2).softmax(1), b.probs, atol=1e-5)
    assert scaled.report['loss'] == pytest.approx(b.loss) and scaled.report['correct'] == plain.report['correct']
    assert scaled.history.rows[-1]['test_loss'] == pytest.approx(plain.history.rows[-1]['test_loss'])
    for factor in (0, -1, float('nan')):
        with pytest.raises(ValueError, match=f'factor must be above 0, got {factor}'):
            scale_logits(Net(), factor)
