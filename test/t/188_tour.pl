# doc/tour.sql, pasted into psql: only its one intended error is raised.

use strict;
use warnings;
use AccessReq;
use Cwd 'abs_path';
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tour = dirname(abs_path($0)) . '/../../doc/tour.sql';
my $node = accessreq_node('tour');
# what script/demo has left behind
my $sandbox = new_sandbox(rows => 5000, seed => 42, reference => 'now');
add_server($node, 'acme', $sandbox->url);
$node->safe_psql('postgres', "CALL accessreq.sync('acme')");

my ($out, $err);
IPC::Run::run([ 'psql', '-X', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres') ], '<', $tour, '>', \$out, '2>', \$err,
	IPC::Run::timeout(PATIENCE));
my @errors = $err =~ /ERROR:  (\w+): (.*)/g;
is_deeply(\@errors, [ '42704', 'could not cancel access request "nobody-knows-this" on server "acme": the tenant does not know it (HTTP 404)' ], 'one error, which it shows')
  or diag($err);
unlike($out, qr/^\(0 rows\)$/m, 'every query has rows to show') or diag($out);
like($out, qr/^ done$/m, 'an action is waited for');
is(() = $out =~ /\| cancel \| done/g, 3, 'three are cancelled') or diag($out);
like($out, qr/EXECUTING \| CANCELLED/, 'and the table knows it');
done_testing();
