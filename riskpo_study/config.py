"""The configuration of a study: `params.yaml` as frozen, checked dataclasses.

`conf/` holds the defaults and the profiles with a comment above every key; Hydra composes them into
`params.yaml`, which DVC and this module read. A file must give every key and no other: what a run
used is then always written down, and a misspelt key cannot silently leave a default in place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from riskpo_study.errors import ConfigError

__all__ = [
    "Config", "Runs", "Task", "Programs", "Math", "Code", "Geometry", "BaseModel", "Risk", "Train", "Hardware",
    "Rollouts", "Tuning", "Evaluation", "Theory", "from_mapping", "load", "root",
]  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """The admissible values of a number, without those in `excluded`."""

    low: float
    high: float = math.inf
    excluded: tuple[float, ...] = (math.inf,)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and value not in self.excluded

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{'greater than' if self.low in self.excluded else 'at least'} {self.low}"
        suffix = ", both excluded" if self.excluded else ""
        return f"between {self.low} and {self.high}{suffix}"


Count = Annotated[int, Interval(1)]
Whole = Annotated[int, Interval(0)]
Positive = Annotated[float, Interval(0, excluded=(0, math.inf))]
NonNegative = Annotated[float, Interval(0)]
Level = Annotated[float, Interval(0, 1, excluded=())]
OpenLevel = Annotated[float, Interval(0, 1, excluded=(0, 1))]
Numbers = tuple[Annotated[int, Interval(2, 5, excluded=())], ...]
Operations = tuple[Annotated[int, Interval(1, 6, excluded=())], ...]
Quantities = tuple[Annotated[int, Interval(1, 4, excluded=())], ...]
LARGEST_PATCH = 56
MAY_BE_EMPTY = object()
"""Mark of a list that may have no values."""


class Section:
    """A group of keys. Values are checked and normalised (int → float, list → tuple) on construction."""

    key: ClassVar[str]

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            object.__setattr__(self, name, _checked(f"{self.key}.{name}", getattr(self, name), kind))
        self.check()

    def check(self) -> None:
        """Raise ConfigError where two keys of the section contradict each other."""


@dataclass(frozen=True)
class Runs(Section):
    """Which training runs the study compares: every algorithm with every seed, and further ones with others."""

    key = "runs"
    algorithms: tuple[str, ...]
    seeds: tuple[Whole, ...]
    further_algorithms: Annotated[tuple[str, ...], MAY_BE_EMPTY] = ()
    further_seeds: Annotated[tuple[Whole, ...], MAY_BE_EMPTY] = ()
    ablations: Annotated[tuple[str, ...], MAY_BE_EMPTY] = ()
    tasks: Annotated[tuple[str, ...], MAY_BE_EMPTY] = ()

    def check(self) -> None:
        for name in ("algorithms", "seeds", "further_algorithms", "further_seeds", "ablations", "tasks"):
            _require_distinct(f"runs.{name}", getattr(self, name))
        if bool(self.further_algorithms) != bool(self.further_seeds):
            raise ConfigError(
                f"runs.further_algorithms = {list(self.further_algorithms)} and runs.further_seeds = "
                f"{list(self.further_seeds)}: give both or neither."
            )
        repeated = [run for run in self._further if run in self._main]
        if repeated:
            raise ConfigError("runs: {}-{} is among the further runs as well.".format(*repeated[0]))

    @property
    def all(self) -> tuple[tuple[str, int], ...]:
        """(algorithm, seed) of every run."""
        return (*self._main, *self._further)

    @property
    def names(self) -> tuple[str, ...]:
        """Every algorithm that has a run."""
        return tuple(dict.fromkeys(algorithm for algorithm, _ in self.all))

    @property
    def _main(self) -> list[tuple[str, int]]:
        return [(algorithm, seed) for algorithm in self.algorithms for seed in self.seeds]

    @property
    def _further(self) -> list[tuple[str, int]]:
        return [(algorithm, seed) for algorithm in self.further_algorithms for seed in self.further_seeds]


@dataclass(frozen=True)
class Task(Section):
    """Which task, and `questions`, the held-out ones of each difficulty; the other keys are those of `countdown`."""

    key = "task"
    name: str
    numbers: Numbers
    largest_number: Count
    largest_target: Count
    questions: Count

    def check(self) -> None:
        _require_distinct("task.numbers", self.numbers)


@dataclass(frozen=True)
class Programs(Section):
    """The questions of the task `programs`: how many operations the programs behind them have."""

    key = "programs"
    operations: Operations
    workers: Count

    def check(self) -> None:
        _require_distinct("programs.operations", self.operations)


@dataclass(frozen=True)
class Math(Section):
    """The questions of the task `math`: names of `datasets.DATASETS`, and how they are asked and judged."""

    key = "math"
    training: tuple[str, ...]
    evaluation: tuple[str, ...]
    revisions: Mapping[str, str]
    folder: str
    instruction: str
    development: Whole
    longest_question: Count
    seconds: Positive
    workers: Count

    def check(self) -> None:
        for name in ("training", "evaluation"):
            _require_distinct(f"math.{name}", getattr(self, name))
        for name in self.revisions:
            if name not in (*self.training, *self.evaluation):
                raise ConfigError(f"math.revisions.{name} is of no dataset of math.training or math.evaluation.")
        if self.folder != "none" and self.revisions:
            raise ConfigError(f"math.folder = {self.folder!r} holds local copies, which have no revision: empty one.")

    @property
    def deciding(self) -> Mapping[str, object]:
        """What decides the results, besides the content of the datasets."""
        keys = ("training", "evaluation", "instruction", "development", "longest_question", "seconds")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class Code(Section):
    """The questions of the task `code`: parts of `datasets.deepcoder`, a window of `datasets.livecodebench`."""

    key = "code"
    training: tuple[str, ...]
    most_cases: Count
    release: str
    start: str
    end: str
    folder: str
    development: Whole
    longest_question: Count
    workers: Count

    def check(self) -> None:
        _require_distinct("code.training", self.training)
        start, end = self.window
        if start and end and start > end:
            raise ConfigError(f"code.start = {self.start!r} is after code.end = {self.end!r}: exchange them.")

    def _day(self, name: str) -> date | None:
        text = getattr(self, name)
        try:
            return None if text == "none" else date.fromisoformat(text)
        except ValueError as error:
            raise ConfigError(f"code.{name} = {text!r} must be a day such as '2024-08-01', or none.") from error

    @property
    def window(self) -> tuple[date | None, date | None]:
        """First and last day of the contests; None where that end is open."""
        return self._day("start"), self._day("end")

    @property
    def deciding(self) -> Mapping[str, object]:
        """What decides the results, besides the content of the datasets."""
        keys = ("training", "most_cases", "release", "start", "end", "development", "longest_question")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class Geometry(Section):
    """The questions of the task `geometry`: kinds of figures, and how many quantities have to be combined."""

    key = "geometry"
    figures: tuple[Literal["bars", "angles", "lengths", "counting"], ...]
    quantities: Quantities

    def check(self) -> None:
        _require_distinct("geometry.figures", self.figures)
        _require_distinct("geometry.quantities", self.quantities)


@dataclass(frozen=True)
class BaseModel(Section):
    """The transformer that every run starts from: a published one, or one trained from scratch."""

    key = "base_model"
    pretrained: str
    revision: str
    layers: Count
    width: Count
    heads: Count
    kv_heads: Count
    mlp_width: Count
    patch_size: Count
    vision_layers: Count
    vision_width: Count
    vision_mlp_width: Count
    difficulties: tuple[Count, ...]
    steps: Count
    batch_size: Count
    learning_rate: Positive
    warmup_steps: Whole
    weight_decay: NonNegative
    seed: Whole

    def check(self) -> None:
        _require_distinct("base_model.difficulties", self.difficulties)
        _require_multiple("base_model.width", self.width, "base_model.heads", self.heads)
        _require_multiple("base_model.heads", self.heads, "base_model.kv_heads", self.kv_heads)
        _require_multiple("base_model.vision_width", self.vision_width, "base_model.heads", self.heads)
        if self.patch_size > LARGEST_PATCH:
            raise ConfigError(
                f"base_model.patch_size = {self.patch_size} must be at most {LARGEST_PATCH}: the vision "
                "transformer's windows are two patches wide."
            )


@dataclass(frozen=True)
class Risk(Section):
    """Mixed Value-at-Risk of bundle scores: levels α < β, extra weight ω of the lower tail (the paper's)."""

    key = "risk"
    alpha: Level = 0.2
    beta: Level = 0.8
    omega: NonNegative = 0.5
    bundle_size: Count = 5

    def check(self) -> None:
        if self.alpha >= self.beta:
            raise ConfigError(f"risk.alpha = {self.alpha} must be smaller than risk.beta = {self.beta}.")


@dataclass(frozen=True)
class Train(Section):
    """One training run: batch, optimiser, sampling, and what is written when."""

    key = "train"
    steps: Count
    questions: Count
    responses: Annotated[int, Interval(2)]
    mini_batches: Count
    micro_batch: Count
    learning_rate: Positive
    schedule: Literal["constant", "cosine"]
    warmup_steps: Whole
    weight_decay: NonNegative
    max_grad_norm: Positive
    temperature: Positive
    max_new_tokens: Count
    kl_coefficient: NonNegative
    layout: Literal["prefix_tree", "padded", "packed"]
    checkpoint_every: Count
    evaluate_every: Count
    snapshot_every: Count
    curve_questions: Count
    curve_samples: Count
    threads: Count

    def check(self) -> None:
        _require_multiple("train.questions", self.questions, "train.mini_batches", self.mini_batches)


@dataclass(frozen=True)
class Hardware(Section):
    """How the runs use the machine."""

    key = "hardware"
    processes: Count
    shards: Count
    dtype: Literal["float32", "bfloat16"]
    attention: str
    gradient_checkpointing: bool
    shard_weights: bool
    tokens: Count
    tracker: str

    def check(self) -> None:
        _require_multiple("hardware.shards", self.shards, "hardware.processes", self.processes)
        if self.shard_weights and self.processes == 1:
            raise ConfigError(
                "hardware.shard_weights = true splits the weights over processes, and hardware.processes is 1: give it "
                "a process for each device, or set shard_weights to false."
            )

    @property
    def deciding(self) -> Mapping[str, object]:
        """What decides the results by more than rounding."""
        return {key: getattr(self, key) for key in ("shards", "dtype")}


@dataclass(frozen=True)
class Rollouts(Section):
    """Who draws the responses; all but `engine` is for vLLM."""

    key = "rollouts"
    engine: Literal["transformers", "vllm"]
    dtype: Literal["float32", "bfloat16", "float16"]
    gpu_memory: OpenLevel
    tensor_parallel_size: Count
    max_model_len: Whole
    check_every: Count
    importance_cap: NonNegative

    def check(self) -> None:
        if 0 < self.importance_cap < 1:
            raise ConfigError(
                f"rollouts.importance_cap = {self.importance_cap} would scale down exact tokens too: at least 1, or 0 "
                "for no correction."
            )

    @property
    def deciding(self) -> Mapping[str, object]:
        """What decides the responses; the other keys decide how they are computed."""
        decides = ("engine",) if self.engine == "transformers" else ("engine", "dtype", "importance_cap")
        return {key: getattr(self, key) for key in decides}


@dataclass(frozen=True)
class Tuning(Section):
    """What every algorithm tries on the development questions, with one seed, before its runs."""

    key = "tuning"
    candidates: tuple[Mapping[str, Any], ...]
    own: Mapping[str, tuple[Mapping[str, Any], ...]]
    seed: Whole
    questions: Count
    samples: Count

    def check(self) -> None:
        for name, candidates in self.own.items():
            if len(candidates) != len(self.candidates):
                raise ConfigError(
                    f"tuning.own.{name} has {len(candidates)} candidates, tuning.candidates {len(self.candidates)}: "
                    "give every algorithm equally many, or one is tuned better than the others."
                )
        for candidates in (self.candidates, *self.own.values()):
            _require_distinct("tuning", [dict(candidate) for candidate in candidates])
            for candidate in candidates:
                if "learning_rate" not in candidate:
                    raise ConfigError(f"The tuning candidate {dict(candidate)} has no learning_rate: give it one.")
                _checked("learning_rate of a tuning candidate", candidate["learning_rate"], Positive)
                for key in ("preset", "matched_to"):
                    if key in candidate:
                        raise ConfigError(f"The tuning candidate {dict(candidate)} has {key}: only options are tried.")

    def of(self, algorithm: str) -> tuple[Mapping[str, Any], ...]:
        """The candidates of an algorithm: options to train it with."""
        return self.own.get(algorithm, self.candidates)


@dataclass(frozen=True)
class Evaluation(Section):
    """The final evaluation on the held-out questions."""

    key = "evaluation"
    samples: Count
    ks: tuple[Count, ...]
    resamples: Count
    quantile_levels: tuple[Level, ...]
    confidence: OpenLevel
    white_images: Annotated[tuple[Literal["base"], ...], MAY_BE_EMPTY]

    def check(self) -> None:
        _require_distinct("evaluation.ks", self.ks)
        if 1 not in self.ks:
            raise ConfigError(f"evaluation.ks = {list(self.ks)} lacks 1: the accuracy is pass@1.")
        _require_distinct("evaluation.quantile_levels", self.quantile_levels)
        _require_distinct("evaluation.white_images", self.white_images)
        if max(self.ks) > self.samples:
            raise ConfigError(
                f"evaluation.ks contains {max(self.ks)}, but pass@k needs k <= evaluation.samples = {self.samples}."
            )


@dataclass(frozen=True)
class Theory(Section):
    """What notebook 10_theory draws."""

    key = "theory"
    batches: Count


@dataclass(frozen=True)
class Config:
    """A whole `params.yaml`; `algorithms` maps a name to the options over that algorithm's preset."""

    profile: str
    runs: Runs
    task: Task
    programs: Programs
    math: Math
    code: Code
    geometry: Geometry
    base_model: BaseModel
    risk: Risk
    train: Train
    hardware: Hardware
    rollouts: Rollouts
    tuning: Tuning
    algorithms: Mapping[str, Mapping[str, Any]]
    evaluation: Evaluation
    theory: Theory

    def __post_init__(self) -> None:
        for name, kind in _kinds(Config).items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), kind))
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.profile):
            raise ConfigError(f"profile = {self.profile!r} names a folder: use lower-case letters, digits, - and _.")
        _require_multiple("train.questions", self.train.questions, "risk.bundle_size", self.risk.bundle_size)
        # Not imported with the module: both import torch, and their modules import this one.
        from riskpo_study import ablations, algorithms, tasks, tracking

        if self.task.name not in tasks.TASKS:
            raise ConfigError(
                f"task.name = {self.task.name!r} is not implemented; known tasks: {', '.join(tasks.TASKS)}."
            )
        if self.task.name in ("math", "code") and self.base_model.pretrained == "none":
            raise ConfigError(
                f"task.name = {self.task.name!r} needs a published model: name one in base_model.pretrained."
            )
        if kind := {"countdown": Numbers, "programs": Operations, "geometry": Quantities}.get(self.task.name):
            _checked("base_model.difficulties", self.base_model.difficulties, kind)
        if self.rollouts.engine == "vllm" and self.train.temperature < 0.01:
            raise ConfigError(f"train.temperature = {self.train.temperature}: vLLM samples at 0.01 or more.")
        length = self.rollouts.max_model_len
        if self.rollouts.engine == "vllm" and 0 < length <= self.train.max_new_tokens:
            raise ConfigError(
                f"rollouts.max_model_len = {length} is for prompt and response, and leaves no prompt beside "
                f"train.max_new_tokens = {self.train.max_new_tokens}: raise it, or lower the other."
            )
        tracking.check_known(self.hardware.tracker)
        if self.task.name == "math":
            self._check_datasets()
        if self.task.name == "code":
            self._check_problems()
        for name in self.runs.ablations:
            ablations.family(name)
        if self.profile in self.runs.tasks:
            raise ConfigError(f"runs.tasks lists {self.profile}, this profile itself: list profiles of other tasks.")
        if any(seed == self.tuning.seed for _, seed in self.runs.all):
            raise ConfigError(f"tuning.seed = {self.tuning.seed} is the seed of a run: tune with another.")
        for name in self.tuning.own:
            if name not in self.algorithms:
                raise ConfigError(f"tuning.own.{name} is of no algorithm of the configuration.")
        for name in self.runs.names:
            if name not in self.algorithms:
                try:
                    algorithms.check_known(name)
                except ConfigError as error:
                    raise ConfigError(f"runs: {error}") from error
                raise ConfigError(f"runs lists {name}: give its options as algorithms.{name}, {{}} for none.")
        for name, options in self.algorithms.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "base":
                raise ConfigError(f"algorithms.{name} names files and stages: use a-z, 0-9 and _, and not base.")
            batch = self.train.questions, self.train.responses
            algorithms.check(name, options, self.risk, *batch)
            if "learning_rate" in options:
                _checked(f"algorithms.{name}.learning_rate", options["learning_rate"], Positive)
            matched = options.get("matched_to")
            if matched is not None and (not isinstance(matched, str) or matched not in self.algorithms):
                raise ConfigError(f"algorithms.{name}.matched_to = {matched!r} is no algorithm of the configuration.")
            for candidate in self.tuning.of(name) if name in {*self.runs.algorithms, *self.tuning.own} else ():
                algorithms.check(name, {**options, **candidate}, self.risk, *batch)
            if name not in self.runs.names:
                continue
            preset = algorithms.preset_name(name, options)
            if name in self.runs.algorithms and preset != name and len(self.tuning.candidates) > 1:
                raise ConfigError(
                    f"runs.algorithms lists {name}, a variant that takes what {preset} chose in tuning: list it in "
                    "runs.further_algorithms."
                )
            untuned = [one for one in (preset, matched) if one is not None and one not in self.runs.algorithms]
            if untuned:
                raise ConfigError(
                    f"algorithms.{name} takes what {' and '.join(untuned)} chose in tuning: add it to runs.algorithms."
                )
            if matched is not None and len(self.tuning.candidates) < 2:
                raise ConfigError(f"algorithms.{name}.matched_to needs at least two tuning.candidates, to match steps.")

    def _check_datasets(self) -> None:
        from riskpo_study.datasets import DATASETS, INSTRUCTIONS

        asked = self.math
        for key in ("training", "evaluation"):
            for name in getattr(asked, key):
                if name not in DATASETS:
                    raise ConfigError(f"math.{key}: dataset {name!r} is unknown; choose one of {', '.join(DATASETS)}.")
        for name in asked.training:
            if name in asked.evaluation:
                raise ConfigError(
                    f"math.training and math.evaluation both list {name}, whose answers training would give away: take "
                    "it out of one."
                )
        if asked.instruction not in INSTRUCTIONS:
            raise ConfigError(
                f"math.instruction = {asked.instruction!r} is unknown; choose one of {', '.join(INSTRUCTIONS)}."
            )

    def _check_problems(self) -> None:
        from riskpo_study.datasets import deepcoder, livecodebench

        for part in self.code.training:
            if part not in deepcoder.PARTS:
                raise ConfigError(
                    f"code.training = {list(self.code.training)}: part {part!r} is unknown; choose one of "
                    f"{', '.join(deepcoder.PARTS)}."
                )
        if self.code.release not in livecodebench.RELEASES:
            raise ConfigError(
                f"code.release = {self.code.release!r} is unknown; choose one of {', '.join(livecodebench.RELEASES)}."
            )

    @property
    def results(self) -> Path:
        """The folder of this profile's results, `results/<profile>` under the project's root."""
        return root() / "results" / self.profile

    @property
    def curve_k(self) -> int:
        """Of evaluation.ks the largest that the learning curves have enough responses for."""
        return max(k for k in self.evaluation.ks if k <= self.train.curve_samples)

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, as in the file: `from_mapping(config.as_dict()) == config`."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def root(start: Path | str | None = None) -> Path:
    """The project's root: the nearest folder with params.yaml and dvc.yaml at or above `start` (the cwd)."""
    origin = Path.cwd() if start is None else Path(start).resolve()
    for folder in (origin, *origin.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise ConfigError(f"No folder at or above {origin} has params.yaml and dvc.yaml: run from inside the project.")


def load(path: Path | str | None = None) -> Config:
    """Read and check `path`, or the project's params.yaml.

    Raises ConfigError, naming the file and the key, for a file that cannot be read, an unknown, missing
    or ill-typed key, and values that contradict each other.
    """
    file = root() / "params.yaml" if path is None else Path(path)
    try:
        return from_mapping(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"Cannot read {file}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file.name} is not valid YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{file.name}: {error}") from error


def from_mapping(values: Any) -> Config:
    """Build a checked Config from plain nested mappings; ConfigError as in `load`."""
    return _built(Config, "", values)


T = TypeVar("T")


def _kinds(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls)}


