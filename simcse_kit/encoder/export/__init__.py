"""Export to ONNX and OpenVINO, and running what was exported."""
