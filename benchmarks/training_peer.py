"""Times a peer's training step: transformers' T5 in PyTorch.

bfloat16 autocast, clipping, fused AdamW, the same arrays without segment ids.
PyTorch is imported by the functions alone, so by no process but the peer's.
"""

import dataclasses
import importlib.util

import training_cases
import training_ceilings


def measure_peer(case, options):
  """Yield the row of transformers' T5, at the batch size or half of it."""
  missing = [
    name
    for name in ('torch', 'transformers')
    if importlib.util.find_spec(name) is None
  ]
  if missing:
    yield {'variant': 'peer', 'skipped': f'no {" and no ".join(missing)}'}
    return
  import torch

  device = 'cpu' if options.platform == 'cpu' else 'cuda'
  if device == 'cuda' and not torch.cuda.is_available():
    yield {'variant': 'peer', 'skipped': 'this PyTorch has no CUDA'}
    return
  while True:
    try:
      yield {'variant': 'peer'} | time_peer(case, device, options)
      return
    except torch.cuda.OutOfMemoryError:
      if case.batch_size < 2:
        raise
    case = dataclasses.replace(case, batch_size=case.batch_size // 2)
    torch.cuda.empty_cache()


def time_peer(case, device, options):
  import torch
  import transformers

  torch.manual_seed(0)
  model = peer_model(case.config).to(device).train()
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
  batch = {
    name: torch.as_tensor(x, dtype=torch.long, device=device)
    for name, x in case.batch().items()
    if name.endswith('_tokens')
  }
  if device == 'cuda':
    torch.cuda.reset_peak_memory_stats()  # of another case, or batch size

  def call():
    with torch.autocast(device, torch.bfloat16):
      loss = model(
        input_ids=batch['encoder_input_tokens'],
        decoder_input_ids=batch['decoder_input_tokens'],
        labels=batch['decoder_target_tokens'],
        use_cache=False,
      ).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss

  seconds = training_ceilings.timed(call, lambda loss: loss.item(), options)
  temporary = None
  if device == 'cuda':  # beside the state, which is all that is there now
    temporary = (
      torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    )
  return {
    'batch_size': case.batch_size,
    'lengths': case.lengths,
    'tokens': case.tokens,
    'seconds': seconds,
    'model_flops': 3 * training_cases.forward_flops(case, case.config),
    'temporary_bytes': temporary,
    'what': f'transformers {transformers.__version__}, fused AdamW, attention '
    f'{model.config._attn_implementation}',
  }


def peer_model(config):
  import transformers

  gated = len(config.mlp_activations) > 1
  return transformers.T5ForConditionalGeneration(
    transformers.T5Config(
      vocab_size=config.vocab_size,
      d_model=config.emb_dim,
      d_kv=config.head_dim,
      d_ff=config.mlp_dim,
      num_layers=config.num_encoder_layers,
      num_decoder_layers=config.num_decoder_layers,
      num_heads=config.num_heads,
      dropout_rate=config.dropout_rate,
      feed_forward_proj='gated-gelu' if gated else 'relu',
      tie_word_embeddings=config.logits_via_embedding,
      decoder_start_token_id=0,
    )
  )
