"""Pictures of any kind to answers; what the network sees; files for other programs."""
import io
import json
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from conftest import STROKES
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import load_file

from s5_mnist import inference
from s5_mnist.data import InputError, generate_digits
from s5_mnist.inference import (MOST_PIXELS, as_input, evidence, export_onnx, feature_maps, plot_evidence,
                                plot_filters, plot_maps, predict, preprocess, read_picture, s5_export, s5_predict,
                                steps)
from s5_mnist.model import Net, init_weights
from s5_mnist.training import load_pretrained, pretrained_report, train
from s5_mnist.utils import set_seed


def drawn(digit, width=22, size=256, paper=255, ink=0): # Width on 256 pixels
    "A digit as a paint program makes it"
    im = Image.new('L', (size, size), paper)
    pen, k = ImageDraw.Draw(im), size/256
    for stroke in STROKES[digit]:
        points = [(x*k, y*k) for x, y in stroke]
        pen.line(points, fill=ink, width=round(width*k), joint='curve')
        for x, y in (points[0], points[-1]):
            r = width*k/2
            pen.ellipse((x-r, y-r, x+r, y+r), fill=ink)
    return im


def file_of(im, kind='png', **options):
    f = io.BytesIO()
    im.save(f, kind, **options)
    return f.getvalue()


def apart(a, b):
    "Mean difference of two images, in grey levels"
    return (a.float()-b.float()).abs().mean().item()


@pytest.fixture(scope='module')
def net():
    return load_pretrained()


@pytest.fixture(scope='module')
def two():
    return preprocess(drawn('2'))


# --- any picture ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'HSV', 'I', 'F', 'I;16'])
def test_any_mode_is_the_same_picture(mode, two):
    im = drawn('2')
    im = Image.fromarray(np.asarray(im, np.uint16)*257) if mode == 'I;16' else im.convert(mode)
    assert im.mode == mode and apart(preprocess(im), two) < 2


@pytest.mark.parametrize('kind', ['png', 'jpeg', 'bmp', 'gif', 'tiff', 'webp', 'ppm'])
def test_any_format_is_the_same_picture(kind, two, tmp_path):
    (tmp_path/'two').write_bytes(file_of(drawn('2'), kind))
    assert apart(preprocess(tmp_path/'two'), two) < 2
    assert preprocess(str(tmp_path/'two')).equal(preprocess((tmp_path/'two').read_bytes()))


@pytest.mark.parametrize('change', [
    lambda a: a, lambda a: a/255, lambda a: a.astype(np.int64), lambda a: a.astype(np.float16),
    lambda a: (a > 127), lambda a: np.stack([a]*3), lambda a: np.stack([a]*3, -1), lambda a: a[None],
    lambda a: torch.from_numpy(a.copy()), lambda a: torch.from_numpy(a/255).float()[None], lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
    lambda a: (a > 127).astype(np.uint8), lambda a: a/255-5e-4])
def test_any_array_is_the_same_picture(change, two):
    image = preprocess(change(np.asarray(drawn('2'))))
    assert (image.shape, image.dtype) == ((28, 28), torch.uint8) and apart(image, two) < 2


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_precision(dtype, two):
    x = torch.from_numpy(np.asarray(drawn('2'))/255).to(dtype)
    assert apart(preprocess(x), two) < 2


def test_a_tensor_that_is_being_trained_can_be_read(two):
    assert apart(preprocess(torch.tensor(np.asarray(drawn('2'))/255, requires_grad=True)), two) < 2


@pytest.mark.parametrize('paper, ink', [(255, 0), (0, 255), (200, 60), (60, 200), (255, 200), (0, 40)])
def test_dark_on_light_and_light_on_dark(paper, ink, two):
    assert apart(preprocess(drawn('2', paper=paper, ink=ink)), two) < 2


@pytest.mark.parametrize('paper, ink', [('white', 'navy'), ('white', 'gold'), ('black', 'red'), ('darkgreen', 'white')])
def test_coloured_ink(paper, ink, two):
    im = Image.new('RGB', (256, 256), paper)
    im.paste(ink, mask=drawn('2', paper=0, ink=255))
    assert apart(preprocess(im), two) < 3


@pytest.mark.parametrize('ink', ['black', 'white', 'blue'])
@pytest.mark.parametrize('hidden', ['black', 'white', 'red'])
def test_what_is_transparent_is_paper_whatever_its_colour(ink, hidden, two):
    im = Image.new('RGBA', (256, 256), hidden)
    im.paste(ink, mask=drawn('2', paper=0, ink=255))
    im.putalpha(drawn('2', paper=0, ink=255))
    assert apart(preprocess(file_of(im)), two) < 3


