#!/bin/sh
# Does post-processing pay? Chosen on STS-B dev; fitted on 20,000 training sentences, not on the pairs.
# Usage: evaluation/quality/postprocess/run.sh MODEL path/to/sts path/to/sentences.txt > FILE.txt
set -eu
POST="standardize,abtt(k=1),abtt(k=3),abtt(k=10),whitening(k=32),whitening(k=64),whitening(k=128),whitening"
fit=$(mktemp --suffix=.txt)
trap 'rm -f "$fit"' EXIT
head -n 20000 "$3" > "$fit"
simcse eval "$1" --data "$2" --tasks STSB-dev --geometry-on STSB-dev --resamples 0 --post "$POST" --fit "$fit"
