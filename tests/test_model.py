"""The assignment's network: its parameters, its table, its cost."""
import pytest
import torch
from conftest import flat

from s5_mnist.model import Net, init_weights, layer_stats, summary_table


def test_parameters():
    shapes = {k: list(p.shape) for k, p in Net().named_parameters()}
    assert shapes == {
        'conv1.weight': [32, 1, 3, 3], 'conv1.bias': [32], 'conv2.weight': [64, 32, 3, 3], 'conv2.bias': [64],
        'conv3.weight': [128, 64, 3, 3], 'conv3.bias': [128], 'conv4.weight': [256, 128, 3, 3], 'conv4.bias': [256],
        'fc1.weight': [50, 4096], 'fc1.bias': [50], 'fc2.weight': [10, 50], 'fc2.bias': [10]}


def test_features_and_classify_make_up_the_network():
    net, x = init_weights(Net(), generator=torch.Generator().manual_seed(0)), torch.randn(2, 1, 28, 28)
    maps = net.features(x)
    assert [list(m.shape) for m in maps] == [[2, 32, 26, 26], [2, 64, 24, 24], [2, 128, 10, 10], [2, 256, 8, 8]]
    assert maps[0].equal(net.conv1(x)) and maps[1].equal(net.conv2(maps[0].relu()))
    assert net.classify(net.pool(maps[3]).relu()).equal(net(x)) and net(x).shape == (2, 10)


@pytest.mark.parametrize('shape', [(1, 1, 20, 20), (1, 1, 29, 29), (1, 3, 28, 28), (28, 28), (1, 28, 28)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match='images'):
        Net()(torch.zeros(shape))


def test_initial_weights_are_decided_by_their_generator():
    for method in ('default', 'orthogonal'):
        a, b, c = (flat(init_weights(Net(), method, torch.Generator().manual_seed(s))) for s in (0, 0, 1))
        assert a.equal(b) and not a.equal(c)
    with pytest.raises(ValueError, match='zeros'):
        init_weights(Net(), 'zeros')


def test_orthogonal_weights_are_orthogonal():
    net = init_weights(Net(), 'orthogonal', torch.Generator().manual_seed(0))
    for layer in (net.conv3, net.conv4, net.fc1, net.fc2):
        w = layer.weight.detach().flatten(1)
        assert torch.allclose(w@w.T, 2*torch.eye(len(w)), atol=1e-4) and not layer.bias.any() # The gain is √2


def test_the_table_is_the_assignment_s():
    net = Net().eval()
    before = flat(net).clone()
    lines = summary_table(net).splitlines()
    assert [line.split()[0] for line in lines[3:9]] == ['Conv2d-1', 'Conv2d-2', 'Conv2d-3', 'Conv2d-4', 'Linear-5', 'Linear-6']
    assert lines[5] == '            Conv2d-3          [-1, 128, 10, 10]          73,856'
    assert [line.split()[-1] for line in lines[3:9]] == ['320', '18,496', '73,856', '295,168', '204,850', '510']
    assert lines[10:13] == ['Total params: 593,200', 'Trainable params: 593,200', 'Non-trainable params: 0']
    assert lines[14:18] == ['Input size (MB): 0.00', 'Forward/backward pass size (MB): 0.67', 'Params size (MB): 2.26',
                            'Estimated Total Size (MB): 2.94']
    assert flat(net).equal(before) and not net.training


def test_what_each_layer_sees_and_costs():
    rows = layer_stats(Net())
    assert [r.name for r in rows] == ['conv1', 'conv2', 'pool', 'conv3', 'conv4', 'pool', 'fc1', 'fc2']
    assert [r.field for r in rows] == [3, 5, 6, 10, 14, 16, 28, 28] and [r.stride for r in rows][:6] == [1, 1, 2, 2, 2, 4]
    macs = {r.name: r.macs for r in rows if r.macs}
    assert macs == dict(conv1=32*26*26*9, conv2=64*24*24*32*9, conv3=128*10*10*64*9, conv4=256*8*8*128*9,
                        fc1=50*4096, fc2=500)
    assert rows[-1].out == (10,) and rows[3].out == (128, 10, 10)


def test_the_receptive_field_is_what_a_pixel_can_change():
    "Each output of the last convolution depends on just the pixels in its field"
    net = init_weights(Net(), 'orthogonal', torch.Generator().manual_seed(0))
    noise = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(1)).requires_grad_()
    net.features(noise)[3][:, :, 3, 3].abs().sum().backward()
    rows = noise.grad.abs().sum((0, 1, 3)).nonzero()[:, 0]
    field = next(r.field for r in layer_stats(net) if r.name == 'conv4')
    assert rows[-1]-rows[0]+1 <= field and rows.min() == 3*2      # Every output moves on by 2 pixels
