#!/bin/sh
# install_debian.sh PACKAGE TEST REASON: install a Debian package unless the command TEST passes already.
# Needs root or password-less sudo; says in one line what is missing where it has neither, and goes on.
sh -c "$2" >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    export DEBIAN_FRONTEND=noninteractive
    { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends "$1"; } >/dev/null 2>&1
fi
sh -c "$2" >/dev/null 2>&1 || echo "Missing: $1 ($3). Install it with: apt-get install $1"
