# The queue and what others do to it meanwhile: locks, triggers, renames, rights,
# pages of gateways.  Nothing is lost, sent twice or stuck for it, one owner's
# trouble is not another's, and the worker does not spin.

use strict;
use warnings;
use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = accessreq_node('trouble', conf => "max_worker_processes = 16\nlog_min_messages = log\n");
my $sandbox = new_sandbox(rows => 1000, open => 60);
my $admin = new_session($node);
my $mate = new_session($node);

sub value { return $admin->value(@_) }
sub action { my ($id, $what) = @_; return value("SELECT $what FROM accessreq.action WHERE id = $id") }
sub posts { return grep { $_->{method} ne 'GET' && $_->{path} !~ /oauth/ } $sandbox->requests }
sub outcome { my ($id, $limit) = @_; return value("CALL accessreq.wait_for_action($id, '" . ($limit || PATIENCE) . " s')") }
sub becomes { my ($id, $what, $name) = @_; return ok(poll_until($name, sub { action($id, $what) eq 't' }), $name) || diag(action($id, 'state, error')) }

my %seen;
my @open = grep { !$seen{$_}++ } map { $_->{accessRequestId} } grep { $_->{state} eq 'EXECUTING' && $_->{cancelable} && defined $_->{accessRequestId} } @{ $sandbox->dump };
my $n = 0;
sub create { my ($server, $role) = @_; $n++; my $sql = "SELECT accessreq.enqueue_create(b, server => '" . ($server || 'acme') . "') FROM accessreq.grant_request(ARRAY['person$n'], 'ROLE', 'role$n', 'c') b"; return $role ? value("SET ROLE $role; $sql; RESET ROLE") : value($sql) }
sub cancel { return value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', '" . ($_[0] || 'c') . "', server => 'acme')") }

# Transactions of the worker's database in so many seconds, ours left out: of the
# time that it really took, the part of so many.
sub transactions
{
	my ($seconds) = @_;
	my $sql = "SELECT pg_stat_force_next_flush(); SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'";
	my $last = sub { my @l = split /\n/, value($sql); return $l[-1] };
	my ($before, $begin) = ($last->(), time);

	sleep $seconds;
	return ($last->() - $before) * $seconds / (time - $begin);
}

add_server($node, 'acme', $sandbox->url, options => { rate_limit => 90 });
value("CREATE ROLE alice; CREATE ROLE bob; GRANT USAGE ON FOREIGN SERVER acme TO alice, bob;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accessreq TO alice, bob;
CREATE USER MAPPING FOR alice SERVER acme OPTIONS (client_id 'alice', client_secret 'sandbox-secret');
CREATE USER MAPPING FOR bob SERVER acme OPTIONS (client_id 'bob', client_secret 'sandbox-secret')");
is(outcome(create()), 'done', 'all is well');

# --------------------------------------------------------------------- locked rows

value("SELECT accessreq.hold_actions('acme')");
my @locked = map { create() } 1 .. 6;
$mate->value('BEGIN; SELECT ' . join(', ', map { "accessreq.cancel_action($_)" } @locked));
value("SELECT accessreq.release_actions('acme')");
# who has locked them waits for us
is(outcome(create()), 'done', 'rows that somebody has locked keep nobody waiting');
cmp_ok(transactions(2), '<', 60, 'the worker does not spin');
cmp_ok(value("SELECT accessreq.requests_left('acme', session_user::regrole::oid)"), '>', 60, 'nor uses up the budget');
$mate->value('ROLLBACK');
is(outcome($_), 'done', 'they are sent when they are free') for @locked;

# ---------------------------------------------------------- a trigger on the table

value("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN IF NEW.request::text ~ 'bad-item' AND NEW.state = 'done' THEN RAISE 'not this one'; END IF; RETURN NEW; END \$\$;
CREATE TRIGGER refuse BEFORE UPDATE ON accessreq.action FOR EACH ROW EXECUTE FUNCTION refuse()");
$sandbox->forget;
my $log = -s $node->logfile;
my $begin = time;
my $bad = value("SELECT accessreq.enqueue_create(b, server => 'acme') FROM accessreq.grant_request(ARRAY['p'], 'ROLE', 'bad-item', 'c') b");
$sandbox->await(qr{POST .*/access-requests$});
ok(poll_until('the worker to say so', sub { slurp_from($node->logfile, $log) =~ /could not write what became of them: not this one/ }), 'an outcome cannot be written down');
is(outcome(create()), 'done', 'which does not hold the others') for 1 .. 3;
cmp_ok(transactions(2), '<', 60, 'the worker does not spin');
is(action($bad, 'state'), 'sending', 'it is known as being sent');
cmp_ok(scalar(() = slurp_from($node->logfile, $log) =~ /could not write what became of them: not this one/g), '<', 8 + time - $begin, 'the log says so now and then');
value('DROP TRIGGER refuse ON accessreq.action');
is(outcome($bad), 'done', 'it is written down when that is possible');
is(scalar(grep { $_->{body} =~ /bad-item/ } posts()), 1, 'and was sent once');
value("CREATE ROLE somebody; GRANT CREATE ON SCHEMA public TO somebody; SET ROLE somebody; CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; RESET ROLE;
CREATE TRIGGER theirs BEFORE UPDATE ON accessreq.action FOR EACH ROW EXECUTE FUNCTION theirs()");
is($admin->run("SELECT accessreq.enqueue_cancel('x', 'c', server => 'acme')")->{sqlstate}, '42501', 'a trigger of somebody else makes enqueueing fail');
$log = -s $node->logfile;
$begin = time;
cmp_ok(transactions(3), '<', 60, 'and the worker wait');
cmp_ok(scalar(() = slurp_from($node->logfile, $log) =~ /could not/g), '<', 8 + time - $begin, 'without filling the log');
value('DROP TRIGGER theirs ON accessreq.action');
is(outcome(create()), 'done', 'it goes on when the trigger is gone');

# -------------------------------------------------------------- gateways, redirects

$sandbox->forget;
$sandbox->fault('redirect', method => 'POST', path => 'cancel', count => -1);
value("SELECT accessreq.hold_actions('acme')");
my @cancels = map { cancel('redirected') } 1 .. 3;
value("SELECT accessreq.release_actions('acme')");
is(outcome($_), 'failed', 'a cancel that is redirected fails') for @cancels;
is(scalar(posts()), 4, 'after one try together and one by itself');
$sandbox->no_faults;
$sandbox->forget;
$sandbox->fault('html', method => 'GET', path => 'access-request-config', status => 200);
my $merge = value("SELECT accessreq.enqueue_merge_config('{\"approvalReminderAndEscalationConfig\": {\"maxReminders\": 4}}', server => 'acme')");
becomes($merge, "state = 'queued' AND error_code = '08P01'", 'a page that is no configuration is nobody\'s fault');
is(outcome($merge), 'done', 'it is read again');
is(value("SELECT accessreq.get_config(server => 'acme') #>> '{approvalReminderAndEscalationConfig,maxReminders}'"), '4', 'and merged');

# What a configuration holds and the database cannot is not put back as something else.
my $foreign = new_listener(sub {
	my ($socket, $n, $note) = @_;
	my $buffer = '';
	while (defined(my $request = read_request($socket, \$buffer)))
	{
		$note->($request =~ /^PUT/ ? 'put' : 'read');
		syswrite($socket, answer_text(200, "{\"a\":1,\"b\":\"\xe6\x97\xa5\"}", Connection => 'keep-alive'));
	}
});
value("CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
$node->safe_psql('latin1', 'CREATE EXTENSION accessreq');
add_server($node, 'han', $foreign->url, mapping => { access_token => 'a.b.c' }, db => 'latin1');
my $latin = new_session($node, db => 'latin1');
my $foreign_merge = $latin->value("SELECT accessreq.enqueue_merge_config('{\"a\": 2}', server => 'han')");
is($latin->value("CALL accessreq.wait_for_action($foreign_merge, '" . PATIENCE . " s')"), 'failed', 'a configuration that LATIN1 cannot hold');
is($latin->value("SELECT error_code FROM accessreq.action WHERE id = $foreign_merge"), '22P05', 'has that reason');
is(scalar($foreign->noted('read')) . ' ' . scalar($foreign->noted('put')), '1 0', 'and is not put back');
$latin->quit;

# ----------------------------------------------------------------------- not shown

# A token that may cancel and not list.
$sandbox->fault('drop_answer', method => 'POST', path => '/cancel');
$sandbox->fault('status', status => 403, method => 'GET', path => 'access-request-status', count => -1);
my $hidden = cancel();
becomes($hidden, "state = 'unknown'", 'what the tenant does not show');
is(outcome(create()), 'done', 'keeps nothing else from being sent');
sleep 2.5;
is(action($hidden, "state || (settled_at IS NULL)"), 'unknowntrue', 'it is looked for again');
value("UPDATE accessreq.action SET sent_at = sent_at - interval '1 hour' WHERE id = $hidden; SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()");
is(outcome($hidden), 'unknown', 'until there is no point in it');
like(action($hidden, 'error'), qr/does not show it: .*403/, 'and the row says so');
$sandbox->no_faults;

# A cancel whose answer is lost is not kept waiting by a create that is looked for.
$sandbox->fault('drop_answer', method => 'POST', path => '/access-requests');
my $held = value("SELECT accessreq.enqueue_create(b, server => 'acme') FROM accessreq.grant_request(ARRAY['p'], 'ROLE', 'held-role', 'c') b");
becomes($held, "state = 'unknown'", 'a create that is not listed');
sleep 8;
# the looks for the create come further and further apart
my ($start, $took);
for (1 .. 3)
{
	$sandbox->fault('drop_answer', method => 'POST', path => '/cancel');
	$start = time;
	is(outcome(cancel()), 'done', 'a cancel beside it is looked for');
	$took = time - $start;
	last if $took < 6;
}
cmp_ok($took, '<', 6, 'at its own time');
value("UPDATE accessreq.action SET settled_at = now() WHERE id = $held");

# --------------------------------------------------------- owners and their budgets

$sandbox->forget;
$sandbox->fault('status', status => 429, method => 'POST', path => '/access-requests', headers => { 'Retry-After' => '120' });
my $hers = create('acme', 'alice');
becomes($hers, "attempts = 1 AND state = 'queued'", 'one owner is told to stay away');
$start = time;
is(outcome(create('acme', 'bob')), 'done', 'another, of another client, is not');
cmp_ok(time - $start, '<', 100, 'and does not wait for as long');
is(value("SELECT retry_after_of::regrole FROM accessreq.sync_job WHERE server = 'acme'"), 'alice', 'whose wait it is is noted');
value("SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()");
is(outcome(create('acme', 'bob')), 'done', 'after a restart too');
is(action($hers, 'state'), 'queued', 'and hers waits on');
value("SELECT accessreq.cancel_action($hers)");

# A hold of one role is not released by another, where the job is nobody's.
value("SELECT accessreq.hold_actions('acme')");
is($admin->run("SET ROLE alice; SELECT accessreq.release_actions('acme')")->{sqlstate}, '42501', 'what a superuser holds is not released by whoever may use the server');
is($admin->run('SELECT accessreq.release_actions()')->{out}, '0', 'nor among all that she may');
value('RESET ROLE; SELECT accessreq.release_actions()');

# ---------------------------------------------------------------- rename and forget

$sandbox->forget;
$sandbox->fault('late', method => 'POST', path => '/access-requests', delay_ms => 2500);
my $moving = create();
$sandbox->await(qr{POST .*/access-requests$});
value("BEGIN; ALTER SERVER acme RENAME TO acme2; SELECT accessreq.rename_server('acme', 'acme2'); COMMIT");
is(outcome($moving), 'done', 'a server that is renamed while a request is on its way: its answer is not lost');
is(action($moving, "http_status || ' ' || server"), '202 acme2', 'nor confused');
value('ALTER SERVER acme2 RENAME TO acme');
my $between = create();
is($admin->run("SELECT accessreq.rename_server('acme2', 'acme')")->{sqlstate}, '', 'what was enqueued under a new name is no obstacle to rename_server()');
is(outcome($between), 'done', 'and is sent');
$mate->value("BEGIN; SELECT accessreq.enqueue_close(ARRAY['late'], dedupe_key => 'late', server => 'acme')");
$admin->send("SELECT sum(deleted) > 0 FROM accessreq.forget('acme')");
ok(poll_until('forget() to wait', sub { $mate->value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = " . $admin->backend) > 0 }), 'forget() waits for who is enqueueing');
$mate->value('COMMIT');
is($admin->finish->{out}, 't', 'and then forgets');
is(value("SELECT count(*) FROM accessreq.action WHERE server = 'acme' AND settled_at IS NULL"), '0', 'that too');
is(outcome(create()), 'done', 'it begins anew');

# ------------------------------------------------------- a setting that sends the worker away

# what is on its way is waited for: its answer is not lost
for ([ 'SET accessreq.enabled = off', 'RESET accessreq.enabled', undef ], [ 'RESET accessreq.deliver_actions', undef, 'SET accessreq.deliver_actions = on' ])
{
	my ($leaves, $after, $before) = @$_;

	value("ALTER DATABASE postgres $before") if $before;
	is(outcome(create()), 'done', "before $leaves");
	my $worker = value('SELECT pid FROM accessreq.worker()');
	$sandbox->forget;
	$sandbox->fault('late', method => 'POST', path => '/access-requests', delay_ms => 600);
	my $late = create();
	$sandbox->await(qr{POST .*/access-requests$});
	value("ALTER DATABASE postgres $leaves");
	ok(poll_until('the worker to leave', sub { value("SELECT count(*) FROM pg_stat_activity WHERE pid = $worker") == 0 }), "$leaves, while a request is on its way: the worker leaves");
	is(action($late, 'state'), 'done', 'and its answer is not lost');
	value("ALTER DATABASE postgres $after") if $after;
	$sandbox->no_faults;
	is(outcome(create()), 'done', 'all goes on afterwards');
}

# and what is about to be sent again is not: off is off
$node->append_conf('postgresql.conf', "accessreq.max_retries = 20\n");
$node->reload;
my $port = PostgreSQL::Test::Cluster::get_free_port();
add_server($node, 'shut', "http://127.0.0.1:$port", mapping => { access_token => 'a.b.c' });
my $worker = value('SELECT pid FROM accessreq.worker()');
my $shut = value("SELECT accessreq.enqueue_close(ARRAY['x'], server => 'shut')");
becomes($shut, "state = 'sending'", 'a call that finds no connection, and is tried again');
value('ALTER DATABASE postgres SET accessreq.enabled = off');
my $open = new_listener(sub { my ($socket, $n, $note) = @_; $note->('request', read_request($socket) // return) }, port => $port);
ok(poll_until('the worker to leave', sub { value("SELECT count(*) FROM pg_stat_activity WHERE pid = $worker") == 0 }), 'enabled = off: the worker leaves');
is(scalar($open->noted), 0, 'and tries no more');
is(action($shut, 'state'), 'queued', 'it is queued again');
value("SELECT accessreq.cancel_action($shut)");
$open->stop;
value('ALTER DATABASE postgres RESET accessreq.enabled');
is(outcome(create()), 'done', 'and on again');

# ------------------------------------------------------------------- too long, too many

is($admin->run("SELECT accessreq.enqueue_cancel(repeat('x', 2000), 'c', server => 'acme')")->{sqlstate}, '22023', 'an id that is none');
is($admin->run("SELECT accessreq.enqueue_cancel('x', 'c', dedupe_key => repeat('x', 2000), server => 'acme')")->{sqlstate}, '22023', 'a key that is too long');

# The plan of a claim does not go by the table's size as it once was.
value("ALTER SERVER acme OPTIONS (SET rate_limit '0', ADD max_concurrency '16')");

# Seconds for a thousand closes to be sent, of so many that are queued at once.
sub thousand
{
	my ($what, $n) = @_;
	my $before = value("SELECT count(*) FROM accessreq.action WHERE server = 'acme' AND kind = 'close' AND state = 'done'");

	value("SELECT accessreq.hold_actions('acme'); SELECT count(accessreq.enqueue_close(ARRAY['$what' || i], server => 'acme')) FROM generate_series(1, $n) i");
	value("SELECT count(accessreq.enqueue_create(b, not_before => now() + interval '1 day', server => 'acme')) FROM generate_series(1, $n / 10) i, accessreq.grant_request(ARRAY['p' || i], 'ROLE', '$what', 'c') b");
	value("SELECT accessreq.release_actions('acme')");
	my $released = time;
	ok(poll_until('1,000 to be sent', sub { value("SELECT count(*) FROM accessreq.action WHERE server = 'acme' AND kind = 'close' AND state = 'done'") >= $before + 1000 }), "$n queued at once: they are sent");
	return time - $released;
}
my $few = thousand('few', 1000);
my $many = thousand('many', 20000);
cmp_ok($many, '<', 5 * $few + 1, 'at the pace of a thousand');
note(sprintf '%d a second, of a thousand %d', 1000 / $many, 1000 / $few);
done_testing();
