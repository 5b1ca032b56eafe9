#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU slice: copies the last commit there, installs it, starts every host.
#
#   TPU=NAME ZONE=ZONE NFS=SERVER:/SHARE bash launch/tpu_vm.sh --config=coco_stuff256 \
#     --workdir=/mnt/shared/run --config.data.data_dir=gs://BUCKET/data
#   TPU=NAME ZONE=ZONE STOP=1 bash launch/tpu_vm.sh          # the training saves and ends, on all hosts
#
# It needs gcloud, logged in, and a slice that exists (`gcloud compute tpus tpu-vm create`), whose image has
# Python 3.11 or newer with its venv module (PYTHON=python3.12 names another), and for NFS nfs-common. The workdir must
# lie on a file system that all hosts share: with NFS=SERVER:/SHARE (a Filestore instance, say), that is
# mounted at /mnt/shared, and opened to all users of the hosts where this one may not write: a new share is
# root's. The dataset may lie on gs://. The same command again goes on from the last checkpoint. DRY_RUN=1
# prints what would be executed.
set -euo pipefail
: "${TPU:?the name of the slice, as in TPU=NAME}" "${ZONE:?its zone, as in ZONE=us-west4-a}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

run() {
  if [[ -n ${DRY_RUN:-} ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_all_hosts() {
  run gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

if [[ -n ${STOP:-} ]]; then
  # The oldest: the training, and not what it has started. The [p] keeps this line from finding itself.
  on_all_hosts "pkill -TERM --oldest --full '\.venv/bin/[p]ython[0-9.]* .*mscaflax train' || echo 'no training runs here'"
  exit
fi

archive=$(mktemp -d)/mscaflax.tar.gz
trap 'rm -r "$(dirname "$archive")"' EXIT
run git archive --format=tar.gz --prefix=mscaflax/ --output="$archive" HEAD
run gcloud compute tpus tpu-vm scp "$archive" "$TPU:" --zone="$ZONE" --worker=all
on_all_hosts "tar -xzf mscaflax.tar.gz && cd mscaflax && \
{ test -x .venv/bin/python || ${PYTHON:-python3.11} -m venv .venv; } && .venv/bin/pip install -q '.[tpu]'"
if [[ -n ${NFS:-} ]]; then
  on_all_hosts "sudo mkdir -p /mnt/shared && { mountpoint -q /mnt/shared || sudo mount -t nfs $NFS /mnt/shared; } && \
{ test -w /mnt/shared || sudo chmod a+rwx /mnt/shared; }"
fi
# The hosts find each other by what the TPU runtime tells them.
on_all_hosts "cd mscaflax && .venv/bin/mscaflax train --distributed $(printf '%q ' "$@")"
