"""What shapes say: the config behind them, and whether they fit another.

T5X directories hold no config, so the sizes are read off the shapes: the [N, K]
relative bias gives heads and buckets, `wi_0` the gated MLP, an absent
`logits_dense` the tied embedding. What no shape shows (maximum distance, kind
of the gate) takes T5's value.

The other way round, every checkpoint is compared with the tree that the network
would initialize: all that is missing, extra or misshaped comes in one error,
in both naming schemes. Nothing is filled in and nothing is left out.

Synopsis:

    shapes = {'token_embedder/embedding': (32128, 512), ...}
    config = infer_config(shapes, where='checkpoint_1000')
    check_tree(shapes, config, where='checkpoint_1000')
"""

from collections.abc import Iterable, Mapping
import dataclasses
import re

from t5_align import config as config_lib
from t5_align import parameters as parameters_lib
from t5_align import presets
from t5_align.checkpoints import key_map
from t5_align.checkpoints import stored as stored_lib

Shapes = Mapping[str, tuple[int, ...]]

_NUM_LISTED = 5
_STACKS = ('encoder', 'decoder')


def expected_shapes(
  config: config_lib.T5Config, *, decoder_only: bool
) -> dict[str, tuple[int, ...]]:
  """Return path and shape of every parameter that the network would make."""
  parameters = parameters_lib.list_parameters(config, decoder_only=decoder_only)
  return {path: parameter.shape for path, parameter in parameters.items()}


