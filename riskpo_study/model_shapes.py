"""The shape of a Qwen2 model, and what follows from it: parameters, flop, and bytes of activations.

Units: bytes, flop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riskpo_study.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["MODELS", "Shape", "published"]


@dataclass(frozen=True)
class Shape:
    """A Qwen2 model: what its number of parameters, its memory and its flop follow from."""

    layers: int
    hidden: int
    heads: int
    """Of the queries in a block."""
    kv_heads: int
    """Of the keys, and of the values."""
    head_size: int
    mlp: int
    """Width of the MLP."""
    vocabulary: int
    tied: bool
    """Whether the output embedding is the input embedding."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> Shape:
        """Of a configuration of transformers. Raises ConfigError for another architecture than Qwen2."""
        if config.model_type != "qwen2":
            raise ConfigError(f"costs are worked out for models of type qwen2, not {config.model_type!r}.")
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_size=config.hidden_size // config.num_attention_heads,
            mlp=config.intermediate_size,
            vocabulary=config.vocab_size,
            tied=config.tie_word_embeddings,
        )

    @property
    def kv_width(self) -> int:
        """Numbers in the keys of a token in a block, and as many in its values."""
        return self.kv_heads * self.head_size

    @property
    def linear(self) -> int:
        """Weights of a block's matrices: query, key, value, output; gate, up, down."""
        attention = 2 * self.heads * self.head_size + 2 * self.kv_width
        return self.hidden * (attention + 3 * self.mlp)

    @property
    def embedding(self) -> int:
        """Weights of the input or of the output embedding."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All: the blocks with biases of query, key and value and two norms each, the last norm, the embeddings.

        Source: `Qwen2ForCausalLM` of transformers.
        """
        biases_and_norms = self.heads * self.head_size + 2 * self.kv_width + 2 * self.hidden
        embeddings = self.embedding * (1 if self.tied else 2)
        return self.layers * (self.linear + biases_and_norms) + self.hidden + embeddings

    @property
    def tensors(self) -> int:
        """How many tensors these parameters are: twelve in a block."""
        return 12 * self.layers + (2 if self.tied else 3)

    def forward_flop(self, length: int, scored: int) -> tuple[float, float, float]:
        """Flop of one sequence of `length` tokens, of which `scored` are predicted: blocks, attention, output layer.

        A weight multiplies and adds once a token: 2 flop. Causal attention multiplies queries with half of the keys,
        and weights as many values: 2 × 2 × length / 2 flop for each channel and token. Sources: arXiv 2001.08361, table
        1; FlashAttention-2 (arXiv 2307.08691), section 4.1.
        """
        blocks = 2.0 * self.layers * self.linear * length
        attention = 2.0 * self.layers * self.heads * self.head_size * length**2
        return blocks, attention, 2.0 * self.embedding * scored

    def activations(self, tokens: int, gradient: bool, checkpointing: bool) -> float:
        """Bytes of one pass of so many tokens, the output layer left out.

        Counted from the operations of a Qwen2 block of hidden size D, MLP width F and key width K, 2 bytes a number
        and 4 within a norm, with flash attention. A block keeps for its backward pass 16 D of its two norms, 2 D each
        of queries and output of the attention, 4 K of keys and values, and 8 F of the MLP; the backward pass itself
        needs 4 F + 8 D more. With checkpointing only a block's input is kept, 2 D, and the rest of one block at a time.
        Without gradient there are 6 F and 9 D. tests/test_costs.py compares this with a real model's tensors.
        """
        d, f, k = self.hidden, self.mlp, self.kv_width
        block = 20 * d + 4 * k + 8 * f
        if not gradient:
            each = 6 * f + 9 * d
        elif checkpointing:
            each = self.layers * 2 * d + block + 4 * f + 8 * d
        else:
            each = self.layers * block + 4 * f + 8 * d
        return float(tokens * each)

    def learning_flop(self, length: int, scored: int, checkpointing: bool) -> float:
        """Flop of a forward and a backward pass of one sequence, and of what checkpointing computes again.

        The backward pass has twice the flop of the forward pass (arXiv 2001.08361), in flash attention 2.5 times (arXiv
        2307.08691, section 4.1). Checkpointing computes the blocks again, but for the last product of each, whose
        result nobody asks for.
        """
        blocks, attention, head = self.forward_flop(length, scored)
        again = blocks + attention - 2 * self.layers * self.mlp * self.hidden * length if checkpointing else 0.0
        return 3 * blocks + 3.5 * attention + 3 * head + again


MODELS = {
    # config.json of the repositories.
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Shape(28, 1536, 12, 2, 128, 8960, 151_936, tied=False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": Shape(28, 3584, 28, 4, 128, 18_944, 152_064, tied=False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": Shape(64, 5120, 40, 8, 128, 27_648, 152_064, tied=False),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(28, 1536, 12, 2, 128, 8960, 151_936, tied=True),
}


def published(name: str, revision: str) -> Shape:
    """The shape of a model of the hub: from `MODELS`, or from its config.json.

    Raises:
        ConfigError: for a model that cannot be had, or is no Qwen2.
    """
    if name in MODELS:
        return MODELS[name]
    from transformers import AutoConfig

    try:
        return Shape.of(AutoConfig.from_pretrained(name, revision=revision))
    except OSError as error:
        raise ConfigError(
            f"base_model.pretrained = {name!r} cannot be had ({str(error).splitlines()[0]}): hf download {name}."
        ) from error
