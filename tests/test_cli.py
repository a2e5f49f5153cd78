"""The commands, as a shell sees them: from the installed wheel, in another folder."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import zeros

ROOT = Path(__file__).parent.parent
OFFLINE = {k: 'http://127.0.0.1:9' for k in ('http_proxy', 'https_proxy')} # A port where nobody answers


@pytest.fixture(scope='session')
def installed(tmp_path_factory):
    "A folder into which the wheel was installed"
    where = tmp_path_factory.mktemp('wheel')
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    subprocess.run([*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', where, ROOT], check=True)
    wheel, = where.glob('*.whl')
    subprocess.run([*pip, 'install', '--no-deps', '--no-warn-conflicts', '--target', where/'site', wheel], check=True)
    return where/'site'


@pytest.fixture
def shell(installed, tmp_path):
    "Run an installed command in an empty folder, without MNIST and without a network"
    def call(command, *args, **env):
        clean = {k: v for k, v in os.environ.items() if k not in ('S5_MNIST_DATA', 'PYTHONPATH')}
        env = {**clean, **OFFLINE, 'PYTHONPATH': str(installed), 'XDG_CACHE_HOME': str(tmp_path/'cache'), **env}
        return subprocess.run([sys.executable, installed/'bin'/command, *map(str, args)], env=env, cwd=tmp_path,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return call


def test_the_wheel_is_what_runs(shell, installed, tmp_path):
    (installed/'bin'/'where').write_text('import s5_mnist; print(s5_mnist.__file__)')
    assert shell('where').stdout.startswith(str(installed))


def test_without_mnist_it_trains_on_generated_digits_and_says_so(shell, tmp_path):
    done = shell('s5_train', '--device', 'cpu', '--seed', 2)
    assert done.returncode == 0, done.stderr
    lines = [x for x in done.stdout.splitlines() if not x.startswith('Downloading')]
    assert 'using generated digits instead' in lines[0]
    assert lines[1].startswith('fast on generated digits')
    assert len([x for x in lines if x.startswith('epoch')]) == 1 # One line an epoch where no terminal is
    assert 'of generated digits, test images; recipe fast, seed=2' in lines[-1] and 'runs/fast-2' in lines[-1]
    config, report = (json.loads((tmp_path/'runs'/'fast-2'/f'{n}.json').read_text()) for n in ('config', 'report'))
    assert config['data'] == 'generated digits' and report['held_out'] == 'generated digits, test images'
    assert report['n'] == 2000 and report['correct'] > 1950
    assert f'{report["correct"]}/2000' in lines[-1]
    assert done.stderr == ''

    again = shell('s5_eval', 'runs/fast-2', '--device', 'cpu')
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f'{report["correct"]}/2000 = {report["accuracy"]:.2f} % of generated digits')


def test_help_comes_from_the_docments(shell):
    done = shell('s5_train', '--help')
    assert done.returncode == 0
    for option in ('--recipe', '--data', '--root', '--epochs', '--bs', '--lr', '--seed', '--valid', '--device',
                   '--precision', '--without', '--out'):
        assert option in done.stdout
    assert 'The recipe to train by' in done.stdout and 'default: fast' in done.stdout
    assert 'The folder of a finished run' in shell('s5_eval', '--help').stdout


WRONG = [
    (['s5_train', '--recipe', 'quick'], "recipe 'quick' is unknown; choose s5, fast"),
    (['s5_train', '--epochs', '-3'], 'epochs=-3 is out of range; give 1 to'),
    (['s5_train', '--epochs', '0'], 'epochs=0 is out of range; give 1 to'),
    (['s5_train', '--lr', 'nan'], 'lr=nan is out of range'),
    (['s5_train', '--seed', '-1'], 'seed=-1 is out of range'),
    (['s5_train', '--data', 'digits', '--valid', '10000'], 'valid=10000: keep 0 to 9999'),
    (['s5_train', '--data', 'cifar'], "data 'cifar' is unknown; choose auto, mnist or digits"),
    (['s5_train', '--data', 'mnist'], 'could not be downloaded'),
    (['s5_train', '--device', 'tpu'], "device 'tpu' is not there; this machine has"),
    (['s5_train', '--device', 'cuda:77'], "device 'cuda:77' is not there"),
    (['s5_train', '--precision', 'fp8'], "precision 'fp8' is unknown; choose auto, bf16 or float32"),
    (['s5_train', '--data', 'digits', '--out', 'file/run'], 'file/run cannot be written'),
    (['s5_train', '--data', 'digits', '--out', '/proc/run'], '/proc/run cannot be written'),
    (['s5_train', '--data', 'digits', '--out', 'full'], 'full is not empty; choose another folder'),
    (['s5_train', '--root', 'spoilt'], 'train-images-idx3-ubyte: wrong content: expected 47040016 bytes, found an empty'),
    (['s5_train', '--root', 'typo'], 'root=typo is no folder'),
    (['s5_train', '--without', 'warp'], "shortcut 'warp' is unknown; leave out some of channels_last, keep_pages"),
    (['s5_sweep', '--seeds', '0', '--data', 'digits'], 'seeds=0: run at least one'),
    (['s5_sweep', '--change', 'bs=x'], "recipe: bs='x' must be int"),
    (['s5_sweep', '--change', 'rl=1'], "recipe: 'rl' is no field; the fields are name, epochs, bs, part"),
    (['s5_sweep', '--data', 'digits', '--out', 'full/config.json'], 'full/config.json is no table of a sweep'),
    (['s5_bench', '--reps', '0'], 'reps=0: give 1 to'),
    (['s5_bench', '--out', 'file'], 'file is a file; name a folder'),
    (['s5_eval', 'nothing'], 'nothing/config.json is not there'),
    (['s5_eval', 'stopped'], 'stopped is not finished; go on with it: s5_train --resume stopped'),
    (['s5_train', '--data', 'digits', '--out', 'stopped'], 'stopped is not empty; choose another folder, or go on with it: '
                                                           's5_train --resume stopped'),
    (['s5_train', '--resume', 'nothing'], 'nothing is no run; name the folder of one that was stopped'),
    (['s5_train', '--resume', 'stopped', '--epochs', '5', '--out', 'x'],
     '--resume goes on as the run was begun; leave out --epochs --out'),
    (['s5_eval', 'other', '--device', 'cpu'], 'other/model.safetensors is of another model'),
]


@pytest.mark.parametrize('args, said', WRONG, ids=[' '.join(a) for a, _ in WRONG])
def test_wrong_usage_is_one_line(shell, tmp_path, args, said):
    (tmp_path/'file').write_text('')
    (tmp_path/'spoilt').mkdir()
    (tmp_path/'spoilt'/'train-images-idx3-ubyte').write_text('')
    for name in ('full', 'other'):
        (tmp_path/name).mkdir()
        (tmp_path/name/'config.json').write_text('{"version": 1, "recipe": {}}')
        (tmp_path/name/'report.json').write_text('{}')
        (tmp_path/name/'history.csv').write_text('epoch\n1\n')
        save_file({'conv1.weight': zeros(3)}, tmp_path/name/'model.safetensors')
    (tmp_path/'stopped').mkdir()
    for name in ('config.json', 'last.ckpt'):
        (tmp_path/'stopped'/name).write_text('{"version": 1, "recipe": {}}')
    done = shell(*args)
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith(f'{args[0]}: ')
    assert said in done.stderr
    assert not (tmp_path/'runs').exists()


def test_unknown_option_ends_with_status_2(shell):
    done = shell('s5_train', '--epoks', 3)
    assert done.returncode == 2 and 'unrecognized arguments: --epoks 3' in done.stderr
    assert 'Traceback' not in done.stderr


def test_the_command_does_without_what_is_slow_to_import(tmp_path):
    "torchvision takes as long to import as torch, and torch's compiler a second"
    code = ('import sys; from s5_mnist.training import s5_train; from s5_mnist import training; '
            'from s5_mnist.data import generated_data; training.load_data = lambda *a: generated_data(200, 50); '
            f's5_train(device="cpu", out={str(tmp_path/"run")!r}); '
            'bad = {"torchvision", "torch._dynamo"} & set(sys.modules); assert not bad, bad')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_model_is_light_to_import():
    code = ('import sys, s5_mnist.model; bad = [m for m in ("matplotlib", "torchvision", "PIL") if m in sys.modules]; '
            'assert not bad, bad')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
