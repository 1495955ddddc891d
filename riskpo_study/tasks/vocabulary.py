"""Tokenizers of the small languages in which tasks ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers.decoders import Decoder
    from transformers import PreTrainedTokenizerFast

__all__ = ["word_level"]


def word_level(
    words: Iterable[str],
    pattern: str,
    replaced: Mapping[str, str] | None = None,
    marks: Sequence[str] = (),
    decoder: Decoder | None = None,
    chat_template: str | None = None,
) -> PreTrainedTokenizerFast:
    """Every word is a token; what is none becomes `<unk>`.

    Args:
        words: all different, and none of `<pad>`, `<eos>`, `<unk>` and the marks, which come before them.
        pattern: regular expression of a word; spaces between words do not count.
        replaced: characters that are read as others.
        marks: further special tokens, such as those around an image.
        decoder: how tokens become a text; by default spaces come between them.
        chat_template: for prompts that are messages.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<unk>"]
    known = {word: i for i, word in enumerate([*special, *marks, *words])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    if replaced:
        plain = [normalizers.Replace(character, other) for character, other in replaced.items()]
        tokenizer.normalizer = normalizers.Sequence(plain)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    if decoder:
        tokenizer.decoder = decoder
    options = {"additional_special_tokens": [*marks], "chat_template": chat_template}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **{name: value for name, value in options.items() if value},
    )
