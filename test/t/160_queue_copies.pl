# The queue where there are several of a database: a standby that is promoted, a
# dump that is restored.  Nobody's copy sends what the original sends.  And the
# queue without preload.

use strict;
use warnings;
use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $sandbox = new_sandbox(rows => 500, open => 60);
my $primary = accessreq_node('primary', streaming => 1);
my $admin = new_session($primary);

sub value { return $admin->value(@_) }
sub action { my ($id, $what) = @_; return value("SELECT $what FROM accessreq.action WHERE id = $id") }
sub posts { return grep { $_->{method} ne 'GET' && $_->{path} !~ /oauth/ } $sandbox->requests }
sub outcome { my ($id, $limit) = @_; return value("CALL accessreq.wait_for_action($id, '" . ($limit || PATIENCE) . " s')") }

my %seen;
my @open = grep { !$seen{$_}++ } map { $_->{accessRequestId} } grep { $_->{state} eq 'EXECUTING' && $_->{cancelable} && defined $_->{accessRequestId} } @{ $sandbox->dump };
my $n = 0;
sub create { my ($server) = @_; $n++; return value("SELECT accessreq.enqueue_create(b, server => '$server') FROM accessreq.grant_request(ARRAY['person$n'], 'ROLE', 'role$n', 'c') b") }
sub cancel { my ($server) = @_; return value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', server => '$server')") }
sub closing { my ($server) = @_; return value("SELECT accessreq.enqueue_close(ARRAY['" . shift(@open) . "'], server => '$server')") }

add_server($primary, $_, $sandbox->url) for qw(acme other);
is(outcome(create('acme')), 'done', 'the primary sends');

# ------------------------------------------------------------------- a standby

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
value('SELECT accessreq.stop_worker()');
$sandbox->forget;
my %sent = (create => create('acme'), cancel => cancel('acme'), close => closing('acme'));
value("SELECT accessreq.hold_actions('other')");
my %kept = (create => create('other'), cancel => cancel('other'));
my $scheduled = value("SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', not_before => now() + interval '1 day', server => 'other')");
$primary->wait_for_catchup($standby);
my $reader = new_session($standby);
is($reader->value('SELECT count(*) FROM accessreq.action WHERE settled_at IS NULL'), '6', 'the standby has the queue');
for my $sql ("SELECT accessreq.enqueue_cancel('x', 'c', server => 'acme')", "SELECT accessreq.retry_action(1)", "SELECT accessreq.cancel_action($kept{cancel})",
	"SELECT accessreq.hold_actions('acme')", "SELECT accessreq.release_actions('other')")
{
	is($reader->run($sql)->{sqlstate}, '25006', "and is not to be written to: $sql");
}
is($reader->run("CALL accessreq.wait_for_action(1, '1 s')")->{out}, 'done', 'but one can wait there');
is($reader->run("CALL accessreq.wait_for_action($sent{cancel}, '0.2 s')")->{out}, 'queued', 'for what the primary does');
is(scalar(posts()), 0, 'it sends nothing');

# From here on it does not hear of what the primary sends: replay that is paused
# would go on at promotion with what has arrived, so nothing must arrive.
$standby->append_conf('postgresql.conf', "primary_conninfo = ''\n");
$standby->reload;
ok(poll_until('the end of streaming', sub { value('SELECT count(*) FROM pg_stat_replication') == 0 }), 'the standby is cut off');
$reader->value('SELECT pg_wal_replay_pause()');
value('SELECT accessreq.start_worker()');
is(outcome($sent{$_}), 'done', "the primary has sent the $_") for sort keys %sent;
is(scalar(posts()), 3, 'once');
$admin->quit;
$primary->stop('immediate');
$sandbox->admin('POST', 'advance', { ms => 5000 });
$sandbox->forget;
$standby->promote;
$admin = new_session($standby);
is(outcome($sent{$_}), 'done', "the promoted standby looks before it sends: the $_ is done") for sort keys %sent;
is(scalar(posts()), 0, 'and sent nothing a second time');
is(action($sent{create}, 'cardinality(access_request_ids)'), '1', 'what the create made is known');
my $new = create('acme');
is(outcome($new), 'done', 'what is enqueued now is sent');
is(scalar(posts()), 1, 'at once');
$sandbox->forget;
value("SELECT accessreq.release_actions('other')");
is(outcome($kept{cancel}), 'done', 'a cancel that nobody had sent is sent once that is clear');
is(scalar(posts()), 1, 'once');
is(action($kept{create}, 'state'), 'unknown', 'of a create nobody can be sure');
like(action($kept{create}, 'error'), qr/promoted or recovered/, 'and it says why');
is(action($scheduled, 'state'), 'queued', 'what was not due was not sent');
value("SELECT accessreq.retry_action($kept{create})");
is(outcome($kept{create}), 'done', 'it is sent when somebody says so');
is(scalar(posts()), 2, 'once');

# --------------------------------------------------- a dump, restored elsewhere

value('CREATE ROLE alice; GRANT USAGE ON FOREIGN SERVER acme TO alice; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accessreq TO alice; SELECT accessreq.stop_worker()');
my %in;
$in{done} = $new;
$in{queued} = cancel('acme');
$in{sending} = cancel('acme');
$in{unknown} = cancel('acme');
$in{failed} = cancel('acme');
$in{hers} = value("SET ROLE alice; SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', server => 'acme'); RESET ROLE");
$in{her_unknown} = value("SET ROLE alice; SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', server => 'acme'); RESET ROLE");
value("UPDATE accessreq.action SET state = 'sending', attempts = 1, sent_at = now() WHERE id = $in{sending};
UPDATE accessreq.action SET state = 'unknown', attempts = 1, sent_at = now() - interval '1 hour' WHERE id IN ($in{unknown}, $in{her_unknown});
UPDATE accessreq.action SET state = 'failed', attempts = 1, settled_at = now() WHERE id = $in{failed}");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$standby->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $standby->connstr('postgres') ], 'pg_dump');
my $was = value('SELECT count(*), max(id) FROM accessreq.action');
$admin->quit;
$standby->stop;

my $restored = accessreq_node('restored', extension => 0, conf => "accessreq.launcher_naptime = '1s'\n");
$restored->safe_psql('postgres', 'CREATE DATABASE here');
$sandbox->forget;
# without alice: what is granted to her cannot be
$restored->run_log([ 'pg_restore', '-d', $restored->connstr('here'), '--no-privileges', $dump ]);
$admin = new_session($restored, db => 'here');
is(value('SELECT count(*), max(id) FROM accessreq.action'), $was, 'the actions are there');
ok(poll_until('the worker', sub { value('SELECT pid IS NOT NULL FROM accessreq.worker()') eq 't' }), 'a worker comes');
sleep 2;
is(scalar($sandbox->requests), 0, 'and neither sends nor looks');
is(action($in{queued}, 'state'), 'queued', 'what is queued waits');
is($admin->run("SELECT accessreq.enqueue_cancel('x', 'c', server => 'acme')")->{sqlstate}, '55000', 'nothing can be enqueued');
is($admin->run("SELECT accessreq.retry_action($in{failed})")->{sqlstate}, '55000', 'nor sent again');
value("SELECT accessreq.adopt('acme')");
is(outcome($in{queued}), 'done', 'after adopt() it is sent');
is(outcome($in{$_}), 'failed', "what was $_ is looked for, and not sent") for qw(sending unknown);
like(action($in{sending}, 'error'), qr/not carried out/, 'which it says');
is(action($in{failed}, 'state'), 'failed', 'what had failed stays so');
is(action($in{done}, 'state'), 'done', 'and what was done');
is(action($in{hers}, "state || ' ' || error_code || ' ' || error"), 'failed 42704 role "alice" does not exist', 'what is a role\'s that is not here fails');
is(action($in{her_unknown}, "state || ' ' || (settled_at IS NOT NULL)"), 'unknown true', 'and nobody can look for hers');
is(scalar(posts()), 1, 'one request was sent');
cmp_ok(create('acme'), '>', (split /\|/, $was)[1], 'numbers go on');
$admin->quit;
$restored->stop;

# ---------------------------------------------------------------- without preload

my $plain = accessreq_node('plain', preload => 0);
$admin = new_session($plain, setup => "LOAD 'accessreq'");
add_server($plain, 'acme', $sandbox->url);
my $id = create('acme');
is(outcome($id, 1), 'queued', 'without a worker nothing is sent');
value('SELECT accessreq.start_worker()');
is(outcome($id), 'done', 'start_worker() has it sent');
my $start = time;
is(outcome(create('acme')), 'done', 'and what comes after it');
cmp_ok(time - $start, '<', 30, 'and not after launcher_naptime');
value("BEGIN; SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c'); PREPARE TRANSACTION 'p'");
sleep 1.2;
$sandbox->forget;
$start = time;
value("COMMIT PREPARED 'p'");
$sandbox->await(qr/POST .*cancel/);
cmp_ok(time - $start, '<', 30, 'in two phases too');
done_testing();
