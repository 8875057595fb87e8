"""Tasks in bytes, for models that T5X's gin files describe here."""

from t5_align import tasks, vocabulary

NAMES = ['passkey_128', 'line_retrieval_tokens_128']
NUM_SAMPLES = 6


def bytes_of_text():
  return vocabulary.ByteVocabulary().to_seqio()


tasks.register(bytes_of_text(), NAMES, num_samples=NUM_SAMPLES)
