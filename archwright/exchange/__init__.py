"""Floor 2, outer room: networks in from elsewhere (capture) and out to elsewhere (ONNX, PyTorch source, pictures).

Apart from `archwright.net`, which stays small: these know other people's formats.
"""