def infer_config(shapes: Shapes, *, where: str) -> config_lib.T5Config:
  """Read the sizes of the model off the shapes of its parameters.

  Args:
    shapes: path and shape of each parameter.
    where: what to call the checkpoint in an error.

  Raises:
    CheckpointError: a parameter that states a size is not there.
  """
  if any(re.match(r'(en|de)coder/(en|de)coder/', path) for path in shapes):
    raise stored_lib.CheckpointError(
      f'{where}: the layers are stacked (T5X scan_layers=True); one'
      ' tree a layer (layers_0, layers_1, ...) is wanted. Load the same'
      " model's Hugging Face folder instead."
    )
  embedder = 'token_embedder/embedding'
  attention = 'encoder/layers_0/attention'
  per_layer_bias = 'encoder/layers_0/relpos_bias/rel_embedding'
  bias, mlp = 'encoder/relpos_bias/rel_embedding', 'encoder/layers_0/mlp'
  if decoder_only := key_map.is_decoder_only(shapes):
    embedder = f'decoder/{embedder}'
    attention = 'decoder/layers_0/self_attention'
    bias, mlp = 'decoder/relpos_bias/rel_embedding', 'decoder/layers_0/mlp'
  umt5 = per_layer_bias in shapes
  bias = per_layer_bias if umt5 else bias
  gated = f'{mlp}/wi_0/kernel' in shapes

  def shape(path: str) -> tuple[int, int]:
    found = shapes.get(path)
    if found is None or len(found) != 2 or 0 in found:
      name = key_map.describe(path, decoder_only=decoder_only)
      raise stored_lib.CheckpointError(
        f'{where}: cannot tell the model size: {name} is'
        f' {"not there" if found is None else f"of shape {found}"}; a matrix'
        ' is wanted. The tree is not a T5, or give config=.'
      )
    return found

  num_layers = {stack: _count_layers(shapes, stack) for stack in _STACKS}
  if max(num_layers.values()) > len(shapes):
    raise stored_lib.CheckpointError(
      f'{where}: layer numbers reach {max(num_layers.values()) - 1}, among'
      f' {len(shapes)} parameters. The index is damaged: copy it again.'
    )
  vocab_size, emb_dim = shape(embedder)
  num_heads, num_buckets = shape(bias)
  return config_lib.T5Config(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=num_heads,
    # A decoder-only model has no use for the field: it gets 0.
    num_encoder_layers=num_layers['encoder'],
    num_decoder_layers=num_layers['decoder'],
    head_dim=max(1, shape(f'{attention}/query/kernel')[1] // num_heads),
    mlp_dim=shape(f'{mlp}/wo/kernel')[0],
    mlp_activations=('gelu', 'linear') if gated else ('relu',),
    logits_via_embedding='decoder/logits_dense/kernel' not in shapes,
    relative_attention_num_buckets=num_buckets,
    relative_bias_per_layer=umt5,
  )


def check_tree(
  shapes: Shapes, config: config_lib.T5Config, *, where: str
) -> None:
  """Compare parameters with those of the network that `config` describes.

  Args:
    shapes: path and shape of each parameter.
    config: the config that they are for.
    where: what to call the checkpoint in an error.

  Raises:
    CheckpointError: naming each parameter that is missing, extra or misshaped,
      in both naming schemes, both shapes, and what to do.
  """
  decoder_only = key_map.is_decoder_only(shapes)
  _check_num_layers(shapes, config, decoder_only, where)
  expected = expected_shapes(config, decoder_only=decoder_only)
  missing, extra = expected.keys() - shapes.keys(), shapes.keys() - expected
  misshaped = {
    path for path in shapes.keys() & expected if shapes[path] != expected[path]
  }
  problems = []
  for kind, paths in [
    ('missing', missing),
    ('extra', extra),
    ('misshaped', misshaped),
  ]:
    for path in sorted(paths):
      name = key_map.describe(path, decoder_only=decoder_only)
      problems.append(
        f'{kind} {name}: {shapes.get(path, "nothing")} in the file, wanted'
        f' {expected.get(path, "nothing")}'
      )
  if problems:
    raise stored_lib.CheckpointError(
      f'{where}: {len(problems)} of {len(expected.keys() | shapes)}'
      f' parameters do not fit the config: {_list(problems)}.'
      f' {_advice(shapes, expected)}'
    )


def _preset_of(shapes: Shapes) -> str | None:
  """Return the first preset whose parameters have exactly these shapes."""
  for name, preset in presets.PRESETS.items():
    config = preset.config
    # Cheap test first: to trace every preset takes seconds.
    if shapes.get('token_embedder/embedding') == (
      config.vocab_size,
      config.emb_dim,
    ) and shapes == expected_shapes(config, decoder_only=False):
      return name
  return None


def _check_num_layers(
  shapes: Shapes, config: config_lib.T5Config, decoder_only: bool, where: str
) -> None:
  """Compare layer counts first: a config of 10⁹ layers must not be built."""
  for stack in _STACKS[decoder_only:]:
    in_file = _count_layers(shapes, stack)
    wanted = getattr(config, f'num_{stack}_layers')
    if in_file == wanted:
      continue
    extra = [
      f'{key_map.describe(path, decoder_only=decoder_only)}: {shapes[path]}'
      for path in sorted(shapes)
      if _count_layers([path], stack) > wanted
    ]
    listing = (
      f'extra: {_list(extra)}'
      if extra
      else f'missing: {stack}/layers_{in_file}/* (Hugging Face:'
      f' {stack}.block.{in_file}.*) to layers_{wanted - 1}'
    )
    field = 'num_layers' if stack == 'encoder' else 'num_decoder_layers'
    preset = _preset_of(shapes)
    raise stored_lib.CheckpointError(
      f'{where}: the file has {in_file} {stack} layers, the config {wanted};'
      f' {listing}. Part of a network is never evaluated: set'
      f' num_{stack}_layers={in_file} ({field} in config.json)'
      + (f", as in preset '{preset}'." if preset else '.')
    )


def _advice(shapes: Shapes, expected: Shapes) -> str:
  """Say what to do about a tree that does not fit."""
  if preset := _preset_of(shapes):
    return f"The file has the shapes of '{preset}': config='{preset}' fits."
  embedding = 'token_embedder/embedding'
  if embedding in shapes and shapes[embedding][:1] != expected[embedding][:1]:
    rows, wanted = shapes[embedding][0], expected[embedding][0]
    return (
      f'The embedding has {rows} rows for a vocabulary of {wanted}: set'
      f' vocab_size={rows}, also in config.json.'
    )
  decoder_only = key_map.is_decoder_only(shapes)
  try:
    inferred = infer_config(shapes, where='')
    fits = expected_shapes(inferred, decoder_only=decoder_only) == shapes
  except ValueError:
    fits = False
  if not fits:
    return 'Take another copy of the checkpoint, or one of this architecture.'
  sizes = ', '.join(
    f'{field.name}={getattr(inferred, field.name)!r}'
    for field in dataclasses.fields(inferred)
    if getattr(inferred, field.name) != field.default
  )
  return f'The shapes are those of T5Config({sizes}).'


def _list(items: list[str]) -> str:
  more = len(items) - _NUM_LISTED
  return '; '.join(items[:_NUM_LISTED]) + (f'; and {more} more' * (more > 0))


def _count_layers(paths: Iterable[str], stack: str) -> int:
  """Count the layers of 'encoder' or 'decoder' among parameter paths."""
  layers = [re.match(rf'{stack}/layers_(\d+)/', path) for path in paths]
  return max((int(layer[1]) + 1 for layer in layers if layer), default=0)
