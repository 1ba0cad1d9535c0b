"""The torch-free runtime: spec, bundle, engines, chunk loop, audio, video and `rap-run`."""
