"""A trained model as it ships: safetensors, ONNX graphs, int8."""
