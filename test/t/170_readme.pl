# What README.md says about the queue, as it stands there: its blocks are run.

use strict;
use warnings;
use AccessReq;
use Cwd 'abs_path';
use File::Basename;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $readme = dirname(abs_path($0)) . '/../../README.md';
my ($section) = slurp_file($readme) =~ /^## From transactions: the queue\n(.*?)^## /ms or BAIL_OUT('README.md has no such section');
my @blocks = $section =~ /^```sql\n(.*?)^```/msg;
is(scalar(@blocks), 7, 'blocks of SQL');

my $node = accessreq_node('readme');
my $sandbox = new_sandbox(rows => 800, open => 40);
my $admin = new_session($node);

sub value { return $admin->value(@_) }
sub drained { return poll_until('the queue to be empty', sub { value('SELECT count(*) FROM accessreq.action WHERE settled_at IS NULL') == 0 }) }

add_server($node, 'acme', $sandbox->url);
value("CALL accessreq.sync('acme')");
my $open = "SELECT access_request_id FROM accessreq.request_status WHERE state = 'EXECUTING' AND cancelable AND access_request_id IS NOT NULL";
my $one = value("$open ORDER BY 1 LIMIT 1");

# nothing is cancelled by a transaction that rolls back
(my $block = $blocks[0]) =~ s/2c94…/$one/;
is($admin->run($block)->{sqlstate}, '', 'the first block');
is(value('SELECT count(*) FROM accessreq.action'), '0', 'enqueues nothing in the end');

# the trigger
is($admin->run($blocks[1])->{sqlstate}, '', 'the trigger');
my $who = value("SELECT requested_for_id FROM accessreq.request_status WHERE access_request_id = '$one' LIMIT 1");
my $his = value("SELECT count(DISTINCT access_request_id) FROM accessreq.request_status WHERE requested_for_id = '$who' AND state = 'EXECUTING' AND cancelable");
value("INSERT INTO employee VALUES ('$who', 'Jane'); BEGIN; DELETE FROM employee; ROLLBACK");
is(value('SELECT count(*) FROM accessreq.action'), '0', 'a delete that is rolled back cancels nothing');
value('DELETE FROM employee');
is(value('SELECT count(*) FROM accessreq.action'), $his, 'a leaver\'s requests are enqueued, each once');
ok(drained(), 'and sent');
is(value("SELECT count(*) FROM accessreq.action WHERE state = 'done' AND request ->> 'comment' = 'left the company'"), $his, 'and cancelled');

# the nightly procedure
value("CALL accessreq.sync('acme')");
is($admin->run($blocks[2])->{sqlstate}, '', 'the procedure');
ok(drained(), 'what it enqueued is sent');
value("CALL accessreq.sync('acme')");
is(value("SELECT count(*) FROM ($open AND created < now() - interval '30 days') s"), '0', 'nothing has waited for so long any more');

# waiting and looking
my $id = value("SELECT max(id) FROM accessreq.action");
($block = $blocks[3]) =~ s/\b42\b/$id/g;
my $r = $admin->run($block);
is($r->{sqlstate}, '', 'waiting, listening and looking') or diag($r->{err});
like($r->{out}, qr/^done$/m, 'it is done');

# for an application without the secret
value("CREATE ROLE iam_team; CREATE ROLE app LOGIN; GRANT USAGE ON FOREIGN SERVER acme TO iam_team;
CREATE USER MAPPING FOR iam_team SERVER acme OPTIONS (client_id 'team', client_secret 'sandbox-secret');
GRANT SELECT ON accessreq.request_status TO iam_team; GRANT CREATE ON SCHEMA public TO iam_team; GRANT DELETE, SELECT ON employee TO app");
$r = $admin->run($blocks[4]);
is($r->{sqlstate}, '', 'the grants') or diag($r->{err});
$sandbox->admin('POST', 'add', { n => 5, moving => JSON::PP::true() });
value("CALL accessreq.sync('acme')");
$who = value("SELECT requested_for_id FROM accessreq.request_status WHERE state = 'EXECUTING' AND cancelable AND access_request_id IS NOT NULL ORDER BY created DESC LIMIT 1");
value("INSERT INTO employee VALUES ('$who', 'Jim'); SET ROLE app; DELETE FROM employee; RESET ROLE");
ok(drained(), 'a role without the secret deletes an employee');
is(value('SELECT owner || \' \' || state FROM accessreq.action ORDER BY id DESC LIMIT 1'), 'iam_team done', 'and it is sent with the team\'s mapping');

# the immediate calls
is($admin->run($blocks[5])->{sqlstate}, '', 'the natural call of nothing');
is($admin->run($blocks[6])->{sqlstate}, '', 'cancel_many of nothing');
done_testing();
