"""Predictions; what the network reacts to; files for other programs."""
import copy
import json
import sys

import pytest
import torch
from drawings import drawn
from PIL import Image

from s5_mnist.data import as_input
from s5_mnist.digits import generate_digits
from s5_mnist.inference import export_network, export_onnx, feature_maps, occlusion_map, predict
from s5_mnist.model import Net, init_weights
from s5_mnist.numbers import read_numbers
from s5_mnist.preprocessing import preprocess
from s5_mnist.runs import pretrained_report
from s5_mnist.utils import set_seed


# --- predictions ------------------------------------------------------------------------------------------------

def test_a_prediction_holds_what_the_network_saw(net):
    found = predict(drawn('7'), net)
    with torch.no_grad():
        probs = net(as_input(preprocess(drawn('7'))[None])).softmax(1)[0]
    assert found.digit == probs.argmax() == 7 and found.probs.equal(probs)
    assert found.image.equal(preprocess(drawn('7'))) and str(found).startswith('the Image: 7 (')
    left, right = found.plot().axes
    assert left.images[0].get_array().data.tolist() == found.image.tolist()
    assert [b.get_height() for b in right.patches] == pytest.approx([100*p for p in probs.tolist()])
    assert found._repr_png_().startswith(b'\x89PNG')
    read = json.loads(json.dumps(found.as_dict()))
    assert list(read) == ['file', 'digit', 'probs', 'typicality', 'is_digit'] and (read['file'], read['digit']) == ('the Image', 7)
    assert read['probs'] == pytest.approx(probs.tolist(), abs=1e-6)


def test_one_or_many(net, tmp_path):
    drawn('3').save(tmp_path/'three.png')
    one, (a, b) = predict(tmp_path/'three.png', net), predict([tmp_path/'three.png', drawn('8')], net)
    assert (one.digit, a.digit, b.digit) == (3, 3, 8) and one.name == str(tmp_path/'three.png')
    assert predict([], net) == []
    with pytest.raises(ValueError, match='picture 1: .*blank'):
        predict([drawn('3'), Image.new('L', (50, 50))], net)


def test_the_images_of_a_tensor(net):
    x = generate_digits(5, seed=2)[0]
    for several in (x, x[:2], x[:, None], x[:3, None], x[:1, None], x[:2]/255):
        found = predict(several, net)
        assert [p.digit for p in found] == [predict(image, net).digit for image in x[:len(several)]]
    for one in (x[0], x[:1], x[:1].expand(3, -1, -1)):            # [28,28], and a picture with one channel or three
        assert predict(one, net).digit == predict(x[0], net).digit
    assert predict(x[:0], net) == []
    with pytest.raises(ValueError, match='picture 1: .*blank'):
        predict(torch.stack([x[0], 0*x[0]]), net)


@pytest.mark.parametrize('net', ['pretrained', 7, object()])
def test_anything_but_a_network_is_refused(net):
    with pytest.raises(ValueError, match=f'found {type(net).__name__}'):
        predict(drawn('2'), net)


# --- what the network reacts to ---------------------------------------------------------------------------------

def test_feature_maps_are_the_outputs_of_the_layers(net, two):
    maps = feature_maps(net, two)
    x = torch.relu(net.conv1(as_input(two[None])))
    assert torch.allclose(maps['conv1'], x[0], atol=1e-6)
    assert torch.allclose(maps['conv2'], torch.relu(net.conv2(x))[0], atol=1e-5)
    assert list(maps) == ['conv1', 'conv2', 'conv3', 'conv4']
    assert not any(m._forward_hooks for m in net.modules())


def test_an_occlusion_map_is_what_blanking_takes_away(net, two):
    drops, blanked = occlusion_map(net, two, size=3), two.clone()
    blanked[9:12, 13:16] = 0
    with torch.no_grad():
        p = net(as_input(torch.stack([two, blanked]))).softmax(1)[:, 2].double()
    odds = (p/(1-p)).log()
    assert drops[10, 14].item() == pytest.approx((odds[0]-odds[1]).item(), rel=.02, abs=.02)
    empty = torch.ones(28, 28, dtype=torch.bool)
    for y, x in (two > 0).nonzero():
        empty[max(y-1, 0):y+2, max(x-1, 0):x+2] = False
    assert drops[empty].abs().max() < 1e-3 < drops.abs().max()     # Nothing blanked, nothing lost


