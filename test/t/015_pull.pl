# pull.c against a scripted tenant, through thousands of random orders of events:
# test/unit/pull_walk.c says what must hold.  ACCESSREQ_WALKS is the number of
# walks, ACCESSREQ_WALKS_SEED the first seed.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $module = abs_path(dirname(__FILE__) . '/../unit') . '/accessreq_unit';
my $walks = $ENV{ACCESSREQ_WALKS} || 20000;
my $seed = $ENV{ACCESSREQ_WALKS_SEED} || 1;

die "$module.so is missing: run make -C test/unit first\n"
  unless -e "$module.so";

my $node = PostgreSQL::Test::Cluster->new('pull');
$node->init(extra => [ '--encoding', 'UTF8', '--no-locale' ]);
$node->start;
$node->safe_psql('postgres', <<SQL);
CREATE FUNCTION unit_pull(seed bigint, walks int, OUT fetches bigint, OUT scans bigint,
	OUT cycles bigint, OUT restarts bigint, OUT marked bigint, OUT errors bigint,
	OUT shorts bigint, OUT violation text) RETURNS SETOF record LANGUAGE c STRICT AS '$module';
SQL
my ($fetches, $scans, $cycles, $restarts, $marked, $errors, $shorts, $violation) =
  split /\|/, $node->safe_psql('postgres', "SELECT * FROM unit_pull($seed, $walks)"), -1;
note("$walks walks: $fetches pages, $scans scans, $cycles cycles, $restarts broken off, $marked rows marked missing, $errors errors, $shorts short scans");
is($violation, '', 'nothing is missed, nothing is marked that is there, everything ends');
# and it was all tried
cmp_ok($scans, '>=', $walks * 0.8, 'scans have ended');
cmp_ok($cycles, '>=', $walks * 0.8, 'cycles have ended');
cmp_ok($shorts, '>=', $walks / 20, 'scans were short');
cmp_ok($restarts, '>=', $walks / 4, 'pulls were broken off');
cmp_ok($marked, '>=', $walks / 4, 'rows were gone');
$node->stop;
done_testing();
