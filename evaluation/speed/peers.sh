#!/bin/sh
# Create environments for sentence-transformers' ONNX and OpenVINO backends, which need older releases
# of transformers: build/peers/onnx and build/peers/openvino.
#
#   evaluation/speed/peers.sh [PYTHON [TORCH [TORCH_INDEX]]]
set -eu
python=${1:-python3}
torch=${2:-torch==2.13.0}
index=${3:-https://download.pytorch.org/whl/cpu}
cd "$(dirname "$0")/../.."

make_peer() {
    folder=build/peers/$1
    shift
    # Rename at the end, because the benchmark uses any interpreter that it finds.
    rm -rf "$folder.new"
    "$python" -m venv "$folder.new"
    pip="$folder.new/bin/python -m pip"
    $pip install --quiet --retries 1 --no-deps --extra-index-url "$index" "$torch"
    # Pin torch, so that pip does not replace it by another build.
    version=$("$folder.new/bin/python" -c 'from importlib.metadata import version as v; print(v("torch"))')
    $pip install --quiet "torch==$version" "$@"
    rm -rf "$folder"
    mv "$folder.new" "$folder"
}

mkdir -p build/peers
make_peer openvino "sentence-transformers[openvino]==6.2.0" openvino==2026.4.1 nncf==3.4.0 datasets
# optimum-onnx 0.1.0, the newest, needs transformers below 4.58; sentence-transformers 5.7.0 allows it.
make_peer onnx "sentence-transformers[onnx]==5.7.0" onnxruntime==1.32.0
