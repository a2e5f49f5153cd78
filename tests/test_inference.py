"""Predictions; what the network reacts to; files for other programs."""
import copy
import json
import sys

import pytest
import torch
from drawings import drawn
from PIL import Image


from s5_mnist.digits import generate_digits
from s5_mnist.inference import PixelInput, as_input, export_network, export_onnx, feature_maps, occlusion_map, plot_feature_maps, plot_filters, plot_occlusion, predict
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
    assert repr(found) == f'Prediction({found})'
    left, right = found.plot().axes
    assert left.images[0].get_array().data.tolist() == found.image.tolist()
    assert [round(b.get_height()/100, 4) for b in right.patches] == [round(p, 4) for p in probs.tolist()]
    assert right.get_ylabel() == 'probability (%)' and found._repr_png_().startswith(b'\x89PNG')


def test_a_prediction_can_be_written_as_json(net):
    found = predict(drawn('5'), net)
    read = json.loads(json.dumps(found.as_dict()))
    assert list(read) == ['file', 'digit', 'probs', 'typicality', 'is_digit'] and (read['file'], read['digit']) == ('the Image', 5)
    assert len(read['probs']) == 10 and sum(read['probs']) == pytest.approx(1, abs=1e-4)
    assert read['probs'] == [round(p, 6) for p in found.probs.tolist()]


def test_one_or_many(net, tmp_path):
    drawn('3').save(tmp_path/'three.png')
    one, (a, b) = predict(tmp_path/'three.png', net), predict([tmp_path/'three.png', drawn('8')], net)
    assert (one.digit, a.digit, b.digit) == (3, 3, 8) and one.name == str(tmp_path/'three.png')
    assert predict([], net) == []
    with pytest.raises(ValueError, match='picture 1: the Image is blank'):
        predict([drawn('3'), Image.new('L', (50, 50))], net)


def test_a_run_predicts_with_its_own_network(small_run):
    ours, theirs = predict(drawn('1'), small_run.net), predict(drawn('1'))
    with torch.no_grad():
        probs = small_run.net.eval()(as_input(ours.image[None])).softmax(1)[0]
    assert ours.probs.equal(probs) and not ours.probs.equal(theirs.probs)


@pytest.mark.parametrize('net', ['pretrained', 7, object()])
def test_anything_but_a_network_is_refused(net):
    with pytest.raises(ValueError, match=f'net must be a torch module, found {type(net).__name__}; pass run.net'):
        predict(drawn('2'), net)


# --- what the network reacts to ---------------------------------------------------------------------------------

def test_feature_maps_are_the_outputs_of_the_layers(net, two):
    maps = feature_maps(net, two)
    x = torch.relu(net.conv1(as_input(two[None])))
    assert torch.allclose(maps['conv1'], x[0], atol=1e-6)
    assert torch.allclose(maps['conv2'], torch.relu(net.conv2(x))[0], atol=1e-5)
    assert list(maps) == ['conv1', 'conv2', 'conv3', 'conv4']
    assert not any(m._forward_hooks for m in net.modules())
    with pytest.raises(ValueError, match=r'image must be \[28,28\], found \[5, 28\]; use preprocess'):
        feature_maps(net, two[:5])


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
    with pytest.raises(ValueError, match='size must be odd and from 1 to 27, got'):
        occlusion_map(net, two, size)


def test_pictures_of_the_inside(net, two):
    assert len(plot_filters(net).axes) == 32
    fig = plot_feature_maps(feature_maps(net, two), max_channels=8)
    assert len(fig.axes) == 32 and [a.get_ylabel() for a in fig.axes[::8]] == ['conv1', 'conv2', 'conv3', 'conv4']
    ax = plot_occlusion(two, occlusion_map(net, two))
    assert len(ax.images) == 2 and 'nats' in ax.figure.axes[1].get_ylabel()


# --- files for other programs -----------------------------------------------------------------------------------

def test_pixel_input_adds_the_normalisation(net, two):
    pixels = two[None, None].float()/255
    with torch.no_grad():
        ours, theirs, (logits, *maps) = net(as_input(two[None])), PixelInput(net)(pixels), PixelInput(net, True)(pixels)
    assert torch.allclose(theirs, ours, atol=1e-5) and torch.allclose(logits, ours, atol=1e-5)
    for ours, theirs in zip(feature_maps(net, two).values(), maps, strict=True):
        assert torch.allclose(theirs[0], ours, atol=1e-5)


@pytest.fixture(scope='module')
def exported(net, tmp_path_factory):
    "ONNX files without and with feature maps, each alone in its folder"
    folder = tmp_path_factory.mktemp('onnx')
    for name in ('plain', 'maps', 'half', 'half maps'):
        (folder/name).mkdir()
        export_onnx(net, folder/name/'net.onnx', maps='maps' in name, half='half' in name)
        assert [p.name for p in (folder/name).iterdir()] == ['net.onnx']
    return folder


def test_onnx_gives_the_same_logits_on_a_thousand_images(exported, net, request):
    onnxruntime = pytest.importorskip('onnxruntime')
    try:
        images = request.getfixturevalue('mnist').test_x[:1000]
    except pytest.skip.Exception:
        images = generate_digits(1000)[0]
    plain, half = (onnxruntime.InferenceSession(exported/name/'net.onnx') for name in ('plain', 'half'))
    pixels = (images[:, None].float()/255).numpy()
    with torch.no_grad():
        ours = net(as_input(images))
    for session, bs in ((plain, 1000), (half, 1000), (plain, 1), (plain, 7)): # The batch may have any size
        logits, = session.run(['logits'], dict(pixels=pixels[:bs]))
        assert logits.shape == (bs, 10) and abs(logits-ours[:bs].numpy()).max() < 1e-4
        assert (logits.argmax(1) == ours[:bs].argmax(1).numpy()).all()


def test_half_the_bytes(exported):
    for maps in ('', ' maps'):
        half, full = ((exported/name/'net.onnx').stat().st_size for name in (f'half{maps}', maps.strip() or 'plain'))
        assert .5 < half/full < .52


def test_onnx_declares_its_inputs_and_outputs(exported, net, two):
    onnxruntime = pytest.importorskip('onnxruntime')
    plain, *others = (onnxruntime.InferenceSession(exported/name/'net.onnx') for name in ('plain', 'maps', 'half maps'))
    for s in (plain, *others):
        x, = s.get_inputs()
        assert (x.name, x.shape[1:], x.type) == ('pixels', [1, 28, 28], 'tensor(float)')
    assert [x.name for x in plain.get_outputs()] == ['logits']
    for s in others:
        names = [x.name for x in s.get_outputs()]
        assert names == ['logits', 'conv1', 'conv2', 'conv3', 'conv4', 'score']
        given = dict(zip(names, s.run(None, dict(pixels=(two[None, None].float()/255).numpy()))))
        for name, ours in feature_maps(net, two).items():
            assert abs(given[name][0]-ours.numpy()).max() < 1e-4


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
    assert export_network('pretrained', 'safetensors') == f's5_mnist.safetensors: {2_375_048:,} bytes'
    assert pretrained_report('s5_mnist.safetensors') == pretrained_report() | dict(weights='float32')
    for options, said in (({'format': 'pickle'}, "format must be one of onnx, safetensors, got 'pickle'"),
                          ({'format': 'safetensors', 'maps': True}, 'maps and half need onnx, got safetensors')):
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
    with pytest.raises(ValueError, match='tuple'):
        predict(drawn('4'), Pair())
