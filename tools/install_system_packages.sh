#!/usr/bin/env bash
# Installs what pip cannot, on Debian and Ubuntu, and only what is missing: a C compiler, headers of OpenSSL, intel-ipsec-mb,
# BearSSL and Python, venv, or the packages named.
set -euo pipefail

missing=()
if [ $# -eq 0 ]; then
  command -v cc >/dev/null || missing+=(gcc libc6-dev)
  [ -e /usr/include/openssl/evp.h ] || missing+=(libssl-dev)
  case $(uname -m) in
    x86_64)
      [ -e /usr/include/intel-ipsec-mb.h ] || missing+=(libipsec-mb-dev) # a faster AES-256-GCM
      [ -e /usr/include/bearssl.h ] || missing+=(libbearssl-dev) ;; # the cryptography of SGX enclaves
  esac
  command -v python3 >/dev/null || missing+=(python3)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  # of the packages that pip builds here where it finds no wheel
  python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || missing+=(python3-dev)
  command -v git >/dev/null || missing+=(git)
fi
for package in "$@"; do
  dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done

[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "please install, by this system's package manager, what Debian calls: ${missing[*]}" >&2
  exit 1
fi
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "as root: apt-get install ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
echo "installing ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
