"""Installs tfpeft; `make` calls it with constraints.txt, the versions that were tested."""

import pathlib
import re

import setuptools

TEXT = ["keras-hub", "tensorflow-text", "safetensors"]
ONNX = ["onnx", "onnxruntime", "tf2onnx"]
QUANTIZER = ["litert-quantizer"]
TENSORBOARD = ["tensorboard"]  # TensorFlow does not bring it any more
SEARCH = ["keras-tuner>=1.4.7", *TENSORBOARD]  # keras-tuner imports it
DOCS = ["mkdocs-material", "mkdocstrings[python]"]
DEVICES = [
    "ethos-u-vela>=5.2",
    # It has nightly builds only, for Linux.
    "tflite-micro>=0.dev20261023182759; sys_platform == 'linux' and platform_machine == 'x86_64'",
]

here = pathlib.Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "tfpeft/__init__.py").read_text())[1]

setuptools.setup(
    name="tfpeft",
    version=version,
    description="Makes trained Keras 3 models small, and measures the exported file",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["tfpeft*", "pipelines*"]),
    package_data={"tfpeft": ["py.typed", "reports/templates/*"]},
    python_requires=">=3.11",
    # Tests ran with the oldest of these: tensorflow 2.18.1, keras 3.13.0, ai-edge-litert 2.1.0.
    install_requires=[
        "tensorflow>=2.18",
        "keras>=3.13",
        "tensorflow-model-optimization>=0.8.1",
        "ai-edge-litert>=2.1",
        "absl-py",
        "scikit-learn",
        "matplotlib",
        "jinja2",
    ],
    extras_require={
        "text": TEXT,
        "search": SEARCH,
        # What `FigureLogger` logs to.
        "tensorboard": TENSORBOARD,
        "mlflow": ["mlflow-skinny"],
        "wandb": ["wandb"],
        "onnx": ONNX,
        "quantizer": QUANTIZER,
        "docs": DOCS,
        # What `describe_tflite` runs for its targets.
        "devices": DEVICES,
        "dev": [
            *["pytest", "pytest-xdist", "ruff", "pre-commit", "nbformat", "pillow"],
            *[*SEARCH, *TEXT, *ONNX, *QUANTIZER, *DOCS, *DEVICES],
        ],
    },
)
