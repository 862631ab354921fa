"""What a user names becomes a network and its inputs: the zoo, Python factories, ONNX and NIR files."""
