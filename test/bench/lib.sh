# What the benches in Perl share; sourced in the checkout, not run.
. script/lib.sh

# run_bench FILE.pl [ARGUMENTS]: run it as the server's user, in a folder that
# this user can read wherever the checkout lies.
run_bench() {
	local pgxs_test
	pgxs_test=$(dirname "$(pg_config --pgxs)")/../test
	work=$(mktemp -d /tmp/accessreq-bench.XXXXXX)
	trap 'rm -rf "$work"' EXIT
	cp "test/bench/$1" test/perl/AccessReq.pm "$work"
	[ -x test/sandbox/accessreq-sandbox ] && cp test/sandbox/accessreq-sandbox "$work"
	chmod 755 "$work"
	give_to_server_user "$work"
	cd "$work"
	as_server_user env PATH="$(pg_bindir):$PATH" TESTDIR="$work" \
		TESTLOGDIR="$work/tmp_check/log" PG_REGRESS="$pgxs_test/regress/pg_regress" \
		PERL5LIB="$pgxs_test/perl:$work" \
		ACCESSREQ_SANDBOX="$work/accessreq-sandbox" perl "$@" ||
		{ tail -n 20 "$work"/tmp_check/log/regress_log_* | cut -c 1-300; return 1; }
}