def test_a_transparent_colour_of_a_palette(two):
    im = drawn('2').convert('P')
    image = preprocess(file_of(im, 'gif', transparency=im.getpixel((0, 0))))
    assert apart(image, two) < 3


@pytest.mark.parametrize('orientation, turned', [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90),
                                                 (8, Image.Transpose.ROTATE_270)])
def test_photos_are_turned_upright(orientation, turned, two):
    exif = Image.Exif()
    exif[0x112] = orientation
    photo = file_of(drawn('2').transpose(turned), 'jpeg', exif=exif)
    assert apart(preprocess(photo), two) < 3 < apart(preprocess(drawn('2').transpose(turned)), two)


@pytest.mark.parametrize('size', [28, 64, 1000, 3000])
def test_any_size_is_the_same_picture(size, two):
    assert apart(preprocess(drawn('2').resize((size, size))), two) < (8 if size == 28 else 3)


def test_where_it_stands_and_what_stands_around_it_do_not_matter(two):
    wide = Image.new('L', (900, 400), 255)
    wide.paste(drawn('2'), (600, 120))
    assert apart(preprocess(wide), two) < 4
    ImageDraw.Draw(wide).ellipse((30, 40, 38, 48), fill=0)         # A speck
    ImageDraw.Draw(wide).line((0, 399, 900, 399), fill=0, width=3) # A line along the edge
    assert apart(preprocess(wide), two) < 4


@pytest.mark.parametrize('width', [5, 10, 45])
def test_strokes_are_brought_to_the_width_of_mnist(width):
    done = steps(drawn('0', width))
    before, after = (inference._width(done[k]) for k in ('large', 'weight'))
    low, high = inference.WIDTHS
    assert not low <= before <= high and low-.3 <= after <= high+.3


def test_shadows_and_uneven_light(net):
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    for digit in STROKES:
        lamp = .8+.15*x-.1*y
        lamp[x+y > .3] *= .6                                      # The shadow's edge is sharp
        photo = np.asarray(drawn(digit, 14).filter(ImageFilter.GaussianBlur(1)))/255*.7+.2
        assert predict(photo*lamp, net).digit == int(digit)


