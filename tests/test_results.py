"""What is claimed, and the rows behind it."""
import json
import statistics

import pytest
import torch
from conftest import ROOT

from s5_mnist import training
from s5_mnist.benchmark import mean_interval, read_sweep, sweep_scores, sweep_table
from s5_mnist.data import InputError, loaders, shifted_views
from s5_mnist.model import Net
from s5_mnist.training import RECIPES, evaluate, get_recipe, s5_eval, sharpen, train

QUICK = dict(device='cpu', precision='float32')
RUNS = ROOT/'nbs/runs'
LEAST = dict(fast=10)


# --- views and sharpness ------------------------------------------------------------------------------------------

def test_views_are_averaged_by_probability(small):
    torch.manual_seed(0)
    net, dl = Net(), loaders(small, test_bs=50).test
    score = evaluate(net, dl, tta=lambda x: [x, x.flip(3)])
    x = torch.cat([x for x, _ in dl])
    with torch.no_grad():
        mean = (net(x).softmax(1)+net(x.flip(3)).softmax(1))/2
    assert torch.allclose(score.probs, mean, atol=1e-6)
    assert score.correct == (mean.argmax(1) == small.test_y).sum()
    assert score.loss == pytest.approx(-mean[range(130), small.test_y].log().mean().item(), rel=1e-4)
    assert evaluate(net, dl, tta=shifted_views).n == 130


def test_sharpening_changes_probabilities_and_no_answer(small, tmp_path):
    kw = dict(bs=20, epochs=2, **QUICK)
    soft, hard = (train('fast', small, tmp_path/str(f), sharpen=f, **kw) for f in (1., 2.))
    test_dl = loaders(small).test
    a, b = (evaluate(r.net, test_dl) for r in (soft, hard))
    assert a.probs.argmax(1).equal(b.probs.argmax(1)) and b.probs.max(1).values.mean() > a.probs.max(1).values.mean()
    assert torch.allclose((a.probs.log()*2).softmax(1), b.probs, atol=1e-5)
    assert hard.report['loss'] == pytest.approx(b.loss) and hard.report['correct'] == soft.report['correct']
    assert hard.history.rows[-1]['test_loss'] == pytest.approx(soft.history.rows[-1]['test_loss'])
    with pytest.raises(InputError, match='factor=0'):
        sharpen(Net(), 0)


def test_dropout_is_decided_by_the_seed(small, tmp_path):
    "And by nothing else: the global generator has no part in it"
    def weights(name, **kw):
        torch.manual_seed(ord(name))
        run = train('fast', small, tmp_path/name, **QUICK, **kw)
        return torch.cat([p.detach().flatten() for p in run.net.parameters()])
    a, b, c, without = weights('a', drop=.4), weights('b', drop=.4), weights('c', drop=.4, seed=1), weights('d')
    assert a.equal(b) and not a.equal(c) and not a.equal(without)


def test_the_command_says_that_it_looked_nine_times(small, tmp_path, monkeypatch, capsys):
    run = train('fast', small, tmp_path/'run', **QUICK)
    monkeypatch.setattr(training, 'load_data', lambda *args: small)
    score = evaluate(run.net, loaders(small).test, tta=shifted_views)
    capsys.readouterr()
    s5_eval(str(tmp_path/'run'), data='digits', device='cpu', tta=True)
    assert capsys.readouterr().out.startswith(f'{score} of {small.name}, test images in nine positions each; recipe')


# --- rows ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', LEAST)
def test_sweeps_are_of_the_recipe_as_it_is_on_all_test_images(name):
    rows = read_sweep(RUNS/f'{name}.csv')
    assert [r['seed'] for r in rows] == [str(i) for i in range(len(rows))] and len(rows) >= LEAST[name]
    for r in rows:
        assert get_recipe(RECIPES[name], **json.loads(r['settings'])) == RECIPES[name]
        assert (r['recipe'], r['data'], r['test_n'], r['validation_n']) == (name, 'MNIST', '10000', '')
        assert int(r['first_half'])+int(r['second_half']) == int(r['test_correct'])


def test_the_table_holds_what_the_rows_hold():
    rows = read_sweep(RUNS/'fast.csv')
    right = [int(r['test_correct'])/100 for r in rows]
    head, line = sweep_table(rows).splitlines()
    low, high = mean_interval(right)
    assert line.split() == ['fast', '10', f'{statistics.mean(right):.3f}', f'{low:.3f}', 'to', f'{high:.3f}',
                            f'{statistics.stdev(right):.3f}', f'{min(right):.2f}', 'to', f'{max(right):.2f}',
                            *(f'{statistics.mean(int(r[k]) for r in rows)/50:.2f}' for k in ('first_half', 'second_half')),
                            f'{statistics.median(float(r["seconds"]) for r in rows):.1f}']
    assert low < statistics.mean(right) < high and sweep_scores(rows) == ('test', pytest.approx(right))
