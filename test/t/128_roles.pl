# Who a role is.  Where its actions and jobs were made it is its OID: renamed, it
# keeps all of them, and whoever gets its old name gets none.  In a restored
# database, whose OIDs are strangers', it is its name, until adopt().

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = accessreq_node('roles', conf => "accessreq.launcher_naptime = '1s'\naccessreq.max_retries = 0\n");
my $admin = new_session($node);
my $sandbox = new_sandbox(rows => 300, open => 60);

sub value { return $admin->value(@_) }
sub sqlstate { my ($session, $sql) = @_; return $session->run($sql)->{sqlstate} }
sub outcome { my ($id) = @_; return value("CALL accessreq.wait_for_action($id, '" . PATIENCE . " s')") }

my %seen;
my @open = grep { !$seen{$_}++ } map { $_->{accessRequestId} } grep { $_->{state} eq 'EXECUTING' && $_->{cancelable} && defined $_->{accessRequestId} } @{ $sandbox->dump };
my $url = $sandbox->url;

# May do everything with both servers.
sub new_role
{
	my ($role, $client) = @_;

	value("CREATE ROLE $role LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA accessreq TO $role; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA accessreq TO $role; GRANT USAGE ON FOREIGN SERVER acme, other TO $role");
	value("CREATE USER MAPPING FOR $role SERVER $_ OPTIONS (client_id '$client', client_secret 'sandbox-secret')") for qw(acme other);
	return;
}

value("CREATE SERVER $_ FOREIGN DATA WRAPPER accessreq OPTIONS (base_url '$url', api 'v2024', rate_limit '0')") for qw(acme other);
new_role('alice', 'hers');
my $alice = new_session($node, user => 'alice');
$alice->value("SELECT accessreq.start_sync('acme', every => '1 second')");
ok(poll_until('a scan', sub { value("SELECT health FROM accessreq.sync_status") eq 'ok' }), 'alice has a job');

my %id;
my $cancel = "SELECT accessreq.enqueue_cancel('%s', 'c', server => 'acme')";
$id{done} = $alice->value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', dedupe_key => 'done', server => 'acme')");
is(outcome($id{done}), 'done', 'has sent an action');
$id{failed} = $alice->value("SELECT accessreq.enqueue_cancel('nonsense', 'c', server => 'acme')");
is(outcome($id{failed}), 'failed', 'has one that failed');
$alice->value("SELECT accessreq.hold_actions('acme')");
$id{queued} = $alice->value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', dedupe_key => 'queued', server => 'acme')");
$id{unknown} = $alice->value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', server => 'acme')");
value("UPDATE accessreq.action SET state = 'unknown', settled_at = now() WHERE id = $id{unknown}");

# ------------------------------------------------------------------ it is renamed

value('BEGIN; ALTER ROLE alice RENAME TO robert');
is(value('SELECT owner FROM accessreq.sync_status'), 'robert', 'sync_status has the new name at once');
value('COMMIT');
my $runs = value('SELECT max(run_id) FROM accessreq.sync_run');
ok(poll_until('the names', sub { value("SELECT count(*) FROM accessreq.action WHERE owner <> 'robert'") eq '0' }), 'the worker brings the actions\' names up to date');
is(value("SELECT owner FROM accessreq.sync_job WHERE server = 'acme'"), 'robert', 'and the job\'s');
ok(poll_until('runs', sub { value("SELECT count(*) FROM accessreq.sync_run WHERE run_id > $runs + 1 AND finished IS NOT NULL") gt '0' }), 'pulls go on');
is(value("SELECT count(*) FROM accessreq.sync_run WHERE error IS NOT NULL OR owner <> 'robert'"), '0', 'well, and under that name');
is(value("SELECT health FROM accessreq.sync_status"), 'ok', 'which sync_status says');
value('DROP ROLE IF EXISTS nobody');

# ------------------------------------------------- another role has its name by now