@pytest.mark.parametrize('noise', [0, 2, 5])
@pytest.mark.parametrize('shade', [50, 100, 150])
def test_blank_paper_is_blank_in_any_light(shade, noise):
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    for light in (x/2+.5, x/4+y/4+.5, (x*x+y*y)/2):
        paper = 230-shade*light+np.random.default_rng(0).normal(0, noise, x.shape)
        with pytest.raises(InputError, match='is blank|holds no digit'):
            preprocess(paper.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize('grey', [30, 245])
@pytest.mark.parametrize('width', [8, 25, 50])
def test_the_table_beside_the_paper_is_left_out(width, grey, net):
    "Along any side, darker than the ink or brighter than the paper"
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    for side, digit in enumerate('2358'):
        photo = np.full((300, 400), 1.)
        photo[30:270, 80:320] = np.asarray(drawn(digit, 18, 240))/255*.7+.3
        photo = np.rot90(photo*(160+50*x+20*y), side).copy()
        photo[:, :width] = grey
        assert predict(np.rot90(photo, -side).astype(np.uint8), net).digit == int(digit)


@pytest.mark.parametrize('width, size', [(5, 256), (14, 256), (22, 256), (40, 256), (2, 100), (1.28, 200), (1, 256),
                                         (4, 256)])
def test_ten_digits_by_any_brush(width, size, net):
    found = predict([drawn(d, width, size) for d in STROKES], net)
    assert [p.digit for p in found] == [int(d) for d in STROKES]
    assert min(p.probs.max() for p in found) > .8


def beside(digits, width=22, gap=10):
    "Digits side by side, `gap` pixels of paper between them"
    ink = [255-np.asarray(drawn(d, width)) for d in digits]
    cut = [a[:, a.any(0).nonzero()[0][0]:a.any(0).nonzero()[0][-1]+1] for a in ink]
    between = np.zeros((256, gap), np.uint8)
    return np.pad(np.concatenate([x for a in cut for x in (a, between)][:-1], 1), ((0, 0), (30, 30)))


@pytest.mark.parametrize('width, gap', [(6, 10), (22, 10), (22, 60), (40, 20)])
def test_two_digits_are_refused(width, gap):
    "Rather than read as something that neither is"
    for digits in ('10', '42', '57', '83', '96', '11', '2024'):
        with pytest.raises(InputError, match='the ndarray holds two shapes side by side; give a picture of one digit'):
            preprocess(beside(digits, width, gap))


def test_a_digit_in_pieces_is_one(net):
    "The bar of a 5 that was drawn apart from the rest, and dust beside a digit"
    five = np.asarray(drawn('5')).copy()
    rows = (five < 128).any(1).nonzero()[0]
    five[rows[0]+24:rows[0]+34] = 255
    dusty = np.asarray(drawn('3')).copy()
    dusty[100:120, 235:245] = 0
    assert [p.digit for p in predict([five, dusty], net)] == [5, 3]


def test_a_pale_digit_under_the_edge_of_a_table(net):
    a = np.asarray(drawn('5', paper=255, ink=150)).copy()
    a[:30] = 0
    assert predict(a, net).digit == 5


@pytest.mark.parametrize('grey', [.05, .25, .45, .85, .93, .97])
def test_flat_paper_of_any_grey(grey, two):
    "Broad strokes too, which a window that looks for shadows would fill in"
    ink = np.asarray(drawn('2', paper=0, ink=255))/255
    assert apart(preprocess(grey+(0-grey if grey > .5 else 1-grey)*ink), two) < 3


@pytest.mark.mnist
def test_images_of_mnist_pass_as_they_are(mnist, net):
    "As they are, and black on white, with their edges drawn anew"
    images, labels = mnist.test_x[:200], mnist.test_y[:200].tolist()
    for pictures in (images, 255-images):
        seen = torch.stack([preprocess(x) for x in pictures])
        assert apart(seen, images) < 9
        assert sum(a == b for a, b in zip(net(as_input(seen)).argmax(1).tolist(), labels)) >= 196


# --- no picture -------------------------------------------------------------------------------------------------

def png_header(w, h):
    "The beginning of a PNG file of any size, without a pixel"
    body = b'IHDR'+struct.pack('>IIBBBBB', w, h, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n'+struct.pack('>I', 13)+body+struct.pack('>I', zlib.crc32(body))+b'\0\0\1\0IDAT'


def noise(*size): return np.random.default_rng(0).integers(0, 256, size, np.uint8)


BAD = {
    'white.png': (file_of(Image.new('L', (90, 90), 255)), 'is blank'),
    'black.png': (file_of(Image.new('RGB', (90, 90))), 'is blank'),
    'clear.png': (file_of(Image.new('RGBA', (90, 90), (0, 0, 0, 0))), 'is blank'),
    'noise.png': (file_of(Image.fromarray(noise(90, 90))), 'holds no digit, only noise'),
    'notes.txt': (b'a digit, in words: five', 'is no picture in a known format; give PNG or JPEG'),
    'empty.png': (b'', 'is no picture in a known format; give PNG or JPEG'),
    'stripes.png': (file_of(Image.fromarray(np.tile(np.uint8([255, 0, 255]), (99, 33)))), 'holds no digit'),
    'flat.png': (file_of(Image.new('L', (3000, 3))), 'is 3000 by 3 pixels; give at least 4 by 4'),
    'half.png': (file_of(drawn('2'))[:-400], 'is no picture that can be read'),
    'bomb.png': (png_header(60_000, 60_000), f'has more than {MOST_PIXELS:,} pixels'),
    'large.png': (png_header(10_000, 5_001), f'has more than {MOST_PIXELS:,} pixels'),
    'strip.png': (file_of(Image.new('L', (3000, 5), 255)), 'is blank'),
    'tiny.png': (file_of(Image.new('L', (3, 50))), 'is 3 by 50 pixels; give at least 4 by 4'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_files_are_named(name, tmp_path):
    data, said = BAD[name]
    (tmp_path/name).write_bytes(data)
    for source in (tmp_path/name, str(tmp_path/name)):
        with pytest.raises(InputError, match=f'{name} {said}'):
            predict(source)
    with pytest.raises(InputError, match=f'the bytes {said}'):
        preprocess(data)


@pytest.mark.parametrize('source, said', [
    ('nowhere.png', 'nowhere.png is not there; check the path'), (None, 'the NoneType is no picture'), (7, 'the int is no picture'),
    (np.zeros((2, 3, 28, 28)), r'the ndarray: an array of \[2, 3, 28, 28\]; give one picture'),
    (torch.zeros(28), r'an array of \[28\]'), (np.zeros((30, 30, 9)), r'an array of \[30, 30, 9\]'),
    (np.full((30, 30), np.nan), 'values from nan to nan'), (np.full((30, 30), np.inf), 'values from inf to inf'),
    (noise(30, 30)-300., 'values from -300 to -45'), (np.full((30, 30), 1e6), 'values from 1e[+]06'),
    (np.zeros((30, 30, 0)), r'an array of \[30, 30, 0\]'), (torch.zeros(0, 30, 30), r'an array of \[0, 30, 30\]'),
    (torch.zeros(2, 30, 30), r'an array of \[2, 30, 30\]'), (torch.eye(30).to_sparse(), 'give a dense one'),
    (torch.zeros(30, 30, device='meta'), 'the Tensor is no array that can be read'),
    (np.full((30, 30), 'x'), 'the ndarray: <U1 values; give numbers'),
    (np.zeros((30, 30), complex), 'the ndarray: complex128 values; give numbers')])
def test_bad_values_are_named(source, said):
    with pytest.raises(InputError, match=said):
        preprocess(source)


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(InputError, match=f'{tmp_path.name} is no picture'):
        preprocess(tmp_path)


# --- answers ----------------------------------------------------------------------------------------------------

def test_prediction_holds_what_the_network_saw(net):
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


def test_one_or_many(net, tmp_path):
    drawn('3').save(tmp_path/'three.png')
    one, (a, b) = predict(tmp_path/'three.png', net), predict([tmp_path/'three.png', drawn('8')], net)
    assert (one.digit, a.digit, b.digit) == (3, 3, 8) and one.name == str(tmp_path/'three.png')
    assert predict([], net) == []
    with pytest.raises(InputError, match='picture 1: the Image is blank'):
        predict([drawn('3'), Image.new('L', (50, 50))], net)


def test_a_run_predicts_with_its_own_network(small, tmp_path):
    run = train('fast', small, tmp_path/'run', device='cpu', precision='float32')
    assert run.predict(drawn('1')).probs.equal(predict(drawn('1'), run.net).probs)
    assert not run.predict(drawn('1')).probs.equal(predict(drawn('1')).probs)


def test_the_command_says_a_line_a_file_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for d in '05':
        drawn(d).save(f'{d}.png')
    (tmp_path/'notes.txt').write_text('no digit')
    with pytest.raises(SystemExit) as done:
        s5_predict(['0.png', 'notes.txt', 'gone.png', '5.png'])
    out, err = capsys.readouterr()
    assert done.value.code == 1
    assert [line.split(' (')[0] for line in out.splitlines()] == ['0.png: 0', '5.png: 5']
    assert err.splitlines() == ['s5_predict: notes.txt is no picture in a known format; give PNG or JPEG',
                                's5_predict: gone.png is not there; check the path']
    s5_predict(['5.png'], json=True)
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {'file', 'digit', 'probs'} and (found['file'], found['digit']) == ('5.png', 5)
    assert len(found['probs']) == 10 and sum(found['probs']) == pytest.approx(1, abs=1e-4)


def test_the_command_refuses_a_run_that_is_none(tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        s5_predict(['5.png'], run=str(tmp_path))
    assert done.value.code == 2 and str(tmp_path) in capsys.readouterr().err


# --- what the network sees --------------------------------------------------------------------------------------

def test_feature_maps_are_what_the_layers_answer(net, two):
    maps = feature_maps(net, two)
    x = torch.relu(net.conv1(as_input(two[None])))
    assert torch.allclose(maps['conv1'], x[0], atol=1e-6)
    assert torch.allclose(maps['conv2'], torch.relu(net.conv2(x))[0], atol=1e-5)
    assert list(maps) == ['conv1', 'conv2', 'conv3', 'conv4']
    assert not any(m._forward_hooks for m in net.modules())
    with pytest.raises(ValueError):
        feature_maps(net, two[:5])
    assert not any(m._forward_hooks for m in net.modules())        # Not after a failure either


def test_evidence_is_what_covering_takes_away(net, two):
    found, covered = evidence(net, two, size=3), two.clone()
    covered[9:12, 13:16] = 0
    with torch.no_grad():
        p = net(as_input(torch.stack([two, covered]))).softmax(1)[:, 2].double()
    odds = (p/(1-p)).log()
    assert found[10, 14].item() == pytest.approx((odds[0]-odds[1]).item(), rel=.02, abs=.02)
    empty = torch.ones(28, 28, dtype=torch.bool)
    for y, x in (two > 0).nonzero():
        empty[max(y-1, 0):y+2, max(x-1, 0):x+2] = False
    assert found[empty].abs().max() < 1e-3 < found.abs().max()     # Nothing covered, nothing lost


def test_pictures_of_the_inside(net, two):
    assert len(plot_filters(net).axes) == 32
    fig = plot_maps(feature_maps(net, two), most=8)
    assert len(fig.axes) == 32 and [a.get_ylabel() for a in fig.axes[::8]] == ['conv1', 'conv2', 'conv3', 'conv4']
    ax = plot_evidence(two, evidence(net, two))
    assert len(ax.images) == 2 and 'nats' in ax.figure.axes[1].get_ylabel()


# --- files for other programs -----------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def exported(net, tmp_path_factory):
    "ONNX files without and with feature maps, each alone in its folder"
    folder = tmp_path_factory.mktemp('onnx')
    for name in ('plain', 'maps', 'half'):
        (folder/name).mkdir()
        export_onnx(net, folder/name/'net.onnx', maps=name == 'maps', half=name == 'half')
        assert [p.name for p in (folder/name).iterdir()] == ['net.onnx']
    return folder


def test_onnx_answers_the_same_on_a_thousand_images(exported, net, request):
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
    sizes = [(exported/name/'net.onnx').stat().st_size for name in ('half', 'plain')]
    assert .5 < sizes[0]/sizes[1] < .51


def test_onnx_says_what_it_takes_and_gives(exported, net, two):
    onnxruntime = pytest.importorskip('onnxruntime')
    plain, maps = (onnxruntime.InferenceSession(exported/name/'net.onnx') for name in ('plain', 'maps'))
    for s in (plain, maps):
        x, = s.get_inputs()
        assert (x.name, x.shape[1:], x.type) == ('pixels', [1, 28, 28], 'tensor(float)')
    assert [x.name for x in plain.get_outputs()] == ['logits']
    names = [x.name for x in maps.get_outputs()]
    assert names == ['logits', 'conv1', 'conv2', 'conv3', 'conv4']
    given = dict(zip(names, maps.run(None, dict(pixels=(two[None, None].float()/255).numpy()))))
    for name, ours in feature_maps(net, two).items():
        assert abs(given[name][0]-ours.numpy()).max() < 1e-4


def test_export_leaves_the_network_as_it_was(tmp_path):
    net = init_weights(Net(), generator=set_seed(0)).to(memory_format=torch.channels_last).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    export_onnx(net, tmp_path/'x.onnx')
    assert net.training and all(v.equal(before[k]) for k, v in net.state_dict().items())
    assert net.conv2.weight.is_contiguous(memory_format=torch.channels_last)


def test_export_without_its_packages_says_what_to_install(net, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(InputError, match=r"pip install 's5_mnist\[export\]'"):
        export_onnx(net, tmp_path/'x.onnx')
    assert not list(tmp_path.iterdir())


def test_the_command_exports_weights_with_what_is_known_of_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    s5_export('pretrained', format='safetensors')
    size = (tmp_path/'s5_mnist.safetensors').stat().st_size
    assert capsys.readouterr().out == f's5_mnist.safetensors: {size:,} bytes\n'
    state = load_pretrained().state_dict()
    assert all(v.equal(state[k]) for k, v in load_file('s5_mnist.safetensors').items())
    assert pretrained_report('s5_mnist.safetensors') == pretrained_report() | dict(weights='float32')
    s5_export('pretrained', out='net.onnx')
    assert 'net.onnx: 2,' in capsys.readouterr().out


@pytest.mark.parametrize('args, said', [
    (dict(run='nowhere'), 'nowhere'), (dict(run='pretrained', format='pickle'), "format 'pickle' is unknown"),
    (dict(run='pretrained', format='safetensors', half=True), 'belong to onnx, not to safetensors')])
def test_the_command_refuses(args, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        s5_export(**args)
    assert done.value.code == 2 and said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_at_most_this_many_pixels_are_kept():
    grey, _ = read_picture(drawn('2', size=3000))
    assert max(grey.shape) <= 256


@pytest.mark.parametrize('net', ['pretrained', 7, object()])
def test_what_is_no_network_is_named(net):
    with pytest.raises(InputError, match=f'net: found {type(net).__name__}; give a torch module'):
        predict(drawn('2'), net)
