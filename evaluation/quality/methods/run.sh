#!/usr/bin/env bash
# Train `mini` with every method and every objective, three seeds each. Run from the root of the
# repository, in its environment. Takes about two hours on two cores; a second start continues.
# Usage: evaluation/quality/methods/run.sh path/to/train path/to/sts debian-handbook_*.deb
#   path/to/train   holds unsup_sentences.txt and nli/triplets.csv (sent0,sent1,hard_neg)
#   path/to/sts     STS data in the SentEval layout
#   *.deb           apt-get download debian-handbook, for CPC's documents
set -euo pipefail
TRAIN=$1 DEV=$2 BOOK=$3
work=build/methods
mkdir -p $work
export OMP_NUM_THREADS=1

awk 'NF >= 5 && NF <= 12' "$TRAIN/unsup_sentences.txt" | head -20000 > $work/short.txt || true
python evaluation/quality/methods/data.py "$TRAIN/nli/triplets.csv" $work
python evaluation/quality/methods/documents.py "$BOOK" $work/documents.txt

study() {  # study NAME FILE METHODS [OPTION...]
    simcse -q compare-methods "$2" --methods "$3" --output "$work/$1" --steps 60 --batch-size 64 --seeds 3 \
        --preset mini-unsup --dev "$DEV" --set evaluation.every=30 --set training.seed=1 --resume "${@:4}"
    cp "$work/$1/study.json" "evaluation/quality/methods/results/$1.json"
    if [ -f "evaluation/quality/methods/results/$1.svg" ]; then
        cp "$work/$1/study.svg" "evaluation/quality/methods/results/$1.svg"
    fi
    cat "$work/$1/study.md"  # the table of README.md
}

simcse_() { echo "simcse($1, head='none', lr=${2:-4e-4})"; }

study methods $work/short.txt "$(cat evaluation/quality/methods/methods.txt)"
study objectives $work/short.txt "$(cat evaluation/quality/methods/objectives.txt)"
study temperature $work/short.txt "$(for t in 0.01 0.03 0.05 0.3 1.0; do simcse_ temperature=$t; done | paste -sd,)"
study supervised $work/triplets.csv "simcse(temperature=0.05, head='none', lr=2e-4),simcse(head='none', objective='triplet(mining=\"given\")', lr=2e-4),dual_encoder(lr=2e-4)"
study labelled $work/labelled.csv "margin-contrastive(lr=1e-4)" --set data.label=label
study documents-simcse $work/documents.sentences.txt "$(simcse_ temperature=0.1)"
study documents-cpc $work/documents.txt "cpc(similarity='cosine', temperature=0.05, distances=2, lr=4e-4)" --set data.documents=2