new_role('alice', 'new');
my $stranger = new_session($node, user => 'alice');
is($stranger->value('SELECT count(*) FROM accessreq.action'), '0', 'a new role with the old name sees none of the actions');
is(sqlstate($stranger, "SELECT accessreq.retry_action($id{$_})"), '42704', "cannot send again what $_") for qw(failed unknown);
is(sqlstate($stranger, "SELECT accessreq.cancel_action($id{queued})"), '42704', 'nor take one out of the queue');
is(sqlstate($stranger, "CALL accessreq.wait_for_action($id{done}, '1 s')"), '42704', 'nor ask for one');
is(sqlstate($stranger, "SELECT accessreq.$_('acme')"), '42501', "nor $_() the job") for qw(stop_sync start_sync hold_actions release_actions adopt forget);
my $hers = $stranger->value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', dedupe_key => 'done', server => 'acme')");
isnt($hers, $id{done}, 'its keys are its own');
is($stranger->value('SELECT string_agg(id::text, \',\') FROM accessreq.action'), $hers, 'and what it enqueues');

my $robert = new_session($node, user => 'robert');
is($robert->value('SELECT count(*) FROM accessreq.action'), '4', 'who was renamed sees all of them');
is($robert->value("SELECT accessreq.enqueue_cancel('zzz', 'c', dedupe_key => 'done', server => 'acme')"), $id{done}, 'has the keys');
is($robert->value("SELECT accessreq.retry_action($id{unknown})"), '', 'can send again');
$sandbox->forget;
is($robert->value("SELECT accessreq.release_actions('acme')"), '1', 'and release');
is(outcome($id{$_}), 'done', "what was $_ is sent") for qw(queued unknown);
is(outcome($hers), 'done', 'and what the new role enqueued');
is(join(',', sort map { $_->{client_id} } grep { $_->{path} =~ /cancel/ } $sandbox->requests) =~ s/(hers,)+/hers,/r, 'hers,new', 'each with its role\'s own client');
is(value("SELECT count(*) FROM accessreq.action WHERE state = 'failed'"), '1', 'none has failed for it');

# a hold on a job that is nobody's
$robert->value("SELECT accessreq.enqueue_cancel('x', 'c', not_before => now() + interval '1 day', server => 'other')");
is($robert->value("SELECT accessreq.hold_actions('other')"), '1', 'a hold on a job that is nobody\'s');
value('ALTER ROLE alice RENAME TO tmp; ALTER ROLE robert RENAME TO alice; ALTER ROLE tmp RENAME TO robert');
$_->quit for $alice, $robert, $stranger;
# names are exchanged: the first one is alice again
($alice, my $other) = map { new_session($node, user => $_) } qw(alice robert);
is(sqlstate($other, "SELECT accessreq.release_actions('other')"), '42501', 'is not for who has the holder\'s name');
is($alice->value("SELECT accessreq.release_actions('other')"), '1', 'but for the holder');
is($alice->value('SELECT count(*) FROM accessreq.action'), '5', 'where names were exchanged each sees its own');
is($other->value('SELECT count(*) FROM accessreq.action'), '1', 'and no more');

ok(poll_until('the names', sub { value("SELECT (SELECT count(*) FROM accessreq.action a JOIN pg_roles r ON r.oid = a.owner_oid WHERE r.rolname <> a.owner) + (SELECT count(*) FROM accessreq.sync_job j JOIN pg_roles r ON r.oid = j.owner_oid WHERE r.rolname <> j.owner)") eq '0' }), 'the worker has brought the names up to date');

# -------------------------------------------------------------------- it is gone

my $lost = $other->value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', not_before => now() + interval '1 day', server => 'acme')");
$other->quit;
value('DROP OWNED BY robert; DROP ROLE robert; CREATE ROLE robert LOGIN');
is(outcome($lost), 'failed', 'what a role that is gone had queued fails');
is(value("SELECT error_code || ' ' || error FROM accessreq.action WHERE id = $lost"), '42704 role "robert" does not exist any more', 'whoever has its name');
is($alice->value('SELECT count(*) FROM accessreq.action'), '5', 'others read their actions all the same');
is(sqlstate($admin, "SELECT accessreq.retry_action($lost)"), '42704', 'and nobody can send it again');

# ------------------------------------------------------- a restore elsewhere

