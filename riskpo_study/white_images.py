"""The base model asked with every image white: what is right then is guessed from the words.

`python -m riskpo_study.white_images` asks the held-out questions so and writes
`results/<profile>/tables/01_base_model/white_images.csv`, with the same of the images as they are beside it.
"""

from __future__ import annotations

import argparse
import sys

import pandas as pd

from riskpo_study import config as configuration
from riskpo_study import files, model_evaluation, sampling, seeds, tasks, vision
from riskpo_study.config import Config
from riskpo_study.errors import ConfigError, exit_code

__all__ = ["ask"]


def ask(config: Config) -> pd.DataFrame:
    """Pass@k of the base model by `images` (as they are, white) and difficulty, on the held-out questions.

    Raises:
        ConfigError: for a task without images; DataError: where the base model has not been evaluated yet.
    """
    task = tasks.build(config)
    questions = task.questions("held_out")
    if not any(vision.images_of(task.prompt(question)) for question in questions):
        raise ConfigError(
            f"task.name = {config.task.name!r}: no question has an image to make white; set evaluation.white_images "
            "to []."
        )
    folder, models = model_evaluation.saved_models(config, model_evaluation.BASE, 0)
    remedy = f"make it (dvc repro evaluate_base@{config.profile})"
    seen = files.read_table(folder / "counts.parquet", remedy, ["difficulty", "n", "correct"])
    seed = seeds.derive(config.base_model.seed, "white_images")
    unseen = model_evaluation.Unseen(task)
    answered = model_evaluation.respond(
        config, models[0], unseen, questions, config.evaluation.samples, seed, "white images"
    )
    counts = {"as they are": seen.drop(columns="step"), "white": sampling.counts(answered)}
    return pd.concat(
        {images: model_evaluation.pass_table(of, config.evaluation.ks) for images, of in counts.items()},
        names=["images"],
    ).reset_index()


def main(arguments: list[str] | None = None) -> int:
    argparse.ArgumentParser(prog="python -m riskpo_study.white_images", description=__doc__).parse_args(arguments)
    return exit_code(_write)


def _write() -> None:
    config = configuration.load()
    found = ask(config)
    with files.atomic(config.results / "tables" / "01_base_model" / "white_images.csv") as temporary:
        found.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    print(found.round(3).to_string(index=False))


if __name__ == "__main__":
    sys.exit(main())
