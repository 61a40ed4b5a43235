#!/bin/bash
# A build on a Ray cluster. On its head, and then on every other node:
#
#   ray start --head --port 6379
#   ray start --address HEAD:6379
#
# and on any of them, in a folder that all of them have:
#
#   AUDIO=/data/audioset.csv STORE=/data/store TEACHER=ced:/data/ced_base.pt RAY_ADDRESS=HEAD:6379 docs/scaling/ray.sh
#
# `ray job submit --working-dir . -- docs/scaling/ray.sh` runs it on the head, and sets RAY_ADDRESS itself.

: "${AUDIO:?the audio, or a table of it, at this place on every node}" "${STORE:?}" "${TEACHER:?}"

exec logitstore build "$AUDIO" --out "$STORE" --teacher "$TEACHER" --views "${VIEWS:-10}" \
    --engine ray --ray-actors "${ACTORS:-1:}" --device "${DEVICE:-cuda}" ${MORE:-}
