"""Values are checked, files are complete or absent, and tables are shown everywhere."""
import os
from typing import Literal

import pytest

from s5_mnist.core import (Float, Int, Table, atomic_write, check, check_file, check_output, printable, read_csv,
                           read_json, shown, write_csv, write_json)


# --- values -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('value, kind', [
    (0, Int(0, 2)), (2, Int(0, 2)), (1, Float(0, 1)), (.5, Float(0, 1)), ('a', Literal['a', 'b']), (True, bool), ('', str)])
def test_a_value_of_its_type_passes(value, kind):
    assert check(value, kind, 'x') is value and check(str(value), kind, 'x', text=True) == value


@pytest.mark.parametrize('value, kind', [
    (3, Int(0, 2)), (-1, Int(0, 2)), (1., Int(0, 2)), (True, Int(0, 2)), ('1', Int(0, 2)), (None, Int(0, 2)),
    (float('nan'), Float(0, 1)), (float('inf'), Float(0, 1)), (1.1, Float(0, 1)), ('c', Literal['a', 'b']), (1, bool), (3, str)])
def test_any_other_value_is_refused(value, kind):
    with pytest.raises(ValueError, match='x must be'):
        check(value, kind, 'x')


@pytest.mark.parametrize('text', ['', 'x', '1.5', '1e999', '9'*5000])
def test_text_that_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match='x must be an integer'):
        check(text, Int(0, 2), 'x', text=True)


def test_messages_are_short_lines():
    assert all(len(shown(v)) <= 60 for v in ('a'*1000, [1]*1000, 10**5000, {'a': 'b'*100}))
    assert printable('é a\n\x1b[2J\u202e').isprintable() and printable('größe') == 'größe'


# --- files ------------------------------------------------------------------------------------------------------

@pytest.fixture
def occupied(tmp_path):
    "Paths that must not be replaced even by force, with a file that must remain as it is"
    (tmp_path/'text.txt').write_text('keep')
    (tmp_path/'link').symlink_to('text.txt')
    (tmp_path/'dangling').symlink_to('nowhere')
    os.mkfifo(tmp_path/'pipe')
    (tmp_path/'folder').mkdir()
    names = sorted(os.listdir(tmp_path))
    yield [tmp_path/n for n in ('link', 'dangling', 'pipe', 'folder')] + ['/dev/null', '/']
    assert (tmp_path/'text.txt').read_text() == 'keep' and sorted(os.listdir(tmp_path)) == names


@pytest.mark.skipif(os.name == 'nt', reason='no pipes on Windows')
def test_only_regular_files_are_read_and_replaced(occupied, tmp_path):
    for path in occupied:
        for call in (lambda p: check_output(p, force=True), lambda p: write_json(p, {})):
            with pytest.raises(ValueError, match='regular file'):
                call(path)
    for path in (*occupied[1:], tmp_path/'gone', tmp_path/'text.txt'/'below', 'a\0b', '~nobody-of-this-name/x', None, 3):
        with pytest.raises(ValueError, match='path'):
            check_file(path)


def test_a_file_is_replaced_only_by_force(tmp_path):
    (tmp_path/'f').write_text('')
    with pytest.raises(ValueError, match='force'):
        check_output(tmp_path/'f')
    assert check_output(tmp_path/'f', force=True) == tmp_path/'f'


def test_a_file_is_replaced_in_one_step_or_kept(tmp_path):
    with atomic_write(str(tmp_path/'a'/'f')) as temp:
        temp.write_text('old')
    for text in ('new', None):
        with pytest.raises(ZeroDivisionError), atomic_write(tmp_path/'a'/'f') as temp:
            if text: temp.write_text(text)
            1/0
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path/'a'/'f'):
        pass                                                      # Nothing was written
    assert (tmp_path/'a'/'f').read_text() == 'old' and os.listdir(tmp_path/'a') == ['f']


def test_json_comes_back_as_it_was_written(tmp_path):
    value = dict(n=1, x=0.1, name='größe', rows=[[1, 2], []], nothing=None)
    write_json(tmp_path/'f', value)
    assert read_json(tmp_path/'f') == value
    with pytest.raises(TypeError):
        write_json(tmp_path/'f', dict(x=object()))
    assert read_json(tmp_path/'f') == value and os.listdir(tmp_path) == ['f']


@pytest.mark.parametrize('content', [b'\xff\xfe', b'{', b'', b'[]', b'3', b'['*100_000, b'{"a": '+b'9'*5000+b'}'])
def test_damaged_json_is_refused_by_name(tmp_path, content):
    (tmp_path/'f.json').write_bytes(content)
    with pytest.raises(ValueError, match='f.json'):
        read_json(tmp_path/'f.json')


def test_csv_comes_back_as_it_was_written(tmp_path):
    rows = [dict(a='1', b='x, "y"'), dict(a='2', b='größe\nnext line')]
    write_csv(tmp_path/'f', rows)
    assert read_csv(tmp_path/'f') == rows and (tmp_path/'f').read_bytes().startswith(b'a,b\n')
    with pytest.raises(ValueError):
        write_csv(tmp_path/'f', [dict(a=1), dict(b=2)])
    assert read_csv(tmp_path/'f') == rows


@pytest.mark.parametrize('content', [b'a,b\n1\n', b'a,b\n1,2,3\n', b'a,b\n\xff,1\n', b'a,b\n"'+b'x'*200_000])
def test_damaged_csv_is_refused_by_name(tmp_path, content):
    (tmp_path/'f.csv').write_bytes(content)
    with pytest.raises(ValueError, match='f.csv'):
        read_csv(tmp_path/'f.csv')


# --- tables -----------------------------------------------------------------------------------------------------

def test_a_table_is_text_in_a_terminal_and_markdown_on_a_page():
    table = Table(['what', 'n'], [['a', 12], ['longer', '3']])
    assert str(table) == repr(table) == 'what     n\na       12\nlonger   3'
    assert table._repr_markdown_() == '| what | n |\n| :------- | ---: |\n| a | 12 |\n| longer | 3 |'
    assert str(Table(['a', 'b'], [], left=2)) == 'a  b'
