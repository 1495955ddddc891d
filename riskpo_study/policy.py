"""The policy: a language model, seeing or not, with its tokenizer, and the log-probabilities it gives to responses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from riskpo_study import distributed, sharding, vision
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.log_probs import token_scores

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

    from riskpo_study.config import Hardware
    from riskpo_study.tasks.protocol import Prompt

disable_progress_bar()  # a bar for each small model saved or loaded would drown the bar of the run


@dataclass(frozen=True)
class Responses:
    """G responses to each of Q questions, padded on the right to T tokens."""

    prompts: tuple[tuple[int, ...], ...]  # Q token sequences, those with images of the class `vision.EncodedPrompt`
    tokens: Tensor  # (Q, G, T) int64
    lengths: Tensor  # (Q, G) int64, the end-of-sequence token included

    @property
    def mask(self) -> Tensor:
        """(Q, G, T) bool: True at response tokens."""
        return torch.arange(self.tokens.shape[2]) < self.lengths.unsqueeze(2)

    def regrouped(self, size: int) -> Responses:
        """The same in groups of `size`, a divisor of G: each question G / size times."""
        _, group, longest = self.tokens.shape
        return Responses(
            tuple(prompt for prompt in self.prompts for _ in range(group // size)),
            self.tokens.reshape(-1, size, longest),
            self.lengths.reshape(-1, size),
        )

    def plain(self) -> dict[str, Any]:
        """Tuples and tensors alone, for `torch.save`; the images as what the model takes, by question."""
        pictured = ((q, prompt) for q, prompt in enumerate(self.prompts) if isinstance(prompt, vision.EncodedPrompt))
        images = {q: (prompt.features.pixel_values, prompt.features.grid) for q, prompt in pictured}
        prompts = tuple(tuple(prompt) for prompt in self.prompts)
        return {"prompts": prompts, "tokens": self.tokens, "lengths": self.lengths} | (
            {"images": images} if images else {}
        )

    def select(self, questions: Tensor) -> Responses:
        """The responses to some of the questions: indices (K,) of questions, or a boolean mask (Q,)."""
        chosen = questions.nonzero().squeeze(1) if questions.dtype == torch.bool else questions
        prompts = tuple(self.prompts[index] for index in chosen.tolist())
        return Responses(prompts, self.tokens[chosen], self.lengths[chosen])


NOTHING = Responses((), torch.empty(0, 1, 1, dtype=torch.long), torch.empty(0, 1, dtype=torch.long))
"""No responses: what a process scores while others, with which it shares the weights, score theirs."""


class Scores(NamedTuple):
    """Per-token scores of responses, (Q, G, T), zero at padding."""

    log_probs: Tensor  # nats, with gradient
    entropies: Tensor  # nats, without


class Policy:
    """A causal language model and its tokenizer; with an image processor, one that sees.

    Args:
        model: any `transformers` causal language model whose output layer has no bias, or a vision-language model of
            Qwen2.5-VL's architecture.
        tokenizer: its tokenizer, with an end-of-sequence and a padding token.
        layout: how `score` lays out its input. `prefix_tree` puts a prompt and all its responses in one row, where
            the prompt, and every beginning that responses share, is computed once. It needs a model that takes a 4-D
            attention mask, and memory for the square of a row's length. `packed` puts all responses, each with its
            prompt, one after the other into a single row without padding; the model tells them apart by their
            positions. `padded` gives each response a row of its own, for every causal model.
        tokens: of one pass of the packed layout, prompts included; a response that is longer has a pass of its own.
        checkpointing: keep no activations within a block for the backward pass, and compute them again.
        image_processor: of a vision-language model; needed for prompts with images.

    Raises:
        ConfigError: for an unknown layout, a tokenizer without end or padding, or checkpointing a model with dropout.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        layout: str = "prefix_tree",
        tokens: int = 2**14,
        checkpointing: bool = False,
        image_processor: BaseImageProcessor | None = None,
    ) -> None:
        if layout not in _LAYOUTS:
            raise ConfigError(f"layout = {layout!r} is unknown; choose one of {', '.join(_LAYOUTS)}")
        if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
            raise ConfigError(f"the tokenizer {tokenizer.name_or_path!r} needs both an eos_token and a pad_token")
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.layout, self.tokens, self.checkpointing = layout, tokens, checkpointing
        if checkpointing:
            _refuse_dropout(model)  # which the training mode of checkpointing would switch on
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.scorer = _Scorer(model)
        self.sharded = False

    @classmethod
    def load(
        cls,
        path: Path | str,
        layout: str = "prefix_tree",
        hardware: Hardware | None = None,
    ) -> Policy:
        """Load a model and tokenizer saved by `save` or `save_pretrained`, or a model of the Hugging Face hub.

        A vision-language model comes with its image processor; without torchvision that is the one that works with PIL.
        The model goes to the GPU of this process where there is one; with `hardware.shard_weights` this process's part.

        Args:
            path: a `Path` is a folder, a name of the hub is a `str`.
            hardware: section of the configuration; by default float32 and nothing saved on memory.

        Raises:
            DataError: where the folder is not there; ConfigError: for an attention that the model or machine lacks.
        """
        if isinstance(path, Path) and not path.is_dir():  # a name of the hub is a str
            raise DataError(f"there is no model in {path}; run the stage that trains it first (dvc repro base_model)")
        options = {"attn_implementation": hardware.attention} if hardware else {}
        dtype = getattr(torch, hardware.dtype) if hardware else torch.float32
        sees = vision.sees(AutoConfig.from_pretrained(path))
        kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        try:
            model = kind.from_pretrained(path, dtype=dtype, **options)
        except (ImportError, ValueError) as error:
            if not hardware or not re.search("attention|attn", str(error), re.IGNORECASE):
                raise
            raise ConfigError(
                f"hardware.attention = {hardware.attention!r} cannot be had for {path}: set it to sdpa, with "
                f"hardware.tokens = 8192 ({str(error).strip().partition(chr(10))[0]})"
            ) from error
        tokenizer = AutoTokenizer.from_pretrained(path)
        saving = (hardware.tokens, hardware.gradient_checkpointing) if hardware else ()
        policy = cls(model, tokenizer, layout, *saving)
        if sees:
            policy.image_processor = _image_processor(path)
        if hardware and sharding.wanted(hardware.shard_weights):
            policy.shard()
        else:
            policy.scorer.to(distributed.device())
        return policy

    def shard(self) -> None:
        """Split the weights over the processes, on their devices; see `sharding`.

        Raises:
            ConfigError: for a model that does not say what its blocks are.
        """
        names = self.model._no_split_modules or ()
        blocks = [module for module in self.model.modules() if type(module).__name__ in names]
        if not blocks:
            raise ConfigError(
                f"hardware.shard_weights splits a model block by block, and {type(self.model).__name__} does not say "
                "what its blocks are: set it to false"
            )
        sharding.shard(self.scorer, blocks)
        self.sharded = True
        with torch.no_grad():  # FSDP takes the first module that runs for its root, and generating runs another
            self.score(NOTHING)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Names and values, those of tied weights several times; split ones are gathered one at a time."""
        for name, value in self.model.state_dict().items():
            yield name, sharding.gathered(value)

    def collected(self) -> dict[str, Tensor] | None:
        """What `save` needs of all processes where the weights are split: all of them, in the main process."""
        if not self.sharded:
            return None
        tensors = self.model.state_dict(keep_vars=True)  # tied weights are one tensor
        values = {id(tensor): sharding.collected(tensor.detach()) for tensor in tensors.values()}
        return {name: values[id(tensor)] for name, tensor in tensors.items()}

    def save(self, folder: Path | str, weights: dict[str, Tensor] | None = None) -> None:
        """Write weights (safetensors), configuration, tokenizer and image processor, for `transformers` and vLLM.

        Args:
            weights: what `collected` returned.
        """
        self.model.save_pretrained(folder, state_dict=weights and dict(weights))  # which takes it apart
        self.tokenizer.save_pretrained(folder)
        if self.image_processor is not None:
            self.image_processor.save_pretrained(folder)

    def encode(self, prompts: Sequence[Prompt]) -> tuple[tuple[int, ...], ...]:
        """Token ids of prompts; messages go through the tokenizer's chat template, which adds what it needs.

        Those of messages with images are `vision.EncodedPrompt`s, which carry what the model takes beside tokens.

        Raises:
            ConfigError: for messages where the tokenizer has no chat template, and for images where the model takes
            none; DataError: for an image that cannot be read.
        """
        texts = [prompt if isinstance(prompt, str) else self._in_chat(prompt) for prompt in prompts]
        encoded = [tuple(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        for index, prompt in enumerate(prompts):
            if images := vision.images_of(prompt):
                name = f"prompt {index} of the batch"
                encoded[index] = vision.encode(self.model, self.image_processor, encoded[index], images, name)
        return tuple(encoded)

    def _in_chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        if not self.tokenizer.chat_template:
            raise ConfigError(f"the tokenizer {self.tokenizer.name_or_path!r} has no chat template: take a chat model")
        chat = [dict(message) for message in messages]
        return str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    def decode(self, responses: Responses) -> list[list[str]]:
        """Texts (Q lists of G) up to the end-of-sequence token."""
        questions, group, _ = responses.tokens.shape
        tokens, lengths = responses.tokens.flatten(0, 1).tolist(), responses.lengths.flatten().tolist()
        eos = self.tokenizer.eos_token_id
        rows = [row[: length - (row[length - 1] == eos)] for row, length in zip(tokens, lengths, strict=True)]
        texts = self.tokenizer.batch_decode(rows)
        return [texts[q * group : (q + 1) * group] for q in range(questions)]

    def score(self, responses: Responses, temperature: float = 1.0) -> Scores:
        """Log-probability and entropy of every response token under this policy at `temperature`.

        Without any question this runs the model all the same, for the processes that share its weights.
        """
        if not responses.prompts:
            shape = responses.tokens.shape[1:]
            shortest = Responses(((0,),), torch.zeros(1, *shape, dtype=torch.long), torch.ones(1, shape[0]).long())
            return Scores(*(score[:0] for score in self.score(shortest, temperature)))
        batch = _LAYOUTS[self.layout](responses)
        if vision.sees(self.model.config):
            batch = self._with_images(batch, responses.prompts)
        batch = batch.to(self.model.device)
        mask = responses.mask
        targets = responses.tokens[mask].to(self.model.device)
        self.model.train(self.checkpointing and torch.is_grad_enabled())
        scores = self.scorer(batch, targets, temperature)
        self.model.eval()
        padded = torch.zeros(mask.shape)
        return Scores(*(padded.masked_scatter(mask, score.cpu()) for score in scores))

    def _with_images(self, batch: _Batch, prompts: Sequence[Sequence[int]]) -> _Batch:
        positions, images = vision.place(prompts, batch.spans, batch.position_ids)
        if images is None and (self.sharded or torch.is_grad_enabled()):
            # Processes that share the weights run the same blocks, and of a mini-batch without images the vision tower
            # learns in one process what it learns in several: nothing new.
            images = vision.smallest(self.model)
        return batch._replace(position_ids=positions, images=images)

    @torch.no_grad()
    def score_passes(self, responses: Responses, temperature: float, passes: Sequence[Tensor]) -> Scores:
        """`score` without gradient, a pass at a time; zero for questions that are in none of them.

        Processes that share the weights call it together, and run as many passes as the one with the most.
        """
        scores = Scores(*(torch.zeros(responses.tokens.shape) for _ in Scores._fields))
        if self.sharded:
            none = torch.empty(0, dtype=torch.long)
            passes = [*passes, *[none] * (max(distributed.gathered([len(passes)])) - len(passes))]
        for rows in passes:
            for everybody, these in zip(scores, self.score(responses.select(rows), temperature), strict=True):
                everybody[rows] = these
        return scores

    def passes(self, responses: Responses, rows: Tensor, questions: int) -> list[Tensor]:
        """Indices (K,) of questions as micro-batches: so many each or, packed, as many as have `tokens` together."""
        if self.layout != "packed":
            return list(rows.split(questions))
        group = responses.tokens.shape[1]
        sizes = torch.tensor([len(prompt) for prompt in responses.prompts]) * group + responses.lengths.sum(1)
        passes: list[list[int]] = []
        room = 0
        for row in rows.tolist():
            needed = int(sizes[row])
            if needed > room or not passes:
                passes.append([])
                room = self.tokens
            passes[-1].append(row)
            room -= needed
        return [torch.tensor(one) for one in passes]


class _Scorer(nn.Module):
    """A model up to the log-probabilities and entropies (N,) of given tokens: what has a gradient is in `forward`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: _Batch, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        hidden = self.model.base_model(
            **vision.inputs(self.model, batch.input_ids, batch.images),
            position_ids=batch.position_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,
        ).last_hidden_state
        return token_scores(hidden.flatten(0, 1)[batch.predictors], self._output_weight(), targets, temperature)

    def _output_weight(self) -> Tensor:
        head = self.model.get_output_embeddings()
        if not isinstance(head, nn.Linear) or head.bias is not None:
            raise ConfigError(f"{type(self.model).__name__} has an output layer with a bias or of an unknown kind")
        return head.weight


