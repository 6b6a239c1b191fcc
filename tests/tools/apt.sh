# Sourced by ./demo and ./check: need PACKAGE... installs the Debian packages that are not
# there yet. With PAL_NO_INSTALL=1 nothing is installed and what is missing is only said.
need() {
	local package missing=() run=()
	if ! command -v dpkg-query >/dev/null; then
		echo "This is no Debian: what a Debian system would install is: $*" >&2
		[ "${PAL_NO_INSTALL:-}" = 1 ] && return 0
		echo "Install that by hand, then run PAL_NO_INSTALL=1 $0" >&2
		exit 1
	fi
	for package in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			missing+=("$package")
	done
	[ ${#missing[@]} = 0 ] && return 0
	if [ "${PAL_NO_INSTALL:-}" = 1 ]; then
		echo "Not installed, as PAL_NO_INSTALL=1 asks: ${missing[*]}" >&2
		return 0
	fi
	if ! command -v apt-get >/dev/null; then
		echo "apt-get is not here to install: ${missing[*]}" >&2
		echo "Install that by hand, then run PAL_NO_INSTALL=1 $0" >&2
		exit 1
	fi
	if [ "$(id -u)" != 0 ]; then
		if ! command -v sudo >/dev/null; then
			echo "Neither root nor sudo: cannot install: ${missing[*]}" >&2
			echo "Install that by hand (apt-get install ${missing[*]}), then run $0 again" >&2
			exit 1
		fi
		run=(sudo)
	fi
	echo "Installing: ${missing[*]}"
	# The answer is shown only when it went wrong.
	local log
	log=$(mktemp)
	if ! "${run[@]}" apt-get -q update >"$log" 2>&1 ||
		! "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
			--no-install-recommends install "${missing[@]}" >>"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		echo "apt-get could not install: ${missing[*]}" >&2
		exit 1
	fi
	rm -f "$log"
}

BUILD_PACKAGES=(gcc libc6-dev make meson ninja-build pkg-config
	libpcre2-dev libutf8proc-dev libxxhash-dev libjansson-dev libedit-dev libsqlite3-dev
	libcmocka-dev libopenblas-dev liblapacke-dev libmicrohttpd-dev libcurl4-gnutls-dev
	libgrpc-dev libprotobuf-c-dev protobuf-c-compiler)
