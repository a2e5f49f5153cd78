"""Files are complete or absent, and errors name what is wrong."""
import csv
import json
import os
from pathlib import Path

import pytest

from s5_mnist.core import PathLike, Table, atomic_write, read_json, read_text, write_csv, write_json, wrong_format


def test_input_errors_are_value_errors():
    assert issubclass(ValueError, ValueError)


def test_paths_may_be_strings_or_paths():
    assert isinstance('a', PathLike) and isinstance(Path('a'), PathLike) and not isinstance(3, PathLike)


# --- writing ----------------------------------------------------------------------------------------------------

def test_atomic_write_replaces_a_file_in_one_step(tmp_path):
    path = tmp_path/'f'
    path.write_text('old')
    with atomic_write(path) as temp:
        temp.write_text('new')
        assert path.read_text() == 'old' and temp.parent == tmp_path and temp.name.startswith('.')
    assert path.read_text() == 'new' and os.listdir(tmp_path) == ['f']


def test_atomic_write_keeps_the_old_file_after_an_error(tmp_path):
    path = tmp_path/'f'
    path.write_text('old')
    with pytest.raises(ZeroDivisionError):
        with atomic_write(path) as temp:
            temp.write_text('new')
            1/0
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['f']


@pytest.mark.parametrize('kind', [str, Path])
def test_atomic_write_creates_the_folder(tmp_path, kind):
    with atomic_write(kind(tmp_path/'a'/'b'/'f')) as temp:
        temp.write_bytes(b'1')
    assert (tmp_path/'a'/'b'/'f').read_bytes() == b'1'


def test_atomic_write_fails_if_nothing_was_written(tmp_path):
    with pytest.raises(ValueError, match='f cannot be written'):
        with atomic_write(tmp_path/'f'):
            pass
    assert os.listdir(tmp_path) == []


def test_json_comes_back_as_it_was_written(tmp_path):
    value = dict(n=1, x=0.1, name='größe', rows=[[1, 2], []], nothing=None)
    write_json(tmp_path/'f.json', value)
    assert read_json(tmp_path/'f.json') == value == json.loads((tmp_path/'f.json').read_text(encoding='utf-8'))


def test_what_json_cannot_hold_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path/'f.json', dict(x=object()))
    assert os.listdir(tmp_path) == []


def test_csv_comes_back_as_it_was_written(tmp_path):
    rows = [dict(a=1, b='x, "y"'), dict(a=2, b='größe\nnext line')]
    write_csv(tmp_path/'f.csv', rows)
    raw = (tmp_path/'f.csv').read_bytes()
    assert raw.startswith(b'a,b\n') and b'\r' not in raw
    with open(tmp_path/'f.csv', newline='', encoding='utf-8') as f:
        assert list(csv.DictReader(f)) == [{k: str(v) for k, v in r.items()} for r in rows]


def test_rows_with_other_columns_are_refused(tmp_path):
    with pytest.raises(ValueError):
        write_csv(tmp_path/'f.csv', [dict(a=1), dict(b=2)])
    assert os.listdir(tmp_path) == []


# --- reading ----------------------------------------------------------------------------------------------------

def test_text_is_read_as_utf8(tmp_path):
    (tmp_path/'f').write_bytes('größe'.encode())
    assert read_text(tmp_path/'f') == read_text(str(tmp_path/'f')) == 'größe'


@pytest.mark.parametrize('content, message', [
    (None, 'does not exist; check the path'), (b'\xff\xfe', 'is damaged'), (b'{', 'is damaged'), (b'', 'is damaged'),
    (b'[]', 'must be an object, got'), (b'3', 'must be an object, got')])
def test_bad_json_is_refused_by_name(tmp_path, content, message):
    if content is not None:
        (tmp_path/'f.json').write_bytes(content)
    with pytest.raises(ValueError, match=f'f.json {message}'):
        read_json(tmp_path/'f.json')


def test_a_path_through_a_file_does_not_exist(tmp_path):
    (tmp_path/'f').write_text('')
    with pytest.raises(ValueError, match='does not exist'):
        read_text(tmp_path/'f'/'g')


@pytest.mark.parametrize('found, message', [
    (1, 'f must be in format 2, found format 1; s5_mnist 0.1.0 reads it'),
    ('1', 'f must be in format 2, found format 1; s5_mnist 0.1.0 reads it'),
    (3, 'f must be in format 2, found format 3'), (None, 'f must be in format 2, found format None'),
    ('x'*1000, f'f must be in format 2, found format {"x"*20}')])
def test_another_format_is_named(found, message):
    error = wrong_format('f', found, 2)
    assert isinstance(error, ValueError) and str(error) == message


# --- tables -----------------------------------------------------------------------------------------------------

def test_a_table_is_text_in_a_terminal_and_markdown_on_a_page():
    table = Table(['what', 'n', 'time, s'], [['a', 12, 1.5], ['longer', '3', '10.25']])
    assert str(table) == repr(table) == 'what     n  time, s\na       12      1.5\nlonger   3    10.25'
    assert table._repr_markdown_() == ('| what | n | time, s |\n| :------- | ---: | --------: |\n| a | 12 | 1.5 |\n'
                                       '| longer | 3 | 10.25 |')
    assert Table(['a', 'b'], [['x', 'y']], left=2)._repr_markdown_().splitlines()[1] == '| :-- | :-- |'
    assert str(Table(['a'], [])) == 'a'
