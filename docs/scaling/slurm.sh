#!/bin/bash
# A build as an array job of Slurm: each task makes the part of the shards that its index says.
#
#   AUDIO=/data/audioset.csv STORE=/data/store TEACHER=ced:/data/ced_base.pt sbatch docs/scaling/slurm.sh
#
# `sbatch --array=0-7 …` asks for another number of tasks. A task that was lost is started again with its own index: by
# --requeue, or alone, told of how many it is one: `LOGITSTORE_PARTS=64 sbatch --array=17 …`.
#SBATCH --job-name=logitstore
#SBATCH --array=0-63
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
# a minute before its time is over: it then drops its claims, and what it has finished is kept
#SBATCH --signal=B:TERM@60

: "${AUDIO:?the audio, or a table of it}" "${STORE:?a folder that all nodes have, or a URL}" "${TEACHER:?}"

exec logitstore build "$AUDIO" --out "$STORE" --teacher "$TEACHER" --views "${VIEWS:-10}" \
    --shards auto --workers "${SLURM_CPUS_PER_TASK:-1}" --device "${DEVICE:-cuda}" ${MORE:-}
