"""From pictures of any kind to images in MNIST's form."""
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import STROKES
from drawings import apart, beside, drawn, file_of, noise, slow
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from s5_mnist.data import as_input
from s5_mnist.inference import predict
from s5_mnist.numbers import read_numbers
from s5_mnist.preprocessing import preprocess, read_picture, source_name


# --- any picture ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'HSV', 'I', 'F', 'I;16'])
def test_any_mode_gives_the_same_image(mode, two):
    im = drawn('2')
    im = Image.fromarray(np.asarray(im, np.uint16)*257) if mode == 'I;16' else im.convert(mode)
    assert im.mode == mode and apart(preprocess(im), two) < 2


@pytest.mark.parametrize('kind', ['png', 'jpeg', 'bmp', 'gif', 'tiff', 'webp', 'ppm'])
def test_any_format_gives_the_same_image(kind, two):
    assert apart(preprocess(file_of(drawn('2'), kind)), two) < 2


def test_any_door_gives_the_same_image(two, tmp_path):
    "Opened by the caller, a picture may have a format that is not in FORMATS"
    path, tga = tmp_path/'two', io.BytesIO(file_of(drawn('2'), 'tga'))
    path.write_bytes(file_of(drawn('2')))
    with open(path, 'rb') as f:
        for source in (path, str(path), path.read_bytes(), f, io.BytesIO(path.read_bytes()), Image.open(tga)):
            assert preprocess(source).equal(two)


@pytest.mark.parametrize('change', [
    lambda a: a, lambda a: a/255, lambda a: a.astype(np.int64), lambda a: a.astype(np.uint16), lambda a: a.astype(np.float16),
    lambda a: (a > 127), lambda a: np.stack([a]*3), lambda a: np.stack([a]*3, -1), lambda a: a[None],
    lambda a: torch.from_numpy(a.copy()), lambda a: torch.from_numpy(a/255).float()[None],
    lambda a: torch.tensor(a/255, dtype=torch.bfloat16), lambda a: torch.tensor(a/255, requires_grad=True),
    lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1], lambda a: (a > 127).astype(np.uint8), lambda a: a/255-5e-4])
def test_any_array_gives_the_same_image(change, two):
    image = preprocess(change(np.asarray(drawn('2'))))
    assert (image.shape, image.dtype) == ((28, 28), torch.uint8) and apart(image, two) < 2


@pytest.mark.parametrize('paper, ink', [
    (255, 0), (0, 255), (200, 60), (60, 200), (0, 40), (13, 255), (115, 255), (247, 0),
    ('white', 'navy'), ('white', 'gold'), ('black', 'red'), ('darkgreen', 'white')])
def test_dark_on_light_and_light_on_dark(paper, ink, two):
    paper, ink = ((c,)*3 if isinstance(c, int) else c for c in (paper, ink))
    im = Image.new('RGB', (256, 256), paper)
    im.paste(ink, mask=drawn('2', paper=0, ink=255))
    assert apart(preprocess(im), two) < 3


@pytest.mark.parametrize('ink, hidden', [('black', 'black'), ('white', 'white'), ('blue', 'red')])
def test_transparent_pixels_are_paper_whatever_their_colour(ink, hidden, two):
    im = Image.new('RGBA', (256, 256), hidden)
    im.paste(ink, mask=drawn('2', paper=0, ink=255))
    im.putalpha(drawn('2', paper=0, ink=255))
    assert apart(preprocess(file_of(im)), two) < 3


@pytest.mark.parametrize('orientation, turned', [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90),
                                                 (8, Image.Transpose.ROTATE_270)])
def test_photos_are_turned_upright(orientation, turned, two):
    exif = Image.Exif()
    exif[0x112] = orientation
    photo = file_of(drawn('2').transpose(turned), 'jpeg', exif=exif)
    assert apart(preprocess(photo), two) < 3 < apart(preprocess(drawn('2').transpose(turned)), two)


@pytest.mark.parametrize('size', [28, 64, 1000, 3000])
def test_any_size_gives_the_same_image(size, two):
    assert max(read_picture(drawn('2').resize((size, size)))[0].shape) <= 256
    assert apart(preprocess(drawn('2').resize((size, size))), two) < (8 if size == 28 else 3)


def test_place_and_surroundings_do_not_matter(two):
    wide = Image.new('L', (900, 400), 255)
    wide.paste(drawn('2'), (600, 120))
    assert apart(preprocess(wide), two) < 4
    ImageDraw.Draw(wide).ellipse((30, 40, 38, 48), fill=0)         # A speck
    ImageDraw.Draw(wide).line((0, 399, 900, 399), fill=0, width=3) # A line along the border
    assert apart(preprocess(wide), two) < 4


