#!/usr/bin/env bash
# Prepares a machine with a genuine OP-TEE in QEMU's emulated TrustZone, out of Debian's packages, in a cache folder:
#
#   prepare.sh CACHE NAME [VARIABLE=VALUE ...]   variables of the trusted application's Makefile: HEAP=2MiB
#   prepare.sh --missing                         prints the Debian packages that this machine lacks for it
#
# Afterwards CACHE/flash.bin, CACHE/kernel and CACHE/initramfs/NAME are what to boot. Whatever
# is there already stays. Prints a line for each step; the tools' own words go to CACHE/prepare.log.
set -Eeuo pipefail

# command:package, of what this machine itself needs
missing=()
for need in qemu-system-aarch64:qemu-system-arm aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu dtc:device-tree-compiler \
  cpio:cpio make:make gcc:gcc xz:xz-utils openssl:openssl apt-get:apt dpkg-source:dpkg-dev flock:util-linux; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ -e /usr/aarch64-linux-gnu/include/stdio.h ] || missing+=(libc6-dev-arm64-cross)
[ -e /usr/include/openssl/evp.h ] || missing+=(libssl-dev)
if [ "$1" = --missing ]; then
  echo "${missing[*]}"
  exit
fi

cache=$(mkdir -p "$1" && cd "$1" && pwd)
name=$2
build=("${@:3}")
port=$(cd "$(dirname "$0")/.." && pwd)
root=$cache/arm64
platform=vexpress-qemu_armv8a
log=$cache/prepare.log
packages=(optee-os optee-os-dev tee-supplicant libteec2 optee-client-dev u-boot-qemu busybox-static libc6 nettle-dev
  libssl-dev libbearssl-dev)

exec 9>"$cache/.lock"
flock 9
exec 3>&1 1>>"$log" 2>&1

step() { echo "$1" >&3; echo "== $1"; }
die() { echo "error: $1" >&3; exit 2; }
trap 'die "\"$BASH_COMMAND\" failed; $log says why"' ERR

