#!/usr/bin/env bash
#SBATCH --job-name=riskpo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
# Starts Ray on the nodes of a Slurm job and runs run.sh on it: sbatch slurm.sh hard
# With another number of GPUs a node: GPUS_PER_NODE=4 sbatch --gpus-per-node=4 slurm.sh hard
# Resubmitted after an interruption it goes on from the last checkpoint, quantiles included.
# Without Slurm: `ray start --head --port=6379` on one node, `ray start --address=<its address>:6379` on the others, then
# RAY_ADDRESS=<its address>:6379 NODES=<how many> bash run.sh hard
set -euo pipefail

# Slurm runs a copy of this script: run.sh is where the job was submitted, or that is the root of the repository.
HERE=$SLURM_SUBMIT_DIR
[[ -f $HERE/run.sh ]] || HERE=$HERE/examples/verl
read -r HEAD <<<"$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
ADDRESS=$(srun --nodes=1 --ntasks=1 --nodelist="$HEAD" hostname --ip-address | awk '{ print $1 }')
export RAY_ADDRESS="$ADDRESS:6379" NODES="$SLURM_JOB_NUM_NODES" GPUS_PER_NODE="${GPUS_PER_NODE:-8}"
GPUS=$((GPUS_PER_NODE * NODES))

# --block keeps each srun, and with it the node's Ray, alive until the job ends.
srun --nodes=1 --ntasks=1 --nodelist="$HEAD" \
  ray start --head --node-ip-address="$ADDRESS" --port=6379 --num-gpus="$GPUS_PER_NODE" --block &
sleep 15
if ((NODES > 1)); then
  srun --nodes="$((NODES - 1))" --ntasks="$((NODES - 1))" --exclude="$HEAD" \
    ray start --address="$RAY_ADDRESS" --num-gpus="$GPUS_PER_NODE" --block &
fi

# run.sh asks for all GPUs: wait until they have joined. Before the head answers, asking it fails.
for _ in $(seq 60); do
  joined=$(python3 -c 'import ray; ray.init(log_to_driver=False); print(int(ray.cluster_resources().get("GPU", 0)))' |
    tail -n 1) || joined=0
  ((joined < GPUS)) || break
  sleep 5
done
((joined >= GPUS)) || { echo "only $joined of $GPUS GPUs joined the Ray cluster" >&2; exit 1; }

bash "$HERE/run.sh" "$@"
