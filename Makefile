PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test test-integrations test-fleet test-lowest test-newest test-tensorrt-10 lint train bench plugins gpu gpu-prepare clean

demo: $(VENV)/.export
	$(BIN)/rap-export -o build/nano-fp32
	$(BIN)/rap-run --bundle build/nano-fp32 --audio examples/assets/speech.wav \
		--portrait examples/assets/portrait.png -o build/demo.mp4 --report build/demo.json

test: $(VENV)/.test
	$(BIN)/python -m pytest

# The frameworks bring half a gigabyte and bounds of their own, so they get an environment of their own.
test-integrations:
	$(MAKE) VENV=build/integrations build/integrations/bin/python
	build/integrations/bin/python -m pip --disable-pip-version-check install --quiet \
		--editable '.[serve,livekit,pipecat,plans]' espeakng-loader pytest
	build/integrations/bin/python -m pip check
	build/integrations/bin/python -m pytest tests/integrations

# Ray brings three quarters of a gigabyte.
test-fleet:
	$(MAKE) VENV=build/fleet build/fleet/bin/python
	build/fleet/bin/python -m pip --disable-pip-version-check install --quiet \
		--editable '.[fleet,plans]' hypothesis kubernetes-validate pytest
	build/fleet/bin/python -m pip check
	build/fleet/bin/python -m pytest tests/fleet

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/typed/rap_edge
	ln -sfn $(foreach package,runtime models export calibration integrations fleet,$(CURDIR)/$(package)) build/typed/rap_edge/
	$(BIN)/mypy

bench: $(VENV)/.export
	$(PIP) --editable '.[export,bench]'
	$(BIN)/rap-bench --bundle build/nano-fp32 --against torch,openvino

# TENSORRT_INCLUDE_DIR=FOLDER adds the TensorRT plugin.
plugins: $(BIN)/python
	$(PIP) --editable '.[plugins]'
	$(BIN)/cmake -S . -B build/plugins -DTENSORRT_INCLUDE_DIR=$(TENSORRT_INCLUDE_DIR) \
		-DCMAKE_CUDA_COMPILER=$$(ls -d $(CURDIR)/$(VENV)/lib/python*/site-packages/nvidia/cu13/bin/nvcc)
	$(BIN)/cmake --build build/plugins --parallel

# What touches a dependency, asked of the lowest versions that pyproject.toml allows and of the newest, there on a later
# Python where one is found.
test-lowest test-newest: test-%: $(VENV)/.test
	$(BIN)/python tests/both_ends.py $*

# The names and plugins that are asked of TensorRT 11, asked of the 10.16 that Jetsons have.
test-tensorrt-10: $(VENV)/.test
	$(PIP) --no-deps --target build/tensorrt-10 --upgrade $(foreach part,cu13_bindings lean_cu13_bindings \
		lean_cu13_libs,tensorrt_$(part)==10.16.1.11)
	PYTHONPATH=build/tensorrt-10 $(BIN)/python -m pytest tests/runtime/engines/test_tensorrt_names.py tests/export/hybrid_attention/test_plugin.py \
		tests/export/plans/test_attention_choice.py

# Everything that needs a GPU, as a page in docs/benchmarks. torch and onnxruntime become those for CUDA.
gpu: plugins
	$(PIP) $(TORCH)
	$(PIP) --editable '.[export,calibrate,serve,train,face,test,plugins,tensorrt-rtx,cuda,gpu]'
	$(BIN)/python -m pip uninstall --quiet --yes onnxruntime
	$(PIP) --force-reinstall --no-deps onnxruntime-gpu
	$(BIN)/python benchmarks/on_a_gpu.py

# What a GPU machine without a network needs besides this repository, in .gpu; see docs/benchmarks/README.md.
gpu-prepare: plugins
	PYTHON=$(CURDIR)/$(BIN)/python benchmarks/prepare_gpu.sh

# Trains the model that ships, in about five hours of two cores; it goes on where it was stopped. On Debian the voices
# beside espeak-ng need: apt-get install flite festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts
NANO_DATA = $(addprefix build/nano-data/,train still heldout speech/espeak speech/festival speech/heldout-flite speech/heldout-espeak)
train: $(NANO_DATA)
	$(BIN)/python -m rap_edge.models.nano.train --data build/nano-data --out build/nano-training

NANO_DATA_OF = $(BIN)/python -m rap_edge.models.nano.data
build/nano-data/train: $(VENV)/.test
	$(NANO_DATA_OF).pairs --out $@ --clips 3000 --seed 0 --split train --processes 2
build/nano-data/still: $(VENV)/.test
	$(NANO_DATA_OF).pairs --out $@ --clips 400 --seed 1 --split train --moving still --processes 2
build/nano-data/heldout: $(VENV)/.test
	$(NANO_DATA_OF).pairs --out $@ --clips 96 --seed 7 --split held-out --processes 2
build/nano-data/speech/espeak: $(VENV)/.test
	$(NANO_DATA_OF).banks --out $@ --synthesizer espeak --tracks 1600 --seed 1
build/nano-data/speech/festival: $(VENV)/.test
	$(NANO_DATA_OF).banks --out $@ --synthesizer festival --tracks 400 --seed 1
build/nano-data/speech/heldout-%: $(VENV)/.test
	$(NANO_DATA_OF).banks --out $@ --synthesizer $* --tracks 40 --seed 5 --split held-out

# Debian's python3 may lack ensurepip; virtualenv brings its own.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV) && \
		$(PYTHON) -m pip install --quiet --target build/virtualenv virtualenv && \
		PYTHONPATH=build/virtualenv $(PYTHON) -m virtualenv --quiet $(VENV); }

# torch comes first and pinned: an open range would bring gigabytes of CUDA packages.
$(VENV)/.export: $(BIN)/python pyproject.toml
	$(PIP) $(TORCH)
	$(PIP) --editable '.[export]'
	touch $@

$(VENV)/.test: $(VENV)/.export
	$(PIP) --editable '.[export,calibrate,serve,train,face,test,plugins]'
	touch $@

clean:
	rm -rf build $(VENV)
