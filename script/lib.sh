# Functions that the scripts share; sourced, not run.

# Where PostgreSQL's programs are: pg_config may be on the path alone.
pg_bindir() { pg_config --bindir; }

# Run a command as the OS user who may run a server: PostgreSQL refuses root.
as_server_user() {
	if [ "$(id -u)" -eq 0 ]; then
		# setpriv takes the place of itself: the pid is the program's own
		setpriv --reuid postgres --regid postgres --init-groups env HOME=/ "$@"
	else
		"$@"
	fi
}

# Run a command that writes where PostgreSQL is installed.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# What a command that wants root is to begin with, when it is only printed.
sudo_if_needed() {
	if [ "$(id -u)" -ne 0 ]; then printf 'sudo '; fi
}

# Give a folder to the user who may run a server.
give_to_server_user() {
	if [ "$(id -u)" -eq 0 ]; then chown -R postgres "$1"; fi
}

# A port of the loopback address that nobody listens on.
free_port() {
	perl -MIO::Socket::INET -e '
		my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 1) or die "no free port: $!";
		print $s->sockport'
}

# Start the sandbox tenant: start_sandbox FOLDER [ITS OPTIONS]; sets
# SANDBOX_PID and SANDBOX_URL.
start_sandbox() {
	local dir=$1 i
	shift
	: > "$dir/sandbox.out"
	setsid "$dir/accessreq-sandbox" "$@" > "$dir/sandbox.out" 2> "$dir/sandbox.log" < /dev/null &
	SANDBOX_PID=$!
	for i in $(seq 600); do
		SANDBOX_URL=$(head -n 1 "$dir/sandbox.out")
		[ -n "$SANDBOX_URL" ] && return 0
		kill -0 "$SANDBOX_PID" 2>/dev/null || break
		sleep 0.1
	done
	echo "the sandbox did not start:" >&2
	cat "$dir/sandbox.log" >&2
	return 1
}

# What a package of Debian's costs that is not there: "399 packages, 98.8 MB to
# get, 480 MB on disk".  Asks apt and installs nothing.
install_cost() {
	LC_ALL=C apt-get install --no-install-recommends --assume-no -o Debug::NoLocking=1 "$1" 2> /dev/null | perl -ne '
		$n = $1 if /(\d+) newly installed/;
		$get = $1 if /Need to get ([\d.,]+ \w+)/ || /Download size: ([\d.,]+ \w+)/;
		$disk = $1 if /([\d.,]+ \w+) of additional disk space/ || /Space needed: ([\d.,]+ \w+)/;
		END { print defined $n && $get && $disk ? "$n packages, $get to get, $disk on disk" : "some hundred packages" }'
}
