# CALL accessreq.sync: what it stores, what it leaves alone, and what becomes
# of it when the server crashes, the session dies, an item cannot be stored,
# somebody else pulls, or the tenant fails on the second page.

use strict;
use warnings;

use AccessReq;
use Cwd qw(abs_path);
use JSON::PP;
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $compare = abs_path(dirname(__FILE__) . '/../compare.pl');
my @tables = qw(request_status approval phase manual_work_item);
my $rows = 1300;
my $node = accessreq_node('sync', streaming => 1,
	conf => "autovacuum = off\naccessreq.max_retries = 0\nmax_wal_senders = 4\n");
my $sandbox = new_sandbox(rows => $rows, open => 20);
my $admin = new_session($node);
my $session = new_session($node);
my ($r, @pages);

sub pull { my ($server, $more) = @_; return "CALL accessreq.sync('$server'" . ($more // '') . ')' }

# The pages that were asked for, by the id they start behind, in order.
sub pages_asked
{
	return map {
		my $q = $_->{query};
		$q =~ s/%([0-9A-F]{2})/chr hex $1/ge;
		$q =~ /gt "([^"]*)"/ ? $1 : 'start'
	} $sandbox->requests(qr/^GET .*access-request-status/);
}

sub repeated
{
	my %n;
	$n{$_}++ for @_;
	return join ' ', map { "$_=$n{$_}" } grep { $n{$_} > 1 } sort keys %n;
}

sub same_as_sandbox
{
	my ($server, $what, $box) = @_;
	my $url = ($box || $sandbox)->url;
	my $out = `perl '$compare' '$url' '@{[ $node->connstr('postgres') ]}' '$server' 2>&1`;

	is($?, 0, "$what: the tables equal the tenant") or diag($out);
	return;
}

# Everything that tells a rewritten row from one that was left alone.
sub versions
{
	my ($server) = @_;

	return join ' ', map {
		$admin->value("SELECT count(*) || ':' || md5(coalesce(string_agg(ctid::text || xmin || xmax, ',' ORDER BY ctid), '')) FROM accessreq.$_ WHERE server = '$server'")
	} @tables;
}

# Records of the write-ahead log that concern the synced tables.
sub wal_records
{
	my ($from, $to) = @_;
	my @relations = split /\n/, $admin->value(
		"SELECT pg_relation_filepath(oid) FROM pg_class WHERE relnamespace = 'accessreq'::regnamespace AND relkind IN ('r', 'i', 't') AND relname ~ '^(request_status|approval|phase|manual_work_item|state_change)'"
	);
	my $spc = $admin->value("SELECT oid FROM pg_tablespace WHERE spcname = 'pg_default'");
	my $out = '';

	for (@relations)
	{
		my ($db, $file) = m{^base/(\d+)/(\d+)$} or next;
		my $wal = $node->data_dir . '/pg_wal';
		$out .= `pg_waldump -p '$wal' -s $from -e $to -R $spc/$db/$file 2>/dev/null`;
	}
	return $out;
}

# ----------------------------------------------------------- a pull, and again

add_server($node, 'one', $sandbox->url);
$r = $session->run(pull('one'));
is($r->{sqlstate}, '', 'a first pull') or diag($r->{err});
like($r->{err}, qr/pulled 1,300 rows: 1,300 new, 0 changed/, 'says what it did');
same_as_sandbox('one', 'a first pull');
@pages = pages_asked();
is(repeated(@pages), 'start=2', 'no page was asked for twice');
is(scalar(@pages), 8, 'a measurement, six pages, and an empty one');
is($admin->value("SELECT kind, pages, rows_seen, rows_new, rows_changed, rows_quarantined, error IS NULL, finished >= started FROM accessreq.sync_run WHERE server = 'one'"),
	'full|6|1300|1300|0|0|t|t', 'its run');
is($admin->value("SELECT owner = current_user, last_error IS NULL, failures, last_success_at IS NOT NULL, tenant IS NOT NULL FROM accessreq.sync_job WHERE server = 'one'"),
	't|t|0|t|t', 'its job');

