"""CAM methods and heatmaps: arrays in, arrays out.

``methods`` turns activation and gradient into a cam, ``heatmap`` turns cams into what is displayed. Nothing
here knows of ONNX, files or pictures.
"""
