# Two commands are enough: `make serve` and `make test`. Both set up what they need, from the lock file.
# They ask for python3 with pip, and for nothing else: uv is fetched into .tools/, everything else into .venv/.

UV_VERSION := 0.13.8
UV := .tools/uv-$(UV_VERSION)/bin/uv

# The engine that MLX runs on, on Linux: cpu, cuda12 or cuda13 (`make serve MLX=cuda13`).
MLX := cpu
ifeq ($(MLX),cpu)
ENGINE := --group cpu
else
ENGINE := --no-group cpu --extra $(MLX)
endif

.PHONY: dev serve test test-quick lint format lock bench clean

serve: $(UV)
	@$(UV) sync --frozen --inexact --no-dev $(ENGINE)
	@.venv/bin/speechd serve

test: dev
	@.venv/bin/pytest

# Leaves out what runs real models.
test-quick: dev
	@.venv/bin/pytest -m "not real"

lint: dev
	@$(UV) lock --check
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: dev
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

lock: $(UV)
	@$(UV) lock

bench: dev
	@.venv/bin/python -m benchmarks.mlx_cpu

# uv itself sees whether anything changed, in a few milliseconds.
dev: $(UV)
	@$(UV) sync --frozen $(ENGINE)

# `pip --target` works also where venv is not installed and where pip may not touch the system.
$(UV):
	@echo "fetching uv $(UV_VERSION) into .tools/"
	@python3 -m pip install --quiet --disable-pip-version-check --no-deps --target .tools/uv-$(UV_VERSION) uv==$(UV_VERSION)

clean:
	@rm -rf .venv .tools .pytest_cache .mypy_cache .ruff_cache
