# Which server is meant.  An action is sent to the server that it was enqueued for,
# whatever that is called by now, and to none that has its name since.  Rows go by
# the name: where a rename has left them behind, no pull stores them again.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = accessreq_node('servers', conf => "accessreq.launcher_naptime = '1s'\naccessreq.max_retries = 0\n");
my $admin = new_session($node);
my $sandbox = new_sandbox(rows => 300, open => 60);
my $other = new_sandbox(rows => 30, seed => 3);

sub value { return $admin->value(@_) }
sub run { return $admin->run(@_) }
sub action { my ($id, $what) = @_; return value("SELECT $what FROM accessreq.action WHERE id = $id") }
sub outcome { my ($id) = @_; return value("CALL accessreq.wait_for_action($id, '" . PATIENCE . " s')") }
sub posts { my ($tenant) = @_; return scalar grep { $_->{method} ne 'GET' && $_->{path} !~ /oauth/ } $tenant->requests }

my %seen;
my @open = grep { !$seen{$_}++ } map { $_->{accessRequestId} } grep { $_->{state} eq 'EXECUTING' && $_->{cancelable} && defined $_->{accessRequestId} } @{ $sandbox->dump };
my $n = 0;
sub create { my ($server, $more) = @_; $n++; return value("SELECT accessreq.enqueue_create(b, " . ($more // '') . " server => '$server') FROM accessreq.grant_request(ARRAY['person$n'], 'ROLE', 'role$n', 'c') b") }
sub cancel { my ($server, $more) = @_; return value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', " . ($more // '') . " server => '$server')") }
sub server { my ($name, $tenant, $client) = @_; return "CREATE SERVER $name FOREIGN DATA WRAPPER accessreq OPTIONS (base_url '" . $tenant->url . "', api 'v2024', rate_limit '0'); CREATE USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS (client_id '" . ($client // 'c') . "', client_secret 'sandbox-secret')" }

# ------------------------------------------------------ the queue: another by its name

value(server('acme', $sandbox));
value("CALL accessreq.sync('acme')");
is(outcome(create('acme')), 'done', 'an action is sent');
value("SELECT accessreq.hold_actions('acme')");
my ($kept, $unknown, $again) = (create('acme'), cancel('acme'), create('acme'));
value("UPDATE accessreq.action SET state = 'unknown', sent_at = now() WHERE id = $unknown");
$_->forget for $sandbox, $other;
value('BEGIN; DROP SERVER acme CASCADE; ' . server('acme', $other, 'othertenant') . "; SELECT accessreq.release_actions('acme'); COMMIT");
is(outcome($_), 'failed', 'DROP SERVER and CREATE SERVER: what was queued is sent to nobody') for $kept, $again;
is(action($kept, "error_code || ' ' || error"), '42704 server "acme" was dropped, and another has its name: accessreq.retry_action() sends it there', 'which says why');
is(outcome($unknown), 'unknown', 'what is unknown is looked for nowhere else');
is(posts($other) + posts($sandbox), 0, 'nothing left');
is(scalar($other->requests), 0, 'for either');
is(run("SELECT accessreq.retry_action($again)")->{sqlstate}, '', 'by retry_action() it is sent to the new one');
ok(poll_until('a reason', sub { action($again, 'error') ne '' }), 'but not while');
like(action($again, 'error'), qr/server "acme" leads to another tenant than the one its rows came from/, 'the rows are of another tenant');
is(posts($other), 0, 'nothing left for that');
value("SELECT count(*) FROM accessreq.forget('acme')");

# ALTER SERVER, to another tenant: the same server
value('DROP SERVER acme CASCADE; ' . server('acme', $sandbox));
value("CALL accessreq.sync('acme')");
value("SELECT accessreq.hold_actions('acme')");
$kept = create('acme');
value("ALTER SERVER acme OPTIONS (SET base_url '" . $other->url . "'); ALTER USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (SET client_id 'othertenant')");
$_->forget for $sandbox, $other;
value("SELECT accessreq.release_actions('acme')");
ok(poll_until('a reason', sub { action($kept, 'error') ne '' }), 'ALTER SERVER to another tenant: what is queued waits');
like(action($kept, "state || ' ' || error"), qr/^queued server "acme" leads to another tenant/, 'and says why');
is(posts($other) + posts($sandbox), 0, 'nothing left');
value("ALTER SERVER acme OPTIONS (SET base_url '" . $sandbox->url . "'); ALTER USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (SET client_id 'c')");
is(outcome($kept), 'done', 'until it leads there again');

# ------------------------------------------------------------------- it is renamed

my $keyed = create('acme', "dedupe_key => 'done',");
is(outcome($keyed), 'done', 'one with a key');
value("SELECT accessreq.hold_actions('acme')");
($kept, $unknown) = (create('acme'), cancel('acme'));
value("UPDATE accessreq.action SET state = 'unknown', sent_at = now() - interval '1 minute' WHERE id = $unknown");
value("ALTER SERVER acme RENAME TO acme2; SELECT accessreq.release_actions('acme')");
is(outcome($kept), 'done', 'ALTER SERVER RENAME: what is queued is sent');
is(outcome($unknown), 'failed', 'what is unknown is looked for');
is(action($_, 'server'), 'acme', 'its rows have the old name') for $kept;

# under which name it is enqueued does not matter: keys, holds, one cancel a request
is(value("SELECT accessreq.enqueue_create(b, dedupe_key => 'done', server => 'acme2') FROM accessreq.grant_request(ARRAY['person'], 'ROLE', 'role', 'c') b"), $keyed, 'the key of what is done under the old name counts');
value("SELECT accessreq.hold_actions('acme2')");
my $first = value("SELECT accessreq.enqueue_cancel('$open[0]', 'c', server => 'acme2')");
value("UPDATE accessreq.action SET server = 'acme' WHERE id = $first");
is(value("SELECT accessreq.enqueue_cancel('$open[0]', 'c', server => 'acme2')"), $first, 'a request has one cancel');
is(value("SELECT pg_sleep(1.5)") . action($first, 'state'), 'queued', 'a hold under the new name holds what has the old');
my $rows = value("SELECT count(*) FROM accessreq.request_status WHERE server = 'acme'");
my $trap = qr/the rows of tenant "[^"]+" are stored under the name "acme", which no server has any more/;

my $r = run("CALL accessreq.sync('acme2')");
is($r->{sqlstate}, '55000', 'a pull under the new name raises');
like($r->{err}, $trap, 'and says which rows');
like($r->{err}, qr/HINT:  Was it renamed: SELECT accessreq\.rename_server\('acme', 'acme2'\)\. .*accessreq\.forget\('acme'\).*beside_archive => true/, 'and what to do');
is(value("SELECT count(*) FROM accessreq.request_status WHERE server = 'acme2'"), '0', 'no row was stored');
is(run("SELECT * FROM accessreq.refresh(ARRAY['$open[0]'], 'acme2')")->{sqlstate}, '55000', 'refresh() neither');
$r = run("SELECT ok, detail, hint FROM accessreq.check('acme2') WHERE step = 'origin'")->{out};
like($r, qr/^f\|the rows of this tenant are stored under the name "acme".*rename_server\('acme', 'acme2'\)/, 'check() says the same');
for my $sql ("CALL accessreq.sync('acme')", "SELECT accessreq.start_sync('acme')", "SELECT accessreq.count_status(server => 'acme')", "SELECT accessreq.enqueue_close(ARRAY['x'], server => 'acme')")
{
	$r = run($sql);
	is($r->{sqlstate}, '42704', "of the old name: $sql");
	like($r->{err}, qr/server "acme" does not exist: it is "acme2" now.*HINT:  SELECT accessreq\.rename_server\('acme', 'acme2'\)/s, 'with its hint');
}
is(value("SELECT reason FROM accessreq.sync_status WHERE server = 'acme'"), q(server "acme" is "acme2" now: accessreq.rename_server('acme', 'acme2') moves its rows), 'sync_status too');
value("SELECT accessreq.start_sync('acme2', every => '1 second')");
ok(poll_until('the worker to say so', sub { value("SELECT last_error FROM accessreq.sync_status WHERE server = 'acme2'") =~ $trap }), 'the worker pulls as little');
is(value("SELECT count(*) FROM accessreq.request_status WHERE server = 'acme2'"), '0', 'and stores nothing');
$r = run("SELECT accessreq.rename_server('acme', 'acme2')");
is($r->{sqlstate}, '42710', 'a job of the new name that is enabled stands in the way');
like($r->{err}, qr/HINT:  SELECT accessreq\.stop_sync\('acme2'\) first/, 'with what to do');
value("SELECT accessreq.stop_sync('acme2')");
value("SELECT accessreq.rename_server('acme', 'acme2')");
is(action($first, "state || ' ' || server"), 'queued acme2', 'what was queued follows');
is(value("SELECT held_by FROM accessreq.sync_job WHERE server = 'acme2'") ne '', 1, 'so does the hold');
is(run("CALL accessreq.sync('acme2')")->{sqlstate}, '', 'then it is pulled');
is(value("SELECT count(*) = count(DISTINCT account_activity_item_id) AND count(*) > $rows FROM accessreq.request_status"), 't', 'and each row is there once');
$rows = value('SELECT count(*) FROM accessreq.request_status');
value("SELECT accessreq.cancel_action($first); SELECT accessreq.release_actions('acme2')");

# what rename_server() does not do
is(run("SELECT accessreq.rename_server('acme2', 'nowhere')")->{sqlstate}, '42704', 'rename_server() to a name that no server has');
value(server('beside', $other, 'othertenant'));
is(run("SELECT accessreq.rename_server('acme2', 'beside')")->{sqlstate}, '55000', 'of one that was not renamed');
value("CREATE ROLE mover; GRANT EXECUTE ON FUNCTION accessreq.rename_server TO mover; UPDATE accessreq.sync_job SET owner = 'mover', owner_oid = 'mover'::regrole WHERE server = 'acme2'");
value('BEGIN; ALTER SERVER acme2 RENAME TO mine; SET LOCAL ROLE mover');
is(run("SELECT accessreq.rename_server('acme2', 'mine')")->{sqlstate}, '42501', 'by whom may not use the server');
value("ROLLBACK; UPDATE accessreq.sync_job SET owner = 'postgres', owner_oid = 10 WHERE server = 'acme2'");
# another server has the old name by now
value("SELECT accessreq.hold_actions('acme2')");
my $old = create('acme2');
value('ALTER SERVER acme2 RENAME TO moved; ' . server('acme2', $other, 'othertenant'));
my $new = create('acme2');
$r = run("CALL accessreq.sync('moved')");
is($r->{sqlstate} . ($r->{err} =~ /under the name "acme2"/ ? ' says so' : ''), '55000 says so', 'a pull of the renamed one knows its rows under a name that is another\'s by now') or diag($r->{err});
$_->forget for $sandbox, $other;
value("SELECT accessreq.rename_server('acme2', 'moved')");
is(action($old, 'server') . ' ' . action($new, 'server'), 'moved acme2', 'rename_server() moves its own alone');
is(value("SELECT count(*) FROM accessreq.release_actions('moved') UNION ALL SELECT accessreq.release_actions('acme2')") ne '', 1, 'released');
is(outcome($_), 'done', 'both are sent') for $old, $new;
is(posts($sandbox) . posts($other), '11', 'each to its own tenant');
value("DROP SERVER acme2 CASCADE; SELECT count(*) FROM accessreq.forget('acme2'); BEGIN; ALTER SERVER moved RENAME TO acme2; SELECT accessreq.rename_server('moved', 'acme2'); COMMIT");

# the old rows as an archive
value("CALL accessreq.sync('acme2')");
$rows = value('SELECT count(*) FROM accessreq.request_status');
value("ALTER SERVER acme2 RENAME TO acme3");
is(run("CALL accessreq.sync('acme3', beside_archive => true)")->{sqlstate}, '', 'old rows may be an archive');
is(value("SELECT string_agg(server || ' ' || n, ',' ORDER BY server) FROM (SELECT server, count(*) AS n FROM accessreq.request_status GROUP BY 1) x"), "acme2 $rows,acme3 $rows", 'which stays');
is(run("CALL accessreq.sync('acme3')")->{sqlstate}, '', 'and is asked about once');

# two servers for one tenant are nobody's mistake
value(server('twin', $sandbox));
value("SELECT count(*) FROM accessreq.forget('acme2')");
is(run("CALL accessreq.sync('twin')")->{sqlstate}, '', 'two servers may lead to one tenant');

# ------------------------------------------------------------------ it is dropped

value("SELECT accessreq.start_sync('twin')");
$r = run("BEGIN; DROP SERVER twin CASCADE");
like($r->{err}, qr/NOTICE:  \w{5}: the job of server "twin" is still enabled, and its rows stay.*HINT:  SELECT accessreq\.stop_sync\('twin'\), then accessreq\.forget\('twin'\)/s, 'DROP SERVER says what stays');
value('ROLLBACK');
value("CREATE ROLE owner; GRANT USAGE ON FOREIGN DATA WRAPPER accessreq TO owner; ALTER SERVER twin OWNER TO owner");
$r = run('BEGIN; DROP OWNED BY owner CASCADE');
like($r->{err}, qr/the job of server "twin" is still enabled/, 'so does DROP OWNED');
value('ROLLBACK');
value("BEGIN; UPDATE pg_extension SET extversion = '0.1' WHERE extname = 'accessreq'");
is(run('DROP SERVER twin CASCADE')->{sqlstate}, '', 'with tables of another version it is dropped without a word');
value('ROLLBACK');
$r = run('DROP SERVER acme3 CASCADE');
unlike($r->{err}, qr/the job of server/, 'where the job is not enabled nothing is said');
is(value("SELECT reason FROM accessreq.sync_status WHERE server = 'acme3'"), 'server "acme3" does not exist any more: accessreq.rename_server() moves its rows to another, accessreq.forget() deletes them', 'but in sync_status');
$admin->quit;
$node->stop;
done_testing();
