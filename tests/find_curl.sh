#!/bin/sh
# curl and openssl for the tests that run what docs/api.md says: those on PATH, else Debian's when we are root.
set -eu
if command -v curl > /dev/null && command -v openssl > /dev/null; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  apt-get update -qq
  if apt-get install -y -qq curl openssl > /dev/null; then exit 0; fi
fi
echo "install curl and openssl: the tests run the lines of docs/api.md" >&2
exit 1
