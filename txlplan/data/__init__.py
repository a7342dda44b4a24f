"""From text to tokens: split → vocabulary → serialise → merge, and the loader that feeds them to a model.

    DIRECTORY/
      manifest.json                              written last: what is here, out of what it was made, checksums
      split/<split>.txt, step.json               the text of each split, UTF-8
      vocabulary/vocabulary.json[, tokenizer.json], step.json
      serialise/step.json                        the parts that all cores wrote: tokens of each, in order
      merge/<split>.tokens, <split>.counts.npy   token ids (uint8, 16 or 32, little-endian); how often each occurs

The parts themselves are gone once they are merged.
"""

from txlplan.data._build import load_vocabulary
from txlplan.data._dataset import (
    Dataset,
    bits_per_character,
    open_dataset,
    unigram_entropy_bits_per_character,
    verify_checksums,
)
from txlplan.data._loader import SegmentLoader
from txlplan.data._manifest import InputFile, Manifest, SplitData, VocabularyFiles, read_manifest
from txlplan.data._prepare import prepare
from txlplan.data._progress import Progress
from txlplan.data._settings import Settings, parse_ratios
from txlplan.data._vocabulary import ByteVocabulary, Vocabulary
from txlplan.data._vocabulary_set import vocabulary_of, vocabulary_place, write_vocabulary_set
from txlplan.data._words import WordVocabulary

__all__ = [
    "ByteVocabulary",
    "Dataset",
    "InputFile",
    "Manifest",
    "Progress",
    "SegmentLoader",
    "Settings",
    "SplitData",
    "Vocabulary",
    "VocabularyFiles",
    "WordVocabulary",
    "bits_per_character",
    "load_vocabulary",
    "open_dataset",
    "parse_ratios",
    "prepare",
    "read_manifest",
    "unigram_entropy_bits_per_character",
    "verify_checksums",
    "vocabulary_of",
    "vocabulary_place",
    "write_vocabulary_set",
]
