"""Runs as their folders hold them: what `report_html` and `model_card` are given in tests."""

import json

import numpy as np


def row(accuracy, size_bytes, latency_ms, **changes):
    """A row of a classifier of three classes."""
    return {
        "accuracy": accuracy,
        "precision": accuracy,
        "recall": accuracy,
        "f1": accuracy,
        "loss": 0.3,
        "parameters": 1000,
        "nonzero_parameters": 500,
        "macs": 20_000,
        "size_bytes": size_bytes,
        "gzip_bytes": size_bytes and size_bytes // 2,
        "latency_ms": latency_ms,
        "latency_p90_ms": latency_ms,
        "task": "classification",
        "metrics": {"accuracy": accuracy, "loss": 0.3},
        "intervals": {"accuracy": [accuracy - 0.02, accuracy + 0.01]},
        "per_class": {"recall": [0.9, 0.8, None]},
        "confusion_matrix": [[9, 1, 0], [0, 8, 2], [0, 0, 10]],
        "columns": ["accuracy", "loss"],
        "notes": [],
        **changes,
    }


def compress_run():
    """A run of `pipelines.compress`, and its samples."""
    width = {"width": 32, "parameters": 288, "sparsity": 0.0}
    run = {
        "name": "photos-compress",
        "job": "compress",
        "headline": "model.tflite: 4.0x smaller than the teacher's float32 file",
        "size_ratio": 4.0,
        "task": "classification",
        "metrics": {"accuracy": {"teacher": 0.9, "file": 0.88, "loss": 2.2}},
        "rows": {
            "teacher": row(0.9, 400_000, 0.25),
            "prune": row(0.89, 400_000, 0.24),
            "model.tflite": row(0.88, 100_000, 0.05, notes=["a note of <the> file"]),
        },
        "differences": ["model.tflite: accuracy -2.00 points against teacher"],
        "classes": ["cat", "<dog>", "owl"],
        "data": "Data: 80 train, 10 validation, 30 test samples",
        "test_samples": 30,
        "stages": [
            {"name": "teacher", "title": "teacher", "settings": {"epochs": 3}},
            {"name": "quantize", "title": "export, quantization int8", "settings": {}},
        ],
        "made": {
            "date": "2026-01-02 03:04 UTC",
            "machine": "a machine, 2 cores",
            "commands": ["python -m pipelines.compress --epochs=3"],
            "seconds": {"teacher": 200.0},
        },
        "layers": [
            {
                "layer": "conv",
                "type": "Conv2D",
                "kernel": [3, 3, 1, 16],
                "teacher": width,
                "final": {"width": 16, "parameters": 144, "sparsity": 0.5},
            },
            {
                "layer": "gone",
                "type": "Dense",
                "kernel": [4, 32],
                "teacher": width,
                "final": None,
            },
        ],
        "disagreements": [
            {
                "output": "",
                "summary": "Teacher and file predict different classes for 1 of 30 test samples.",
                "shown": [
                    {
                        "inputs": [
                            {"name": "", "kind": "image", "array": "output.0.0", "alt": "an input"},
                            {"name": "what", "kind": "text", "array": "output.0.1", "alt": ""},
                            {"name": "mask", "kind": "mask", "array": "output.0.2", "alt": "m"},
                            {"name": "wave", "kind": "series", "array": "output.0.3", "alt": "w"},
                            {"name": "row", "kind": "numbers", "array": "output.0.4", "alt": ""},
                        ],
                        "facts": [["label", "cat"], ["teacher", "cat"], ["file", "owl"]],
                    }
                ],
            }
        ],
        "layer_snr_db": {"conv": 41.0, "dense": 18.5, "flatten": float("inf")},
        "devices": {"tflm": {"flash_bytes": 100_000, "ram_bytes": 6000, "notes": ["of a device"]}},
        "flags": {"dataset": "photos", "quantization": "int8", "seed": 7, "classes": None},
        "versions": {"keras": "3.15.1"},
    }
    samples = {
        "output.0.0": np.arange(64, dtype="uint8").reshape(8, 8),
        "output.0.1": np.array("a <b>text</b>"),
        "output.0.2": np.arange(16, dtype="uint8").reshape(4, 4) % 3,
        "output.0.3": np.sin(np.arange(20.0))[:, None],
        "output.0.4": np.array([0.5, 2.0]),
    }
    return json.loads(json.dumps(run)), samples


def search_run(trials=24):
    """A search whose trials get larger and better, each third one over the budget."""
    made = []
    for i in range(trials):
        size = 8_000 + 1_500 * i
        over = size > 30_000
        made.append(
            {
                "id": f"{i:02d}",
                "settings": {"width": 0.1 * i, "sparsity": 0.5},
                "status": "over_budget" if over else "failed" if i == 3 else "completed",
                "reason": "no layer left" if i == 3 else None,
                "metric": None if i == 3 else 0.8 + 0.005 * i,
                "interval": None if i == 3 else [0.79 + 0.005 * i, 0.81 + 0.005 * i],
                "figures": {"size_bytes": size, "latency_ms": 0.01 * (i + 1), "macs": 1000 * i},
                "epochs": 5,
                "seconds": 12.5,
            }
        )
    inside = [t["id"] for t in made if t["status"] == "completed"]
    return {
        "name": "fashion-search",
        "job": "search",
        "metric": "accuracy",
        "higher_is_better": True,
        "budget": {"max_size_bytes": 30_000, "min_metric": 0.8},
        "trials": made,
        "best": inside[-1],
        "front": {"size_bytes": inside, "latency_ms": inside},
        "rows": {"model.tflite": row(0.87, 29_000, 0.1), "teacher": row(0.95, 900_000, 1.0)},
    }


def recommend_run():
    """What `recommend` found for a convolutional model."""
    return {
        "name": "mobile-recommend",
        "job": "recommend",
        "goal": "latency",
        "target": "xnnpack",
        "figure": "latency_ms",
        "metric": {"accuracy": 0.91},
        "model": {
            **{"size_bytes": 400_000, "latency_ms": 1.25, "macs": 5_000_000},
            "gap": {"relative": 0.08},
        },
        "layers": [
            {"layer": "conv", "macs": 400_000, "share_of_macs": 0.25, "loss_of_half_zeros": None},
            {"layer": "dense", "macs": 10, "share_of_macs": 0.0, "loss_of_half_zeros": 0.012},
        ],
        "recommendations": [
            {
                "technique": "prune_channels",
                "title": "Remove channels",
                "gain": {
                    "figure": "latency_ms",
                    "factor": 2.1,
                    "interval": [1.8, 2.4],
                    "metric": "accuracy",
                    "metric_change": -0.004,
                    "metric_interval": [-0.01, 0.002],
                    "loss": 0.004,
                },
                "loss_is": "unclear",
                "trial": "half of the multiply-accumulates",
                "limits": "fewer bytes in a download than int8 <and> zeros",
                "command": "python -m pipelines.prune_channels --max_macs=0.5",
                "code": "small = tfpeft.prune_channels(model, max_macs=0.5, data=data)",
            },
            {
                "technique": "quantize",
                "title": "Integers of 8 bits",
                "gain": {"figure": "gzip_bytes", "factor": 4.0, "interval": [4.0, 4.0]},
                "trial": "int8",
                "limits": "",
                "command": None,
                "code": "",
            },
        ],
        "nothing_to_gain": False,
        "reasons": ["The model overfits: from training to validation data it loses 8.0%."],
        "not_tried": {"distill": "the time was over"},
        "trials": [{"name": "int8", "technique": "quantize"}],
    }
