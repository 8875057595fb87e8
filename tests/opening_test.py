"""Models and text that commands open: bad usage against unreadable files."""

import pytest

from t5_align import command, inference, opening
from tests.tiny_model import save_tiny_model


@pytest.fixture(autouse=True)
def no_compilation_cache(monkeypatch):
  monkeypatch.setattr(inference, 'use_compilation_cache', lambda: None)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('model')
  save_tiny_model(folder)
  return folder


@pytest.mark.parametrize(
  'value, expected',
  [
    ('a', ['a']),
    (' a, b,', ['a', 'b']),
    (['a,b', 'c'], ['a', 'b', 'c']),
    (('a', ['b', ('c',)]), ['a', 'b', 'c']),
    (0.8, [0.8]),
    (['none', 0.8], ['none', 0.8]),
    ('', []),
  ],
)
def test_as_list(value, expected):
  assert opening.as_list(value) == expected


def test_options_reach_the_model(folder):
  model = opening.open_model(str(folder), training_length=64, dtype='bfloat16')
  assert model.training_length == 64
  assert model.config.dtype == 'bfloat16'


@pytest.mark.parametrize('length', [-1, 0, 1])
def test_training_length_that_none_can_have(folder, length):
  with pytest.raises(ValueError, match=f'training_length is {length}') as error:
    opening.open_model(str(folder), training_length=length)
  assert not isinstance(error.value, command.UnreadableError)


def test_unknown_preset_is_bad_usage(folder):
  with pytest.raises(ValueError, match="did you mean 't5-small'") as error:
    opening.open_model(str(folder), config='t5-smal')
  assert not isinstance(error.value, command.UnreadableError)


def test_model_without_a_tokenizer(folder, tmp_path):
  save_tiny_model(tmp_path)
  (tmp_path / 'tokenizer_config.json').unlink()
  with pytest.raises(command.UnreadableError, match='name the folder of its'):
    opening.open_model(str(tmp_path))
  model = opening.open_model(str(tmp_path), vocabulary=str(folder))
  assert model.vocabulary.encode('a')


def test_text_is_generated_or_read(folder, tmp_path):
  model = opening.open_model(str(folder))
  text = opening.open_text(model, None, 'train', 3)
  assert 'split train, seed 3' in text.source
  for name in ('a.txt', 'b.txt'):
    (tmp_path / name).write_text('word ' * 100)
  both = f'{tmp_path}/a.txt, {tmp_path}/b.txt'
  text = opening.open_text(model, both, 'train', 3)
  assert '2 files' in text.source and '1001 tokens' in text.source


@pytest.mark.parametrize('content', [None, b'', b'\xff'])
def test_unreadable_text(folder, tmp_path, content):
  model = opening.open_model(str(folder))
  path = tmp_path / 'text.txt'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(command.UnreadableError, match='text.txt'):
    opening.open_text(model, str(path), 'dev', 0)


def test_generated_text_that_cannot_be_is_bad_usage(folder):
  model = opening.open_model(str(folder))
  with pytest.raises(ValueError, match='seed is -1') as error:
    opening.open_text(model, None, 'dev', -1)
  assert not isinstance(error.value, command.UnreadableError)