my $before = versions('one');
my $from = $admin->value('CHECKPOINT; SELECT pg_current_wal_lsn()');
$r = $session->run(pull('one', ', full_scan => true'));
like($r->{err}, qr/pulled 1,300 rows: 0 new, 0 changed/, 'a second pull');
my $to = $admin->value("SELECT pg_current_wal_flush_lsn()");
is(versions('one'), $before, 'rewrites no row');
is(wal_records($from, $to), '', 'and writes no log for the tables');

$sandbox->admin('POST', 'change', { n => 3, set => { state => 'CANCELLED' } });
$sandbox->admin('POST', 'add', { n => 5 });
$r = $session->run(pull('one'));
like($r->{err}, qr/pulled \d+ rows: 5 new, [123] changed/, 'a cycle of some changes');
same_as_sandbox('one', 'some changes');
isnt(wal_records($to, $admin->value('SELECT pg_current_wal_flush_lsn()')), '', '(these are seen in the log)');

# ------------------------------------------------------------------ progress

add_server($node, 'slowly', $sandbox->url);
$sandbox->fault('delay', path => 'access-request-status', delay_ms => 400, count => -1);
$r = $session->run(pull('slowly', ', full_scan => true'));
$sandbox->no_faults;
my @progress = $r->{err} =~ /NOTICE:  00000: (pulled .* left)$/mg;
cmp_ok(scalar(@progress), '>=', 1, 'a pull that takes its time says where it stands') or diag($r->{err});
cmp_ok(scalar(@progress), '<=', $r->{ms} / 1000, 'at most once a second');
like($_, qr/^pulled [\d,]+ of 1,305 \(\d+%\), [\d,]+ rows\/s, \d+ s left$/, $_) for @progress;

# ------------------------------------------------------ pulls that are broken off

# A tenant of three windows, which are read one after the other: what a scan is
# taken up by.  The first has some 34 pages.
my $big = new_sandbox(rows => 25000, open => 2);
my $window = qr/access-request-status.*sorters=accountActivityItemId/;

# Start a pull that hangs on the third page of its second window.
sub start_broken
{
	my ($server, $in) = @_;

	$big->forget;
	$big->fault('hang', path => 'access-request-status', skip => 40);
	$in->send(pull($server));
	my $ok = poll_until('a window to be stored',
		sub { $admin->value("SELECT count(*) FROM accessreq.request_status WHERE server = '$server'") > 8500; });
	$ok &&= $big->await(qr/access-request-status/, 41);
	ok($ok, "$server: a window is stored, and the third page of the next hangs");
	return;
}

sub taken_up
{
	my ($server, $what) = @_;

	is($admin->value("SELECT count(*), bool_and(finished IS NULL), min(cursor ->> 'stored') FROM accessreq.sync_run WHERE server = '$server'"),
		'1|t|100', "$what: a run without an end");
	my @before = map { $_->{query} } $big->requests($window);
	$big->no_faults;
	$big->forget;
	$r = $session->run(pull($server));
	is($r->{sqlstate}, '', "$what: the next pull") or diag($r->{err});
	like($r->{err}, qr/going on with an interrupted pull/, "$what: says so");
	is($admin->value("SELECT string_agg(concat_ws(' ', coalesce(error, 'fine'), finished IS NOT NULL), ', ' ORDER BY run_id) FROM accessreq.sync_run WHERE server = '$server'"),
		'interrupted t, fine t', "$what: goes on where the other stood");
	my %again = map { $_->{query} => 1 } $big->requests($window);
	is(scalar(grep { $again{$_} } @before), 3, "$what: only the window under way is read again");
	same_as_sandbox($server, $what, $big);
	return;
}

add_server($node, $_, $big->url, options => { max_concurrency => 1 }) for qw(crashed terminated anew);
start_broken('crashed', $session);
$node->stop('immediate');
$_->quit for $session, $admin;
$node->start;
$_ = new_session($node) for $session, $admin;
taken_up('crashed', 'after a crash');