[ ${#missing[@]} -eq 0 ] || die "packages are missing: apt-get install --no-install-recommends ${missing[*]}"

# apt, told to look only into the cache folder, for arm64, so that nothing of this machine changes.
configure_apt() {
  local mirror=${TINYTEE_DEBIAN_MIRROR:-}
  [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' | sed -n 's/^Debian //p' | sort -u | head -n 1)
  [ -n "$mirror" ] || die "no Debian mirror in apt's configuration (run apt-get update), or set TINYTEE_DEBIAN_MIRROR"
  mkdir -p "$cache"/apt/{state/lists/partial,archives/partial}
  touch "$cache/apt/status"
  printf '%s %s trixie main\n' deb "$mirror" deb-src "$mirror" >"$cache/apt/sources.list"
  cat >"$cache/apt/apt.conf" <<EOF
Dir::State "$cache/apt/state"; Dir::State::status "$cache/apt/status";
Dir::Cache "$cache/apt"; Dir::Etc::sourcelist "$cache/apt/sources.list"; Dir::Etc::sourceparts "/dev/null";
APT::Architecture "arm64"; #clear APT::Architectures; APT::Architectures { "arm64"; }; APT::Sandbox::User "root";
EOF
  export APT_CONFIG=$cache/apt/apt.conf
}

download_packages() {
  step "looking up Debian's packages"
  configure_apt
  apt-get -q update
  local kernel
  kernel=$(apt-cache depends linux-image-arm64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
  step "downloading OP-TEE, a kernel and libraries"
  mkdir -p "$cache/packages" "$cache/source"
  (cd "$cache/packages" && apt-get -q download "${packages[@]}" "$kernel")
  step "downloading Trusted Firmware-A"
  (cd "$cache/source" && apt-get -q source --download-only arm-trusted-firmware)
  step "unpacking"
  rm -rf "$root"
  local package
  for package in "$cache"/packages/*.deb; do dpkg-deb -x "$package" "$root"; done
  cp "$root"/boot/vmlinuz-* "$cache/kernel"
  rm -rf "$cache/packages" "$cache/apt" "$cache/flash.bin" "$cache/base.cpio.gz" # of older packages, perhaps
  echo "${packages[*]}" >"$cache/packages.list"
}

build_firmware() {
  step "building Trusted Firmware-A"
  local tee=$root/usr/lib/optee/$platform firmware=$cache/firmware
  mkdir -p "$firmware"
  tar -xf "$cache"/source/arm-trusted-firmware_*.orig.tar.* -C "$firmware" --strip-components=1
  make -s -C "$firmware" -j"$(nproc)" CROSS_COMPILE=aarch64-linux-gnu- PLAT=qemu QEMU_USE_GIC_DRIVER=QEMU_GICV3 \
    SPD=opteed BL32_RAM_LOCATION=tdram BL32="$tee/tee-header_v2.bin" BL32_EXTRA1="$tee/tee-pager_v2.bin" \
    BL32_EXTRA2="$tee/tee-pageable_v2.bin" BL33="$root/usr/lib/u-boot/qemu_arm64/u-boot.bin" all fip
  # the first boot stage at block 0, everything else at block 64
  cp "$firmware/build/qemu/release/bl1.bin" "$cache/flash.part"
  dd if="$firmware/build/qemu/release/fip.bin" of="$cache/flash.part" bs=4096 seek=64 conv=notrunc
  mv "$cache/flash.part" "$cache/flash.bin"
  rm -rf "$firmware"
}

build_initramfs() {
  step "building the normal world"
  local tree=$cache/tree lib=usr/lib/aarch64-linux-gnu module
  rm -rf "$tree"
  mkdir -p "$tree"/{bin,dev,host,proc,sys,tmp,var/lib/optee-client,"$lib"}
  ln -s usr/lib "$tree/lib"
  ln -s aarch64-linux-gnu/ld-linux-aarch64.so.1 "$tree/usr/lib/ld-linux-aarch64.so.1"
  cp "$root/usr/bin/busybox" "$root/usr/sbin/tee-supplicant" "$tree/bin/"
  cp -L "$root/$lib"/{ld-linux-aarch64.so.1,libc.so.6} "$tree/$lib/"
  cp -a "$root/$lib"/libteec.so.* "$tree/$lib/"
  for module in drivers/tee/{tee,optee/optee} net/9p/{9pnet,9pnet_virtio} fs/{netfs/netfs,9p/9p}; do
    xz -dc "$root"/usr/lib/modules/*/kernel/"$module.ko.xz" >"$tree/$(basename "$module").ko"
  done
  install -m 755 "$port/qemu/init" "$tree/init"
  (cd "$tree" && find . -print0 | cpio --null --quiet -R 0:0 -H newc -o | gzip -1) >"$cache/base.part"
  mv "$cache/base.part" "$cache/base.cpio.gz"
  rm -rf "$tree" "$cache/initramfs"
}

# The trusted application and the feeder. Archives of an initramfs may follow one another.
build_application() {
  step "building the trusted application: ${build[*]}"
  local made
  made=$(mktemp -d "$cache/build.XXXXXX")
  make -s -C "$port/ta" TA_DEV_KIT_DIR="$root/usr/lib/optee-os-dev/$platform" ARM64="$root" O="$made/ta" \
    PYTHON3="${PYTHON3:-python3}" "${build[@]}"
  make -s -C "$port/host" ARM64="$root" O="$made/host"
  mkdir -p "$made/tree/bin" "$made/tree/usr/lib/optee_armtz" "$cache/initramfs"
  cp "$made/host/tinytee-feeder" "$made/tree/bin/"
  cp "$made"/ta/*.ta "$made/tree/usr/lib/optee_armtz/"
  (cd "$made/tree" && find bin usr -print0 | cpio --null --quiet -R 0:0 -H newc -o | gzip -1) >"$made/overlay"
  cat "$cache/base.cpio.gz" "$made/overlay" >"$made/initramfs"
  mv "$made/initramfs" "$cache/initramfs/$name"
  rm -rf "$made"
}

[ "$(cat "$cache/packages.list" 2>/dev/null)" = "${packages[*]}" ] || download_packages
[ -e "$cache/flash.bin" ] || build_firmware
[ "$cache/base.cpio.gz" -nt "$port/qemu/init" ] || build_initramfs
[ -e "$cache/initramfs/$name" ] || build_application
step "ready"
