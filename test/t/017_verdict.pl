# verdict.c: what an answer, or what was found by looking, means for an action.
# What must never come out is "again" where the tenant may have taken it.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $module = abs_path(dirname(__FILE__) . '/../unit') . '/accessreq_unit';
die "$module.so is missing: run make -C test/unit first\n"
  unless -e "$module.so";

my $node = PostgreSQL::Test::Cluster->new('verdict');
$node->init(extra => [ '--encoding', 'UTF8', '--no-locale' ]);
$node->start;
$node->safe_psql('postgres', <<SQL);
CREATE FUNCTION unit_verdict_of_answer(outcome int, status int, sqlstate text, n int) RETURNS text LANGUAGE c STRICT AS '$module';
CREATE FUNCTION unit_verdict_of_finding(kind int, ids int, sent bool, finding int[], in_place bool, age_s int) RETURNS text LANGUAGE c STRICT AS '$module';
SQL

# As in ApiOutcome and ActionKind.
my %outcome = (accepted => 0, refused => 1, denied => 2, limited => 3, not_sent => 4, lost => 5);
my %kind = (create => 0, cancel => 1, close => 2, merge_config => 3);

my (@sql, @expected, @names);
sub answer { my ($name, $o, $status, $code, $n, $verdict) = @_; push @sql, "unit_verdict_of_answer($outcome{$o}, $status, '$code', $n)"; push @expected, $verdict; push @names, $name; return }
sub finding { my ($name, $k, $ids, $sent, $f, $in_place, $age, $verdict) = @_; push @sql, "unit_verdict_of_finding($kind{$k}, $ids, $sent, '{$f}', $in_place, $age)"; push @expected, $verdict; push @names, $name; return }

answer('accepted', 'accepted', 202, '00000', 1, 'done');
answer('429', 'limited', 429, '53400', 1, 'again');
answer('no connection', 'not_sent', 0, '08001', 50, 'again');
answer('401', 'denied', 401, '28000', 1, 'again');
answer('401 of several', 'denied', 401, '28000', 50, 'again');
answer('a wrong secret', 'denied', 400, '28P01', 1, 'again');
answer('403', 'denied', 403, '42501', 1, 'failed');
answer('403 of several', 'denied', 403, '42501', 2, 'alone');
answer('400', 'refused', 400, '22023', 1, 'failed');
answer('404 of several', 'refused', 404, '42704', 50, 'alone');
answer('503', 'lost', 503, '08007', 1, 'unknown');
answer('a broken connection, of several', 'lost', 0, '08007', 50, 'unknown');
answer('a 2xx that cannot be read', 'lost', 200, '08P01', 1, 'unknown');

# items, open, cancelled, requests, wanted, items before
finding('a create: all of it', 'create', 0, 'true', '2,2,0,1,2,-1', 'false', 2, 'done');
finding('a part of it, the first time', 'create', 0, 'true', '1,1,0,1,2,-1', 'false', 2, 'look');
finding('more than before', 'create', 0, 'true', '2,2,0,1,3,1', 'false', 2, 'look');
finding('as much as before', 'create', 0, 'true', '2,2,0,1,3,2', 'false', 4, 'done');
finding('nothing yet', 'create', 0, 'true', '0,0,0,0,2,0', 'false', 500, 'look');
finding('nothing for long', 'create', 0, 'true', '0,0,0,0,2,0', 'false', 700, 'give up');
finding('nothing, of one that may not have been sent', 'create', 0, 'false', '0,0,0,0,2,0', 'false', 700, 'give up');
finding('nothing of nothing', 'create', 0, 'true', '0,0,0,0,0,0', 'false', 2, 'look');
finding('a cancel: cancelled', 'cancel', 1, 'true', '1,0,1,1,0,-1', 'false', 1, 'done');
finding('one item cancelled, one past its approval', 'cancel', 1, 'true', '2,1,1,1,0,-1', 'false', 1, 'done');
finding('still open', 'cancel', 1, 'true', '1,1,0,1,0,-1', 'false', 5, 'look');
finding('open for long', 'cancel', 1, 'true', '1,1,0,1,0,0', 'false', 11, 'failed');
finding('ended otherwise', 'cancel', 1, 'true', '1,0,0,1,0,-1', 'false', 1, 'failed');
finding('not listed yet', 'cancel', 1, 'true', '0,0,0,0,0,-1', 'false', 1, 'look');
finding('not listed', 'cancel', 1, 'true', '0,0,0,0,0,0', 'false', 11, 'failed');
finding('open for long, and perhaps never sent', 'cancel', 1, 'false', '1,1,0,1,0,0', 'false', 11, 'again');
finding('cancelled, and perhaps never sent', 'cancel', 1, 'false', '1,0,1,1,0,0', 'false', 1, 'done');
finding('a close: all closed', 'close', 2, 'true', '3,0,0,2,0,-1', 'false', 1, 'done');
finding('one not yet', 'close', 2, 'true', '3,1,0,2,0,-1', 'false', 20, 'look');
finding('one not listed', 'close', 2, 'true', '3,0,0,1,0,-1', 'false', 20, 'look');
finding('one open for long', 'close', 2, 'true', '3,1,0,2,0,0', 'false', 61, 'give up');
finding('open, and perhaps never sent', 'close', 2, 'false', '3,1,0,2,0,0', 'false', 61, 'give up');
finding('a change in place', 'merge_config', 0, 'true', '0,0,0,0,0,-1', 'true', 1, 'done');
finding('not in place', 'merge_config', 0, 'true', '0,0,0,0,0,-1', 'false', 1, 'failed');
finding('not in place, and perhaps never sent', 'merge_config', 0, 'false', '0,0,0,0,0,-1', 'false', 1, 'give up');

my @got = split /\n/, $node->safe_psql('postgres', 'SELECT unnest(ARRAY[' . join(', ', @sql) . '])');
is($got[$_], $expected[$_], "$names[$_]: $expected[$_]") for 0 .. $#expected;

# Whatever is found, nothing that was sent is sent again.
is($node->safe_psql('postgres', <<SQL), '0', 'nothing that was sent is sent again, whatever is found');
SELECT count(*) FROM generate_series(0, 3) k, generate_series(0, 3) items, generate_series(0, 3) open, generate_series(0, 3) cancelled,
	generate_series(0, 2) requests, generate_series(-1, 3) before, unnest('{0,11,61,700}'::int[]) age, unnest('{t,f}'::bool[]) in_place
WHERE unit_verdict_of_finding(k, 2, true, ARRAY[items, open, cancelled, requests, 2, before], in_place, age) = 'again'
SQL
is($node->safe_psql('postgres', <<SQL), '0', 'nor is a lost answer ever made up for by sending');
SELECT count(*) FROM generate_series(0, 599) status, generate_series(1, 3) n
WHERE unit_verdict_of_answer($outcome{lost}, status, '08007', n) <> 'unknown'
SQL
$node->stop;
done_testing();
