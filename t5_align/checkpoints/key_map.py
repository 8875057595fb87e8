"""One table of parameter names: Hugging Face's beside T5X's.

Both directions are read from the same rows. `{i}` is the layer's number, and a
transposed row is `T5X kernel = (Hugging Face weight).T`: torch keeps a linear
map as [out, in], Flax as [in, out]; a relative bias is [K, N] there and [N, K]
here. Embeddings and norms are stored alike.

  shared.weight                                 token_embedder/embedding
  encoder.block.3.layer.0.SelfAttention.q.weight
                                     encoder/layers_3/attention/query/kernel

The one ambiguous name is the relative bias of block 0: T5 has a bias a stack,
umT5 one in every layer. A decoder-only model has no Hugging Face form.

Sources: `transformers/models/t5/modeling_t5.py`, `t5x/examples/t5/network.py`.

Synopsis:

    t5x_path('shared.weight')                     # 'token_embedder/embedding'
    hugging_face_name('encoder/encoder_norm/scale')
    is_transposed('decoder/logits_dense/kernel')  # True
"""

from collections.abc import Container, Iterator
import re
from typing import NamedTuple


class Rule(NamedTuple):
  """One row of the table: two names of the same parameter.

  Attributes:
    hugging_face: name in a Hugging Face state dict.
    t5x: path in T5X's tree, joined by '/'.
    transposed: whether one is the transpose of the other.
  """

  hugging_face: str
  t5x: str
  transposed: bool


_SUBLAYERS = (
  # stack, place, Hugging Face module, T5X module, T5X norm before it
  ('encoder', 0, 'SelfAttention', 'attention', 'pre_attention'),
  ('encoder', 1, 'DenseReluDense', 'mlp', 'pre_mlp'),
  ('decoder', 0, 'SelfAttention', 'self_attention', 'pre_self_attention'),
  (
    'decoder',
    1,
    'EncDecAttention',
    'encoder_decoder_attention',
    'pre_cross_attention',
  ),
  ('decoder', 2, 'DenseReluDense', 'mlp', 'pre_mlp'),
)
_ATTENTION_KERNELS = {'q': 'query', 'k': 'key', 'v': 'value', 'o': 'out'}
_MLP_KERNELS = {'wi': 'wi', 'wi_0': 'wi_0', 'wi_1': 'wi_1', 'wo': 'wo'}


def _rules() -> Iterator[Rule]:
  yield Rule('shared.weight', 'token_embedder/embedding', False)
  yield Rule('lm_head.weight', 'decoder/logits_dense/kernel', True)
  for stack in ('encoder', 'decoder'):
    yield Rule(
      f'{stack}.final_layer_norm.weight', f'{stack}/{stack}_norm/scale', False
    )
    bias = 'layer.0.SelfAttention.relative_attention_bias.weight'
    yield Rule(
      f'{stack}.block.0.{bias}', f'{stack}/relpos_bias/rel_embedding', True
    )
    yield Rule(
      f'{stack}.block.{{i}}.{bias}',
      f'{stack}/layers_{{i}}/relpos_bias/rel_embedding',
      True,
    )
  for stack, place, module, t5x_module, norm in _SUBLAYERS:
    block, layer = f'{stack}.block.{{i}}.layer.{place}', f'{stack}/layers_{{i}}'
    yield Rule(
      f'{block}.layer_norm.weight', f'{layer}/{norm}_layer_norm/scale', False
    )
    kernels = _MLP_KERNELS if t5x_module == 'mlp' else _ATTENTION_KERNELS
    for name, kernel in kernels.items():
      yield Rule(
        f'{block}.{module}.{name}.weight',
        f'{layer}/{t5x_module}/{kernel}/kernel',
        True,
      )


TABLE = tuple(_rules())
_BY_HUGGING_FACE = {rule.hugging_face: rule for rule in TABLE}
_BY_T5X = {rule.t5x: rule for rule in TABLE}

# Names under which Hugging Face files repeat `shared.weight`.
EMBEDDING_ALIASES = (
  'encoder.embed_tokens.weight',
  'decoder.embed_tokens.weight',
)

# In the files of T5 1.0, and read by nothing: cross-attention has no bias.
# Hugging Face drops it too (`_keys_to_ignore_on_load_unexpected`).
UNUSED = (
  'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight',
)


def t5x_path(name: str, *, relative_bias_per_layer: bool = False) -> str | None:
  """Translate a Hugging Face name to T5X's path, or None if it has none."""
  exact = _BY_HUGGING_FACE.get(name)
  if exact is not None and not (
    relative_bias_per_layer and exact.t5x.endswith('rel_embedding')
  ):
    return exact.t5x
  layer = re.search(r'(?<=\.block\.)(0|[1-9]\d*)(?=\.)', name)
  if layer is None:
    return None
  template = name[: layer.start()] + '{i}' + name[layer.end() :]
  rule = _BY_HUGGING_FACE.get(template)
  return rule and rule.t5x.replace('{i}', layer.group())


def hugging_face_name(path: str) -> str | None:
  """Translate a T5X path to Hugging Face's name, or None if it has none."""
  rule, layer = _rule_of_path(path)
  return rule and rule.hugging_face.replace('{i}', layer)


def is_transposed(path: str) -> bool:
  """Say whether Hugging Face stores the transpose of T5X parameter `path`."""
  rule, _ = _rule_of_path(path)
  return rule is not None and rule.transposed


def describe(path: str, *, decoder_only: bool = False) -> str:
  """Name a parameter in both naming schemes, for messages."""
  name = None if decoder_only else hugging_face_name(path)
  return f'{path} (Hugging Face: {name or "has none"})'


def is_decoder_only(paths: Container[str]) -> bool:
  """Say whether these are the paths of a DecoderOnlyTransformer."""
  return (
    'decoder/token_embedder/embedding' in paths
    and 'token_embedder/embedding' not in paths
  )


def _rule_of_path(path: str) -> tuple[Rule | None, str]:
  layer = re.search(r'(?<=/layers_)(0|[1-9]\d*)(?=/)', path)
  if layer is None:
    return _BY_T5X.get(path), ''
  template = path[: layer.start()] + '{i}' + path[layer.end() :]
  return _BY_T5X.get(template), layer.group()