def test_shadows_and_uneven_light(net):
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    for digit in STROKES:
        lamp = .8+.15*x-.1*y
        lamp[x+y > .3] *= .6                                      # The shadow's edge is sharp
        photo = np.asarray(drawn(digit, 14).filter(ImageFilter.GaussianBlur(1)))/255*.7+.2
        assert predict(photo*lamp, net).digit == int(digit)


@pytest.mark.parametrize('shade, grain', [(50, 0), (100, 5), (150, 2)])
def test_blank_paper_is_blank_in_any_light(shade, grain):
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    for light in (x/2+.5, x/4+y/4+.5, (x*x+y*y)/2):
        paper = 230-shade*light+np.random.default_rng(0).normal(0, grain, x.shape)
        with pytest.raises(ValueError, match='blank|no digit|noise'):
            preprocess(paper.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize('width, grey', [(8, 30), (50, 245), slow(25, 30)])
def test_the_table_beside_the_paper_is_left_out(width, grey, net):
    "Along any side, darker than the ink or brighter than the paper"
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    for side, digit in enumerate('2358'):
        photo = np.full((300, 400), 1.)
        photo[30:270, 80:320] = np.asarray(drawn(digit, 18, 240))/255*.7+.3
        photo = np.rot90(photo*(160+50*x+20*y), side).copy()
        photo[:, :width] = grey
        assert predict(np.rot90(photo, -side).astype(np.uint8), net).digit == int(digit)


@pytest.mark.parametrize('kind', ['table', 'box', 'rule'])
@pytest.mark.parametrize('light', [False, True])
def test_what_is_around_a_digit_is_left_out(kind, light, net):
    im = digit = drawn('3', 14)
    if kind == 'table': im = ImageOps.expand(im, 60, 120)
    elif kind == 'box': ImageDraw.Draw(im := im.copy()).rectangle((20, 10, 236, 246), outline=0, width=4)
    else: ImageDraw.Draw(im := ImageOps.expand(im, 150, 255)).line((0, 370, 556, 370), fill=0, width=4) # Across its foot
    if light: im = ImageOps.invert(im)
    assert apart(preprocess(im), preprocess(digit)) < 4 and read_numbers(im, net).text == '3'


def test_a_shape_is_not_corrected(net):
    "The bow of a closed four stays"
    im = Image.new('L', (120, 200), 255)
    ImageDraw.Draw(im).line([(85, 180), (85, 22), (45, 80), (85, 80)], fill=0, width=6)
    assert predict(im, net).digit == 4


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('width', [1, 3, 9])
def test_a_flat_shape_is_refused_or_unsure(width, net, capfd):
    im = Image.new('L', (340, 120), 255)
    ImageDraw.Draw(im).line([(20, 60), (320, 60)], fill=0, width=width)
    try: assert not predict(im, net).is_digit
    except ValueError as e: assert 'no digit' in str(e)
    found = read_numbers(im, net)
    assert len(found.unsure) == len(found.digits) and capfd.readouterr().err == ''


@pytest.mark.parametrize('width, size', [(1, 256), (14, 256), (40, 256), slow(2, 100)])
def test_ten_digits_by_any_brush(width, size, net):
    found = predict([drawn(d, width, size) for d in STROKES], net)
    assert [p.digit for p in found] == [int(d) for d in STROKES]
    assert min(p.probs.max() for p in found) > .8


@pytest.mark.parametrize('width, gap', [(22, 10), (6, 60)])
def test_two_digits_are_refused(width, gap):
    "Squeezed into one image, they would be read as a third"
    for digits in ('10', '42', '57', '83', '96', '11', '2024'):
        with pytest.raises(ValueError, match='the ndarray holds two shapes'):
            preprocess(beside(digits, width, gap))


def tight(image, side=16):
    "A digit cropped to its ink and scaled to a square"
    rows, columns = ((image > 60).any(d).nonzero()[:, 0] for d in (1, 0))
    cut = image[rows[0]:rows[-1]+1, columns[0]:columns[-1]+1].numpy()
    return np.asarray(Image.fromarray(cut).resize((side, side), Image.Resampling.BILINEAR))


@pytest.mark.mnist
@pytest.mark.parametrize('n', [60, slow(1000)])
def test_a_tight_crop_loses_nothing(n, mnist, net):
    "As in collections of postal digits; ones would fill the whole square"
    chosen = (mnist.test_y != 1).nonzero()[:n, 0]
    crops = [tight(x) for x in mnist.test_x[chosen]]
    def read(a):
        try:
            return predict(a, net).digit
        except ValueError: # Refused: not read
            return -1
    for crops in (crops, [255-a for a in crops]):
        found = torch.tensor([read(a) for a in crops])
        assert (found == mnist.test_y[chosen]).float().mean() >= .98


def test_a_digit_in_pieces_is_one(net):
    "The bar of a 5 that was drawn apart from the rest, and dust beside a digit"
    five = np.asarray(drawn('5')).copy()
    rows = (five < 128).any(1).nonzero()[0]
    five[rows[0]+24:rows[0]+34] = 255
    dusty = np.asarray(drawn('3')).copy()
    dusty[100:120, 235:245] = 0
    assert [p.digit for p in predict([five, dusty], net)] == [5, 3]
    assert read_numbers(five, net).text == '5'


@pytest.mark.mnist
@pytest.mark.parametrize('n', [15, slow(200)])
def test_images_of_mnist_hardly_change(n, mnist, net):
    "As they are, and black on white, with their edges drawn anew"
    images, labels = mnist.test_x[:n], mnist.test_y[:n].tolist()
    for pictures in (images, 255-images):
        seen = torch.stack([preprocess(x) for x in pictures])
        assert apart(seen, images) < 9
        assert sum(a == b for a, b in zip(net(as_input(seen)).argmax(1).tolist(), labels)) >= n-4


# --- no picture -------------------------------------------------------------------------------------------------

def png_header(w, h):
    "The beginning of a PNG file of any size, without a pixel"
    body = b'IHDR'+struct.pack('>IIBBBBB', w, h, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n'+struct.pack('>I', 13)+body+struct.pack('>I', zlib.crc32(body))+b'\0\0\1\0IDAT'


BAD = {
    'white.png': (file_of(Image.new('L', (90, 90), 255)), 'blank'),
    'clear.png': (file_of(Image.new('RGBA', (90, 90), (0, 0, 0, 0))), 'blank'),
    'photo.jpg': (file_of(Image.new('L', (10_000, 6_000), 255), 'jpeg'), 'blank'), # 60 megapixels are not too many
    'strip.png': (file_of(Image.new('L', (3000, 5), 255)), 'blank'),
    'noise.png': (file_of(Image.fromarray(noise(90, 90))), 'noise'),
    'stripes.png': (file_of(Image.fromarray(np.tile(np.uint8([255, 0, 255]), (99, 33)))), 'noise|no digit'),
    'notes.txt': (b'a digit, in words: five', 'format'),
    'empty.png': (b'', 'format'),
    'half.png': (file_of(drawn('2'))[:-400], 'cannot be read'),
    'bomb.png': (png_header(60_000, 60_000), 'pixels'),
    'large.png': (png_header(12_000, 10_001), 'pixels'),
    'tiny.png': (file_of(Image.new('L', (3, 50))), '3 by 50'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_files_are_named(name, tmp_path):
    data, said = BAD[name]
    (tmp_path/name).write_bytes(data)
    with pytest.raises(ValueError, match=f'{name} .*{said}'):
        predict(tmp_path/name)
    with pytest.raises(ValueError, match=f'bytes object .*{said}'):
        preprocess(data)


@pytest.mark.parametrize('source, said', [
    ('nowhere.png', 'nowhere.png'), (None, 'NoneType'), (7, 'int'), (np.zeros((2, 3, 28, 28)), r'\[2, 3, 28, 28\]'),
    (torch.zeros(28), r'\[28\]'), (np.zeros((30, 30, 9)), r'\[30, 30, 9\]'), (np.full((30, 30), np.nan), 'nan'),
    (np.full((30, 30), np.inf), 'inf'), (noise(30, 30)-300., '-300'), (np.full((30, 30), 1e6), '1e[+]06'),
    (torch.zeros(0, 30, 30), r'\[0, 30, 30\]'), (torch.eye(30).to_sparse(), 'dense'),
    (torch.zeros(30, 30, device='meta'), 'converted'), (np.full((30, 30), 'x'), 'numbers'), (np.zeros((30, 30), complex), 'numbers')])
def test_bad_values_are_named(source, said):
    for read in (preprocess, read_numbers):
        with pytest.raises(ValueError, match=said):
            read(source)


def test_names_can_be_printed(tmp_path):
    assert source_name('a/b.png') == 'a/b.png' and source_name(tmp_path) == str(tmp_path)
    assert source_name(b'') == 'the bytes object' and source_name([1]) == 'the list'
    source_name('a\udcff.png').encode()                            # Not UTF-8 on disk