# two roles that had the same name one after the other, which nobody has told the rows
value('SELECT accessreq.stop_worker()');
$alice->value("SELECT accessreq.hold_actions('acme')");
my $second = $alice->value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', dedupe_key => 'second', server => 'acme')");
my $early = $alice->value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', dedupe_key => 'twice', server => 'acme')");
my $late = value("INSERT INTO accessreq.action (server, server_oid, kind, request, owner, owner_oid, enqueued_by, origin, enqueued_at, dedupe_key, access_request_ids)
SELECT server, server_oid, kind, request, owner, 1, enqueued_by, origin, now(), k, ARRAY['other' || k] FROM accessreq.action, unnest('{done,twice}'::text[]) k WHERE id = $early RETURNING id");
my ($late_done, $late_twice) = split /\n/, $late;
my $left = value("INSERT INTO accessreq.action (server, server_oid, kind, request, owner, owner_oid, enqueued_by, origin, enqueued_at, dedupe_key, access_request_ids, state, settled_at)
SELECT server, server_oid, kind, request, owner, 2, enqueued_by, origin, now(), 'done', ARRAY['x'], 'done', now() FROM accessreq.action WHERE id = $early RETURNING id");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
$_->quit for $alice, $admin;
$node->stop;

my $restored = accessreq_node('restored', extension => 0, conf => "accessreq.launcher_naptime = '1s'\n");
$restored->safe_psql('postgres', 'CREATE ROLE stranger LOGIN; CREATE ROLE alice LOGIN; CREATE DATABASE here');
$restored->run_log([ 'pg_restore', '-d', $restored->connstr('here'), $dump ]);
$admin = new_session($restored, db => 'here');
# OIDs of there that are a stranger's here
value("UPDATE accessreq.action SET owner_oid = 'stranger'::regrole WHERE owner = 'alice' AND owner_oid > 2; UPDATE accessreq.sync_job SET owner_oid = 'stranger'::regrole");
value('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA accessreq TO stranger; GRANT SELECT ON accessreq.action TO stranger; GRANT USAGE ON SCHEMA accessreq TO stranger');
$stranger = new_session($restored, db => 'here', user => 'stranger');
is($stranger->value('SELECT count(*) FROM accessreq.action'), '0', 'in a restored database a stranger with the same OID sees nothing');
is(sqlstate($stranger, "SELECT accessreq.cancel_action($second)"), '42704', 'and can do nothing');
is(sqlstate($stranger, "SELECT accessreq.$_('acme')"), '42501', "not even $_()") for qw(stop_sync adopt forget);
$alice = new_session($restored, db => 'here', user => 'alice');
is($alice->value('SELECT count(*) FROM accessreq.action'), '10', 'the name is the role');
is(value("SELECT owner FROM accessreq.sync_status WHERE server = 'acme'"), 'alice', 'the job\'s too');
$alice->value("SELECT accessreq.adopt('acme')");
is(value("SELECT owner || ' ' || (owner_oid = 'alice'::regrole) FROM accessreq.sync_job WHERE server = 'acme'"), 'alice true', 'adopt() gives the job to the role of that name');
is(value("SELECT string_agg(DISTINCT owner || ' ' || owner_oid::regrole, ',') FROM accessreq.action WHERE origin = accessreq.origin() AND server = 'acme'"), 'alice alice', 'and the actions');
is(value("SELECT state || ' ' || coalesce(dedupe_key, '') FROM accessreq.action WHERE id = $early"), 'queued twice', 'of two with the same key the older stays');
is(value("SELECT state || ' ' || error_code FROM accessreq.action WHERE id = $late_twice"), 'failed 23505', 'the other fails');
is(value("SELECT state || ' ' || error_code || ' ' || error FROM accessreq.action WHERE id = $late_done"), 'failed 23505 another action of the role has the same dedupe_key', 'which says why');
is(value("SELECT state || ' ' || coalesce(dedupe_key, 'no key') FROM accessreq.action WHERE id = $left"), 'done no key', 'what was done is no failure');
is($alice->value("SELECT accessreq.enqueue_cancel('zzz', 'c', dedupe_key => 'done', server => 'acme')"), $id{done}, 'keys of what is done hold on');
is($stranger->value('SELECT count(*) FROM accessreq.action'), '0', 'the stranger sees as little as before');
$_->quit for $alice, $stranger, $admin;
$restored->stop;
done_testing();
