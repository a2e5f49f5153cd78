"""The weights in the package: what they are, and what they score."""

import pytest
import torch
from conftest import QUICK, ROOT

from s5_mnist import cli
from s5_mnist.runs import save_weights

from s5_mnist.data import loaders
from s5_mnist.model import Net
from s5_mnist.runs import PRETRAINED, load_network, load_pretrained, pretrained_report, save_pretrained
from s5_mnist.recipes import RECIPES, recipe_from_fields
from s5_mnist.runs import train
from s5_mnist.sweeps import read_sweep, recipe_settings
from s5_mnist.training import evaluate
from s5_mnist.utils import calibration_error


def test_pretrained_is_a_network_of_best_and_says_so():
    net, report = load_pretrained(), pretrained_report()
    assert isinstance(net, Net) and not net.training
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert sum(p.numel() for p in net.parameters()) == 593_200
    assert report['recipe'] == 'best' and report['changes'] == {} and report['n'] == 10_000
    assert report['held_out'] == 'MNIST, test images' and report['versions'].keys() == {'s5_mnist', 'torch', 'python'}
    trained = recipe_from_fields(report['settings'])              # Fields that came later have their defaults
    assert recipe_settings(trained) == recipe_settings(RECIPES['best'])
    assert PRETRAINED.stat().st_size < 1.3e6


def test_pretrained_is_a_run_of_the_sweep():
    "The seed in its report is in best.csv, with the count that the run had in training"
    report = pretrained_report()
    row, = (r for r in read_sweep(ROOT/'nbs/runs/best.csv') if int(r['seed']) == report['seed'])
    assert int(row['test_correct']) == report['correct_in_training']


@pytest.mark.mnist
def test_pretrained_scores_what_it_says(mnist):
    report, score = pretrained_report(), evaluate(load_pretrained(), loaders(mnist).test)
    assert (score.correct, score.n, score.halves) == (report['correct'], report['n'], report['halves'])
    assert score.loss == pytest.approx(report['loss'], rel=1e-4)
    assert score.confusion.sum(1).tolist() == mnist.test_y.bincount().tolist()
    assert calibration_error(score.probs, mnist.test_y) <= .01


@pytest.mark.slow
@pytest.mark.mnist
def test_the_command_scores_the_weights_in_the_package(mnist, capsys):
    cli.s5_eval.main(['pretrained', '--device', 'cpu'])
    out, report = capsys.readouterr().out, pretrained_report()
    assert out.startswith(f'{report["correct"]}/10000 = ') and 'MNIST, test images; recipe best, seed=' in out


def test_save_pretrained_reports_what_the_file_scores(small, small_run, tmp_path):
    test_dl = loaders(small).test
    report = save_pretrained(small_run, tmp_path/'w.safetensors', test_dl)
    net = load_pretrained(tmp_path/'w.safetensors')
    assert evaluate(net, test_dl).correct == report['correct'] == pretrained_report(tmp_path/'w.safetensors')['correct']
    assert report['correct_in_training'] == small_run.report['correct'] and report['settings']['epochs'] == 2
    for p, q in zip(net.parameters(), small_run.net.parameters()):
        assert p.equal(q.half().float())


def test_a_run_scored_on_validation_images_is_refused(small, tmp_path):
    run = train('fast', small, tmp_path/'run', n_valid=40, bs=200, **QUICK)
    with pytest.raises(ValueError, match='run must have n_valid=0, found 40: it was scored on validation images'):
        save_pretrained(run, tmp_path/'w', loaders(small).test)
    assert not (tmp_path/'w').exists()


def test_networks_by_name(small, small_run):
    net, report, data = load_network('pretrained', 'cpu')
    assert (report, data) == (pretrained_report(), 'MNIST') and net.fc2.bias.equal(load_pretrained().fc2.bias)
    net, report, data = load_network(str(small_run.path), 'cpu')
    assert report['seed'] == 6 and data == small.name and net.fc2.bias.equal(small_run.net.fc2.bias)
    with pytest.raises(ValueError, match='nowhere/config.json does not exist'):
        load_network('nowhere')


def test_a_file_without_a_report_is_refused(tmp_path):
    save_weights(Net(), tmp_path/'w', {})
    with pytest.raises(ValueError, match='w must be a file of s5_mnist, found no report in it'):
        pretrained_report(tmp_path/'w')
