"""A user's wording: what is accepted, and what each fault is called."""

import json

import pytest

from t5_align.tasks import generators

GOOD = {
  'needle': 'The magic word is {key}.',
  'prompt': 'Read.\n{context}\nWhich {{word}} is it?',
  'target': '{key}',
}


def encode(text):
  return list(text.encode())


def one_sample(path, name='passkey_300'):
  return next(generators.get_task(name).samples(encode, template=path, limit=1))


def write(tmp_path, content):
  path = tmp_path / 'mine.json'
  if not isinstance(content, (str, bytes)):
    content = json.dumps(content)
  path.write_bytes(content.encode() if isinstance(content, str) else content)
  return path


def test_a_users_wording_is_used(tmp_path):
  sample = one_sample(write(tmp_path, GOOD))
  assert sample.prompt.startswith('Read.\n')
  assert sample.prompt.endswith('\nWhich {word} is it?')
  assert sample.prompt.count(f'The magic word is {sample.answers[0]}.') == 1
  assert len(encode(sample.prompt)) + 1 <= 300


def test_a_users_filler_and_separator_are_used(tmp_path):
  content = {**GOOD, 'filler': ['Grass grows.', 'Sky.'], 'separator': ' | '}
  sample = one_sample(write(tmp_path, content))
  units = set(sample.prompt.split('\n')[1].split(' | '))
  assert units == {
    'Grass grows.',
    'Sky.',
    f'The magic word is {sample.answers[0]}.',
  }


def test_a_byte_order_mark_is_ignored(tmp_path):
  one_sample(write(tmp_path, b'\xef\xbb\xbf' + json.dumps(GOOD).encode()))


@pytest.mark.parametrize(
  ('content', 'complaint'),
  [
    ('', r'mine.json:1: not JSON'),
    ('{\n"needle": "x",\n}', r'mine.json:3: not JSON'),
    ('[1]', 'got a list; wanted an object'),
    (b'\xff\xfe', 'not UTF-8'),
    ({k: v for k, v in GOOD.items() if k != 'needle'}, "'needle' is missing"),
    ({k: v for k, v in GOOD.items() if k != 'target'}, "'target' is missing"),
    ({**GOOD, 'seperator': ' '}, "'seperator'. Did you mean 'separator'"),
    ({**GOOD, 'prompt': 7}, "'prompt' is 7; wanted a string"),
    ({**GOOD, 'filler': 'x'}, "'filler' is 'x'; wanted a list"),
    ({**GOOD, 'filler': ['x', ' ']}, 'wanted a list of sentences'),
    ({**GOOD, 'prompt': 'Where?'}, r"'prompt' must contain \{context\}"),
    ({**GOOD, 'needle': 'It is here.'}, r"'needle' must contain \{key\}"),
    ({**GOOD, 'needle': '{key} {value}'}, r'has \{value\}; it may contain'),
    ({**GOOD, 'needle': '{key} {}'}, r'has \{\}; it may contain'),
    ({**GOOD, 'needle': '{key} {0}'}, r'has \{0\}; it may contain'),
    ({**GOOD, 'needle': '{key.__class__}'}, r'must contain \{key\}'),
    ({**GOOD, 'needle': '{key} { '}, 'literal brace twice'),
    ({**GOOD, 'target': 'Key 1 is {key}'}, 'digits of its own'),
  ],
)
def test_faults_are_named(tmp_path, content, complaint):
  with pytest.raises(ValueError, match=complaint):
    one_sample(write(tmp_path, content))


def test_line_retrieval_asks_for_its_own_fields(tmp_path):
  with pytest.raises(ValueError, match=r"'needle' must contain \{value\}"):
    one_sample(write(tmp_path, GOOD), 'line_retrieval_5')


def test_an_unknown_name_lists_the_known(tmp_path):
  with pytest.raises(ValueError, match='neither a file nor .* plain, secret'):
    one_sample('plane')
  with pytest.raises(ValueError, match='neither a file'):
    one_sample(tmp_path / 'missing.json')


def test_the_hash_is_of_the_wording(tmp_path):
  family = generators.get_family('passkey')
  first = family.template(write(tmp_path, GOOD))
  other = family.template(write(tmp_path, {**GOOD, 'separator': '\n'}))
  assert first.hash != other.hash
  renamed = generators.Template(name='renamed', **GOOD)
  assert first.hash == renamed.hash
  for name in generators.list_families():
    templates = generators.get_family(name).templates
    assert len({t.hash for t in templates}) == len(templates)