my $victim = new_session($node);
start_broken('terminated', $victim);
is($admin->value('SELECT pg_terminate_backend(' . $victim->backend . ', 5000)'), 't', 'terminated');
is($victim->finish->{sqlstate}, '57P01', 'says so');
$victim->quit;
taken_up('terminated', 'after pg_terminate_backend');

start_broken('anew', $session);
$admin->value('SELECT pg_cancel_backend(' . $session->backend . ')');
is($session->finish->{sqlstate}, '57014', 'cancelled');
my @before = map { $_->{query} } $big->requests($window);
$big->no_faults;
$big->forget;
$r = $session->run(pull('anew', ', full_scan => true'));
is($r->{sqlstate}, '', 'full_scan => true after an interruption') or diag($r->{err});
my %again = map { $_->{query} => 1 } $big->requests($window);
is(scalar(grep { !$again{$_} } @before), 0, 'starts from the start');
is($admin->value("SELECT string_agg(coalesce(error, 'fine'), ', ' ORDER BY run_id) FROM accessreq.sync_run WHERE server = 'anew'"),
	'interrupted, fine', 'in a run of its own');
$big->forget;
$r = $session->run(pull('anew'));
is($r->{sqlstate}, '', 'a pull after a finished one') or diag($r->{err});
is($admin->value("SELECT kind FROM accessreq.sync_run WHERE server = 'anew' ORDER BY run_id DESC LIMIT 1"), 'cycle', 'is a cycle');
cmp_ok(scalar($big->requests(qr/access-request-status/)), '<=', 12, 'that asks for little');
# windows side by side, and rows without a date
$big->admin('POST', 'items', [ map { { accountActivityItemId => "undated-$_", accessRequestId => "r$_", state => 'CANCELLED', created => undef, modified => undef } } 1 .. 3 ]);
add_server($node, 'beside', $big->url);
$r = $session->run(pull('beside'));
like($r->{err}, qr/pulled 25,\d\d\d rows: 25,003 new, 0 changed/, 'windows side by side, and what has no date, without reading all twice');
same_as_sandbox('beside', 'windows side by side', $big);
$big->admin('DELETE', 'items?id=undated-2');
$big->admin('DELETE', "items?id=$_")
  for split /\n/, $admin->value("SELECT account_activity_item_id FROM accessreq.request_status WHERE server = 'beside' AND created IS NOT NULL ORDER BY created LIMIT 2");
$r = $session->run(pull('beside', ', full_scan => true'));
like($r->{err}, qr/0 new, 0 changed, 3 missing/, 'what is gone is marked') or diag($r->{err});
is($admin->value("SELECT count(*), count(*) FILTER (WHERE account_activity_item_id = 'undated-2') FROM accessreq.request_status WHERE server = 'beside' AND missing_since IS NOT NULL"), '3|1', 'with and without a date');
is($admin->value('SELECT count(*) FROM accessreq.missing_candidate'), '0', 'and no candidate is left');
$big->stop;

# ------------------------------------- what sessions did, and who listens

