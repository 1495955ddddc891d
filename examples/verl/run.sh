#!/usr/bin/env bash
# RiskPO with verl 0.9: the paper's two runs, on one node of 8 GPUs or on a Ray cluster.
#
#   bash run.sh hard                 DeepSeek-R1-Distill-Qwen-1.5B on DAPO-Math-17k
#   bash run.sh easy                 Qwen2.5-1.5B-Instruct on MATH and GSM8K
#   NODES=2 bash run.sh hard         on the Ray cluster that RAY_ADDRESS names (slurm.sh starts one)
#   bash run.sh hard KEY=VALUE …     further settings of verl, last; `--cfg job` prints all of them and runs nothing
#
# Needs `pip install -e '.[verl]' 'verl[vllm]'`, in a clone of this repository, on every node, and the data as verl's parquet
# files: columns data_source, prompt (messages), reward_model ({"ground_truth": …}). DAPO-Math-17k and AIME 2024 are published
# in this form (BytedTsinghua-SIA), verl's examples/data_preprocess makes the others. Folders must be visible to all
# nodes. docs/scale_out.md says how long it takes and how much memory it needs.
set -euo pipefail

RUN=${1:?say which: hard or easy}
shift
ESTIMATOR=${ESTIMATOR:-riskpo} # or riskpo_released, risk_seeking, riskpo_marginal, riskpo_stratified, …
NODES=${NODES:-1}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
DATA=${DATA:-$PWD/data}
SEED=${SEED:-0}

# The authors' batches are 512 and 1024 questions, which bundles of 5 do not fill; verl also wants mini-batches whose
# responses divide among the GPUs. Hence 4 updates of 120 questions, and 2 updates of 480. They divide among the GPUs of
# up to 6 nodes, but for `hard` on 4: QUESTIONS=640 MINI_BATCH=160 is right there. Where they do not, the next larger ones
# that do are named below.
case $RUN in
hard)
  MODEL=${MODEL:-deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B}
  TRAIN=$DATA/dapo-math-17k.parquet TEST=$DATA/aime-2024.parquet
  QUESTIONS=${QUESTIONS:-480} MINI_BATCH=${MINI_BATCH:-120} RESPONSES=10 RESPONSE_TOKENS=3072 STEPS=500
  ;;
easy)
  MODEL=${MODEL:-Qwen/Qwen2.5-1.5B-Instruct}
  TRAIN="[$DATA/math-train.parquet,$DATA/gsm8k-train.parquet]" TEST="[$DATA/math-500.parquet,$DATA/gsm8k-test.parquet]"
  QUESTIONS=${QUESTIONS:-960} MINI_BATCH=${MINI_BATCH:-480} RESPONSES=5 RESPONSE_TOKENS=1024 STEPS=200
  ;;
*)
  echo "there is no run $RUN: choose hard or easy" >&2
  exit 2
  ;;
esac

GPUS=$((NODES * GPUS_PER_NODE))
if ((MINI_BATCH * RESPONSES % GPUS)); then # verl says so only when the models are loaded
  fits=$((MINI_BATCH - MINI_BATCH % 5 + 5))
  while ((fits * RESPONSES % GPUS)); do fits=$((fits + 5)); done
  echo "a mini-batch of $MINI_BATCH questions with $RESPONSES responses each does not divide among $GPUS GPUs:" \
    "choose QUESTIONS=$((QUESTIONS / MINI_BATCH * fits)) MINI_BATCH=$fits" >&2
  exit 2
fi

