"""Images in prompts: what a vision-language model like Qwen2.5-VL takes beside tokens, and where it belongs.

An image stands in a prompt as many equal tokens, one for each output of the vision tower, and the outputs take the
place of the tokens' embeddings. That is done here, not by the model, which would look for images also where a response
says such a token; and so an image is computed once, however many responses follow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from riskpo_study.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

    from riskpo_study.tasks.protocol import Prompt

_SEEING = ("qwen2_5_vl",)  # model types whose rotary positions and image tokens are as below


@dataclass(frozen=True)
class Features:
    """Of a prompt of P tokens with I images, N of the tokens being theirs."""

    pixel_values: Tensor  # (patches, values of a patch) float32
    grid: Tensor  # (I, 3) int64: patches of each image along time, height and width
    columns: Tensor  # (N,) int64: which tokens of the prompt
    positions: Tensor  # (3, P) int64: rotary positions along time, height and width
    images: tuple[Image.Image, ...]  # as they were asked with
    unexpanded: tuple[int, ...]  # the prompt with one token for each image

    @property
    def shift(self) -> int:
        """Position of the first token after the prompt, less P: an image takes fewer positions than tokens."""
        return int(self.positions.max()) + 1 - self.positions.shape[1]


class EncodedPrompt(tuple[int, ...]):
    """Token ids of a prompt with images, and its `Features`: handled like the token ids of any other prompt."""

    features: Features

    def __new__(cls, tokens: Iterable[int], features: Features) -> EncodedPrompt:
        prompt = super().__new__(cls, tokens)
        prompt.features = features
        return prompt

    def __getnewargs__(self) -> tuple[tuple[int, ...], Features]:  # for pickle
        return tuple(self), self.features


class Placed(NamedTuple):
    """The images of one pass."""

    pixel_values: Tensor  # (patches, values of a patch)
    grid: Tensor  # (I, 3)
    targets: Tensor  # (M,) int64: which of the input's tokens, counted row by row
    sources: Tensor  # (M,) int64: the vision tower's output that belongs there

    def to(self, device: torch.device) -> Placed:
        return Placed(*(part.to(device) for part in self))


def sees(config: PreTrainedConfig) -> bool:
    """Whether a model of this configuration takes images."""
    return config.model_type in _SEEING


def images_of(prompt: Prompt) -> list[Any]:
    """The images in a prompt's messages, in order."""
    if isinstance(prompt, str):
        return []
    contents = (message["content"] for message in prompt)
    parts = (part for content in contents if not isinstance(content, str) for part in content)
    return [part["image"] for part in parts if part["type"] == "image"]


