"""Single measurements: a training step, a scoring, a matrix product, a command, a complete job."""
import json

import pytest
import torch

from s5_mnist import timing
from s5_mnist.augment import s5_transforms

from s5_mnist.data import loaders
from s5_mnist.device import ComputeOptions
from s5_mnist.speed import Rung, matmul_peak, save_raw_mnist, time_command, time_inference, time_job, time_rung, time_scoring


@pytest.fixture
def root(small, tmp_path):
    "A folder with a few digits where torchvision's MNIST looks for them"
    save_raw_mnist(small, tmp_path)
    return tmp_path


def test_torchvision_reads_what_we_write(small, root):
    from torchvision.datasets import MNIST
    for train, x, y in ((True, small.train_x, small.train_y), (False, small.test_x, small.test_y)):
        digits = MNIST(root, train=train, transform=s5_transforms(False))
        assert digits.data.equal(x) and digits.targets.equal(y)
        assert digits[3][0].equal(next(iter(loaders(small._replace(test_x=x, test_y=y)).test))[0][3])


@pytest.mark.parametrize('batches', ['dataloader', 'per image', 'per batch'])
def test_a_rung_trains_on_the_batches_that_it_names(small, root, batches, monkeypatch):
    seen, train_epoch = [], timing.train_epoch

    def spy(net, dl, **kwargs):
        dl = list(dl)
        seen.append([tuple(x.shape) for x, _ in dl])
        assert kwargs['precision'] == 'float32' and net.conv2.weight.is_contiguous(memory_format=torch.channels_last)
        return train_epoch(net, dl, **kwargs)

    monkeypatch.setattr(timing, 'train_epoch', spy)
    seconds = time_rung(Rung('x', batches, ComputeOptions(channels_last=True)), 'cpu', 2, root, bs=20)
    assert 0 < seconds < 60 and seen == [[(20, 1, 28, 28)]*n for n in (3, 2)] # Three to warm up


def test_images_one_by_one_are_transformed_as_the_assignment_does(small):
    torch.manual_seed(0)
    batches = list(timing._per_image_batches(small, 128))
    assert [len(y) for _, y in batches] == [128, 128, 44]
    assert torch.cat([y for _, y in batches]).bincount().equal(small.train_y.bincount())
    assert abs(batches[0][0].mean()) < .5 and batches[0][0].min() < 0


def test_scoring_and_inference_see_test_images_alone(root, monkeypatch):
    seen, evaluate = [], timing.evaluate
    monkeypatch.setattr(timing, 'evaluate', lambda net, dl, *a: seen.append(evaluate(net, dl, *a)) or seen[-1])
    assert 0 < time_scoring('cpu', root, bs=30) < 3600
    assert [s.n for s in seen] == [60, 70] # Of 130: two batches to warm up, then up to four
    assert time_inference(10, ComputeOptions(), 'cpu', root) > 1
    assert [s.n for s in seen[2:]] == [20, 80]


def test_products_of_matrices_are_counted():
    slow, fast = matmul_peak(torch.float32, n=8, repeats=2), matmul_peak(torch.float32, n=512, repeats=2)
    assert 0 < slow < fast < 1e14


def test_a_command_is_timed_with_its_memory():
    seconds, peak = time_command('-c', 'import time; x = b"1"*50_000_000; time.sleep(.3)')
    assert seconds > .3 and (peak is None or 50e6 < peak < 200e6)


def test_a_failed_command_is_no_measurement():
    with pytest.raises(ValueError, match='(?s)failed: .*ModuleNotFoundError'):
        time_command('-c', 'import nothing_of_this_name')


def test_a_job_is_the_command_as_a_shell_starts_it(monkeypatch, tmp_path):
    "With the options that it was given, in a folder of its own"
    def run(flag, code, *args):
        assert flag == '-c' and 's5_train.main()' in code
        options = dict(a.removeprefix('--').split('=') for a in args)
        out = options.pop('out')
        assert options == dict(recipe='fast', data='digits', device='cpu', seed='3')
        report = dict(recipe='fast', seed=3, held_out='x', correct=5, n=6, seconds=7., more=8)
        (tmp_path/'run').mkdir(exist_ok=True)
        (tmp_path/'run'/'report.json').write_text(json.dumps(report))
        (tmp_path/'run').rename(out)
        return 9., 10

    monkeypatch.setattr(timing, 'time_command', run)
    assert time_job('fast', 'digits', None, 'cpu', 3) == dict(
        recipe='fast', seed=3, held_out='x', correct=5, n=6, seconds=7., wall=9., peak_bytes=10)
