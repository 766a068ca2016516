"""infinity-emb on transformers 5: its command line as it is, with what it calls and transformers no longer has: infinity_server.py v2 ..."""
from transformers import PreTrainedTokenizerBase

if not hasattr(PreTrainedTokenizerBase, "batch_encode_plus"):
    PreTrainedTokenizerBase.batch_encode_plus = lambda self, texts, **options: self(texts, **options)

from infinity_emb.cli import cli

cli()
