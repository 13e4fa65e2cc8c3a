PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most of a test's time is tracing, which is one thread's work: two processes of one thread each.
# And one that has traced hundreds of graphs takes twice as long for the next: fresh ones each part.
PARTS := tests/test_[a-c]*.py tests/test_[d-o]*.py tests/test_[p-z]*.py
PYTEST := TF_NUM_INTRAOP_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test slow lint clean

demo: $(VENV)/.installed
	$(BIN)/tfssl demo

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	failed=0; for part in $(foreach part,$(PARTS),'$(part)'); do \
	  $(PYTEST) -m "not slow" $$part || failed=1; done; exit $$failed

slow: $(VENV)/.installed-test
	$(PYTEST) -m slow $(SLOW)

lint: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Editable, so that both commands always run the checkout as it is.
$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info tfssl-demo
