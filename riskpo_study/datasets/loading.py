"""Datasets in one schema, with what it takes to recognise them again: the commit and a hash of the content."""

from __future__ import annotations

import hashlib
import io
import json
import re
import reprlib
import warnings
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from riskpo_study.datasets import hub
from riskpo_study.datasets.prompts import IMAGE
from riskpo_study.datasets.registry import DATASETS, Source
from riskpo_study.datasets.rows import Row, instead_of, misfit, rows
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.verify.math_answers import spelled_gold

__all__ = ["Loaded", "Question", "load"]

BATCH = 4096  # rows decoded at once

IMAGE_FORMATS = ("PNG", "JPEG")


@dataclass(frozen=True)
class Question:
    """A question and its gold answer, in LaTeX or as a plain number."""

    question_id: str
    """`<dataset>/<published identifier>`, or the row's number from 0 where it has none."""
    question: str
    answer: str
    source: str
    """Name in `DATASETS`."""
    difficulty: int | None = None
    """MATH's level, 1 to 5; None where it is not known."""
    images: tuple[bytes, ...] = ()
    """Files of the images that the question marks with `prompts.IMAGE`, in order."""


@dataclass(frozen=True)
class Loaded:
    """The questions in published order, and where they come from.

    `provenance` goes into a manifest as it is: `name`, `repository`, `config`, `split`; the asked `revision` and the
    `commit` it stands for, or the name of the local `file`, None where they do not apply; the number of `rows` and of
    `questions`; `remarks`, sentences on rows that are left out and on unexpected numbers; `sha256` over the questions.
    Two loads with equal hashes gave equal questions, wherever they came from.
    """

    questions: tuple[Question, ...]
    provenance: dict[str, Any] = field(hash=False)


def load(name: str, *, revision: str | None = None, folder: Path | str | None = None) -> Loaded:
    """The dataset `name` of `DATASETS`, from the hub or from a local copy.

    Args:
        revision: branch, tag or commit on the hub; by default the commit in `DATASETS`. What the Hugging Face cache
            holds of a commit is used without asking the hub; of a branch or tag, when the hub cannot be reached.
        folder: has `<name>.jsonl` or `<name>.parquet` with rows as published, maybe fewer. Nothing is downloaded then.

    Raises:
        ConfigError: for an unknown name, or a revision together with a folder.
        DataError: where the dataset is not to be had or empty, a file cannot be read, or a row does not fit, as one
            whose answer the grader could not read: names the dataset, the row (from 1) and the field. Also where the
            commit in `DATASETS` does not give the number of rows there; other differences from the numbers there, as
            of another revision, are a warning and a remark.
    """
    if name not in DATASETS:
        raise ConfigError(f"dataset {name!r} is unknown; choose one of: {', '.join(DATASETS)}.")
    source = DATASETS[name]
    if folder is None:
        revision = revision or source.commit
        snapshot, commit = hub.snapshot(name, source.repository, revision, [source.files])
        questions, count, remarks = _read(name, source, sorted(snapshot.glob(source.files)))
        remarks += _unexpected_numbers(name, source, commit, count, len(questions))
        origin = {"revision": revision, "commit": commit, "file": None}
    elif revision is None:
        file = _local_copy(name, Path(folder))
        questions, count, remarks = _read(name, source, [file])
        origin = {"revision": None, "commit": None, "file": file.name}
    else:
        raise ConfigError(f"{name}: revision = {revision!r} is of the hub; a local copy, from {folder}, has none.")
    provenance = {
        "name": name,
        "repository": source.repository,
        "config": source.config,
        "split": source.split,
        **origin,
        "rows": count,
        "questions": len(questions),
        "remarks": remarks,
        "sha256": _digest(questions),
    }
    return Loaded(questions, provenance)


def _local_copy(name: str, folder: Path) -> Path:
    files = [file for suffix in ("jsonl", "parquet") if (file := folder / f"{name}.{suffix}").is_file()]
    if len(files) != 1:
        found = f"{'both' if files else 'neither'} {name}.jsonl {'and' if files else 'nor'} {name}.parquet"
        raise DataError(f"{name}: {folder} has {found}: exactly one has to be there.")
    return files[0]


