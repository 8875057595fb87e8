"""Key-value retrieval: places, published files, and the published prompt."""

import gzip
import json
import re

import pytest

from t5_align.tasks import generators

UUID = '[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}'


def encode(text):
  return list(text.encode())


def row(**changes):
  content = {
    'ordered_kv_records': [['k1', 'v1'], ['k2', 'v2'], ['k3', 'v3']],
    'key': 'k2',
    'value': 'v2',
    **changes,
  }
  return {k: v for k, v in content.items() if v is not None}


def write(path, *rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  with gzip.open(path, 'wt', encoding='utf-8') as file:
    file.writelines(json.dumps(r) + '\n' for r in rows)
  return path


def samples(name, **options):
  return list(generators.get_task(name).samples(encode, **options))


def keys(sample):
  """The keys of a prompt in the default wording, in order."""
  return list(json.loads(sample.prompt[: sample.prompt.index('}') + 1]))


@pytest.mark.parametrize(
  ('name', 'num_keys', 'place'),
  [('75_gold_0', 75, 0), ('75_gold_37', 75, 37), ('9_gold_8', 9, 8)]
  + [('1_gold_0', 1, 0), ('1', 1, 0)],
)
def test_the_pair_asked_for_is_at_its_place(name, num_keys, place):
  for sample in samples(f'kv_retrieval_{name}', limit=3):
    pairs = json.loads(sample.prompt[: sample.prompt.index('}') + 1])
    assert len(pairs) == num_keys
    assert all(re.fullmatch(UUID, x) for pair in pairs.items() for x in pair)
    assert len({*pairs, *pairs.values()}) == 2 * num_keys
    key = list(pairs)[place]
    assert sample.answers == (pairs[key],)
    assert sample.prompt.count(key) == 2  # in its pair and in the question
    assert sample.depth == place / max(num_keys - 1, 1)


def test_places_are_drawn_evenly_unless_named():
  drawn = [s.depth for s in samples('kv_retrieval_75', limit=20)]
  for block in (drawn[:10], drawn[10:]):
    assert all(
      abs(d - i / 10 - 0.05) < 0.06 for i, d in enumerate(sorted(block))
    )


def test_every_place_and_size_asks_the_same_questions():
  names = ('5_gold_0', '5_gold_4', '30', 'tokens_4096')
  asked = [
    [s.answers for s in samples(f'kv_retrieval_{name}', limit=4)]
    for name in names
  ]
  assert asked == [asked[0]] * len(names)


@pytest.mark.parametrize(
  ('name', 'order', 'depth'),
  [
    ('kv_retrieval_3', ['k1', 'k2', 'k3'], 0.5),
    ('kv_retrieval_3_gold_0', ['k2', 'k1', 'k3'], 0),
    ('kv_retrieval_3_gold_1', ['k1', 'k2', 'k3'], 0.5),
    ('kv_retrieval_3_gold_2', ['k1', 'k3', 'k2'], 1),
  ],
)
def test_files_are_read_and_their_pair_moved(tmp_path, name, order, depth):
  folder = tmp_path / 'kv_retrieval_data'
  write(
    folder / 'kv-retrieval-3_keys.jsonl.gz', row(), row(key='k3', value='v3')
  )
  first, second = samples(name, data=tmp_path)
  assert keys(first) == order
  assert (first.answers, first.depth) == (('v2',), depth)
  assert first.id == f'{name}-file-000000'
  assert second.answers == ('v3',)


def test_a_template_makes_the_published_prompt(tmp_path):
  template = tmp_path / 'published.json'
  template.write_text(
    json.dumps(
      {
        'needle': '"{key}": "{value}"',
        'separator': ',\n ',
        'prompt': (
          'Extract the value corresponding to the specified key in the JSON'
          ' object below.\n\nJSON data:\n{{{context}}}\n\nKey: "{key}"\n'
          'Corresponding value:'
        ),
        'target': '{value}',
      }
    )
  )
  pairs = [['k1', 'v1'], ['k2', 'v2']]
  path = write(tmp_path / 'x.jsonl.gz', row(ordered_kv_records=pairs))
  (sample,) = samples('kv_retrieval_2', data=path, template=template)
  # As lost-in-the-middle's own code makes it.
  assert sample.prompt == (
    'Extract the value corresponding to the specified key in the JSON object'
    ' below.\n\nJSON data:\n{"k1": "v1",\n "k2": "v2"}\n\nKey: "k2"\n'
    'Corresponding value:'
  )


@pytest.mark.parametrize('data', [None, 'x.jsonl.gz'])
def test_a_place_is_among_the_keys(tmp_path, data):
  path = data and write(tmp_path / data, row())
  with pytest.raises(ValueError, match='gold is 3 of 3 keys; wanted .* to 2'):
    samples('kv_retrieval_3_gold_3', data=path)


@pytest.mark.parametrize(
  ('bad', 'complaint'),
  [
    (row(key=None), "no field 'key'"),
    (row(value=7), "'value' is 7; wanted a string"),
    (row(ordered_kv_records={'k1': 'v1'}), 'wanted a list'),
    (row(ordered_kv_records=[['k2', 2]]), 'wanted a list'),
    (row(ordered_kv_records=[['k2']]), r'wanted \[key, value\]'),
    (row(ordered_kv_records=[['k2', ' ']]), 'neither of them blank'),
    (row(ordered_kv_records=[['k2', 'v2']] * 3), 'a key twice'),
    (row(ordered_kv_records=[['k2', 'v2']]), '1 pairs; the task asks for 3'),
    (row(value='v1'), "no pair of the fields .*'k2' and 'v1'"),
    (row(), "the same key as .*x.jsonl.gz:1: 'k2'"),
  ],
)
def test_faults_have_file_and_line(tmp_path, bad, complaint):
  path = write(tmp_path / 'x.jsonl.gz', row(), bad)
  with pytest.raises(ValueError, match=f'x.jsonl.gz:2: .*{complaint}'):
    samples('kv_retrieval_3', data=path)


def test_missing_files_say_how_to_get_them(tmp_path):
  with pytest.raises(
    FileNotFoundError, match='kv-retrieval-3_keys.* git clone'
  ):
    samples('kv_retrieval_3', data=tmp_path)


# Other texts here make every published number another: raise the version.
def test_samples_stay_what_they_are():
  (sample,) = samples('kv_retrieval_2', limit=1)
  assert generators.get_task('kv_retrieval_2').version == '1.0'
  assert sample.prompt == (
    '{"3a0ba7bc-f513-4924-83eb-9439ecfed059":'
    ' "19ada6a8-9ff8-47bc-9f7a-d1da2c232ab6",\n'
    ' "3e044abd-51e1-4901-abb8-41db50bd68d5":'
    ' "4db25769-4ba2-4277-aedb-97579dcbfee8"}\nThe value of'
    ' "3e044abd-51e1-4901-abb8-41db50bd68d5" in this JSON object is:'
  )
