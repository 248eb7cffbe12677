#!/bin/sh
# A Chromium for the browser tests: the one on PATH, else Debian's when we are root, else Playwright's own.
set -eu
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  apt-get update -qq && apt-get install -y -qq chromium fonts-dejavu-core > /dev/null
  # Ubuntu's package of this name is a snap shim that does not run in a container.
  if command -v chromium > /dev/null && chromium --version > /dev/null 2>&1; then exit 0; fi
fi
.venv/bin/python -m playwright install chromium