def _read(name: str, source: Source, files: Iterable[Path]) -> tuple[tuple[Question, ...], int, list[str]]:
    """The questions, the number of rows, and remarks on rows that are left out."""
    found: dict[str, tuple[int, Question]] = {}
    answers: dict[str, dict[str, None]] = {}  # of a question that stands with several, in their order
    unanswered: list[str] = []
    seen: set[str] = set()
    number = 0
    for number, row in enumerate(rows(name, files, BATCH), start=1):
        if source.repeats:  # of DAPO-Math-17k's rows, 99 in 100 end here
            said = repr([(_field(row, form.question), _field(row, form.answer)) for form in source.forms])
            if said in seen:
                continue
            seen.add(said)
        tolerated = not source.repeats and len(unanswered) < source.rows - source.questions
        question = _question(name, source, number, row, may_lack_answer=tolerated)
        if not question.answer:
            unanswered.append(question.question_id)
            continue
        key = " ".join(question.question.split()) if source.repeats else str(number)
        _, first = found.setdefault(key, (number, question))
        if first.answer != question.answer:
            answers.setdefault(key, {first.answer: None})[question.answer] = None
    remarks = []
    if unanswered:
        remarks.append(f"rows with an empty answer, left out: {', '.join(unanswered)}")
    if answers:
        example = next(iter(answers))
        remarks.append(
            f"questions with different answers, left out: {len(answers)}, the first being "
            f"{found[example][1].question_id} with {' and '.join(answers[example])}"
        )
    kept = [numbered for key, numbered in found.items() if key not in answers]
    if not kept:
        raise DataError(f"{name}: {number} rows gave no question: the file is empty or cut off; get it again.")
    rows_by_id: dict[str, int] = {}
    for row_number, question in kept:
        other = rows_by_id.setdefault(question.question_id, row_number)
        if other != row_number:
            raise misfit(question.question_id, row_number, source.identifier, f"is that of row {other}, too")
    return tuple(question for _, question in kept), number, remarks


def _question(name: str, source: Source, number: int, row: Row, *, may_lack_answer: bool) -> Question:
    identifier = _field(row, source.identifier)
    question_id = f"{name}/{number - 1 if identifier is None else identifier}"
    form = next(
        (form for form in source.forms if None not in (_field(row, form.question), _field(row, form.answer))),
        source.forms[0],
    )
    text, answer = _field(row, form.question), _field(row, form.answer)
    if not isinstance(text, str) or not source.clean(text):
        raise misfit(question_id, number, form.question, instead_of("a question", text))
    if answer is None:
        raise misfit(question_id, number, form.answer, instead_of("an answer", answer))
    text = source.clean(text)
    if context := _field(row, source.context):
        text = f"{str(context).strip()}\n\n{text}"
    if re.search(r"[\ud800-\udfff]", text):
        raise misfit(question_id, number, form.question, f"has half a surrogate pair: {ascii(text)[:100]}")
    try:
        gold = form.cut(answer)
    except ValueError as error:
        raise misfit(question_id, number, form.answer, str(error)) from None
    try:
        if gold:
            spelled_gold(gold)
    except DataError as error:
        raise misfit(question_id, number, form.answer, f"is of no use: {str(error).rstrip('.')}") from None
    if not (gold or may_lack_answer):
        raise misfit(question_id, number, form.answer, f"holds an empty answer: {reprlib.repr(answer)}")
    images = _images(source, row, question_id, number, text)
    level = _field(row, source.level)
    if level in (None, "Level ?"):
        return Question(question_id, text, gold, name, images=images)
    if not (match := re.fullmatch(r"(?:Level )?([1-5])", str(level))):
        raise misfit(question_id, number, source.level, instead_of("a level from 1 to 5", level))
    return Question(question_id, text, gold, name, int(match[1]), images)


def _images(source: Source, row: Row, question_id: str, number: int, text: str) -> tuple[bytes, ...]:
    """The bytes of the image files, which are decoded once to be sure; as many as the text has marks."""
    if source.images is None:
        return ()
    found = _field(row, source.images)
    if not isinstance(found, list) or not found:
        raise misfit(question_id, number, source.images, instead_of("a list of images", found))
    files = [_field(image, "bytes") for image in found]
    for file in files:
        if not isinstance(file, bytes):
            raise misfit(question_id, number, source.images, instead_of("the bytes of an image", file))
        try:
            with Image.open(io.BytesIO(file), formats=IMAGE_FORMATS) as image:
                image.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: a broken PNG
            raise misfit(question_id, number, source.images, f"holds no image that can be read ({error})") from None
    if (marks := text.count(IMAGE)) != len(files):
        raise misfit(question_id, number, source.images, f"has {len(files)} images, and the question {marks} {IMAGE}")
    return tuple(files)


def _field(row: Any, path: str | None) -> Any:
    """What the row holds at the path, None where it holds nothing there or there is no path."""
    for key in path.split(".") if path else []:
        try:
            row = row[int(key) if isinstance(row, list) else key]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return row if path else None


def _unexpected_numbers(name: str, source: Source, commit: str, rows: int, questions: int) -> list[str]:
    if (rows, questions) == (source.rows, source.questions):
        return []
    remark = f"{rows} rows gave {questions} questions; {source.rows} and {source.questions} were expected"
    if commit == source.commit and rows != source.rows:
        raise DataError(f"{name}: {remark} of commit {commit}: the download is not complete; delete it and load again.")
    warnings.warn(f"{name}: {remark}.", stacklevel=3)
    return [remark]


def _digest(questions: Iterable[Question]) -> str:
    """Hex digest of everything that the questions say."""
    total = hashlib.sha256()
    for question in questions:
        *said, images = astuple(question)
        said += [hashlib.sha256(image).hexdigest() for image in images]
        total.update(json.dumps(said, ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()
