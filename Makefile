# `make` alone lists the targets. Everything is installed into .venv; nothing outside this folder is touched, save that
# `make test` may install servers from Debian's packages (NEEDED_SERVERS).

VENV := .venv
IN_VENV := $(VENV)/bin
PIP := $(IN_VENV)/python -m pip --disable-pip-version-check

# program:package, for each server or reader that tests start and that pip cannot bring.
NEEDED_SERVERS := postfix:postfix saslpasswd2:sasl2-bin initdb:postgresql node:nodejs npm:npm munpack:mpack \
	systemd-analyze:systemd redis-cli:redis-tools

.DEFAULT_GOAL := help
.PHONY: help install run up test campaigns bench check settings constraints clean servers compose-keys

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: $(VENV)/.front ## install what running needs, then one mail really goes: `postroom demo`
	@$(IN_VENV)/postroom demo

up: $(VENV)/.front ## install what running needs, then everything on this machine: `postroom up`
	@exec $(IN_VENV)/postroom up

install: $(VENV)/.dev ## install everything, tools for tests and checks too; leaves .venv/bin/postroom

compose-keys: $(if $(filter 0,$(shell id -u)),$(VENV)/.front) ## make ./secrets for `docker compose up`, once: keys and passwords
	@mkdir -p -m 700 secrets
	@if [ "$$(id -u)" = 0 ]; then $(IN_VENV)/python deploy/compose_keys.py; else docker compose run --rm --build keys; fi

test: $(VENV)/.dev servers ## run the tests
	$(IN_VENV)/pytest -n 3 --dist worksteal

campaigns: $(VENV)/.dev servers ## kill, cut off and fill everything under load, for long; docs/reliability.md tells of it
	POSTROOM_LONG=1 PYTHONDONTWRITEBYTECODE=1 $(IN_VENV)/pytest -p no:cacheprovider -n 2 --dist loadscope tests/campaigns

bench: $(VENV)/.dev servers ## measure Postroom beside its rivals, within 15 minutes; QUICK=1: in about 3
	$(IN_VENV)/python -m bench $(if $(QUICK),--quick)

check: $(VENV)/.dev ## lint, format, types, and which package may import which
	$(IN_VENV)/ruff check .
	$(IN_VENV)/ruff format --check .
	$(IN_VENV)/mypy
	$(IN_VENV)/lint-imports

settings: $(VENV)/.dev ## write docs/settings.md anew from the code
	$(IN_VENV)/python -m postroom.config.settings_page docs/settings.md

constraints: $(VENV)/.dev ## pin every dependency anew, at its newest version that fits
	$(IN_VENV)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' > $(VENV)/dev.in
	$(IN_VENV)/pip-compile --quiet --upgrade --strip-extras --allow-unsafe --no-header --no-annotate --no-emit-options \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --extra front \
		--output-file $(VENV)/constraints.txt pyproject.toml $(VENV)/dev.in
	{ echo '# Every dependency of front and dev, pinned by `make constraints`.'; \
		grep -E '^[a-z0-9.-]+==' $(VENV)/constraints.txt; } > constraints.txt

clean: ## remove what make and the tools have made, .venv too; data folders stay
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find producer config worker front tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Postroom needs Python 3.11 or newer; found: $$(python3 --version 2>&1 || echo none)" >&2; exit 1; \
	fi; \
	echo "making $(VENV) with $$($$found --version)"; \
	$$found -m venv $(VENV) || { \
		rm -rf $(VENV); echo "$$found cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }

# Installed again when a dependency may have changed, and only then.
$(VENV)/.front: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what running needs into $(VENV)"
	@$(PIP) install --quiet --editable '.[front]' --constraint constraints.txt
	@touch $@

# pip before 25.1 knows no --group, and the system's may be older.
$(VENV)/.dev: $(VENV)/.front
	@echo "installing what tests and checks need into $(VENV)"
	@$(PIP) install --quiet --upgrade pip --constraint constraints.txt
	@$(PIP) install --quiet --group dev --constraint constraints.txt
	@touch $@

servers:
	@missing=; packages=; \
	for server in $(NEEDED_SERVERS); do \
		PATH="$$PATH:/usr/sbin:$$(echo /usr/lib/postgresql/*/bin | tr ' ' :)" command -v $${server%%:*} >/dev/null || { \
			missing="$$missing $${server%%:*}"; packages="$$packages $${server##*:}"; }; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$packages"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$packages && exit 0; \
	fi; \
	echo "left out: the tests that need$$missing, which is not installed (apt install$$packages)" >&2; \
	[ "$$CI" != true ]
