# make demo   sets everything up and contours a made-up patient (results in demo/)
# make test   sets everything up and passes the tests
# make check  style and types
# make bench  measures speed and memory (about an hour, most of it beside nnunetv2, MONAI and TotalSegmentator)
# make train-demo-model   renders patients, trains and scores the demonstration model (hours)
# make train-segrap DATASET=FOLDER OUTPUT=FOLDER GPU_MEMORY=GB   with nnunetv2, in its own environment (docs/training.md; days)
# make train-openkbp-model OPENKBP=FOLDER   the research model of eight organs, from OpenKBP's train/ and validation/ (hours; then --start and average, see its training.log)

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench train-demo-model train-openkbp-model train-segrap clean

demo: .venv/installed
	$(BIN)/segrap demo --output demo --overwrite

test: .venv/installed-test .venv-peers/installed-peers.txt
	@sh Testing/install_judges.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-test .venv-peers/installed-peers.txt
	$(BIN)/python Testing/benchmarks/road.py
	$(BIN)/python Testing/benchmarks/scene.py
	PYTHONPATH=SegRapSlicer/Logic:Testing $(BIN)/python Testing/benchmarks/window.py
	$(BIN)/python Testing/benchmarks/evaluation.py
	$(BIN)/python Testing/benchmarks/inference.py

train-demo-model: .venv/installed-test
	$(BIN)/python -m segrap.training.phantom_model cases build/phantoms
	$(BIN)/python -m segrap.training.phantom_model train build/phantoms build/SegRapPhantom
	$(BIN)/python -m segrap.training.phantom_model score build/SegRapPhantom

train-openkbp-model: .venv/installed-test
	$(BIN)/python -m segrap.training.openkbp train $(OPENKBP)/train build/OpenKBP_8
	$(BIN)/python -m segrap.training.openkbp score build/OpenKBP_8 $(OPENKBP)/validation

train-segrap: .venv/installed
	$(BIN)/python -m segrap.training.nnunet "$(DATASET)" "$(OUTPUT)" --gpu-memory $(GPU_MEMORY)

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@sh Testing/install_debian.sh python3-venv "$(PYTHON) -c 'import ensurepip'" "to make a virtual environment"
	$(PYTHON) -m venv .venv

.venv/installed: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[openvino]'
	@touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,check]'
	@touch $@

# nnunetv2 and other programs that the tests and benchmarks compare with; torch and numpy are those of .venv.
.venv-peers/installed-peers.txt: .venv/installed-test Testing/peers.txt Testing/make_peers.py
	$(BIN)/python Testing/make_peers.py .venv-peers
	@touch $@

clean:
	rm -rf .venv .venv-peers demo build .pytest_cache .mypy_cache .ruff_cache
