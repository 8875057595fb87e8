"""Key-value retrieval: the value of one key among many random ones.

The task of Liu et al., "Lost in the Middle" (arXiv 2307.03172; their repository
lost-in-the-middle, MIT): a JSON object of random UUIDs, in our own words. Keys
and values say nothing, so nothing but the key can lead to its value.
`kv_retrieval_140_gold_69` has 140 pairs, 69 of them before the one asked for;
`kv_retrieval_140` has it at a place drawn for each sample, and
`kv_retrieval_tokens_4096` as many pairs as fit so many tokens of the model's
own vocabulary, EOS included.

Published are files for 75 and 140 keys, whose pair asked for is moved to the
place that the task names, else left where it is:

  ordered_kv_records   [[key, value]]
  key, value           str

Synopsis:

    task = get_task('kv_retrieval_75_gold_37')
    next(task.samples(encode)).prompt
    next(task.samples(encode, data='lost-in-the-middle')).prompt
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import itertools
from typing import Any
import uuid

import numpy as np

from t5_align.tasks.data import records, sources
from t5_align.tasks.generators import haystack, task
from t5_align.tasks.generators.template import Template

# T5's vocabulary loses the braces of the first, and nothing of the others.
TEMPLATES = (
  Template(
    name='json',
    needle='"{key}": "{value}"',
    prompt='{{{context}}}\nThe value of "{key}" in this JSON object is:',
    target='{value}',
    separator=',\n ',
  ),
  Template(
    name='short',
    needle='{key} = {value}',
    prompt='{context}; {key} =',
    target='{value}',
    separator='; ',
  ),
  Template(
    name='lockers',
    needle='Locker {key} holds parcel {value}.',
    prompt=(
      'Every locker holds one parcel.\n\n{context}\n\nWhich parcel does'
      ' locker {key} hold? Answer with its code only:'
    ),
    target='{value}',
    separator='\n',
  ),
)
SOURCE = sources.DataSource(
  name='Lost in the Middle',
  licence='MIT',
  files=('kv-retrieval-{keys}_keys.jsonl',),
  folders=(
    '',
    'kv_retrieval_data',
    'lost-in-the-middle/kv_retrieval_data',
    'lost_in_the_middle',
  ),
  get=(
    'git clone https://github.com/nelson-liu/lost-in-the-middle'
    ' FOLDER/lost-in-the-middle'
  ),
)
_FIELDS = {'ordered_kv_records': list[list[str]], 'key': str, 'value': str}

Pair = tuple[str, str]


def _uuids(rng: np.random.Generator) -> Iterator[str]:
  """Yield distinct random UUIDs (RFC 9562, version 4) without end."""
  seen = set()
  while True:
    text = str(uuid.UUID(bytes=rng.bytes(16), version=4))
    if text not in seen:
      seen.add(text)
      yield text


def draw(
  rng: np.random.Generator, request: task.Request, depth: float
) -> task.Sample:
  """Draw one sample of so many pairs or tokens; `depth` of them before it."""
  uuids = _uuids(rng)
  others = zip(uuids, uuids)
  asked = next(others)
  keys = request.numbers.get('keys')
  if keys is not None:
    place = _place(request)
    around = list(itertools.islice(others, keys - 1))
    return _arrange(
      request,
      asked,
      around,
      round(depth * (keys - 1)) if place is None else place,
    )
  template, (key, value) = request.template, asked
  prompt, depth = haystack.bury(
    template.needle.format(key=key, value=value),
    (template.needle.format(key=k, value=v) for k, v in others),
    request.numbers['tokens'],
    request.encode,
    template.separator,
    lambda context: template.prompt.format(context=context, key=key),
    depth,
  )
  return task.Sample(
    '', prompt, template.target.format(key=key, value=value), (value,), depth
  )


def read(request: task.Request) -> Iterator[task.Sample]:
  """Yield a sample a row.

  Raises:
    ValueError: the place asked for is not among so many keys; or, with file and
      line, what is wrong with a row.
    FileNotFoundError: no file; says where it was looked for.
  """
  place = _place(request)
  path = sources.find(SOURCE, request.numbers, request.data)
  seen: dict[str, str] = {}
  for i, (where, row) in enumerate(records.read_records(path, _FIELDS)):
    _check(row, where, request.numbers['keys'])
    records.check_new(row['key'], seen, where, 'key')
    asked = (row['key'], row['value'])
    pairs = [(key, value) for key, value in row['ordered_kv_records']]
    own = pairs.index(asked)
    around = pairs[:own] + pairs[own + 1 :]
    sample = _arrange(request, asked, around, own if place is None else place)
    yield dataclasses.replace(sample, id=f'{request.name}-file-{i:06d}')


def _place(request: task.Request) -> int | None:
  """Return how many pairs the task puts before the one asked for."""
  keys, place = request.numbers['keys'], request.numbers.get('gold')
  if place is not None and place >= keys:
    raise ValueError(
      f'gold is {place} of {keys} keys; wanted one from 0 to {keys - 1}.'
    )
  return place


def _arrange(
  request: task.Request, asked: Pair, others: Sequence[Pair], place: int
) -> task.Sample:
  """Return the sample with so many of the other pairs before the one asked."""
  template, (key, value) = request.template, asked
  context = template.separator.join(
    template.needle.format(key=k, value=v)
    for k, v in (*others[:place], asked, *others[place:])
  )
  return task.Sample(
    id='',
    prompt=template.prompt.format(context=context, key=key),
    target=template.target.format(key=key, value=value),
    answers=(value,),
    depth=place / max(len(others), 1),
  )


def _check(row: Mapping[str, Any], where: str, keys: int) -> None:
  """Raise unless a row has so many pairs, and the one asked for among them."""
  pairs = row['ordered_kv_records']
  for pair in pairs:
    if len(pair) != 2 or not all(text.strip() for text in pair):
      raise ValueError(
        f"{where}: field 'ordered_kv_records' has {str(pair)[:50]}; wanted"
        ' [key, value], neither of them blank.'
      )
  if len({key for key, _ in pairs}) < len(pairs):
    raise ValueError(
      f"{where}: field 'ordered_kv_records' has a key twice; which value is"
      ' right?'
    )
  if len(pairs) != keys:
    raise ValueError(
      f"{where}: field 'ordered_kv_records' has {len(pairs)} pairs; the task"
      f' asks for {keys}.'
    )
  if [row['key'], row['value']] not in pairs:
    raise ValueError(
      f"{where}: field 'ordered_kv_records' has no pair of the fields 'key' and"
      f" 'value', {row['key'][:50]!r} and {row['value'][:50]!r}."
    )


# As published for 140 keys (EXPERIMENTS.md); steps of 25 and 50 for the others.
_PLACES = {
  75: (0, 24, 49, 74),
  140: (0, 34, 69, 104, 139),
  300: (0, 49, 99, 149, 199, 249, 299),
}
FAMILY = task.Family(
  name='kv_retrieval',
  version='1.0',
  description='The value of one random key among many.',
  forms=(
    'kv_retrieval_{keys}_gold_{gold}',
    'kv_retrieval_{keys}',
    'kv_retrieval_tokens_{tokens}',
  ),
  typical=tuple(
    [f'kv_retrieval_{keys}' for keys in _PLACES]
    + [f'kv_retrieval_{k}_gold_{g}' for k, gs in _PLACES.items() for g in gs]
    + [f'kv_retrieval_tokens_{2**n}' for n in range(9, 15)]
  ),
  measures=('value_match',),
  max_new_tokens=100,  # as published
  templates=TEMPLATES,
  placeholders={
    'needle': (frozenset({'key', 'value'}), frozenset({'key', 'value'})),
    'prompt': (frozenset({'context', 'key'}), frozenset({'context', 'key'})),
    'target': (frozenset({'value'}), frozenset({'key', 'value'})),
  },
  draw=draw,
  read=read,
  source=SOURCE,
)
