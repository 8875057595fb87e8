"""Tasks in the pieces of the bundled model."""

from t5_align import bundled, tasks, vocabulary

NAMES = ['passkey_1024']
NUM_SAMPLES = 6


def pieces():
  return vocabulary.load_vocabulary(bundled.BUNDLED_MODEL).to_seqio()


tasks.register(pieces(), NAMES, num_samples=NUM_SAMPLES)
