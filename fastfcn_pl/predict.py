"""Label images: `python -m fastfcn_pl.predict checkpoint=<path> input=<image, video, folder, glob> output=<dir>`.

From Python: `labels = fastfcn_pl.Predictor("best.ckpt")("photo.jpg")`.
"""

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    main("predict", "fastfcn_pl.tools.predict.command:predict")