settings=(
  # RiskPO's advantages. The measure is the algorithm's own, for RiskPO the paper's: α = 0.2, β = 0.8, ω = 0.5; the log
  # says which, and +algorithm.riskpo.omega=1 changes it. `seed` is that of the bundles: the same rows in the same order
  # are bundled alike, but verl's responses, and the order in which they come, are not the same in every run.
  algorithm.adv_estimator="$ESTIMATOR"
  +algorithm.riskpo.bundle_size=5
  +algorithm.riskpo.seed="$SEED"
  # The tracked quantiles go into the checkpoints and come back from them; bad options are noticed before the first rollout.
  trainer.checkpoint_callback_class=riskpo_study.integrations.verl_estimators.TrackerCheckpoint
  # Rewards of 0 and 1. verl's own scorer of DAPO's data gives wrong answers −1, which bundle scores cannot count.
  reward.custom_reward_function.path=pkg://riskpo_study.integrations.verl_estimators
  reward.custom_reward_function.name=accuracy

  # Neither a penalty for divergence nor a bonus for entropy: verl's defaults, said since the comparison rests on them.
  actor_rollout_ref.actor.use_kl_loss=False
  algorithm.use_kl_in_reward=False
  actor_rollout_ref.actor.entropy_coeff=0

  data.train_files="$TRAIN"
  data.val_files="$TEST"
  data.train_batch_size="$QUESTIONS"
  data.max_prompt_length=1024
  data.max_response_length="$RESPONSE_TOKENS"
  # Longer prompts are left out instead of ending the run.
  data.filter_overlong_prompts=True
  # The order of the questions; verl draws one at random where there is no seed.
  data.seed="$SEED"

  actor_rollout_ref.model.path="$MODEL"
  actor_rollout_ref.actor.optim.lr=1e-6
  actor_rollout_ref.actor.ppo_mini_batch_size="$MINI_BATCH"
  # Micro-batches of at most 16 384 tokens, verl's default, instead of a number of responses: no padding, even memory.
  actor_rollout_ref.actor.use_dynamic_bsz=True

  # verl wants the engine named.
  actor_rollout_ref.rollout.name=vllm
  actor_rollout_ref.rollout.n="$RESPONSES"
  # A 1.5B model fits one GPU: eight engines beside each other draw more than four that share (verl's default is 2).
  actor_rollout_ref.rollout.tensor_model_parallel_size=1
  # Share of the memory for vLLM's weights and cache, given back during the update (verl: 0.5).
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6
  # More responses at once than verl's 256: short caches of a small model leave room for them.
  actor_rollout_ref.rollout.max_num_seqs=1024
  # Validation draws as training does, 32 responses a question: Avg@32 and Pass@32 of the paper's figures (verl: one, greedy).
  actor_rollout_ref.rollout.val_kwargs.do_sample=True
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0
  actor_rollout_ref.rollout.val_kwargs.n=32

  trainer.nnodes="$NODES"
  trainer.n_gpus_per_node="$GPUS_PER_NODE"
  trainer.total_training_steps="$STEPS"
  # Enough passes over the data that the steps, and not the epochs, end the run.
  trainer.total_epochs=1000
  trainer.test_freq=5
  # A checkpoint of a 1.5B model with its optimiser is 18 GB; two are kept.
  trainer.save_freq=20
  trainer.max_actor_ckpt_to_keep=2
  # No account needed (verl: Weights & Biases).
  "trainer.logger=[console,tensorboard]"
  trainer.project_name=riskpo
  trainer.experiment_name="$RUN-$ESTIMATOR-$SEED"
)

case $ESTIMATOR in
riskpo_released)
  # The released code clips the ratio of each token and averages over all tokens: verl's defaults. It has tail_weight
  # instead of ω; the easy-math script also has β = 0.9, credit by std and keeps the constant of g.
  [[ $RUN == hard ]] || settings+=(
    +algorithm.riskpo.beta=0.9 +algorithm.riskpo.credit=std +algorithm.riskpo.natural_baseline=True
  )
  ;;
mvar_accuracy | mvar_log_accuracy)
  # GRPO's surrogate: the ratio of each token, clipped at 1 ± 0.2 and nowhere else; mean over responses.
  settings+=(
    actor_rollout_ref.actor.policy_loss.loss_mode=vanilla
    actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean
    actor_rollout_ref.actor.clip_ratio_low=0.2
    actor_rollout_ref.actor.clip_ratio_high=0.2
    actor_rollout_ref.actor.clip_ratio_c=1e6
  )
  ;;
*)
  settings+=(
    # The ratio of a whole response, normalised by its length, clipped at 1 ± 0.2; mean over responses.
    actor_rollout_ref.actor.policy_loss.loss_mode=gspo
    actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean
    actor_rollout_ref.actor.clip_ratio_low=0.2
    actor_rollout_ref.actor.clip_ratio_high=0.2
  )
  ;;
esac

exec python3 -m verl.trainer.main_ppo "${settings[@]}" "$@"