@pytest.mark.parametrize('size', [0, -1, 4, 29, 2.5])
def test_a_patch_has_a_centre(size, net, two):
    with pytest.raises(ValueError, match='odd'):
        occlusion_map(net, two, size)


# --- files for other programs -----------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def exported(net, tmp_path_factory):
    "ONNX files without and with feature maps, each alone in its folder"
    folder = tmp_path_factory.mktemp('onnx')
    for name in ('plain', 'half maps'):
        (folder/name).mkdir()
        export_onnx(net, folder/name/'net.onnx', maps='maps' in name, half='half' in name)
        assert [p.name for p in (folder/name).iterdir()] == ['net.onnx']
    return folder


@pytest.mark.parametrize('name', ['plain', 'half maps'])
def test_onnx_computes_what_the_network_computes(name, exported, net):
    session = pytest.importorskip('onnxruntime').InferenceSession(exported/name/'net.onnx')
    x, = session.get_inputs()
    assert (x.name, x.shape[1:], x.type) == ('pixels', [1, 28, 28], 'tensor(float)')
    names = [x.name for x in session.get_outputs()]
    assert names == (['logits', 'conv1', 'conv2', 'conv3', 'conv4', 'score'] if 'maps' in name else ['logits'])
    images = generate_digits(200)[0]
    with torch.no_grad():
        ours = net(as_input(images))
    for n in (200, 1, 7):                                         # The batch may have any size
        found = dict(zip(names, session.run(None, dict(pixels=(images[:n, None]/255).numpy()))))
        assert abs(found['logits']-ours[:n].numpy()).max() < 1e-4
    if 'maps' in name:
        for layer, maps in feature_maps(net, images[0]).items():
            assert abs(found[layer][0]-maps.numpy()).max() < 1e-4


def test_export_leaves_the_network_as_it_was(tmp_path):
    net = init_weights(Net(), generator=set_seed(0)).to(memory_format=torch.channels_last).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    export_onnx(net, tmp_path/'x.onnx', half=True)
    assert net.training and all(v.equal(before[k]) for k, v in net.state_dict().items())
    assert net.state_dict().keys() == before.keys() and net.conv1.weight.dtype == torch.float32
    assert net.conv2.weight.is_contiguous(memory_format=torch.channels_last)


def test_export_without_its_packages_says_what_to_install(net, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(ValueError, match=r"pip install 's5_mnist\[export\]'"):
        export_onnx(net, tmp_path/'x.onnx')
    assert not list(tmp_path.iterdir())


def test_a_network_is_exported_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert export_network('pretrained', 'safetensors').startswith('s5_mnist.safetensors: ')
    assert pretrained_report('s5_mnist.safetensors') == pretrained_report() | dict(weights='float32')
    for options, said in (({'format': 'pickle'}, 'onnx, safetensors'),
                          ({'format': 'safetensors', 'maps': True}, 'need onnx')):
        with pytest.raises(ValueError, match=said):
            export_network('pretrained', **options)
    assert [p.name for p in tmp_path.iterdir()] == ['s5_mnist.safetensors']


def test_a_quantised_network_predicts_without_typicality(net):
    class Quantised(torch.nn.Module): # As torch's: its weights come from a method
        def __init__(self, linear):
            super().__init__()
            self.weight, self.bias = (lambda w=linear.weight: w.detach()), linear.bias.detach()

        def forward(self, x): return torch.nn.functional.linear(x, self.weight(), self.bias)
    quantised = copy.deepcopy(net)
    quantised.fc1, quantised.fc2 = Quantised(net.fc1), Quantised(net.fc2)
    found = predict(drawn('4'), quantised)
    assert found.digit == 4 and found.typicality is None and found.is_digit is None
    assert read_numbers(drawn('4'), quantised).text == '4'


def test_a_network_that_returns_something_else_is_refused(net):
    class Pair(torch.nn.Module):
        def forward(self, x): return net(x), None
    with pytest.raises(ValueError, match='logits'):
        predict(drawn('4'), Pair())