def _built(cls: type[T], path: str, values: Any) -> T:
    """An instance of the dataclass from a mapping that has exactly its keys."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or 'The configuration'} must be a mapping of keys to values, not {values!r}.")
    prefix, kinds = (f"{path}." if path else ""), _kinds(cls)
    for key in values:
        if key not in kinds:
            close = get_close_matches(str(key), kinds, n=1, cutoff=0)[0]
            raise ConfigError(f"{prefix}{key} is not a known key; the closest is {prefix}{close}.")
    for key in kinds:
        if key not in values:
            raise ConfigError(f"{prefix}{key} is missing.")
    return cls(
        **{key: _built(kind, key, values[key]) if _is_section(kind) else values[key] for key, kind in kinds.items()}
    )


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _checked(path: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`; ConfigError that names path, value and what was expected."""
    origin = get_origin(kind)
    if origin is Annotated:
        bare, interval = get_args(kind)
        if interval is MAY_BE_EMPTY:
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ConfigError(f"{path} = {value!r} must be a list.")
            return _checked(path, value, bare) if value else ()
        value = _checked(path, value, bare)
        if value not in interval:
            raise ConfigError(f"{path} = {value} must be {interval}.")
        return value
    if origin is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{path} = {value!r} must be one of {', '.join(get_args(kind))}.")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise ConfigError(f"{path} = {value!r} must be a list of at least one value.")
        return tuple(_checked(f"{path}[{index}]", item, get_args(kind)[0]) for index, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} = {value!r} must be a mapping; write {{}} for an empty one.")
        return {key: _checked(f"{path}.{key}", item, get_args(kind)[1]) for key, item in value.items()}
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{path} has {len(str(value))} digits: give a smaller number.") from error
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{path} = {value!r} must be {_NAMES.get(kind, kind.__name__)}{_remedy(value, kind)}.")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{path} = {value} must be finite.")
    if kind is str and not value:
        raise ConfigError(f"{path} must not be empty.")
    return value


_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


def _remedy(value: Any, kind: type) -> str:
    """YAML 1.1 reads 1e-3 as a string; only a dot (1.0e-3) makes it a number."""
    if kind is not float or not isinstance(value, str):
        return ""
    try:
        return f"; in YAML write it without quotes, with a dot and a signed exponent: {float(value):.1e}"
    except ValueError:
        return ""


def _require_distinct(path: str, values: Sequence[Any]) -> None:
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise ConfigError(f"{path} lists {repeated[0]!r} twice.")


def _require_multiple(path: str, value: int, other: str, divisor: int) -> None:
    if value % divisor:
        nearest = [n for n in (value - value % divisor, value + -value % divisor) if n]
        raise ConfigError(
            f"{path} = {value} must be a multiple of {other} = {divisor}; "
            f"the nearest are {' and '.join(map(str, nearest))}."
        )
