"""The tasks: generated in NumPy, registered with seqio on request."""


def register(vocabulary, names=None, **options) -> list[str]:
  """Register tasks with seqio; see `t5_align.tasks.registration.register`."""
  # TensorFlow and seqio take seconds to import: only those who register pay.
  from t5_align.tasks import registration

  return registration.register(vocabulary, names, **options)
