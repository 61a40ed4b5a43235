#!/bin/bash
# A build by all GPUs of a machine: one process for each, which share the shards among them by the store's claims.
#
#   AUDIO=/data/audioset.csv STORE=/data/store TEACHER=ced:/data/ced_base.pt docs/scaling/torchrun.sh 8
#
# torchrun ends all processes when one dies. With --max-restarts it then starts them again, and they go on from what the
# store holds; without it, the same command does.

: "${AUDIO:?the audio, or a table of it}" "${STORE:?a folder or a URL}" "${TEACHER:?}"

exec torchrun --standalone --nproc-per-node "${1:?how many processes}" --max-restarts 3 \
    -m logitstore build "$AUDIO" --out "$STORE" --teacher "$TEACHER" --views "${VIEWS:-10}" \
    --device "${DEVICE:-cuda}" ${MORE:-}
