"""examples/verl without verl, Ray and Slurm: small programs in their places say what they were given."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from riskpo_study import algorithms, config
from riskpo_study.integrations.batch_advantages import FAMILY, PAPER
from riskpo_study.surrogates import sequence_clip

SCRIPTS = config.root() / "examples" / "verl"


def programs(folder: Path, **texts: str) -> dict[str, str]:
    """An environment in which these shell programs come first."""
    for name, text in texts.items():
        path = folder / name
        path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
        path.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def settings(folder: Path, run: str, **environment: str) -> dict[str, str]:
    """What run.sh hands verl."""
    given = programs(folder, python3='printf "%s\\n" "$@"') | environment
    result = subprocess.run(["bash", SCRIPTS / "run.sh", run], env=given, text=True, capture_output=True, check=True)
    words = result.stdout.splitlines()
    assert words[:2] == ["-m", "verl.trainer.main_ppo"]
    return dict(word.split("=", 1) for word in words[2:])


@pytest.mark.parametrize("name", FAMILY)
def test_a_run_has_the_options_and_the_surrogate_of_its_preset(name: str, tmp_path: Path) -> None:
    found = settings(tmp_path, "hard", ESTIMATOR=name)
    given = {key.removeprefix("+algorithm.riskpo."): value for key, value in found.items() if ".riskpo." in key}
    assert given == {"bundle_size": f"{PAPER.bundle_size}", "seed": "0"}  # everything else is the preset's
    preset, actor = algorithms.ALGORITHMS[name], "actor_rollout_ref.actor"
    mode = found.get(f"{actor}.policy_loss.loss_mode", "vanilla")
    assert mode == ("gspo" if preset.surrogate is sequence_clip else "vanilla")
    aggregation = {"sequence_mean": "seq-mean-token-mean", "token_mean": "token-mean"}[preset.aggregation]
    assert found.get(f"{actor}.loss_agg_mode", "token-mean") == aggregation
    for side in ("low", "high"):
        assert float(found.get(f"{actor}.clip_ratio_{side}", 0.2)) == preset.clip[side]
    if mode == "vanilla":  # verl's default is 3
        assert float(found.get(f"{actor}.clip_ratio_c", 3)) == preset.clip.get("dual", 1e6)


def test_the_easy_run_as_released_has_the_options_of_its_script(tmp_path: Path) -> None:
    found = settings(tmp_path, "easy", ESTIMATOR="riskpo_released")
    given = {key: value for key, value in found.items() if ".riskpo." in key}
    assert given.pop("+algorithm.riskpo.seed") == "0" and given.pop("+algorithm.riskpo.bundle_size") == "5"
    assert given == {
        "+algorithm.riskpo.beta": "0.9", "+algorithm.riskpo.credit": "std",
        "+algorithm.riskpo.natural_baseline": "True",
    }  # fmt: skip


@pytest.mark.parametrize(("run", "nodes"), [("hard", 4), ("hard", 16), ("hard", 32), ("easy", 7), ("easy", 32)])
def test_batches_that_do_not_divide_among_the_gpus_are_refused_at_once(run: str, nodes: int, tmp_path: Path) -> None:
    command = ["bash", SCRIPTS / "run.sh", run]
    environment = programs(tmp_path, python3="echo started") | {"NODES": f"{nodes}"}
    refused = subprocess.run(command, env=environment, text=True, capture_output=True)
    assert refused.returncode == 2 and not refused.stdout
    before, advice = refused.stderr.strip().split(": choose ")
    assert before.endswith(f"does not divide among {8 * nodes} GPUs")
    batch = dict(word.split("=") for word in advice.split())
    questions, mini_batch = (int(batch[name]) for name in ("QUESTIONS", "MINI_BATCH"))
    updates, responses = {"hard": (4, 10), "easy": (2, 5)}[run]
    assert questions == updates * mini_batch and mini_batch % 5 == 0 == mini_batch * responses % (8 * nodes)
    advised = subprocess.run(command, env=environment | batch, text=True, capture_output=True)
    assert (advised.returncode, advised.stdout) == (0, "started\n")


@pytest.mark.parametrize(("joining", "code"), [("1 8 16", 0), ("8 8", 1)], ids=["all join", "some join"])
def test_slurm_starts_the_run_when_all_gpus_have_joined(joining: str, code: int, tmp_path: Path) -> None:
    """Slurm runs a copy of the script in a folder of its own; the first question to Ray fails, as before it is up."""
    root, bin_folder = config.root(), tmp_path / "bin"
    bin_folder.mkdir()
    (tmp_path / "spool").mkdir()
    script = shutil.copy(SCRIPTS / "slurm.sh", tmp_path / "spool" / "slurm_script")
    asked = f"""
        count=$(cat {tmp_path}/count 2>/dev/null || echo 0); echo $((count + 1)) > {tmp_path}/count
        ((count)) || exit 1
        joined=({joining}); echo "starting"; echo ${{joined[count - 1]:-${{joined[-1]}}}}"""
    environment = programs(
        bin_folder, scontrol="printf 'n1\\nn2\\n'", sleep=":",
        srun=f'case "$*" in *hostname*) echo "10.0.0.1 fe80::1" ;; *) echo "$*" >> {tmp_path}/started ;; esac',
        python3=f'case "$*" in *"import ray"*) {asked} ;; *) printf "%s\\n" "$@" ;; esac',
    )  # fmt: skip
    environment |= {"SLURM_SUBMIT_DIR": f"{root}", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    result = subprocess.run(["bash", script, "hard"], env=environment, text=True, capture_output=True, timeout=60)
    assert result.returncode == code, result.stderr
    if code:
        assert "only 8 of 16 GPUs joined the Ray cluster" in result.stderr
        return
    assert "trainer.nnodes=2" in result.stdout.splitlines()
    head, others = sorted((tmp_path / "started").read_text().splitlines(), key=lambda line: "--head" not in line)
    assert "--nodelist=n1 ray start --head --node-ip-address=10.0.0.1 --port=6379 --num-gpus=8" in head
    assert "--nodes=1 --ntasks=1 --exclude=n1 ray start --address=10.0.0.1:6379 --num-gpus=8" in others
