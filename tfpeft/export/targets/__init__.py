"""What a device makes of a .tflite file: a file for each kind of device. Part of export."""
