#!/usr/bin/env bash
#SBATCH --job-name=riskpo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
# Starts Ray on the nodes of a Slurm job and runs run.sh on it: sbatch slurm.sh hard
# Resubmitted after an interruption it goes on from the last checkpoint, quantiles included.
# Without Slurm: `ray start --head --port=6379` on one node, `ray start --address=<its address>:6379` on the others, then
# RAY_ADDRESS=<its address>:6379 NODES=<how many> bash run.sh hard
set -euo pipefail

HERE=${SLURM_SUBMIT_DIR:-$(dirname "$0")}
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
ADDRESS=$(srun --nodes=1 --ntasks=1 --nodelist="$HEAD" hostname --ip-address | awk '{ print $1 }')
export RAY_ADDRESS="$ADDRESS:6379" NODES="$SLURM_JOB_NUM_NODES"

# --block keeps each srun, and with it the node's Ray, alive until the job ends.
srun --nodes=1 --ntasks=1 --nodelist="$HEAD" \
  ray start --head --node-ip-address="$ADDRESS" --port=6379 --num-gpus=8 --block &
sleep 15
if ((NODES > 1)); then
  srun --nodes="$((NODES - 1))" --ntasks="$((NODES - 1))" --exclude="$HEAD" \
    ray start --address="$RAY_ADDRESS" --num-gpus=8 --block &
fi

# run.sh asks for NODES × 8 GPUs: wait until they have all joined.
for _ in $(seq 60); do
  joined=$(python3 -c 'import ray; ray.init(log_to_driver=False); print(int(ray.cluster_resources().get("GPU", 0)))' | tail -n 1)
  ((joined < 8 * NODES)) || break
  sleep 5
done
((joined == 8 * NODES)) || { echo "only $joined of $((8 * NODES)) GPUs joined the Ray cluster" >&2; exit 1; }

bash "$HERE/run.sh" "$@"
