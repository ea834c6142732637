"""A BERT of a few words, untrained, as a preset folder of KerasHub."""

import pytest

keras_hub = pytest.importorskip("keras_hub")

WORDS = {
    "sentiment": {"good": ["great", "lovely"], "bad": ["dull", "awful"]},
    "topic": {"0": ["ball", "goal"], "art": ["film", "song"], "law": ["court", "vote"]},
}
FILLERS = ["the", "a", "was", "it", "and", "of"]


def save_tiny(folder):
    """Saves a backbone that knows the words above, and its tokenizer."""
    known = [word for labels in WORDS.values() for words in labels.values() for word in words]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLERS, *known]
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=32,
    )
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=vocabulary, lowercase=True)
    backbone.save_to_preset(str(folder))
    keras_hub.models.BertTextClassifierPreprocessor(tokenizer).save_to_preset(str(folder))