my $acting = new_sandbox(rows => 300, open => 40, pace => 1000);
add_server($node, 'acting', $acting->url);
$session->run(pull('acting'));
my ($open_item, $open_request) = split /\|/, $session->value("SELECT account_activity_item_id, access_request_id FROM accessreq.request_status WHERE server = 'acting' AND cancelable AND access_request_id IS NOT NULL LIMIT 1");
$session->value("SELECT accessreq.cancel('$open_request', 'why', server => 'acting')");
my $made = $session->value("SELECT c.access_request_ids[1] FROM accessreq.grant_request(ARRAY(SELECT requested_for_id FROM accessreq.request_status WHERE server = 'acting' AND requested_for_id IS NOT NULL LIMIT 1), 'ROLE', 'wait-1') body, LATERAL accessreq.create(body, server => 'acting') c");
# listed a tenth of --pace later
poll_until('the tenant to list it', sub { $session->value("SELECT count(*) FROM accessreq.status_of(ARRAY['$made'], server => 'acting')") == 1 });
$session->value('LISTEN accessreq');
$acting->forget;
$r = $session->run(pull('acting'));
is($r->{sqlstate}, '', 'a cycle after a cancel and a create') or diag($r->{err});
my @first = map { my $q = $_->{query}; $q =~ s/%([0-9A-F]{2})/chr hex $1/ge; $q } ($acting->requests(qr/access-request-status/))[ 0, 1 ];
like($first[0], qr/accountActivityItemId in \(.*"\Q$open_item\E"/, 'reads first what was cancelled') or diag(@first);
like($first[1], qr/accessRequestId eq "\Q$made\E"/, 'and what was created') or diag(@first);
is($session->value("SELECT state FROM accessreq.request_status WHERE server = 'acting' AND account_activity_item_id = '$open_item'"), 'CANCELLED', 'and has it');
like($r->{out}, qr/Asynchronous notification "accessreq" with payload "\{"server":"acting","run":\d+,"new":1,"changed":0\}"/, 'a page with a new row is notified');
like($r->{out}, qr/with payload "\{"server":"acting","run":\d+,"new":0,"changed":[1-9]\d*\}"/, 'and one with a changed row');
unlike($r->{out}, qr/"new":0,"changed":0/, 'and no other');
$session->value('UNLISTEN accessreq');

# a wrong secret is the job's failure as well
$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER acting OPTIONS (SET client_secret 'wrong')");
is($session->run(pull('acting'))->{sqlstate}, '28P01', 'a wrong secret');
is($admin->value("SELECT failures, last_error ~ 'does not accept the client', next_attempt_at > now() FROM accessreq.sync_job WHERE server = 'acting'"), '1|t|t', 'is noted on the job');
$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER acting OPTIONS (SET client_secret 'sandbox-secret')");
is($session->run(pull('acting'))->{sqlstate}, '', 'mended');
is($admin->value("SELECT failures, last_error IS NULL FROM accessreq.sync_job WHERE server = 'acting'"), '0|t', 'and forgotten');
$acting->stop;

# a tenant that shows ever less while it is scanned
my $fading = new_sandbox(rows => 12000, open => 0);
add_server($node, 'fading', $fading->url, options => { max_concurrency => 1 });
$session->run(pull('fading'));
$fading->forget;
$fading->fault('hang', path => 'access-request-status', skip => 30);
$session->value('SET accessreq.max_retries = 3');
$session->send(pull('fading', ', full_scan => true'));
$fading->await(qr/access-request-status/, 31);
$fading->admin('DELETE', "items?id=$_")
  for split /\n/, $admin->value("SELECT account_activity_item_id FROM accessreq.request_status WHERE server = 'fading' ORDER BY 1 LIMIT 3001");
$fading->no_faults;
$r = $session->finish;
is($r->{sqlstate}, '55000', 'the scan of a tenant that shows far less at its end fails') or diag($r->{err});
like($r->{err}, qr/the tenant showed 1[12]\d{3} dated rows when the scan began and \d+ at its end/, 'and says so');
is($admin->value("SELECT count(*) FROM accessreq.request_status WHERE server = 'fading' AND missing_since IS NOT NULL"), '0', 'and marks nothing missing');
$session->value('RESET accessreq.max_retries');
$fading->stop;

# a token that sees less and less marks nothing
my $half = new_sandbox(rows => 400, open => 30);
add_server($node, 'half', $half->url);
$session->run(pull('half'));
$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER half OPTIONS (SET client_id 'self')");
$r = $session->run(pull('half', ', full_scan => true'));
is($r->{sqlstate}, '55000', 'a token that sees only its own: the scan ends as an error') or diag($r->{err});
like($r->{err}, qr/would be marked missing, more than accessreq.missing_limit allows/, 'and says why');
is($admin->value("SELECT count(*) FILTER (WHERE missing_since IS NOT NULL), (SELECT error IS NOT NULL FROM accessreq.sync_run WHERE server = 'half' ORDER BY run_id DESC LIMIT 1) FROM accessreq.request_status WHERE server = 'half'"),
	'0|t', 'and marks nothing missing');
$half->stop;

# ----------------------------------------- an ordinary role, an error on page 2

$admin->value(<<'SQL');
CREATE ROLE joe LOGIN;
GRANT USAGE ON SCHEMA accessreq TO joe;
GRANT EXECUTE ON PROCEDURE accessreq.sync(name, boolean, boolean) TO joe;
GRANT SELECT ON accessreq.request_status, accessreq.sync_run TO joe;
SQL
add_server($node, 'ordinary', $sandbox->url);
my $joe = new_session($node, user => 'joe');
is($joe->run(pull('ordinary'))->{sqlstate}, '42501', 'without USAGE nothing is pulled');
$admin->value('GRANT USAGE ON FOREIGN SERVER ordinary TO joe');
for my $fault ([ 'status', status => 500 ], [ 'status', status => 400 ], ['garbage'], [ 'html', status => 502 ], ['truncate'])
{
	my ($kind, %o) = @$fault;

	$sandbox->fault($kind, path => 'access-request-status', skip => 2, %o);
	$r = $joe->run(pull('ordinary', ', full_scan => true'));
	like($r->{sqlstate}, qr/^(08...|22023)$/, "page 2 fails by $kind") or diag($r->{err});
	is($joe->value('SELECT current_user, session_user'), 'joe|joe', "$kind: still the same role");
	is($joe->run("DELETE FROM accessreq.request_status")->{sqlstate}, '42501', "$kind: without rights on the tables");
	is($joe->value("SELECT pages, rows_seen, finished IS NOT NULL, error ~ 'ordinary' FROM accessreq.sync_run WHERE server = 'ordinary' ORDER BY run_id DESC LIMIT 1"),
		'1|250|t|t', "$kind: the run says so");
	$sandbox->no_faults;
}
is($admin->value("SELECT failures, last_error IS NOT NULL FROM accessreq.sync_job WHERE server = 'ordinary'"),
	'5|t', 'the job counts failures');
is($joe->run(pull('ordinary'))->{sqlstate}, '', 'and in the end it works');
is($admin->value("SELECT failures, last_error IS NULL, owner FROM accessreq.sync_job WHERE server = 'ordinary'"),
	'0|t|joe', 'the job forgets them');
same_as_sandbox('ordinary', 'an ordinary role');
is($admin->value("SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_foreign_server'::regclass"),
	'0', 'no lock of a pull is left');
# somebody who is not the owner stores what he sees and moves nothing
my $mark = "SELECT last_success_at, last_scan_at, failures FROM accessreq.sync_job WHERE server = 'ordinary'";
$before = $admin->value($mark);
is($admin->run(pull('ordinary'))->{sqlstate}, '', 'a pull by another role');
is($admin->value($mark), $before, "leaves the owner's marks alone");

# ------------------------------------------------------------------- quarantine

my $bad_box = new_sandbox(rows => 300);
add_server($node, 'bad', $bad_box->url);
my $bad_id = '00000000000000000000000000000bad';
my $put_bad = sub {
	my ($id, $text) = @_;
	$bad_box->admin('POST', "items?raw=1&id=$id&request=r$id&created=2026-01-01T00:00:00.000Z&modified=2026-01-01T00:00:00.000Z&state=EXECUTING&name=n", $text);
};
$put_bad->($bad_id, "{\"accountActivityItemId\":\"$bad_id\",\"name\":\"\xff\xfe\"}");
$r = $session->run(pull('bad'));
is($r->{sqlstate}, '', 'a pull over a bad item') or diag($r->{err});
like($r->{err}, qr/pulled 301 rows: 300 new, 0 changed, 1 quarantined/, 'goes on');
is($admin->value("SELECT count(*), min(attempts), bool_and(error_code ~ '^22'), bool_and(error <> ''), min(length(item)) > 0 FROM accessreq.quarantined_item WHERE server = 'bad'"),
	'1|1|t|t|t', 'the item is in quarantine with a reason');
is($admin->value("SELECT count(*) FROM accessreq.request_status WHERE server = 'bad'"), '300', 'and all others are stored');
$session->run(pull('bad', ', full_scan => true'));
is($admin->value("SELECT count(*), max(attempts) FROM accessreq.quarantined_item WHERE server = 'bad'"), '1|2', 'it is tried again');
$put_bad->($bad_id, "{\"accountActivityItemId\":\"$bad_id\",\"name\":\"good\",\"state\":\"EXECUTING\"}");
$r = $session->run(pull('bad', ', full_scan => true'));
is($r->{sqlstate}, '', 'the item is mended') or diag($r->{err});
is($admin->value("SELECT count(*) FROM accessreq.request_status WHERE server = 'bad' AND item_name = 'good'"), '1', 'then it is stored');
is($admin->value("SELECT count(*) FROM accessreq.quarantined_item WHERE server = 'bad'"), '0', 'and leaves quarantine');
$put_bad->(sprintf('0000000000000000000000000%07d', $_), sprintf("{\"accountActivityItemId\":\"0000000000000000000000000%07d\",\"name\":\"\xff\"}", $_)) for 1 .. 126;
$r = $session->run(pull('bad', ', full_scan => true'));
is($r->{sqlstate}, '22000', 'more than half of a page is bad') or diag($r->{err});
is($admin->value("SELECT error IS NOT NULL, finished IS NOT NULL FROM accessreq.sync_run WHERE server = 'bad' ORDER BY run_id DESC LIMIT 1"),
	't|t', 'the run ends as an error');
is($session->run(pull('bad'))->{sqlstate}, '22000', 'the next one does not go on behind that page');
$bad_box->admin('DELETE', sprintf('items?id=0000000000000000000000000%07d', $_)) for 1 .. 126;
is($session->run(pull('bad'))->{sqlstate}, '', 'until it is mended');
same_as_sandbox('bad', 'a page that was mostly bad', $bad_box);
$bad_box->stop;

# ------------------------------------------------------------- where it may not run

$admin->value(<<'SQL');
CREATE PROCEDURE public.pull_it(s name) LANGUAGE plpgsql AS 'BEGIN CALL accessreq.sync(s); END';
CREATE FUNCTION public.pull_in_function(s name) RETURNS void LANGUAGE plpgsql AS 'BEGIN CALL accessreq.sync(s); END';
CREATE PROCEDURE public.pull_in_block(s name) LANGUAGE plpgsql AS
'BEGIN BEGIN CALL accessreq.sync(s); EXCEPTION WHEN OTHERS THEN RAISE; END; END';
SQL
for ([ 'a transaction block', 'BEGIN; ' . pull('one') ],
	[ 'a subtransaction', 'BEGIN; SAVEPOINT a; ' . pull('one') ],
	[ 'a function', "SELECT pull_in_function('one')" ],
	[ 'an EXCEPTION block', "CALL pull_in_block('one')" ],
	[ 'a DO with an EXCEPTION block', "DO \$\$BEGIN CALL accessreq.sync('one'); EXCEPTION WHEN division_by_zero THEN NULL; END\$\$" ])
{
	my ($what, $sql) = @$_;

	$sandbox->forget;
	$r = $session->run($sql);
	is($r->{sqlstate}, '25001', "in $what: refused") or diag($r->{err});
	is(scalar($sandbox->requests), 0, "in $what: nothing was asked");
	$session->run('ROLLBACK');
}
is($session->run("CALL pull_it('one')")->{sqlstate}, '', 'in a procedure: allowed');
is($session->run("DO \$\$BEGIN CALL accessreq.sync('one'); PERFORM 1; CALL accessreq.sync('one'); END\$\$")->{sqlstate}, '', 'in DO: allowed, twice');
is($session->run("BEGIN READ ONLY; COMMIT; SET default_transaction_read_only = on; " . pull('one'))->{sqlstate}, '25006', 'in a read-only session: refused');
$session->run('RESET default_transaction_read_only');

# --------------------------------------------------------------- two at once

sub holds_nothing
{
	my ($s, $what) = @_;

	is($admin->value('SELECT backend_xmin IS NULL, backend_xid IS NULL FROM pg_stat_activity WHERE pid = ' . $s->backend),
		't|t', "$what: no snapshot and no transaction id is held");
	is($admin->value("SELECT count(*) FROM pg_locks WHERE granted AND locktype NOT IN ('virtualxid') AND NOT (locktype = 'object' AND classid = 'pg_foreign_server'::regclass AND objsubid = 1) AND pid = " . $s->backend),
		'0', "$what: no lock but the pull's is held");
	return;
}
add_server($node, 'twice', $sandbox->url, mapping => { client_id => 'twice', client_secret => 'sandbox-secret' });
my $first = new_session($node);
my $second = new_session($node);
$sandbox->fault('hang', path => '/oauth/token');
$sandbox->forget;
$first->send(pull('twice'));
$sandbox->await(qr/oauth/);
backend_waits($admin, $first->backend);
holds_nothing($first, 'waiting for the token');
$sandbox->fault('hang', path => 'access-request-status', skip => 2);
$admin->value('SELECT pg_cancel_backend(' . $first->backend . ')');
is($first->finish->{sqlstate}, '57014', 'cancelled there');
$first->send(pull('twice'));
poll_until('a page', sub { $admin->value("SELECT count(*) FROM accessreq.request_status WHERE server = 'twice'") == 250 });
$sandbox->await(qr/access-request-status/, 3);
backend_waits($admin, $first->backend);
holds_nothing($first, 'waiting for a page');
# another server's pull is not held up
is($session->run(pull('ordinary'))->{sqlstate}, '', 'another server can be pulled meanwhile');
is($second->run("SET lock_timeout = '200ms'; " . pull('twice'))->{sqlstate}, '55P03', 'lock_timeout ends the wait');
$second->run('RESET lock_timeout');
$second->send(pull('twice'));
poll_until('the second to wait', sub { $admin->value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = " . $second->backend) == 1 });
poll_until('its notice', sub { $second->said =~ /waiting/ });
like($second->said, qr/waiting for the pull of server "twice" by process ${\ $first->backend} to end/, 'the second says for whom it waits');
holds_nothing($second, 'waiting for the other pull');
# the hung request is dropped with its fault, and asked again
$sandbox->no_faults;
$r = $first->finish;
is($r->{sqlstate}, '', 'the first ends') or diag($r->{err});
$r = $second->finish;
is($r->{sqlstate}, '', 'then the second runs') or diag($r->{err});
same_as_sandbox('twice', 'two at once');
$_->quit for $first, $second;

# ------------------------------------------------------------ another tenant

$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER one OPTIONS (SET client_id 'othertenant')");
$before = versions('one');
$r = $session->run(pull('one'));
is($r->{sqlstate}, '55000', "another tenant's token") or diag($r->{err});
like($r->{err}, qr/another tenant/, 'says so');
is($session->run("SELECT * FROM accessreq.refresh(ARRAY['x'], server => 'one')")->{sqlstate}, '55000', 'refresh too');
is(versions('one'), $before, 'and nothing is stored');
$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER one OPTIONS (SET client_id 'tester')");
is($session->run(pull('one'))->{sqlstate}, '', 'the right one again');

# ------------------------------------------------------------------ encodings

# a tenant of which a tenth does not fit LATIN1
my $latin = new_sandbox(rows => 0);
my (@fit, @unfit);
push @{ grep({ ord > 255 } split //, JSON::PP->new->encode($_)) ? \@unfit : \@fit }, $_
  for @{ $sandbox->dump };
splice @unfit, @fit / 9;
$latin->admin('POST', 'items', [ @fit, @unfit ]);
my $all = @fit + @unfit;
note(scalar(@fit) . ' items fit LATIN1, ' . @unfit . ' do not');
# ids that no text column takes, last on their page, and a NUL
my $euro = "\xe2\x82\xac";
for ([ "ff\xff\xfe", 'z1' ], [ $euro, 'z2' ])
{
	my ($id, $place) = @$_;
	$latin->admin('POST', "items?raw=1&id=\x7e$place&request=r$place&created=2026-01-01T00:00:00.000Z&modified=2026-01-01T00:00:00.000Z&state=EXECUTING&name=n", "{\"accountActivityItemId\":\"$id\",\"name\":\"n\"}");
}
$latin->admin('POST', 'items?raw=1&id=00nul&request=rnul&created=2026-01-01T00:00:00.000Z&modified=2026-01-01T00:00:00.000Z&state=EXECUTING&name=n', '{"accountActivityItemId":"00nul","name":"a\u0000b"}');
for my $encoding ('LATIN1', 'SQL_ASCII')
{
	my $db = lc $encoding;

	$admin->value("CREATE DATABASE $db TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'");
	$node->safe_psql($db, 'CREATE EXTENSION accessreq');
	add_server($node, 'enc', $latin->url, db => $db);
	my $s = new_session($node, db => $db);
	$r = $s->run(pull('enc'));
	is($r->{sqlstate}, '', "$encoding: a pull") or diag($r->{err});
	my ($stored, $bad, $named) = split /\|/, $s->value("SELECT (SELECT count(*) FROM accessreq.request_status), (SELECT count(*) FROM accessreq.quarantined_item), (SELECT bool_and(error_code LIKE '22%' AND error <> '') FROM accessreq.quarantined_item)");
	is($stored + $bad, $all + 3, "$encoding: each item is stored or in quarantine");
	is($bad, $encoding eq 'LATIN1' ? @unfit + 2 : 1, "$encoding: in quarantine is what does not fit");
	is($s->value("SELECT ascii(substr(item_name, 2)) FROM accessreq.request_status WHERE account_activity_item_id = '00nul'"),
		$encoding eq 'LATIN1' ? 63 : 0xef, "$encoding: U+0000 is replaced by what the encoding has");
	is($s->run("SELECT count(convert_to(account_activity_item_id, 'UTF8')), count(convert_to(cursor::text, 'UTF8')) FROM accessreq.quarantined_item, accessreq.sync_run")->{sqlstate}, '', "$encoding: nothing that is no text is in a text column");
	note("$encoding: $stored stored, $bad in quarantine");
	is($named, 't', "$encoding: with a reason") if $bad;
	note($s->value("SELECT DISTINCT error_code || ' ' || error FROM accessreq.quarantined_item LIMIT 3"));
	is($s->run('SELECT count(raw::jsonb) FROM accessreq.request_status')->{sqlstate}, '', "$encoding: raw is JSON");
	$r = $s->run(pull('enc', ', full_scan => true'));
	like($r->{err}, qr/ 0 new, 0 changed/, "$encoding: a second pull changes nothing");
	$s->quit;
}

# -------------------------------------------------------------------- standby

$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
my $s = new_session($standby);
is($s->run("SELECT accessreq.count_status(server => 'one')")->{out}, '1305', 'standby: a GET works');
is($s->run("SELECT count(*) FROM accessreq.status(server => 'one', max_rows => 10)")->{out}, '10', 'standby: rows too');
for ([ 'cancel', "SELECT accessreq.cancel('x', 'y', server => 'one')" ],
	[ 'cancel_many', "SELECT * FROM accessreq.cancel_many(ARRAY['x'], 'y', server => 'one')" ],
	[ 'close', "SELECT * FROM accessreq.close(ARRAY['x'], server => 'one')" ],
	[ 'merge_config', "SELECT accessreq.merge_config('{}', server => 'one')" ],
	[ 'refresh', "SELECT * FROM accessreq.refresh(ARRAY['x'], server => 'one')" ],
	[ 'sync', pull('one') ])
{
	$sandbox->forget;
	$r = $s->run($_->[1]);
	is($r->{sqlstate}, '25006', "standby: $_->[0] is refused") or diag($r->{err});
	is(scalar($sandbox->requests(qr/^(POST|PUT) .*access/)), 0, "standby: $_->[0] sent nothing that changes");
}
$s->quit;
$standby->stop;

$_->quit for $session, $admin, $joe;
$node->stop;
done_testing();
