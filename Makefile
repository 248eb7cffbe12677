# make demo     one whole round of the loop, in the browser       make demo SLIDES=folder   with your own slides
# make test     everything that is tested, browser included       make test ARGS="-k word"  some of it
# make lint     style, types, architecture                        make screenshots          the README's picture
# make clean    forgets the demo's data (var/)                    make install              only .venv
SHELL := /bin/sh
PYTHON ?= python3
PORT ?= 8000
export MARROWLOOP_DATA ?= $(CURDIR)/var
BIN := .venv/bin

.PHONY: install demo test lint format screenshots clean lock

install: .venv/installed

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Marrowloop needs Python 3.11 or newer: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

.venv/installed-test: requirements-test.lock .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-test.lock
	@touch $@

demo: .venv/installed
	@mkdir -p "$(MARROWLOOP_DATA)"
	@test -s "$(MARROWLOOP_DATA)/secret-key" || (umask 077; $(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))' > "$(MARROWLOOP_DATA)/secret-key")
	@export MARROWLOOP_HTTPS=0; set -e; \
	$(BIN)/python manage.py migrate --verbosity 0; \
	$(BIN)/python manage.py collectstatic --noinput --verbosity 0; \
	$(BIN)/python manage.py prepare_demo $(if $(SLIDES),--slides "$(SLIDES)"); \
	exec $(BIN)/python manage.py serve --port $(PORT)

test: .venv/installed-test
	@sh tests/browser/find_chromium.sh
	@sh tests/find_curl.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/djlint templates --check --lint --quiet
	$(BIN)/lint-imports
	MARROWLOOP_SECRET_KEY=lint $(BIN)/mypy
	MARROWLOOP_SECRET_KEY=lint $(BIN)/python manage.py makemigrations --check --dry-run
	MARROWLOOP_SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))') $(BIN)/python manage.py check --deploy --fail-level WARNING

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	-$(BIN)/djlint templates --reformat --quiet

# docs/screenshot.png and its companions, from the demo itself
screenshots: .venv/installed-test
	@sh tests/browser/find_chromium.sh
	$(BIN)/python -m tests.browser.screenshots

# Needs uv (pip install uv). The locks hold names, versions and hashes only.
lock:
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --extra test pyproject.toml -c requirements.lock -o requirements-test.lock

clean:
	rm -rf "$(MARROWLOOP_DATA)"
