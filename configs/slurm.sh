#!/bin/bash
# Train configs/slurm.yaml on two nodes of four GPUs: sbatch configs/slurm.sh STORE [overrides ...]
# One task a GPU; nodes and tasks must be trainer.num_nodes and trainer.devices of the configuration. Add partition,
# account and time limit of your machine, and load the environment in which nequip-hessian is installed.
#SBATCH --job-name=nequip-hessian
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00

set -euo pipefail
store=$(realpath "${1:?usage: sbatch configs/slurm.sh STORE [overrides ...]}")
shift
folder=$(realpath "${SLURM_SUBMIT_DIR:-.}")
export OMP_NUM_THREADS=1
# one compilation a node; the other ranks take it from the cache
export NEQUIP_NODE_PARALLEL_COMPILE=1
# where one rank stops with an error, the others wait for it: end them
srun --kill-on-bad-exit=1 nequip-train -cp "$folder/configs" -cn slurm store="$store" \
  hydra.run.dir="$folder/out/slurm-${SLURM_JOB_ID:-0}" "$@"
