# A table that stays locked: pulls and the queue wait, and say so, in the log once
# and in sync_status, until it is free.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = accessreq_node('locked', conf => "accessreq.launcher_naptime = '1s'\n");
my $admin = new_session($node);
my $locker = new_session($node);
my $sandbox = new_sandbox(rows => 300, open => 60);

sub value { return $admin->value(@_) }
sub status { my ($what) = @_; return value("SELECT $what FROM accessreq.sync_status") }
sub told { my @told = slurp_file($node->logfile) =~ /the worker waits for a lock: (.*)/g; return @told }
sub becomes { my ($what, $test) = @_; return ok(poll_until($what, $test), $what) || diag(status('health, reason'), told()) }

add_server($node, 'acme', $sandbox->url);
value("SELECT accessreq.start_sync('acme', every => '1 second')");
becomes('pulls are well', sub { status('health') eq 'ok' });
is(scalar(told()), 0, 'nothing is said of locks that go by themselves');

# so that each pull has something to write
my $n = 0;
sub news { $n++; value("SELECT count(*) FROM accessreq.grant_request(ARRAY['person$n'], 'ROLE', 'role$n', 'c') b, accessreq.create(b, 'acme')"); $sandbox->admin('POST', 'advance', { ms => 5000 }); return }

my $process = $locker->value('SELECT pg_backend_pid()');
my $times = 0;
# a table of rows, of children, and that of the runs; an index that is being made takes SHARE
for my $table ('request_status IN SHARE', 'approval IN ACCESS EXCLUSIVE', 'sync_run IN EXCLUSIVE')
{
	my ($name) = split / /, $table;

	$locker->value("BEGIN; LOCK TABLE accessreq.$table MODE");
	news();
	becomes("$table MODE: sync_status says why nothing comes", sub { status('reason') =~ /waits for a lock: table "accessreq\.$name" is locked by process $process \(\w+Lock\)/ });
	is(status('health'), 'failing', 'which is not well');
	$times++;
	is(scalar(told()), $times, 'the log has one line') or diag(told());
	like((told())[-1], qr/table "accessreq\.$name" is locked by process $process/, 'that says the same');
	$locker->value('COMMIT');
	becomes('it goes on', sub { status('health') eq 'ok' });
	is(value('SELECT count(*) FROM accessreq.sync_run WHERE error <> \'interrupted\''), '0', 'no run has failed for it');
	# the watch is over with its process
	value('SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()');
}

# the job's own row cannot be written then: the log alone
$locker->value('BEGIN; LOCK TABLE accessreq.sync_job IN EXCLUSIVE MODE');
news();
becomes('sync_job: the log says it', sub { told() == $times + 1 });
$locker->value('COMMIT');
value('SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()');

# and the queue
$times = told();
value("SELECT accessreq.stop_sync('acme'), accessreq.hold_actions('acme')");
my $id = value("SELECT accessreq.enqueue_close(ARRAY['x'], server => 'acme')");
$locker->value('BEGIN; LOCK TABLE accessreq.action IN SHARE MODE');
value("SELECT accessreq.release_actions('acme')");
becomes('action: the log says it', sub { told() == $times + 1 });
like((told())[-1], qr/table "accessreq\.action" is locked by process $process \(ShareLock\)/, 'and whose lock it is');
is(scalar(grep { $_->{path} =~ /close/ } $sandbox->requests), 0, 'nothing was sent that could not be marked');
$locker->value('COMMIT');
is(value("CALL accessreq.wait_for_action($id, '" . PATIENCE . " s')"), 'done', 'then it is sent');
$locker->quit;
$admin->quit;
$node->stop;
done_testing();