def encode(
    model: PreTrainedModel,
    processor: BaseImageProcessor | None,
    tokens: Sequence[int],
    images: Sequence[Any],
    name: str,
) -> EncodedPrompt:
    """A prompt in which every image has the tokens that the vision tower has outputs for it.

    Args:
        tokens: with one token for each image.
        name: of the prompt, for errors.

    Raises:
        ConfigError: where the model takes no images; DataError: for an image that cannot be read, or another number of
            image tokens than of images.
    """
    if not sees(model.config):
        raise ConfigError(
            f"{name} has an image, and {type(model).__name__} takes none: take a vision-language model of type "
            f"{', '.join(_SEEING)}"
        )
    if processor is None:
        raise ConfigError(
            f"{name} has an image, and the policy no image processor: load it from a folder with "
            "preprocessor_config.json, or pass image_processor"
        )
    token = model.config.image_token_id
    if (found := list(tokens).count(token)) != len(images):
        raise DataError(
            f"{name} has {len(images)} images and {found} image tokens (id {token}) in its chat template: the template "
            "must render one for each image, and the question's text none"
        )
    for index, image in enumerate(images):
        if not isinstance(image, Image.Image):  # `transformers` would download or read what a text names
            raise DataError(f"image {index} of {name} is a {type(image).__name__}: open it as a PIL.Image.Image")
    try:
        processed = processor(images=list(images), return_tensors="pt")
    except Exception as error:  # PIL raises what it likes, only now where it reads lazily
        raise DataError(
            f"an image of {name} cannot be read ({type(error).__name__}: {error}): leave the question out, or repair it"
        ) from error
    grid = processed["image_grid_thw"]
    sizes = iter((grid.prod(1) // model.config.vision_config.spatial_merge_size**2).tolist())
    expanded = torch.tensor([one for one in tokens for _ in range(next(sizes) if one == token else 1)])
    of_images = expanded == token
    positions, _ = cast(Any, model.base_model).get_rope_index(
        expanded.unsqueeze(0), mm_token_type_ids=of_images.int().unsqueeze(0), image_grid_thw=grid
    )
    columns = of_images.nonzero().squeeze(1)
    features = Features(processed["pixel_values"], grid, columns, positions[:, 0], tuple(images), tuple(tokens))
    return EncodedPrompt(expanded.tolist(), features)


def place(
    prompts: Sequence[Sequence[int]], spans: Iterable[tuple[int, int, int]], position_ids: Tensor
) -> tuple[Tensor, Placed | None]:
    """Positions and images of a pass for a vision-language model.

    Args:
        prompts: token ids, with features where they have images.
        spans: (prompt, start, end) of everything that begins with a prompt, tokens counted row by row. A prompt may
            stand in several, and among `prompts` several times; its images are computed once.
        position_ids: (rows, columns), of the tokens as if they were all text.

    Returns:
        (4, rows, columns), the positions as given, by which the model tells packed sequences apart, then those along
        time, height and width; and the images, None where there are none.
    """
    rotary = position_ids.flatten().repeat(3, 1)
    seen: dict[int, int] = {}  # by identity of a prompt's features, its first output of the vision tower
    pixel_values, grids, targets, sources = [], [], [], []
    outputs = 0
    for index, start, end in spans:
        prompt = prompts[index]
        if not isinstance(prompt, EncodedPrompt):
            continue
        features = prompt.features
        rotary[:, start:end] += features.shift
        rotary[:, start : start + len(prompt)] = features.positions
        if id(features) not in seen:
            seen[id(features)] = outputs
            outputs += len(features.columns)
            pixel_values.append(features.pixel_values)
            grids.append(features.grid)
        targets.append(start + features.columns)
        sources.append(seen[id(features)] + torch.arange(len(features.columns)))
    positions = torch.cat([position_ids.unsqueeze(0), rotary.view(3, *position_ids.shape)])
    if not seen:
        return positions, None
    return positions, Placed(*(torch.cat(parts) for parts in (pixel_values, grids, targets, sources)))


def smallest(model: PreTrainedModel) -> Placed:
    """A black image that belongs nowhere: runs the vision tower, for processes that share its weights."""
    vision = model.config.vision_config
    side = vision.spatial_merge_size
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    nowhere = torch.empty(0, dtype=torch.long)
    return Placed(torch.zeros(side**2, values), torch.tensor([[1, side, side]]), nowhere, nowhere)


def inputs(model: PreTrainedModel, input_ids: Tensor, placed: Placed | None) -> Mapping[str, Tensor]:
    """What the model is called with: (rows, columns) token ids or, with images, their embeddings."""
    if placed is None:
        return {"input_ids": input_ids}
    embeddings = model.get_input_embeddings()(input_ids)
    seen = torch.cat(cast(Any, model.base_model).get_image_features(placed.pixel_values, placed.grid).pooler_output)
    seen = seen.to(embeddings.dtype)
    flat = embeddings.flatten(0, 1).index_copy(0, placed.targets, seen[placed.sources])
    if not len(placed.targets):
        flat = flat + 0 * seen.sum()  # so that the backward pass runs through the vision tower as well
    return {"inputs_embeds": flat.view_as(embeddings)}
