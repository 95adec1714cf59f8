#!/bin/sh
# Train with three learning rates and three seeds, and record every criterion at every evaluation.
# Usage: evaluation/quality/label-free/run.sh sentences.txt path/to/sts WORK
set -eu
for rate in 1e-4 4e-4 2e-3; do
    for seed in 1 2 3; do
        simcse train "$1" --model mini --preset mini-unsup --dev "$2" --max-steps 80 --seed $seed \
            --set training.learning_rate=$rate --set evaluation.every=8 --set evaluation.select=both \
            --output "$3/$rate-$seed" --overwrite
    done
done
python evaluation/quality/label-free/summarise.py --runs "$3"
