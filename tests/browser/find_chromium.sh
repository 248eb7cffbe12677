#!/bin/sh
# A Chromium for the browser tests: the one on PATH, else Debian's when we are root, else Playwright's own.
set -eu
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  apt-get update -qq
  # Ubuntu has no package of this name.
  if apt-get install -y -qq chromium-headless-shell fonts-dejavu-core > /dev/null; then exit 0; fi
fi
.venv/bin/python -m playwright install chromium