class _Batch(NamedTuple):
    input_ids: Tensor  # (rows, columns)
    position_ids: Tensor  # (rows, columns), or (4, rows, columns) for a model that sees
    attention_mask: Tensor | None  # (rows, 1, columns, columns) bool, or None for plain causal attention
    predictors: Tensor  # flat index of the position that predicts each response token, in the order of tokens[mask]
    spans: Sequence[tuple[int, int, int]]  # question, flat start and end of each prompt with what follows it
    images: vision.Placed | None = None

    def to(self, device: torch.device) -> _Batch:
        input_ids, position_ids, attention_mask, predictors, spans, images = self
        return _Batch(
            input_ids.to(device),
            position_ids.to(device),
            None if attention_mask is None else attention_mask.to(device),
            predictors.to(device),
            spans,
            None if images is None else images.to(device),
        )


def _padded(responses: Responses) -> _Batch:
    """A row for each response, prompt first, padding on the right where causal attention never looks."""
    questions, group, _ = responses.tokens.shape
    prompt_lengths = torch.tensor([len(prompt) for prompt in responses.prompts])
    columns = int((prompt_lengths.unsqueeze(1) + responses.lengths).max()) - 1
    input_ids = torch.zeros(questions, group, columns, dtype=torch.long)
    for row, prompt in enumerate(responses.prompts):
        input_ids[row, :, : len(prompt)] = torch.tensor(prompt)
    question, response, step = responses.mask.nonzero(as_tuple=True)
    column = prompt_lengths[question] + step  # where the token stands; the one before it predicts it
    fed = step < responses.lengths[question, response] - 1  # the last token predicts nothing
    input_ids[question[fed], response[fed], column[fed]] = responses.tokens[question, response, step][fed]
    positions = torch.arange(columns).expand(questions * group, columns)
    predictors = (question * group + response) * columns + column - 1
    spans = [(row // group, row * columns, (row + 1) * columns) for row in range(questions * group)]
    return _Batch(input_ids.flatten(0, 1), positions, None, predictors, spans)


def _prefix_tree(responses: Responses) -> _Batch:
    """A row for each question: the prompt, then every prefix of its responses once, as a tree.

    A token attends to what leads to it. Responses to one prompt agree in their first tokens, many in all of them.
    """
    tokens, lengths = responses.tokens, responses.lengths
    prompt_lengths = torch.tensor([len(prompt) for prompt in responses.prompts])
    used = prompt_lengths.clone()  # (Q,) columns of each row
    at = (prompt_lengths - 1).unsqueeze(1).repeat(1, tokens.shape[1])  # (Q, G) column where each response stands
    predictors = torch.empty_like(tokens)  # (Q, G, T) columns
    widest, vocabulary = int(used.max()) + tokens[0].numel(), int(tokens.max()) + 1
    levels = []
    for step in range(tokens.shape[2]):
        predictors[:, :, step] = at
        going = lengths > step + 1  # the last token predicts nothing
        stem = going.nonzero()[:, 0] * widest + at[going]
        distinct, branch = (stem * vocabulary + tokens[:, :, step][going]).unique(return_inverse=True)
        stem, token = distinct // vocabulary, distinct % vocabulary
        row, parent = stem // widest, stem % widest
        new = row.bincount(minlength=len(used))
        column = used[row] + torch.arange(len(row)) - (new.cumsum(0) - new)[row]  # rows ascend in `distinct`
        levels.append((row, column, parent, token))
        at[going] = column[branch]
        used += new

    columns = int(used.max())
    input_ids = torch.zeros(len(used), columns, dtype=torch.long)
    position_ids = torch.zeros_like(input_ids)
    attention = torch.eye(columns, dtype=torch.bool).repeat(len(used), 1, 1)
    for index, prompt in enumerate(responses.prompts):
        length = len(prompt)
        input_ids[index, :length] = torch.tensor(prompt)
        position_ids[index, :length] = torch.arange(length)
        attention[index, :length, :length] = torch.ones(length, length, dtype=torch.bool).tril()
    for step, (row, column, parent, token) in enumerate(levels):
        input_ids[row, column] = token
        position_ids[row, column] = prompt_lengths[row] + step
        attention[row, column] |= attention[row, parent]
    flat = predictors + columns * torch.arange(len(used)).view(-1, 1, 1)
    spans = [(row, row * columns, (row + 1) * columns) for row in range(len(used))]
    return _Batch(input_ids, position_ids, attention.unsqueeze(1), flat[responses.mask], spans)


def _packed(responses: Responses) -> _Batch:
    """One row with every response after its prompt, positions counted from each prompt's start.

    Without an attention mask `transformers` reads from the positions where a sequence ends: its flash attention needs
    no more, its other implementations make a block-diagonal mask.
    """
    lengths = responses.lengths.tolist()
    sequences = [
        (*prompt, *row[: length - 1])  # the last token predicts nothing
        for prompt, rows, lasts in zip(responses.prompts, responses.tokens.tolist(), lengths, strict=True)
        for row, length in zip(rows, lasts, strict=True)
    ]
    input_ids = torch.tensor([token for sequence in sequences for token in sequence]).unsqueeze(0)
    positions = torch.cat([torch.arange(len(sequence)) for sequence in sequences]).unsqueeze(0)
    ends = torch.tensor([len(sequence) for sequence in sequences]).cumsum(0)
    predictors = torch.cat(
        [
            torch.arange(end - length, end)
            for end, length in zip(ends.tolist(), responses.lengths.flatten().tolist(), strict=True)
        ]
    )
    group = responses.tokens.shape[1]
    spans = [
        (index // group, end - len(sequence), end)
        for index, (sequence, end) in enumerate(zip(sequences, ends.tolist(), strict=True))
    ]
    return _Batch(input_ids, positions, None, predictors, spans)


_LAYOUTS = {"prefix_tree": _prefix_tree, "padded": _padded, "packed": _packed}


def _image_processor(path: Path | str) -> BaseImageProcessor:
    try:
        processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(path)
    except OSError as error:
        raise DataError(
            f"{path} holds a vision-language model without its image processor: put its preprocessor_config.json there"
        ) from error
    return processor


def _refuse_dropout(model: PreTrainedModel) -> None:
    """Raise ConfigError where a model's forward pass is random in training mode."""
    config = model.config.get_text_config()
    random = [name for name in vars(config) if name.endswith(("dropout", "_pdrop"))]
    for name in random:
        if getattr(config, name):
            raise ConfigError(
                f"{type(model).__name__} has {name} = {getattr(config, name)}: the ratios need the same forward pass "
                "twice; set it to 0, or hardware.gradient_checkpointing to false"
            )
