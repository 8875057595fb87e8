#!/usr/bin/env bash
# Run a command on every host of a TPU pod, which is asked for if it isn't there.
#
#   NAME=t5-align ZONE=us-central2-b TYPE=v4-32 NFS=10.0.0.2:/share \
#     docs/launch_tpu_pod.sh t5-align eval --model gs://BUCKET/t5_xxl \
#     --task line_retrieval_680 --output_dir /shared/results
#
# NFS holds a checkout of this repository in t5_align/ and takes the results; it
# is mounted at /shared. RUNTIME: the VMs' software (tpu-ubuntu2204-base). The pod
# is left running. Needs gcloud, logged in, with a project. See docs/pods.md.
#
# Not run on hardware so far; the commands are those of Google's documentation.

set -eu -o pipefail

: "${NAME:?the name of the pod}" "${ZONE:?such as us-central2-b}"
: "${TYPE:?accelerator type, such as v4-32}" "${NFS:?HOST:/SHARE}"
runtime=${RUNTIME:-tpu-ubuntu2204-base}
[[ $# -gt 0 ]] || { echo "$0: no command was given." >&2; exit 2; }

queued() { gcloud compute tpus queued-resources "$1" "$NAME" --zone "$ZONE" "${@:2}"; }
state() { queued describe --format='value(state.state)' 2>/dev/null || true; }
everywhere() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command "$1"
}

case $(state) in
  FAILED | SUSPENDED) queued delete --force --quiet ;;  # preempted
esac
if [[ -z $(state) ]]; then
  queued create --node-id "$NAME" --accelerator-type "$TYPE" \
    --runtime-version "$runtime"
fi
until [[ $(state) == ACTIVE ]]; do
  case $(state) in
    FAILED | SUSPENDED) echo "$0: the request for $NAME failed." >&2; exit 1 ;;
  esac
  sleep 30
done

everywhere "
  set -e
  if ! mountpoint -q /shared; then
    sudo apt-get -qq update
    sudo apt-get -qq install -y nfs-common python3.11-venv
    sudo mkdir -p /shared
    sudo mount $NFS /shared
  fi
  [ -x ~/venv/bin/t5-align ] || {
    rm -rf ~/t5_align && cp -r /shared/t5_align ~/t5_align  # a build each
    python3.11 -m venv ~/venv
    ~/venv/bin/pip install -q ~/t5_align'[tpu]'
  }"

# The words of the command as they are, through another shell.
everywhere "PATH=~/venv/bin:\$PATH $(printf '%q ' "$@")"
