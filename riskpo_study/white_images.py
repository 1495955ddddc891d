"""The base model asked with every image white: what is right then is guessed from the words.

`python -m riskpo_study.white_images` asks the held-out questions so and writes
`results/<profile>/tables/01_base_model/white_images.csv`, with the same of the images as they are beside it.
"""

from __future__ import annotations

import sys

import pandas as pd

from riskpo_study import config as configuration
from riskpo_study import files, model_evaluation, sampling, seeds, tasks
from riskpo_study.config import Config
from riskpo_study.errors import exit_code

__all__ = ["ask"]


def ask(config: Config) -> pd.DataFrame:
    """Pass@k of the base model by `images` (as they are, white) and difficulty, on the held-out questions; written too.

    Raises:
        DataError: where the base model has not been evaluated yet.
    """
    folder, models = model_evaluation.saved_models(config, model_evaluation.BASE, 0)
    remedy = f"make it (dvc repro evaluate_base@{config.profile})"
    seen = files.read_table(folder / "counts.parquet", remedy, ["difficulty", "n", "correct"])
    questions = tasks.build(config).questions("held_out")
    seed = seeds.derive(config.base_model.seed, "white_images")
    answered = model_evaluation.respond(
        config, models[0], questions, config.evaluation.samples, seed, "white images", images=False
    )
    counts = {"as they are": seen.drop(columns="step"), "white": sampling.counts(answered)}
    found = pd.concat(
        {images: model_evaluation.pass_table(of, config.evaluation.ks) for images, of in counts.items()},
        names=["images"],
    ).reset_index()
    with files.atomic(config.results / "tables" / "01_base_model" / "white_images.csv") as temporary:
        found.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    return found


def main() -> int:
    return exit_code(lambda: print(ask(configuration.load()).round(3).to_string(index=False)))


if __name__ == "__main__":
    sys.exit(main())
